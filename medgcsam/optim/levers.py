"""The levers that make the ascent cheaper: when it is taken, on how much of the batch, and with which random draws."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence


def ascent_is_due(step: int, start: int, every: int) -> bool:
    """Whether optimizer step number ``step`` (from 0) takes an ascent: from ``start`` on, each ``every``-th step."""
    return step >= start and (step - start) % every == 0


def part_of_batch(batch: Any, fraction: float) -> Any:
    """The first ``fraction`` of a batch, at least one sample, as views.

    Arguments:
        batch: a tensor or numpy array with the samples on its first axis, or any nesting of dicts, lists, tuples and
            dataclasses of such, and of lists of strings, one per sample. Numbers, strings, None and tensors without
            axes are handed through. (A list of one tensor per sample is no such batch: stack it, or cut it yourself.)
        fraction: in (0, 1]; n samples become ceil(fraction * n).

    Raises:
        ValueError: ``fraction`` is outside (0, 1], or the tensors differ in the length of their first axis.
        TypeError: the batch holds something that cannot be cut.

    Example:
        >>> images, labels = part_of_batch((torch.zeros(8, 1, 4, 4), torch.zeros(8)), 0.25)
        >>> images.shape[0], labels.shape[0]
        (2, 2)
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"The fraction of a batch must lie in (0, 1], but is {fraction}.")
    count = samples_of(batch)
    # The small subtraction keeps 0.1 * 30 = 3.0000000000000004 at 3 samples.
    return _first(batch, count, max(1, math.ceil(fraction * count - 1e-9)))


def samples_of(batch: Any) -> int:
    """Number of samples in a batch as ``part_of_batch`` takes it; 0 where nothing in it has samples."""
    lengths = set(_lengths(batch))
    if len(lengths) > 1:
        raise ValueError(
            f"The tensors of this batch have {' and '.join(map(str, sorted(lengths)))} samples on their first axis: "
            "all must have as many for a part of the batch to be cut."
        )
    return lengths.pop() if lengths else 0


def _lengths(batch: Any) -> Iterator[int]:
    if _is_array(batch):
        if len(batch.shape):
            yield batch.shape[0]
    elif isinstance(batch, PackedSequence):
        raise TypeError("A PackedSequence cannot be cut: give ascent_closure the packed part of the batch yourself.")
    elif dataclasses.is_dataclass(batch):
        for field in dataclasses.fields(batch):
            yield from _lengths(getattr(batch, field.name))
    elif isinstance(batch, Mapping | list | tuple):
        for value in batch.values() if isinstance(batch, Mapping) else batch:
            yield from _lengths(value)
    elif not isinstance(batch, _WHOLE):
        raise TypeError(f"A {type(batch).__name__} in a batch cannot be cut: cut the batch in ascent_closure yourself.")


def _first(batch: Any, count: int, kept: int) -> Any:
    if _is_array(batch):
        return batch[:kept] if len(batch.shape) else batch
    if dataclasses.is_dataclass(batch):
        fields = {field.name: getattr(batch, field.name) for field in dataclasses.fields(batch) if field.init}
        return dataclasses.replace(batch, **{name: _first(value, count, kept) for name, value in fields.items()})
    if isinstance(batch, Mapping):
        return {key: _first(value, count, kept) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(_first(value, count, kept) for value in batch))
    if isinstance(batch, list) and len(batch) == count and all(isinstance(value, str) for value in batch):
        return batch[:kept]
    if isinstance(batch, list | tuple):
        return type(batch)(_first(value, count, kept) for value in batch)
    return batch


_WHOLE = (int, float, complex, str, bytes, type(None), torch.device, torch.dtype)


def _is_array(value: Any) -> bool:
    """A tensor, or an array of numpy, which is not imported here."""
    return isinstance(value, Tensor) or type(value).__module__ == "numpy"


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
