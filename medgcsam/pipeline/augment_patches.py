"""Random augmentation of patches for segmentation: image and label in one resampling, then intensity.

A patch that is turned, scaled or shifted is read from a region of its volume that is just large enough, so that nothing
is invented at the patch's border where the volume goes on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from medgcsam.pipeline.affine import sample
from medgcsam.pipeline.augment import Intensity

COARSE = 3.0  # times the finest spacing: from here on a volume is turned about its coarse axis only
_FLIPS = {2: ("flip_vertical", "flip_horizontal"), 3: ("flip_horizontal", "flip_vertical", "flip_depth")}
_ROUNDING = 1e-4  # voxels


@dataclass(frozen=True)
class Regions:
    """What of their volumes the patches of a batch are made from.

    low: int64 (n, d), the first voxel of each region, outside of the volume where negative.
    size: voxels of each region along the d axes, the same for all.
    matrix: float32 (n, d, d + 1), from the voxels of a patch to those of its region; None where regions are patches.
    flips: bool (n, d), the axes to mirror where there is no matrix; None for none.
    """

    low: torch.Tensor
    size: tuple[int, ...]
    matrix: torch.Tensor | None = None
    flips: torch.Tensor | None = None

    def pinned(self) -> Regions:
        """The same in memory that a GPU copies from without waiting."""
        parts = {"matrix": self.matrix, "flips": self.flips}
        return replace(self, **{name: part.pin_memory() for name, part in parts.items() if part is not None})


def plain(starts: torch.Tensor, patch: Sequence[int]) -> Regions:
    """The patches themselves; ``starts`` int64 (n, d), the first voxel of each."""
    return Regions(starts, tuple(patch))


class AugmentPatches(Intensity):
    """Draw new parameters for every patch of a batch; the same draws on a CPU and on a GPU.

    ``config`` gives the extent of each change as for ``augment.Augment``, whose intensity changes are used. Of space:

    - flip_horizontal, flip_vertical, flip_depth (bool): mirrored with probability 1/2; of a picture (row, column) the
      columns and rows, of a volume (i, j, k) the axes i, j and k
    - rotate_degrees: angles uniform in [-r, r] about the centre of the patch, of volumes about all three axes in turn;
      about the coarsest alone where its spacing is at least 3 times the finest
    - scale: zoom exp(u), the same along all axes, u uniform in [-log(1 + s), log(1 + s)]
    - shift: displacement along each axis uniform in [-s, s] times the patch's length along it

    patch: voxels along each axis. spacing: mm along each axis, so that a rotation is one of the body; None for equal.
    Values are interpolated linearly. A voxel gets the structure of which the interpolated share is the largest, or each
    one of overlapping structures of which it is more than half. What leaves the volume is as it is filled there.
    """

    def __init__(self, config: Any, *, patch: Sequence[int], spacing: Sequence[float] | None = None):
        super().__init__(config)
        self.patch = tuple(int(n) for n in patch)
        d = len(self.patch)
        if d not in _FLIPS or (spacing is not None and len(spacing) != d):
            raise ValueError(f"patch and spacing must have 2 or 3 axes, not {patch} and {spacing}")
        self.spacing = torch.tensor([1.0] * d if spacing is None else list(spacing), dtype=torch.float64)
        self._flips = [bool(getattr(config, name, False)) for name in _FLIPS[d]]
        enabled = bool(config.enabled)
        self.moves = enabled and self._spatial
        self.flips = enabled and any(self._flips)
        self.active = enabled and (self.moves or self.flips or self._coloured)

    def place(self, starts: torch.Tensor, generator: torch.Generator) -> Regions:
        """Draw where the patches are read. ``starts``: int64 (n, d), their first voxels before the augmentation."""
        flips = self._draw_flips(len(starts), generator)
        if not self.moves:
            return replace(plain(starts, self.patch), flips=flips)
        matrix, shift = self._draw_affine(len(starts), generator)
        if flips is not None:
            mirror = 1.0 - 2.0 * flips.double()
            matrix, shift = mirror[:, :, None] * matrix, mirror * shift
        half = (torch.tensor(self.patch, dtype=torch.float64) - 1) / 2
        centre = starts + half + shift
        reach = matrix.abs() @ half + _ROUNDING
        low = (centre - reach).floor().long()
        size = tuple(((centre + reach).floor().long() + 2 - low).amax(dim=0).tolist())
        offset = centre - low - matrix @ half
        return Regions(low, size, torch.cat([matrix, offset[:, :, None]], dim=2).float())

    def move(
        self,
        images: torch.Tensor,
        labels: torch.Tensor,
        regions: Regions,
        *,
        present: Sequence[Sequence[int]],
        overlapping: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Patches of regions, on their device: images (n, c, *patch), labels uint8 (n, 1 or S, *patch).

        images: float16 or float32 (n, c, *size); float32 where they are resampled. labels: uint8 (n, 1 or S, *size).
        present: for each patch the structures, numbered from 1, that occur in its label; others cost no time.
        """
        device, n = images.device, len(images)
        if regions.matrix is None:
            if regions.flips is None:
                return images, labels
            flips = regions.flips.to(device, non_blocking=True)
            return _flip(images, flips), _flip(labels, flips)
        matrix = regions.matrix.to(device, non_blocking=True)
        moved = torch.empty(n, images.shape[1], *self.patch, device=device)
        marked = torch.zeros(n, labels.shape[1], *self.patch, dtype=torch.uint8, device=device)
        step = 1 if device.type == "cpu" else n  # one after the other they stay in a CPU's cache
        for first in range(0, n, step):
            part = slice(first, first + step)
            occurring = sorted(set().union(*present[part]))
            self._move(images[part], labels[part], matrix[part], occurring, overlapping, moved[part], marked[part])
        return moved, marked

    def _move(
        self,
        images: torch.Tensor,
        labels: torch.Tensor,
        matrix: torch.Tensor,
        present: Sequence[int],
        overlapping: bool,
        moved: torch.Tensor,
        marked: torch.Tensor,
    ) -> None:
        """Fill ``moved`` and ``marked`` with images and labels of regions, by one resampling of both."""
        channels = images.shape[1]
        together = images.new_empty(len(images), channels + len(present), *images.shape[2:], dtype=torch.float32)
        together[:, :channels] = images
        for number, structure in enumerate(present, start=channels):
            together[:, number] = labels[:, structure - 1] if overlapping else labels[:, 0] == structure
        values = sample(together, matrix, self.patch)
        moved.copy_(values[:, :channels])
        _decide(values[:, channels:], present, overlapping, marked)

    def _draw_flips(self, n: int, generator: torch.Generator) -> torch.Tensor | None:
        if not self.flips:
            return None
        drawn = torch.rand(n, len(self.patch), generator=generator) < 0.5
        return drawn & torch.tensor(self._flips)

    def _draw_affine(self, n: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """(n, d, d) from offsets in the patch to offsets in the volume, and the shift (n, d); both in voxels."""
        d = len(self.patch)
        extent = self._extent
        angles = self._symmetric((n, 2 * d - 3), math.radians(extent["rotate_degrees"]), generator).double()
        zoom = torch.exp(self._symmetric(n, math.log1p(extent["scale"]), generator).double())
        shift = self._symmetric((n, d), extent["shift"], generator).double() * torch.tensor(self.patch)
        matrix = torch.eye(d, dtype=torch.float64).expand(n, d, d)
        for number, (a, b) in enumerate(self._planes()):
            matrix = matrix @ _rotation(angles[:, number], a, b, d)
        return matrix * self.spacing / self.spacing[:, None] / zoom[:, None, None], shift

    def _planes(self) -> list[tuple[int, int]]:
        """The planes that are turned, each by its two axes."""
        if len(self.patch) == 2:
            return [(0, 1)]
        planes = [(1, 2), (0, 2), (0, 1)]  # about i, j and k
        coarse = int(self.spacing.argmax())
        return [planes[coarse]] if self.spacing[coarse] >= COARSE * self.spacing.min() else planes


def _rotation(angle: torch.Tensor, a: int, b: int, d: int) -> torch.Tensor:
    """(n, d, d): reading along it turns the picture of axes a and b from b towards a, as ``numpy.rot90(axes=(a, b))``
    does at 90 degrees."""
    matrix = torch.eye(d, dtype=torch.float64).repeat(len(angle), 1, 1)
    matrix[:, a, a] = matrix[:, b, b] = torch.cos(angle)
    matrix[:, a, b] = torch.sin(angle)
    matrix[:, b, a] = -torch.sin(angle)
    return matrix


def _flip(batch: torch.Tensor, flips: torch.Tensor) -> torch.Tensor:
    for axis in range(flips.shape[1]):
        chosen = flips[:, axis].reshape(-1, *[1] * (batch.ndim - 1))
        batch = torch.where(chosen, batch.flip(2 + axis), batch)
    return batch


def _decide(shares: torch.Tensor, present: Sequence[int], overlapping: bool, labels: torch.Tensor) -> None:
    """Write into ``labels``, 0 throughout, uint8 (n, 1 or S, *patch), the structures that the interpolated shares
    (n, len(present), *patch) speak for."""
    if overlapping:
        for number, structure in enumerate(present):
            labels[:, structure - 1] = shares[:, number] > 0.5
    elif len(present) == 1:
        labels[:, 0] = shares[:, 0] > 0.5
        if present[0] != 1:
            labels.mul_(present[0])
    elif present:
        best, which = shares.max(dim=1)
        taken = best > 1 - shares.sum(dim=1)
        for number, structure in enumerate(present):
            labels[:, 0].masked_fill_(taken & (which == number), structure)
