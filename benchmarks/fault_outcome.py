"""What a fault experiment returns, and the small networks and closures that they share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from fault_contenders import Contender
from torch import Tensor, nn


@dataclass(frozen=True)
class Outcome:
    """``verdict`` is "pass", "fail", "undocumented" or "n/a"; ``measured`` says what was seen, ``value`` is its number.

    "undocumented": the result is wrong, or there is none, in a use that the library's documentation does not describe.
    "n/a": the library does not have the part in which the fault would be.
    """

    verdict: str
    measured: str
    value: float | None = None

    as_dict = asdict


@dataclass(frozen=True)
class Experiment:
    """``fault`` is its number in "what the published implementations get wrong", ``right`` what should be seen."""

    fault: int
    title: str
    right: str
    run: Callable[[Contender], Outcome]


def judge(right: bool, measured: str, value: float | None = None, *, documented: bool = True) -> Outcome:
    """Pass where ``right``; otherwise fail, or "undocumented" where the library does not describe this use."""
    return Outcome("pass" if right else "fail" if documented else "undocumented", measured, value)


def attempt(experiment: Experiment, contender: Contender) -> Outcome:
    """Run it; an exception that the experiment did not expect is a failure, with its message as the measurement."""
    try:
        return experiment.run(contender)
    except Exception as error:  # whatever a library raises here is the finding
        text = " ".join(str(error).split())
        return Outcome("fail", f"{type(error).__name__}: {text[:90]}")


def network(seed: int = 0) -> nn.Sequential:
    """A small convolutional network with BatchNorm, for images of (batch, 1, 6, 6) and two classes.

    No bias before the norm: its gradient would be rounding noise, which Adam turns into steps of full length.
    """
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2))


def batch(seed: int = 1, size: int = 8) -> tuple[Tensor, Tensor]:
    """Random images (size, 1, 6, 6) and labels (size)."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(size, 1, 6, 6, generator=generator)
    return images, torch.randint(0, 2, (size,), generator=generator)


def closure_for(model: nn.Module, optimizer: Any, data: tuple[Tensor, Tensor] | None = None) -> Callable[..., Tensor]:
    """zero_grad, forward, backward; returns the loss. ``closure.calls`` lists the weights and the loss of each call."""
    images, labels = batch() if data is None else data

    def closure(backward: bool = True) -> Tensor:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(images), labels)
        closure.calls.append((copies(model), loss.item()))
        if backward:
            loss.backward()
        return loss

    closure.calls = []
    return closure


def copies(model: nn.Module) -> list[Tensor]:
    """Copies of the parameters."""
    return [parameter.detach().clone() for parameter in model.parameters()]


def apart(a: list[Tensor], b: list[Tensor]) -> float:
    """Largest absolute difference between two lists of tensors; NaN counts as infinitely far."""
    return max(float((x - y).abs().nan_to_num(torch.inf, torch.inf).max()) for x, y in zip(a, b, strict=True))
