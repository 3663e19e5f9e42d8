"""From the grid of a file to the grid of the network, and back.

Volumes are turned to the closest canonical orientation (RAS+: axes exchanged and flipped; what is oblique stays so) and
resampled to one spacing. Both grids cover the same box in space: position x in voxels of the one (the centre of the
first voxel is 0) is (x + 0.5) * new / old - 0.5 in the other. Values between voxels are linear; where voxels become
larger, the neighbours that fall into one are averaged (a triangle as wide as two of the new voxels), so that nothing is
skipped. All work is done in slabs of the first axis, so that memory stays bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from scipy.ndimage import find_objects

from medgcsam.errors import DataError
from medgcsam.imaging.faults import MAX_VOXELS

SLAB_VALUES = 2**22
"""Values of the result that are worked on at once: 16 MiB of float32."""
TIE = 1e-5
"""Shares of a structure and of what is beside it that differ by less are equal."""

Box = tuple[slice, ...]


@dataclass(frozen=True)
class Grid:
    """The way from a file's grid to the network's, and back.

    shape: voxels along the spatial axes of the file. axes: for each axis of the network's grid, the axis of the file
    that it is; a slice taken as a picture leaves one out. flipped: which of them run the other way. size: voxels along
    the axes of the network's grid. spacing: their mm, None where the file does not say.
    """

    shape: tuple[int, ...]
    axes: tuple[int, ...]
    flipped: tuple[bool, ...]
    size: tuple[int, ...]
    spacing: tuple[float, ...] | None

    @property
    def turned(self) -> tuple[int, ...]:
        """Voxels along the axes of the network's grid before resampling."""
        return tuple(self.shape[axis] for axis in self.axes)


def grid_for(image: Any, *, dimensions: int, spacing: Sequence[float] | None, fit: Sequence[int] | None = None) -> Grid:
    """The grid of the network for an ``Image``.

    dimensions: 2 takes pictures, whose axes (row, column) stay, and volumes of one slice, whose row is j and column i;
        3 takes volumes.
    spacing: mm per axis of the network's grid; None leaves the voxels as they are.
    fit: with 2 dimensions and no spacing, (rows, columns) that a picture is made to fit in, proportions kept; smaller
        ones stay as they are.
    Raises DataError: pictures for volumes and the other way round, no spacing where one is asked for, a grid of more
    than MAX_VOXELS.
    """
    axes, flipped = _turn(image, dimensions)
    turned = [image.spatial_shape[axis] for axis in axes]
    known = None if image.spacing is None else [float(image.spacing[axis]) for axis in axes]
    if spacing is not None and known is None:
        raise DataError("it has no voxel spacing, leave image.spacing empty to take voxels as they are")
    size = resampled_size(turned, known, spacing, fit if dimensions == 2 else None)
    if np.prod(size, dtype=float) > MAX_VOXELS:
        raise DataError(
            f"it would become {' x '.join(map(str, size))} voxels, more than can be used: enlarge image.spacing"
        )
    if known is not None:
        known = tuple(n * mm / new for n, mm, new in zip(turned, known, size, strict=True))
    return Grid(tuple(image.spatial_shape), axes, flipped, size, known)


def resampled_size(
    shape: Sequence[int], mm: Sequence[float] | None, spacing: Sequence[float] | None, fit: Sequence[int] | None
) -> tuple[int, ...]:
    """Voxels per axis of a turned grid with voxels of ``mm``, after resampling; see ``grid_for``."""
    if spacing is not None and mm is not None:
        return tuple(max(1, round(n * a / b)) for n, a, b in zip(shape, mm, spacing, strict=True))
    factor = 1.0 if fit is None else min(1.0, *(limit / n for limit, n in zip(fit, shape, strict=True)))
    return tuple(max(1, round(n * factor)) for n in shape)


def canonical(array: np.ndarray, grid: Grid) -> np.ndarray:
    """View of (channels, *grid.shape) as (channels, *grid.turned)."""
    lost = [axis + 1 for axis in range(len(grid.shape)) if axis not in grid.axes]
    kept = sorted(grid.axes)
    array = array.squeeze(tuple(lost)) if lost else array
    array = array.transpose(0, *(kept.index(axis) + 1 for axis in grid.axes))
    return array[(slice(None), *(slice(None, None, -1) if flip else slice(None) for flip in grid.flipped))]


