"""A mask is brought onto the grid of an image, by the affines of both.

- Where each voxel of the mask is a voxel of the image (the same grid, a part of it, flipped or with other axes first),
  voxels are copied.
- Otherwise a voxel of the image holds the share of its volume that the mask fills, exactly where the axes of both are
  parallel, else measured by samples inside the voxel, an odd number along each axis so that none is half filled; along
  axes where the mask's voxels are as large as the image's or larger, by the nearest voxel.
- A voxel that is exactly half filled goes by the voxel of the mask nearest to its centre: a structure neither grows nor
  shrinks by such ties.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
from scipy.ndimage import maximum_filter, minimum_filter

from medgcsam.imaging.image import Image

SAME_VOXEL = 0.05
"""Two grids are one where no corner is further than this from the centre of a voxel, in voxels."""
MAX_SAMPLES = 9
"""Samples along each axis of a voxel, where the grids lie obliquely."""
TIE = 1e-5
"""A share this near to one half is one half."""
EDGE = 1e-6
"""Positions this near to a boundary, in voxels, count as on it, so that rounding errors do not decide."""

Box = tuple[slice, slice, slice]


@dataclass(frozen=True, eq=False)
class Grid:
    """Three axes in space: (i, j, k) of a volume, (row, column, 0) of a picture.

    affine: 4x4, index to RAS+ in mm, or None where it is not known.
    """

    shape: tuple[int, int, int]
    affine: np.ndarray | None


@dataclass(frozen=True, eq=False)
class Placed:
    """One structure on a grid.

    box: the part of the grid that holds it, slices with steps of 1.
    share: how much of each voxel in the box it fills, bool or float32 in 0..1.
    outside: the share of its volume outside the grid. On a grid of one slice, what lies above and below is no part of
        the question: only the plane counts.
    empty: whether it has no voxel at all, wherever.
    facts: for ``Image.source``.
    """

    box: Box
    share: np.ndarray
    outside: float = 0.0
    empty: bool = False
    facts: Mapping[str, Any] = field(default_factory=dict)


def nothing(*, outside: float = 0.0, empty: bool = False) -> Placed:
    """A structure without a voxel on the grid."""
    return Placed((slice(0, 0),) * 3, np.zeros((0, 0, 0), bool), outside, empty)


def grid_of(image: Image) -> Grid:
    """The grid of an image; a picture has one slice."""
    shape = image.spatial_shape if len(image.spatial_shape) == 3 else (*image.spatial_shape, 1)
    return Grid(shape, image.affine)


def place(mask: np.ndarray, to_grid: np.ndarray, grid: Grid) -> Placed:
    """The mask on the grid.

    mask: three axes, bool, or float32 shares in 0..1. to_grid: 4x4, index of the mask to index of the grid.
    """
    box = _extent(mask)
    if box is None:
        return nothing(empty=True)
    part = mask[box]
    to_grid = to_grid @ _shift([axis.start for axis in box])
    whole = _whole_voxels(to_grid, part.shape)
    return _copied(part, whole, grid) if whole is not None else _measured(part, to_grid, grid)


def index_map(affine: np.ndarray | None, grid: Grid) -> np.ndarray:
    """4x4, index of a mask with this affine to index of the grid; the identity where one of the two is not known."""
    if affine is None or grid.affine is None:
        return np.eye(4)
    return np.linalg.inv(grid.affine) @ affine


def same_grid(to_grid: np.ndarray, shape: tuple[int, ...], grid: Grid) -> bool:
    """Whether every voxel of a mask of this shape is the voxel of the grid with the same index."""
    return tuple(shape) == grid.shape and _off(to_grid, np.eye(4), shape) <= SAME_VOXEL


def _shift(offset: list[int]) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, 3] = offset
    return matrix


def _extent(mask: np.ndarray) -> Box | None:
    """The smallest box that holds all that is not zero."""
    slices = []
    for axis in range(3):
        used = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
        if not len(used):
            return None
        slices.append(slice(int(used[0]), int(used[-1]) + 1))
    return tuple(slices)


def corners(shape: tuple[int, ...], margin: float = 0.0) -> np.ndarray:
    """(8, 4) homogeneous indices of the centres of the corner voxels, moved outwards by ``margin`` voxels."""
    ends = [(-margin, n - 1 + margin) for n in shape]
    return np.array([[*corner, 1.0] for corner in product(*ends)])


def _off(a: np.ndarray, b: np.ndarray, shape: tuple[int, ...]) -> float:
    """Largest distance between the images of a corner under two index maps, in voxels of the grid."""
    return float(np.abs((corners(shape) @ (a - b).T)[:, :3]).max())


def _whole_voxels(to_grid: np.ndarray, shape: tuple[int, ...]) -> np.ndarray | None:
    """The map in whole numbers, where it takes voxels to voxels."""
    whole = np.rint(to_grid)
    turn = np.abs(whole[:3, :3])
    if (turn.sum(0) != 1).any() or (turn.sum(1) != 1).any() or _off(to_grid, whole, shape) > SAME_VOXEL:
        return None
    return whole


def _copied(part: np.ndarray, whole: np.ndarray, grid: Grid) -> Placed:
    """Voxels to voxels: axes exchanged, flipped and cut at the edges of the grid."""
    order = np.abs(whole[:3, :3]).argmax(1)
    arranged = part.transpose(order)
    box, kept = [], []
    for axis in range(3):
        size, start = arranged.shape[axis], int(whole[axis, 3])
        if whole[axis, order[axis]] < 0:
            arranged, start = np.flip(arranged, axis), start - size + 1
        low, high = max(0, start), min(grid.shape[axis], start + size)
        box.append(slice(low, max(low, high)))
        kept.append(slice(low - start, max(low, high) - start))
    counted = arranged[:, :, kept[2]] if grid.shape[2] == 1 else arranged
    inside = arranged[tuple(kept)]
    total = float(counted.sum(dtype=float))
    outside = 1 - float(inside.sum(dtype=float)) / total if total else 0.0
    return Placed(tuple(box), inside, outside) if inside.size else nothing(outside=outside)


def _measured(part: np.ndarray, to_grid: np.ndarray, grid: Grid) -> Placed:
    """The share of each voxel that is filled, where the voxels of mask and grid differ."""
    reach = (corners(part.shape, 0.5) @ to_grid.T)[:, :3]
    low = np.maximum(0, np.floor(reach.min(0))).astype(int)
    high = np.minimum(grid.shape, np.ceil(reach.max(0)).astype(int) + 1)
    outside = _outside(part, to_grid, grid)
    if (high <= low).any():
        return nothing(outside=outside)
    back = np.linalg.inv(to_grid) @ _shift(low.tolist())
    samples = [_odd(np.abs(back[:3, axis]).max()) for axis in range(3)]
    size = tuple((high - low).tolist())
    share = _along_axes(part, back, size, samples)
    if share is None:
        share = _anyhow(part, back, size, samples)
    if part.dtype == bool and max(samples) == 1:
        share = share > 0.5
    else:
        tied = np.argwhere(np.abs(share - 0.5) <= TIE)
        share[tuple(tied.T)] = np.where(_at_centres(part, back, tied), 0.5, 0.5 - 2 * TIE)
    return Placed(tuple(slice(a, b) for a, b in zip(low.tolist(), high.tolist(), strict=True)), share, outside)


def _offsets(count: int) -> np.ndarray:
    """Where the samples of a voxel lie along one axis, from its centre, in voxels."""
    return (np.arange(count) + 0.5) / count - 0.5


def _odd(finer: float) -> int:
    """Samples along an axis on which the mask has so many voxels to one of the grid."""
    wanted = min(MAX_SAMPLES, max(1, math.ceil(finer - 0.1)))
    return wanted + 1 - wanted % 2


def _at_centres(part: np.ndarray, back: np.ndarray, voxels: np.ndarray) -> np.ndarray:
    """Whether the mask has half or more at the centres of voxels (n, 3) of the grid; False beside it."""
    index = _nearest(voxels @ back[:3, :3].T + back[:3, 3])
    valid = ((index >= 0) & (index < part.shape)).all(1)
    found = np.zeros(len(voxels), bool)
    found[valid] = part[tuple(index[valid].T)] >= 0.5
    return found


def _overlaps(start: float, step: float, size: int, count: int) -> np.ndarray:
    """(size, count) float32: the share of each of ``size`` intervals that lies within each of ``count`` mask voxels.

    start, step: the centre of the first interval, and from one to the next, in mask voxels.
    """
    centre = start + step * np.arange(size)[:, None]
    low, high = centre - abs(step) / 2, centre + abs(step) / 2
    edge = np.arange(count) - 0.5
    return (np.clip(np.minimum(high, edge + 1) - np.maximum(low, edge), 0, None) / abs(step)).astype(np.float32)


def _nearest(position: np.ndarray) -> np.ndarray:
    return np.floor(position + (0.5 - EDGE)).astype(np.int64)


def _along_axes(part: np.ndarray, back: np.ndarray, size: tuple[int, ...], samples: list[int]) -> np.ndarray | None:
    """Shares on a grid whose axes are those of the mask, one axis after the other; None where they are not."""
    order = np.abs(back[:3, :3] * np.array(size)).argmax(0)
    if sorted(order) != [0, 1, 2]:
        return None
    straight = np.zeros((4, 4))
    straight[order, [0, 1, 2]] = back[order, [0, 1, 2]]
    straight[:, 3] = back[:, 3]
    if _off(straight, back, [n + 1 for n in size]) > SAME_VOXEL:
        return None
    result = part.transpose(order)
    for axis in range(3):
        step, start = back[order[axis], axis], back[order[axis], 3]
        if samples[axis] > 1:
            weights = _overlaps(start, step, size[axis], result.shape[axis])
            result = np.moveaxis(np.tensordot(weights, result.astype(np.float32), (1, axis)), 0, axis)
            continue
        index = _nearest(step * np.arange(size[axis]) + start)
        valid = (index >= 0) & (index < result.shape[axis])
        shape = [1, 1, 1]
        shape[axis] = valid.size
        result = np.take(result, np.where(valid, index, 0), axis) * valid.reshape(shape)
    return result


def _anyhow(part: np.ndarray, back: np.ndarray, size: tuple[int, ...], samples: list[int]) -> np.ndarray:
    """Shares on a grid that lies obliquely to the mask, slice by slice; samples are taken at the surface only."""
    share = np.empty(size, np.float32)
    plane = np.stack(np.meshgrid(np.arange(size[0]), np.arange(size[1]), indexing="ij"), -1).reshape(-1, 2)
    offsets = list(product(*[_offsets(count) for count in samples]))
    reach = np.ceil(np.abs(back[:3, :3]).sum(1) / 2 + 0.5).astype(int)  # from the centre of a voxel to its end
    around = {"size": tuple(2 * reach + 1), "mode": "constant"}
    values = part.view(np.uint8) if part.dtype == bool else part
    mixed = maximum_filter(values, **around) != minimum_filter(values, **around)
    for k in range(size[2]):
        start = plane @ back[:3, :2].T + back[:3, 2] * k + back[:3, 3]
        centre = _nearest(start)
        near = np.flatnonzero(((centre >= -reach) & (centre < part.shape + reach)).all(1))
        centre, total = centre[near], np.zeros(len(plane), np.float32)
        inside = ((centre >= 0) & (centre < part.shape)).all(1)
        at = tuple(np.clip(centre, 0, np.array(part.shape) - 1).T)
        total[near] = np.where(inside, part[at], 0)
        unsure = near[mixed[at] | ~inside]
        total[unsure] = _mean_of_samples(part, start[unsure], back, offsets)
        share[:, :, k] = total.reshape(size[:2])
    return share


def _mean_of_samples(part: np.ndarray, start: np.ndarray, back: np.ndarray, offsets: list) -> np.ndarray:
    """(n,) float32 for voxels whose centres lie at ``start`` (n, 3) in the mask."""
    total = np.zeros(len(start), np.float32)
    for offset in offsets:
        index = _nearest(start + back[:3, :3] @ offset)
        valid = ((index >= 0) & (index < part.shape)).all(1)
        total[valid] += part[tuple(index[valid].T)]
    return total / len(offsets)


def _outside(part: np.ndarray, to_grid: np.ndarray, grid: Grid) -> float:
    """Share of the mask's volume whose voxels have their centres outside the grid."""
    limits = np.array(grid.shape) - 0.5
    reach = (corners(part.shape) @ to_grid.T)[:, :3]
    one_slice = grid.shape[2] == 1
    if (reach[:, :2] >= -0.5).all() and (reach[:, :2] <= limits[:2]).all() and (
        one_slice or ((reach[:, 2] >= -0.5).all() and (reach[:, 2] <= limits[2]).all())
    ):  # fmt: skip
        return 0.0
    total = inside = 0.0
    for index, weights in _filled(part):
        position = index @ to_grid[:3, :3].T + to_grid[:3, 3]
        if one_slice:
            near = np.abs(position[:, 2]) <= 0.5
            position, weights = position[near], weights[near]
        within = ((position >= -0.5 - EDGE) & (position <= limits + EDGE)).all(1)
        total += float(weights.sum(dtype=float))
        inside += float(weights[within].sum(dtype=float))
    return 1 - inside / total if total else 0.0


def _filled(part: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Index and value of the voxels that are not zero, one plane of the last axis at a time."""
    for k in range(part.shape[2]):
        flat = np.argwhere(part[:, :, k])
        index = np.column_stack([flat, np.full(len(flat), k)])
        yield index, part[:, :, k][tuple(flat.T)]
