"""Sharpness on validation images at a fixed radius, measured alike for every optimizer."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from medgcsam.optim import sharpness
from medgcsam.training.device import memory_errors
from medgcsam.training.tasks import Loss, terms


def evenly_spread(rows: np.ndarray, count: int | None) -> np.ndarray:
    """``count`` of ``rows`` (n,), in order, at equal distances; all where there are no more, or for None."""
    if count is None or count >= len(rows):
        return rows
    return rows[np.arange(count) * len(rows) // count]


def probed_rows(rows: np.ndarray, radius: float | None, count: int | None) -> np.ndarray | None:
    """The validation ``rows`` that sharpness is measured on; None where ``radius`` says that it is not measured."""
    return None if radius is None else evenly_spread(rows, count)


def validation_sharpness(
    network: nn.Module, batches: Any, loss: Loss, *, radius: float, device: torch.device, total: int | None = None
) -> float | None:
    """L(w + e) - L(w), e of length ``radius`` along the gradient of L, the mean loss over ``batches``.

    The network is put into evaluation mode and left there: BatchNorm uses its running statistics, dropout is off, so
    that L is one function of the weights and nothing of the training is touched. In float32 throughout, without
    autocast and TF32: the rise is a small difference of two losses, less than the three digits of bf16 or TF32 can
    tell apart, and it is to be the same measure whatever the training's precision.

    total: ``terms`` of all batches together; None takes them from ``batches.targets``.

    Returns:
        The rise, in units of the loss; None where it is not a number.
    """
    network.eval()
    count = terms(batches.targets) if total is None else torch.tensor(total)

    def losses() -> Iterator[Tensor]:
        for images, targets, _ in batches.epoch(0):
            yield loss(network(images), targets) * (terms(targets) / count.to(targets.device))

    with memory_errors("sharpness (training.sharpness_radius)"), _full_float32(device):
        rise = float(sharpness(network.parameters(), losses, radius))
    return rise if math.isfinite(rise) else None


@contextmanager
def _full_float32(device: torch.device) -> Iterator[None]:
    """Neither autocast nor the TF32 that cuDNN's convolutions use unasked."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.backends.cudnn.allow_tf32 = before