def resample(
    array: np.ndarray,
    size: Sequence[int],
    *,
    dtype: type = np.float32,
    values: Callable[[np.ndarray], np.ndarray] | None = None,
) -> np.ndarray:
    """(channels, *old) on a grid of ``size`` voxels over the same box; ``values`` is first applied to float32 slabs."""
    axes = [_taps(old, new) for old, new in zip(array.shape[1:], size, strict=True)]
    result = np.empty((len(array), *size), dtype)
    for box in _slabs([slice(0, n) for n in size], len(array)):
        result[(slice(None), *box)] = _resampled(array, axes, box, values)
    return result


def resample_label(label: np.ndarray, size: Sequence[int], *, structures: int, overlapping: bool) -> np.ndarray:
    """A label on a grid of ``size`` voxels: uint8, (1, *size) of numbers, or (structures, *size) of 0 and 1.

    label: (1, *old) of numbers up to ``structures``, or (structures, *old) of 0 and 1 where they overlap.
    A voxel goes to the structure, or to the background, that fills most of it; ``_untied`` says which of two that fill
    it equally. A mirrored label becomes the mirrored result.
    """
    if tuple(label.shape[1:]) == tuple(size):
        return label.astype(np.uint8)
    axes = [_taps(old, new) for old, new in zip(label.shape[1:], size, strict=True)]
    result = np.zeros((len(label), *size), np.uint8)
    for channel, plane in enumerate(label):
        objects = find_objects(plane, 1 if overlapping else structures)
        reached = [(number, _reached(box, axes)) for number, box in enumerate(objects, 1)]
        reached = [(number, box) for number, box in reached if box is not None]
        if reached:
            whole = [
                slice(min(b[a].start for _, b in reached), max(b[a].stop for _, b in reached)) for a in range(len(size))
            ]
            for box in _slabs(whole, 4):
                result[(channel, *box)] = _majority(plane, axes, box, reached)
    return result


def back_to_grid(probabilities: np.ndarray, grid: Grid, *, overlapping: bool) -> np.ndarray:
    """Probabilities as a label on the grid of the file.

    probabilities: (structures + 1, *grid.size), background first, or (structures, *grid.size) with ``overlapping``.
    Returns int16 (1, *grid.shape) of numbers, or uint8 (structures, *grid.shape) of 0 and 1: the most probable, or
    what has a probability over one half. Equal ones go to the lower number. Probabilities are interpolated, and the
    decision is made on the file's own voxels.
    """
    return mean_to_grid([(probabilities, grid)], overlapping=overlapping)


def mean_to_grid(parts: Sequence[tuple[np.ndarray, Grid]], *, overlapping: bool) -> np.ndarray:
    """The same of the mean of several networks' probabilities of one image, each on the grid of its network.

    No more than a slab of the mean is ever held, so that beside the label memory does not grow with the image.
    """
    (first, grid), outputs = parts[0], len(parts[0][0])
    label = np.zeros((outputs if overlapping else 1, *grid.shape), np.uint8 if overlapping else np.int16)
    target = canonical(label, grid)
    ways = [[_taps(old, new) for old, new in zip(own.size, own.turned, strict=True)] for _, own in parts]
    # An interpolated voxel is background where all that it is made of are: only the others are looked at. And so is
    # the mean of what is background to every network.
    reached = _united(
        _reached(_decided(values, overlapping), axes) for (values, _), axes in zip(parts, ways, strict=True)
    )
    if reached is not None:
        for box in _slabs(reached, outputs):
            total = _resampled(first, ways[0], box)
            for (values, _), axes in zip(parts[1:], ways[1:], strict=True):
                total = total + _resampled(values, axes, box)
            target[(slice(None), *box)] = _decide(total, overlapping, of=len(parts))
    return label


