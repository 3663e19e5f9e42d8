"""Windows become one volume: only the planes that later windows still touch are open; the others are finished."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Sequence
from math import prod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from medgcsam.errors import MachineError

CHUNK = 2**20  # voxels that are finished at once
SIGMA = 1 / 8  # of the window's length: standard deviation of the Gaussian that weighs a window's voxels
SMALLEST_WEIGHT = 1e-3

Corner = tuple[int, ...]


def gaussian(window: Sequence[int]) -> Tensor:
    """Weights (*window) of a window's voxels, float32, largest in the middle and at least SMALLEST_WEIGHT."""
    weights = torch.ones(())
    for n in window:
        distance = torch.arange(n, dtype=torch.float32) - (n - 1) / 2
        weights = weights[..., None] * torch.exp(-((distance / (SIGMA * n)) ** 2) / 2)
    return weights.clamp_(min=SMALLEST_WEIGHT)


def starts(length: int, window: int, overlap: float) -> list[int]:
    """First voxels of the windows along an axis: equal steps, and the last one moved back to end with the axis."""
    step = max(1, int(window * (1 - overlap)))
    return [min(start, length - window) for start in range(0, length - window + step, step)]


class Stitching:
    """Collects the logits of windows row by row, a row being the windows that start at one plane of the first axis.

    ``size``: shape in voxels, at least ``window`` along each axis; ``starts``: the windows' first voxels per axis.
    ``crop``: the part of ``size`` that is wanted. ``place``: device of the open planes, float32 (networks, outputs,
    window[0], *size[1:]). ``device``: that of the logits. ``folder``: where the file of the result lies; None for RAM.
    """

    def __init__(
        self,
        size: Sequence[int],
        starts: Sequence[Sequence[int]],
        window: Sequence[int],
        *,
        networks: int,
        outputs: int,
        overlapping: bool,
        crop: Sequence[slice],
        place: torch.device,
        device: torch.device,
        folder: Path | None,
    ):
        self.size, self.starts, self.window, self.crop = tuple(size), starts, tuple(window), tuple(crop)
        self.overlapping = overlapping
        self.weights = gaussian(window).to(device)
        self.open = torch.zeros(networks, outputs, window[0], *size[1:], device=place)
        shape = (outputs, *(part.stop - part.start for part in crop))
        self.result = _InRam(shape) if folder is None else _OnDisk(shape, folder)

    def corners(self, row: int) -> list[Corner]:
        """First voxels of the windows of a row."""
        return list(itertools.product([self.starts[0][row]], *self.starts[1:]))

    def add(self, network: int, corners: Sequence[Corner], logits: Tensor) -> None:
        """Add logits (windows, outputs, *window) of windows of the present row."""
        for corner, values in zip(corners, logits, strict=True):
            place = self.open[(network, slice(None), slice(None), *self._box(corner)[1:])]
            if values.device == place.device:
                place.addcmul_(values, self.weights)
            else:
                place.add_((values * self.weights).to(place.device))

    def finish(self, row: int) -> None:
        """Turn the planes that no later row touches into probabilities, and move the others up."""
        first = self.starts[0][row]
        end = self.starts[0][row + 1] if row + 1 < len(self.starts[0]) else self.size[0]
        planes = max(1, CHUNK // prod(self.size[1:]))
        for start in range(first, end, planes):
            self._finish_planes(start, min(start + planes, end), first)
        step, length = end - first, self.window[0]
        if step == length:
            self.open.zero_()
            return
        for start in range(0, length - step, step):  # pieces of at most a step do not overlap with where they go
            stop = min(start + step, length - step)
            self.open[:, :, start:stop] = self.open[:, :, start + step : stop + step]
        self.open[:, :, length - step :] = 0

    def _finish_planes(self, start: int, stop: int, first: int) -> None:
        wanted = self.crop[0]
        start, stop = max(start, wanted.start), min(stop, wanted.stop)
        if start >= stop:
            return
        logits = self.open[:, :, start - first : stop - first].div_(self._weight_sum(start, stop))
        logits = logits[(..., *self.crop[1:])]
        probabilities = torch.sigmoid(logits) if self.overlapping else torch.softmax(logits, dim=1)
        mean = probabilities[0] if len(probabilities) == 1 else probabilities.mean(dim=0)
        self.result.write(start - wanted.start, mean.half().cpu().numpy())

    def _weight_sum(self, start: int, stop: int) -> Tensor:
        """Sum of the windows' weights over the planes start..stop, (stop - start, *size[1:])."""
        total, weights = self.open.new_zeros(stop - start, *self.size[1:]), self.weights.to(self.open.device)
        for corner in itertools.product(*self.starts):
            low, high = max(start, corner[0]), min(stop, corner[0] + self.window[0])
            if low < high:
                planes = slice(low - start, high - start)
                total[(planes, *self._box(corner)[1:])] += weights[low - corner[0] : high - corner[0]]
        return total

    def _box(self, corner: Corner) -> tuple[slice, ...]:
        return tuple(slice(start, start + n) for start, n in zip(corner, self.window, strict=True))


class _InRam:
    """A float16 array (outputs, planes, ..), written some planes at a time."""

    def __init__(self, shape: tuple[int, ...]):
        self._values = np.empty(shape, np.float16)

    def write(self, first: int, planes: np.ndarray) -> None:
        self._values[:, first : first + planes.shape[1]] = planes

    def array(self) -> np.ndarray:
        return self._values


class _OnDisk:
    """The same in a file without a name, which the system removes with the last reference to the array.

    Plain writes, since a full disk would kill a process that writes through a memory map.
    """

    def __init__(self, shape: tuple[int, ...], folder: Path):
        self._shape, self._folder = shape, folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 (lives as long as the result)
        except OSError as error:
            raise self._failed(error) from error

    def write(self, first: int, planes: np.ndarray) -> None:
        voxels = prod(self._shape[2:])
        try:
            for output, values in enumerate(planes):
                self._file.seek(2 * voxels * (output * self._shape[1] + first))
                self._file.write(np.ascontiguousarray(values).data)
        except OSError as error:
            raise self._failed(error) from error

    def array(self) -> np.ndarray:
        try:
            self._file.flush()
        except OSError as error:
            raise self._failed(error) from error
        with self._file:
            return np.memmap(self._file, np.float16, mode="r", shape=self._shape)

    def _failed(self, error: OSError) -> MachineError:
        size = 2 * prod(self._shape) / 1e9
        return MachineError(
            f"The segmentation of a volume, {size:.1f} GB, cannot be written to {self._folder} "
            f"({error.strerror or error}): free some space there, or train with inference.stitch=cpu."
        )
