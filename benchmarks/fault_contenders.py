"""The optimizers that the fault experiments run on, each used as its own documentation says."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peers import davda54_sam, pytorch_optimizer_sam
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from medgcsam.optim import GCSAM, SAM, frozen_statistics, parameter_groups

Closure = Callable[[], Any]


@dataclass(frozen=True)
class Contender:
    """One optimizer and its documented use.

    ``make(model, base, rho, gc, **options)`` builds it; ``step(optimizer, model, closure)`` takes one whole step and
    returns the loss of the first pass; ``first`` and ``second`` are its two-step form, the second pass of which runs
    inside ``second_pass(model)``. ``centralizes``: whether it can centralize at all. ``local_ascent(optimizer, model,
    closure)`` is a step of a DistributedDataParallel model with an ascent per replica, None where none is documented.
    ``scaled(optimizer, model, scaler, closure)`` is a step with a GradScaler; ``scaler_documented`` tells whether the
    library says how.
    """

    name: str
    make: Callable[..., Optimizer]
    step: Callable[[Any, nn.Module, Closure], Any]
    first: Callable[[Any], Any]
    second: Callable[[Any], Any]
    second_pass: Callable[[nn.Module], AbstractContextManager]
    centralizes: bool
    scaled: Callable[[Any, nn.Module, Any, Closure], None]
    scaler_documented: bool
    local_ascent: Callable[[Any, nn.Module, Closure], None] | None


def contenders(davda54: Path | None) -> dict[str, Contender]:
    """All that can be had here: ours always, pytorch_optimizer where installed, davda54/sam where a path is given."""
    found = {"ours": _ours()}
    if (theirs := pytorch_optimizer_sam()) is not None:
        found["pytorch_optimizer"] = _pytorch_optimizer(theirs)
    if (theirs := davda54_sam(davda54)) is not None:
        found["davda54/sam"] = _davda54(theirs)
    return found


def _ours() -> Contender:
    def make(model: nn.Module, base: Any = torch.optim.SGD, rho: float = 0.05, gc: bool = True, **options: Any) -> Any:
        return (GCSAM if gc else SAM)(parameter_groups(model), base, rho, **options)

    def scaled(optimizer: Any, model: nn.Module, scaler: Any, closure: Closure) -> None:
        optimizer.step(closure, model=model, scaler=scaler)
        scaler.update()

    def step(optimizer: Any, model: nn.Module, closure: Closure) -> Any:
        return optimizer.step(closure, model=model)

    def first(optimizer: Any) -> None:
        optimizer.ascend()
        optimizer.zero_grad()

    halves = (first, lambda optimizer: optimizer.descend(), frozen_statistics)
    return Contender("ours", make, step, *halves, True, scaled, True, step)


class _StatisticsOff:
    """What both libraries offer against statistics counted twice: BatchNorm's momentum is 0 in the second pass."""

    def __init__(self, model: nn.Module) -> None:
        self.layers = [layer for layer in model.modules() if isinstance(layer, _BatchNorm)]

    def __enter__(self) -> None:
        self.before = [layer.momentum for layer in self.layers]
        for layer in self.layers:
            layer.momentum = 0

    def __exit__(self, *error: object) -> None:
        for layer, momentum in zip(self.layers, self.before, strict=True):
            layer.momentum = momentum


def _first_step(optimizer: Any) -> None:
    optimizer.first_step(zero_grad=True)


def _second_step(optimizer: Any) -> None:
    optimizer.second_step(zero_grad=True)


def _scaled_by_recipe(optimizer: Any, model: nn.Module, scaler: Any, closure: Closure) -> None:
    """Neither library documents a GradScaler; this is the recipe that their users pass on: either half as the step."""
    step = optimizer.step
    for half in (optimizer.first_step, optimizer.second_step):
        closure()
        optimizer.step = half
        scaler.step(optimizer)
        scaler.update()
    optimizer.step = step


def _pytorch_optimizer(kind: type) -> Contender:
    def make(model: nn.Module, base: Any = torch.optim.SGD, rho: float = 0.05, gc: bool = True, **options: Any) -> Any:
        return kind(model.parameters(), base, rho=rho, use_gc=gc, **options)

    def step(optimizer: Any, model: nn.Module, closure: Closure) -> Any:
        loss = closure()
        with _StatisticsOff(model):
            optimizer.step(closure)
        return loss

    halves = (_first_step, _second_step, _StatisticsOff)
    return Contender("pytorch_optimizer", make, step, *halves, True, _scaled_by_recipe, False, None)


def _davda54(kind: type) -> Contender:
    def make(model: nn.Module, base: Any = torch.optim.SGD, rho: float = 0.05, gc: bool = False, **options: Any) -> Any:
        return kind(model.parameters(), base, rho=rho, **options)

    def two_steps(optimizer: Any, model: nn.Module, closure: Closure) -> Any:
        loss = closure()
        optimizer.first_step(zero_grad=True)
        with _StatisticsOff(model):
            closure()
        optimizer.second_step(zero_grad=True)
        return loss

    def local(optimizer: Any, model: nn.Module, closure: Closure) -> None:
        # As in its README: the forward pass before no_sync, backward inside.
        loss = closure(backward=False)
        with model.no_sync() if hasattr(model, "no_sync") else nullcontext():
            loss.backward()
        optimizer.first_step(zero_grad=True)
        closure()
        optimizer.second_step(zero_grad=True)

    halves = (_first_step, _second_step, _StatisticsOff)
    return Contender("davda54/sam", make, two_steps, *halves, False, _scaled_by_recipe, False, local)
