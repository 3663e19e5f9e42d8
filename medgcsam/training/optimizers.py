"""The optimizer section as an optimizer of torch, and the learning rate of each step."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn

from medgcsam.config import GroupConfig, OptimizerConfig, ScheduleConfig
from medgcsam.config.optimizer_rules import SHARPNESS_AWARE, idle_options
from medgcsam.errors import ConfigError
from medgcsam.optim import GCSAM, SAM, parameter_groups

_BASES = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
    "rmsprop": torch.optim.RMSprop,
    "adagrad": torch.optim.Adagrad,
    "nadam": torch.optim.NAdam,
    "radam": torch.optim.RAdam,
    "adamax": torch.optim.Adamax,
    "adadelta": torch.optim.Adadelta,
    "asgd": torch.optim.ASGD,
    "rprop": torch.optim.Rprop,
}


def build_optimizer(config: OptimizerConfig, network: nn.Module, *, steps: int) -> torch.optim.Optimizer:
    """The optimizer of ``config`` over the trainable weights of ``network``, for a training of ``steps`` steps.

    Weight decay leaves biases and norm weights (1-D tensors) alone. Groups know which weights belong to transposed
    convolutions and embeddings, so that GCSAM centralizes as it should, and carry the ``lr_factor`` of
    ``config.groups``.

    Raises:
        ConfigError: a pattern of ``config.groups`` fits no trainable weight, or only those of earlier groups.
    """
    groups = list(_groups(config, network))
    options = _base_options(config)
    if config.name not in SHARPNESS_AWARE:
        for group in groups:
            for name in ("rho", "centralize", "transposed"):
                group.pop(name, None)
        return _BASES[config.name](groups, **options)
    options |= {
        "rho": config.rho,
        "adaptive": config.adaptive,
        "eta": config.eta,
        "start": math.floor(config.start * steps),
        "every": config.every,
        "ascent": config.ascent,
        "ascent_fraction": config.ascent_fraction,
        "ascent_precision": config.ascent_precision,
        "max_norm": config.max_norm,
        "skip_nonfinite": config.skip_nonfinite,
        "replay_random": config.replay_random,
        "synchronize_ascent": config.synchronize_ascent,
    }
    if config.name == "sam":
        for group in groups:
            group.pop("centralize", None)
        return SAM(groups, _BASES[config.base], **options)
    return GCSAM(groups, _BASES[config.base], norm=config.norm, centralize=config.centralize, **options)


def check_groups(config: OptimizerConfig, build: Callable[[], nn.Module]) -> None:
    """Refuse groups that fit no weight of the network that ``build`` makes, before a run is begun."""
    if config.groups:
        with torch.device("meta"):  # names without weights
            named_groups(config.groups, build())


def _base_options(config: OptimizerConfig) -> dict[str, Any]:
    """What the optimizer that makes the step takes."""
    values = {
        "weight_decay": config.weight_decay,
        "decoupled_weight_decay": config.decoupled_weight_decay,
        "momentum": config.momentum_in_effect,
        "nesterov": config.nesterov,
        "betas": tuple(config.betas),
        "base_rho": config.base_rho,
        "eps": config.eps,
    }
    idle = idle_options(config)
    options = {name: value for name, value in values.items() if name not in idle and value is not None}
    if "base_rho" in options and config.name not in SHARPNESS_AWARE:
        options["rho"] = options.pop("base_rho")
    return options | {"lr": config.lr}


def _groups(config: OptimizerConfig, network: nn.Module) -> Iterator[dict[str, Any]]:
    """Weights apart by kind of layer, by the group of ``config`` that names them, and by whether they decay."""
    own = named_groups(config.groups, network)
    for group in parameter_groups(network):
        apart: dict[tuple[int | None, bool], list[nn.Parameter]] = {}
        for weight in group["params"]:
            apart.setdefault((own.get(weight), weight.dim() > 1), []).append(weight)
        for (number, decays), weights in apart.items():
            part = group | {"params": weights}
            if not decays and config.base_name != "rprop":
                part["weight_decay"] = 0.0
            if number is not None:
                chosen = config.groups[number]
                part["lr_factor"] = chosen.lr_factor
                if chosen.rho is not None:
                    part["rho"] = chosen.rho
                if chosen.centralize is not None:
                    part.setdefault("centralize", chosen.centralize)  # what P never touches stays untouched
            yield part


def named_groups(groups: tuple[GroupConfig, ...], network: nn.Module) -> dict[nn.Parameter, int]:
    """Of each trainable weight that a group names, the number of the first such group.

    Raises:
        ConfigError: a pattern fits no trainable weight, or only those of earlier groups, so that it does nothing.
    """
    names = {name: weight for name, weight in network.named_parameters() if weight.requires_grad}
    own: dict[nn.Parameter, int] = {}
    for number, group in enumerate(groups):
        for pattern in group.match:
            found = [name for name in names if fnmatchcase(name, pattern)]
            if not found:
                near = difflib.get_close_matches(pattern, names, n=3, cutoff=0.0)
                raise ConfigError(
                    f"optimizer.groups: the pattern {pattern!r} fits the name of no trainable weight of this network; "
                    f"near it are {', '.join(near)}."
                )
            if all(own.get(names[name], number) < number for name in found):
                raise ConfigError(
                    f"optimizer.groups: every weight that the pattern {pattern!r} fits belongs to an earlier group; "
                    "put this group before it, or delete it."
                )
            for name in found:
                own.setdefault(names[name], number)
    return own


def learning_rate_factor(config: ScheduleConfig, *, step: int, steps: int, warmup: int) -> float:
    """Factor on the learning rate at a step (from 0): linear warm-up, then constant or half a cosine to ``final``."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if config.name == "constant" or steps <= warmup:
        return 1.0
    done = min(1.0, (step - warmup) / max(1, steps - warmup))
    return config.final + (1 - config.final) * (1 + math.cos(math.pi * done)) / 2