def _turn(image: Any, dimensions: int) -> tuple[tuple[int, ...], tuple[bool, ...]]:
    shape = image.spatial_shape
    if dimensions == 2:
        if len(shape) == 2:
            return (0, 1), (False, False)
        if shape[2] == 1:
            return (1, 0), (False, False)
        raise DataError(f"it is a volume of {shape[2]} slices, where pictures are wanted: set image.dimensions to 3")
    if len(shape) != 3:
        raise DataError("it is a picture, where volumes are wanted: set image.dimensions to 2")
    if image.affine is None:
        return (0, 1, 2), (False, False, False)
    from nibabel.orientations import io_orientation

    turn = io_orientation(image.affine)  # for each axis of the file: the world axis closest to it, and its sign
    axes = [int(np.flatnonzero(turn[:, 0] == world)[0]) for world in range(3)]
    return tuple(axes), tuple(bool(turn[axis, 1] < 0) for axis in axes)


_Taps = tuple[np.ndarray, np.ndarray]


def _taps(old: int, new: int) -> _Taps:
    """What each of ``new`` voxels along an axis is made of: indices of old ones and their weights, both (new, taps)."""
    if old == new:
        return np.arange(new)[:, None], np.ones((new, 1), np.float32)
    scale = old / new
    reach = max(1.0, scale)
    centre = (np.arange(new)[:, None] + 0.5) * scale - 0.5
    index = np.floor(centre - reach).astype(np.int64) + 1 + np.arange(int(np.ceil(2 * reach)))
    weights = np.clip(1 - np.abs(index - centre) / reach, 0, None) * ((index >= 0) & (index < old))
    return index.clip(0, old - 1), (weights / weights.sum(1, keepdims=True)).astype(np.float32)


def _resampled(
    array: np.ndarray, axes: Sequence[_Taps], box: Box, values: Callable[[np.ndarray], np.ndarray] | None = None
) -> np.ndarray:
    """float32 (channels, *box): the part of the new grid in ``box``."""
    parts, needed = [], []
    for (index, weights), part in zip(axes, box, strict=True):
        index, weights = index[part], weights[part]
        first = int(index.min())
        needed.append(slice(first, int(index.max()) + 1))
        parts.append((index - first, weights))
    result = np.asarray(array[(slice(None), *needed)], dtype=np.float32)
    result = result if values is None else values(result)
    for axis in sorted(range(len(parts)), key=lambda axis: len(axes[axis][0]) / array.shape[axis + 1]):
        result = _along(result, axis + 1, *parts[axis])
    return result


def _along(array: np.ndarray, axis: int, index: np.ndarray, weights: np.ndarray) -> np.ndarray:
    if index.shape[1] == 1:
        return array  # the axis is not resampled, and the slice is taken already
    shape = [1] * array.ndim
    shape[axis] = len(index)
    total = np.take(array, index[:, 0], axis)
    total *= weights[:, 0].reshape(shape)
    for tap in range(1, index.shape[1]):
        part = np.take(array, index[:, tap], axis)
        part *= weights[:, tap].reshape(shape)
        total += part
    return total


