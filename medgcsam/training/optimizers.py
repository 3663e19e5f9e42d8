"""The optimizer section at work: one call per step, whichever optimizer, precision and schedule."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from medgcsam.config import OptimizerConfig, ScheduleConfig
from medgcsam.optim import GCSAM, SAM, parameter_groups, part_of_batch
from medgcsam.optim.sharpness_aware import SharpnessAware
from medgcsam.training.device import autocast
from medgcsam.training.tasks import Loss

_BASES = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}


def build_optimizer(config: OptimizerConfig, network: nn.Module, *, steps: int) -> torch.optim.Optimizer:
    """The optimizer of ``config`` over the trainable weights of ``network``, for a training of ``steps`` steps.

    Weight decay leaves biases and norm weights (1-D tensors) alone. Groups know which weights belong to transposed
    convolutions and embeddings, so that GCSAM centralizes as it should.
    """
    base = config.base if config.name in ("sam", "gcsam") else config.name
    options: dict[str, Any] = {"lr": config.lr, "weight_decay": config.weight_decay}
    options |= {"momentum": config.momentum} if base == "sgd" else {"betas": tuple(config.betas)}
    groups = [part for group in parameter_groups(network) for part in _by_decay(group)]
    if config.name not in ("sam", "gcsam"):
        plain = [{key: group[key] for key in ("params", "weight_decay") if key in group} for group in groups]
        return _BASES[base](plain, **options)
    options |= {
        "rho": config.rho,
        "adaptive": config.adaptive,
        "eta": config.eta,
        "start": math.floor(config.start * steps),
        "every": config.every,
        "ascent_fraction": config.ascent_fraction,
        "max_norm": config.max_norm,
    }
    if config.name == "sam":
        for group in groups:
            group.pop("centralize", None)
        return SAM(groups, _BASES[base], **options)
    return GCSAM(groups, _BASES[base], norm=config.norm, centralize=config.centralize, **options)


def _by_decay(group: dict[str, Any]) -> list[dict[str, Any]]:
    """The group, divided into tensors with weight decay and those (biases, norms) without."""
    decayed = [weight for weight in group["params"] if weight.dim() > 1]
    plain = [weight for weight in group["params"] if weight.dim() <= 1]
    parts = [group | {"params": decayed}, group | {"params": plain, "weight_decay": 0.0}]
    return [part for part in parts if part["params"]]


def learning_rate_factor(config: ScheduleConfig, *, step: int, steps: int, warmup: int) -> float:
    """Factor on the learning rate at a step (from 0): linear warm-up, then constant or half a cosine to ``final``."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if config.name == "constant" or steps <= warmup:
        return 1.0
    done = min(1.0, (step - warmup) / max(1, steps - warmup))
    return config.final + (1 - config.final) * (1 + math.cos(math.pi * done)) / 2


class Stepper:
    """Optimizer, learning-rate schedule and gradient scaler of one training; ``step`` does all that a step needs."""

    def __init__(
        self,
        config: OptimizerConfig,
        schedule: ScheduleConfig,
        network: nn.Module,
        *,
        epochs: int,
        steps_per_epoch: int,
        device: torch.device,
        precision: str,
    ) -> None:
        steps, warmup = epochs * steps_per_epoch, round(schedule.warmup_epochs * steps_per_epoch)
        self.config, self.device, self.precision = config, device, precision
        self.optimizer = build_optimizer(config, network, steps=steps)
        self._factor = partial(learning_rate_factor, schedule, steps=steps, warmup=warmup)
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
        self.steps = 0
        self._epoch_start = (0, 0.0)

    def step(self, network: nn.Module, loss: Loss, group: Sequence[tuple[Tensor, Tensor, Any]]) -> Tensor:
        """One optimizer step on the batches of ``group``, whose gradients are added up to that of the joined batch.

        Returns the loss at the weights before the step, 0-dimensional, on the device and not waited for.
        """
        batches = [(images, targets) for images, targets, _ in group]
        for parameters in self.optimizer.param_groups:
            parameters["lr"] = self.learning_rate
        if isinstance(self.optimizer, SharpnessAware):
            value = self._sharpness_step(network, loss, batches)
        else:
            value = self._plain_step(network, loss, batches)
        self.steps += 1
        return value

    def _sharpness_step(self, network: nn.Module, loss: Loss, batches: list[tuple[Tensor, Tensor]]) -> Tensor:
        fraction = self.config.ascent_fraction
        part = [part_of_batch(batch, fraction) for batch in batches] if fraction < 1 else None
        value = self.optimizer.step(
            self._closure(network, loss, batches),
            ascent_closure=None if part is None else self._closure(network, loss, part),
            model=network,
            scaler=self.scaler if self.scaler.is_enabled() else None,
        )
        if self.scaler.is_enabled():
            self.scaler.update()
        return value

    def _plain_step(self, network: nn.Module, loss: Loss, batches: list[tuple[Tensor, Tensor]]) -> Tensor:
        value = self._closure(network, loss, batches)()
        if self.config.max_norm is not None:
            self.scaler.unscale_(self.optimizer)
            weights = [weight for group in self.optimizer.param_groups for weight in group["params"]]
            nn.utils.clip_grad_norm_(weights, self.config.max_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return value

    def _closure(self, network: nn.Module, loss: Loss, batches: list[tuple[Tensor, Tensor]]) -> Callable[[], Tensor]:
        images_in_all = sum(len(images) for images, _ in batches)

        def closure() -> Tensor:
            self.optimizer.zero_grad(set_to_none=True)
            mean = torch.zeros((), device=self.device)
            for images, targets in batches:
                with autocast(self.device, self.precision):
                    logits = network(images)
                share = loss(logits, targets) * (len(images) / images_in_all)
                self.scaler.scale(share).backward()
                mean += share.detach()
            return mean

        return closure

    @property
    def gradient_evaluations(self) -> float:
        """Forward-backward passes over a batch so far, a pass over a part counted as that part."""
        return float(self.optimizer.gradient_evaluations if isinstance(self.optimizer, SharpnessAware) else self.steps)

    @property
    def learning_rate(self) -> float:
        """The learning rate of the next step."""
        return self.config.lr * self._factor(step=self.steps)

    def begin_epoch(self) -> None:
        """Count the passes per step from here."""
        self._epoch_start = (self.steps, self.gradient_evaluations)

    def observations(self) -> dict[str, Any]:
        """What history.jsonl records of the optimizer at an epoch's end."""
        steps = self.steps - self._epoch_start[0]
        passes = self.gradient_evaluations - self._epoch_start[1]
        record = {"gradient_evaluations": self.gradient_evaluations, "passes_per_step": round(passes / steps, 4)}
        ascended = isinstance(self.optimizer, SharpnessAware) and self.optimizer.ascents > 0
        record["radius"] = float(self.optimizer.last_radius) if ascended else None
        centralized = ascended and isinstance(self.optimizer, GCSAM)
        record["centralized_share"] = float(self.optimizer.centralized_share) if centralized else None
        return record

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step depends on."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "steps": self.steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.steps = state["steps"]
