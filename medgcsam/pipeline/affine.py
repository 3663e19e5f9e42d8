"""Linear interpolation of pictures and volumes at affine positions, on a CPU and on a GPU."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch.nn.functional import grid_sample

_SLABS = 8  # parts of one output that threads share


def sample(images: torch.Tensor, matrix: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """Values of float32 ``images`` (n, c, *region) at ``matrix`` times the voxels of ``shape``: (n, c, *shape).

    matrix: (n, d, d + 1) on the device of the images; voxel o of the result is read at matrix[:, :d] o + matrix[:, d],
    in voxels of the region, axes in array order. Bilinear or trilinear; positions outside take the border's value.
    Positions are right to a few thousandths of a voxel.
    """
    region = images.shape[2:]
    if images.device.type != "cpu" or min(region) < 2:
        matrix = _normalised(matrix, region)
        places = [_positions(matrix, axis, shape) for axis in reversed(range(len(shape)))]
        return _grid_sample(images, torch.stack(places, dim=-1))
    one = _picture if len(shape) == 2 else _volume
    result = images.new_empty(*images.shape[:2], *shape)
    for image, each, out in zip(images, matrix, result, strict=True):
        one(image, each[None], out)
    return result


def _normalised(matrix: torch.Tensor, region: Sequence[int]) -> torch.Tensor:
    """From voxels of the region to -1..1 from its first edge to its last, as ``grid_sample`` has it."""
    lengths = [float(n) for n in region]
    rows = [matrix[:, axis] * (2 / n) for axis, n in enumerate(lengths)]
    for row, n in zip(rows, lengths, strict=True):
        row[:, -1] += 1 / n - 1
    return torch.stack(rows, dim=1)


def _positions(matrix: torch.Tensor, axis: int, shape: Sequence[int], out: torch.Tensor | None = None) -> torch.Tensor:
    """Where along one axis of the region the voxels of ``shape`` are read: (n, *shape)."""
    total = matrix[:, axis, -1]
    for other in reversed(range(len(shape))):  # the small sums first, so that only the last one is over all voxels
        steps = torch.arange(shape[other], dtype=matrix.dtype, device=matrix.device)
        along = matrix[:, axis, other, None] * steps
        along = along.reshape(*along.shape, *[1] * (total.ndim - 1))
        total = torch.add(along, total[:, None], out=out if other == 0 else None)
    return total


def _grid_sample(images: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    return grid_sample(images, grid, padding_mode="border", align_corners=False)


def _picture(image: torch.Tensor, matrix: torch.Tensor, out: torch.Tensor) -> None:
    """Fill ``out`` (c, rows, columns) from one picture, on a CPU."""
    shape = out.shape[1:]
    matrix = _normalised(matrix, image.shape[1:])
    grid = image.new_empty(1, *shape, 2)
    for axis in (0, 1):
        _positions(matrix, axis, shape, out=grid[..., 1 - axis])
    _unslab(_by_slabs(image, grid), out)


def _volume(image: torch.Tensor, matrix: torch.Tensor, out: torch.Tensor) -> None:
    """Fill ``out`` (c, *shape) from one volume (c, planes, rows, columns), on a CPU.

    torch's kernel for pictures is vectorised there, that for volumes is not. The planes, one below the other, are a
    tall picture. It is read in the plane before each position and in the one behind it, which is the same place of the
    same picture begun one plane later.
    """
    shape, (planes, rows, columns) = out.shape[1:], image.shape[1:]
    last = (planes - 1) * rows  # rows of the tall picture without its last plane
    grid = image.new_empty(1, *shape, 2)
    depth = _positions(matrix, 0, shape)
    before = depth.floor().clamp_(0, planes - 2)
    _positions(_normalised(matrix, (planes, rows, columns)), 2, shape, out=grid[..., 0])
    row = _positions(_normalised(matrix, (planes, last, columns)), 1, shape)
    row.clamp_(1 / last - 1, (2 * rows - 1) / last - 1)
    torch.add(row, before, alpha=2 * rows / last, out=grid[..., 1])
    tall = image.reshape(len(image), planes * rows, columns)
    near, far = _by_slabs(tall[:, :last], grid), _by_slabs(tall[:, rows:], grid)
    weight = depth.sub_(before).clamp_(0, 1).view(len(near), 1, -1, shape[-1])
    _unslab(torch.lerp(near, far, weight, out=near), out)


def _by_slabs(picture: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    """Values of a picture (c, rows, columns) at a grid (1, *shape, 2): (slabs, c, rows of a slab, width)."""
    width = grid.shape[-2]
    slabs = math.gcd(grid.numel() // (2 * width), _SLABS)
    return _grid_sample(picture[None].expand(slabs, -1, -1, -1), grid.view(slabs, -1, width, 2))


def _unslab(values: torch.Tensor, out: torch.Tensor) -> None:
    out.view(len(out), len(values), -1, out.shape[-1]).copy_(values.transpose(0, 1))