def _slabs(box: Sequence[slice], channels: int) -> Iterator[Box]:
    """The box in pieces along its first axis, each of about SLAB_VALUES."""
    first, *rest = box
    row = channels * int(np.prod([part.stop - part.start for part in rest], dtype=np.int64))
    step = max(1, SLAB_VALUES // max(1, row))
    for start in range(first.start, first.stop, step):
        yield (slice(start, min(first.stop, start + step)), *rest)


def _extent(mask: np.ndarray) -> Box | None:
    """The smallest box that holds all that is True; None where nothing is."""
    box = []
    for axis in range(mask.ndim):
        used = np.flatnonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
        if not len(used):
            return None
        box.append(slice(int(used[0]), int(used[-1]) + 1))
    return tuple(box)


def _reached(box: Box | None, axes: Sequence[_Taps]) -> Box | None:
    """The box of new voxels that are partly made of old ones in ``box``."""
    if box is None:
        return None
    found = []
    for part, (index, weights) in zip(box, axes, strict=True):
        touched = np.flatnonzero(((index >= part.start) & (index < part.stop) & (weights > 0)).any(1))
        if not len(touched):
            return None
        found.append(slice(int(touched[0]), int(touched[-1]) + 1))
    return tuple(found)


def _majority(plane: np.ndarray, axes: Sequence[_Taps], box: Box, reached: Sequence[tuple[int, Box]]) -> np.ndarray:
    """uint8 numbers in one box of the new grid; ``reached`` are the numbers that occur, and how far each reaches."""
    best = np.zeros([part.stop - part.start for part in box], np.float32)
    background = np.ones_like(best)
    low, high = np.zeros((2, *best.shape), np.uint8)  # the lowest and the highest number of those that fill most
    for number, own in reached:
        own = tuple(slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(own, box, strict=True))
        if any(part.start >= part.stop for part in own):
            continue
        share = _resampled(plane[None], axes, own, lambda values, number=number: (values == number).astype(np.float32))[
            0
        ]
        here = tuple(slice(a.start - b.start, a.stop - b.start) for a, b in zip(own, box, strict=True))
        background[here] -= share
        low[here][share > best[here] + TIE] = number
        high[here][share > best[here] - TIE] = number
        np.maximum(best[here], share, out=best[here])
    low[best < background + TIE] = 0
    high[best < background - TIE] = 0
    tied = np.nonzero(low != high)
    if len(tied[0]):
        new = [index + part.start for index, part in zip(tied, box, strict=True)]
        low[tied] = _untied(plane, [len(index) for index, _ in axes], new, low[tied], high[tied])
    return low


def _untied(
    plane: np.ndarray, size: Sequence[int], new: Sequence[np.ndarray], low: np.ndarray, high: np.ndarray
) -> np.ndarray:
    """Of two numbers that fill a voxel equally, the one it goes to, (voxels,).

    new: for each axis, the indices (voxels,) in the new grid of ``size``. low, high: the two, (voxels,).

    The old voxels nearest to its centre decide, two along an axis where it lies midway. Where they are equal too, the
    two take turns with the distance from the middle of the volume, along the axes on which these voxels differ: so a
    flat face stays flat. None of this knows the direction of an axis, or is for one of the two.
    """
    corners = np.empty(((2,) * plane.ndim) + low.shape, plane.dtype)
    centre = [(at + 0.5) * old / n - 0.5 for at, old, n in zip(new, plane.shape, size, strict=True)]
    nearest = [(np.ceil(at - 0.5 - 1e-6).astype(int), np.floor(at + 0.5 + 1e-6).astype(int)) for at in centre]
    for corner in product((0, 1), repeat=plane.ndim):
        corners[corner] = plane[tuple(pair[side] for pair, side in zip(nearest, corner, strict=True))]
    others = tuple(range(plane.ndim - 1))
    votes = (corners == high).sum((*others, plane.ndim - 1)) - (corners == low).sum((*others, plane.ndim - 1))
    turns = np.zeros(low.shape, int)
    for axis, (at, n) in enumerate(zip(new, size, strict=True)):
        differs = (corners.take(0, axis) != corners.take(1, axis)).any(others)
        turns += differs * (np.abs(2 * at + 1 - n) // 2)
    return np.where((votes > 0) | ((votes == 0) & (turns % 2 == 1)), high, low)


def _decide(probabilities: np.ndarray, overlapping: bool, of: int = 1) -> np.ndarray:
    """Of the sum of the probabilities of ``of`` networks."""
    return probabilities > 0.5 * of if overlapping else probabilities.argmax(0)[None]


def _decided(probabilities: np.ndarray, overlapping: bool) -> Box | None:
    """The box of all voxels that are not background."""
    found = []
    for slab in _slabs([slice(0, n) for n in probabilities.shape[1:]], len(probabilities)):
        part = np.asarray(probabilities[(slice(None), *slab)], np.float32)
        box = _extent(_decide(part, overlapping).any(0))
        if box is not None:
            first = slice(box[0].start + slab[0].start, box[0].stop + slab[0].start)
            found.append((first, *box[1:]))
    return _united(found)


def _united(boxes: Iterable[Box | None]) -> Box | None:
    """The smallest box that holds all of them; None where there is none."""
    found = [box for box in boxes if box is not None]
    if not found:
        return None
    return tuple(slice(min(b[a].start for b in found), max(b[a].stop for b in found)) for a in range(len(found[0])))
