"""The levers that make the ascent cheaper: when it is taken, on how much of the batch, and with which random draws."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


def ascent_is_due(step: int, start: int, every: int) -> bool:
    """Whether optimizer step number ``step`` (from 0) takes an ascent: from ``start`` on, each ``every``-th step."""
    return step >= start and (step - start) % every == 0


def part_of_batch(batch: Any, fraction: float) -> Any:
    """The first ``fraction`` of a batch, at least one sample, as views.

    Arguments:
        batch: a tensor with the samples on its first axis, or any nesting of dicts, lists and tuples of such tensors.
            Numbers, strings, None and tensors without axes are handed through.
        fraction: in (0, 1]; n samples become ceil(fraction * n).

    Raises:
        ValueError: ``fraction`` is outside (0, 1].

    Example:
        >>> images, labels = part_of_batch((torch.zeros(8, 1, 4, 4), torch.zeros(8)), 0.25)
        >>> images.shape[0], labels.shape[0]
        (2, 2)
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"The fraction of a batch must lie in (0, 1], but is {fraction}.")
    if isinstance(batch, Tensor):
        # The small subtraction keeps 0.1 * 30 = 3.0000000000000004 at 3 samples.
        return batch[: max(1, math.ceil(fraction * len(batch) - 1e-9))] if batch.dim() else batch
    if isinstance(batch, Mapping):
        return {key: part_of_batch(value, fraction) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(part_of_batch(value, fraction) for value in batch))
    if isinstance(batch, list | tuple):
        return type(batch)(part_of_batch(value, fraction) for value in batch)
    return batch


RandomState = list[tuple[torch.device, Tensor]]


def random_state(devices: Iterable[torch.device]) -> RandomState:
    """The state of torch's default generators on the CPU and on the given CUDA devices."""
    cuda = {device for device in devices if device.type == "cuda"}
    return [(torch.device("cpu"), torch.get_rng_state()), *((d, torch.cuda.get_rng_state(d)) for d in cuda)]


@contextmanager
def replayed(state: RandomState | None) -> Iterator[None]:
    """Draw the same random numbers inside the block as were drawn after ``state`` was taken; None does nothing.

    Afterwards the generators stand where they stood before the block, so that replaying leaves no trace in the rest
    of the run.
    """
    if state is None:
        yield
        return
    here = random_state(device for device, _ in state)
    _set_random_state(state)
    try:
        yield
    finally:
        _set_random_state(here)


def _set_random_state(state: RandomState) -> None:
    for device, values in state:
        if device.type == "cuda":
            torch.cuda.set_rng_state(values, device)
        else:
            torch.set_rng_state(values)
