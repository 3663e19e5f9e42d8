"""Patches of memory-mapped pictures and volumes with their labels: where they lie, read ahead, augmented on the device.

Positions, order and augmentation depend on (seed, epoch) alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from medgcsam.errors import MachineError
from medgcsam.pipeline.augment_patches import AugmentPatches, Regions, plain
from medgcsam.pipeline.batches import UNIT_RANGE, Batch, bounds, generator_of, read_ahead, standardize

_CHUNK = 1 << 20  # values whose minimum is taken at once


@dataclass(frozen=True)
class Read:
    """Regions of a batch as they were read: images float16 (n, c, *size), labels uint8 (n, 1 or S, *size)."""

    images: torch.Tensor
    labels: torch.Tensor
    regions: Regions
    present: list[tuple[int, ...]]
    rows: torch.Tensor


class PatchBatches:
    """Patches of the chosen rows of a ``VolumeStore``, as batches ready for the network.

    ``patch``: voxels along each axis. ``per_image``: patches of each row in an epoch, so that an epoch has
    ``len(rows) * per_image`` of them, in an order drawn anew; a last batch of a single patch joins the one before it.
    ``foreground``: the share of each batch (to within one patch) that is placed so that a random voxel of a random
    structure of its volume lies in the middle half of the patch, or nearer to the border where the volume ends; in a
    volume without structures such a patch is placed like the others: uniformly, inside the volume.
    ``structures``: their names; ``overlapping``: whether a voxel can have several.
    ``augment``: an ``AugmentPatches`` of the same patch, or None for plain crops.
    ``shuffle=False``: the same patches in every epoch, in the order of the rows.
    ``memory``: "map" and "auto" read the memory map, whose parts the operating system keeps in RAM as long as there is
    room; "memory" copies the rows into RAM first, which helps where the cache lies on a slow network drive.

    A volume that is smaller than the patch, or ends within it, continues with its smallest value (of the channel) and
    without structures.
    """

    def __init__(
        self,
        store: Any,
        rows: Sequence[int] | np.ndarray,
        *,
        patch: Sequence[int],
        batch_size: int,
        per_image: int,
        structures: Sequence[str],
        overlapping: bool = False,
        foreground: float = 0.5,
        device: torch.device | str = "cpu",
        seed: int = 0,
        augment: AugmentPatches | None = None,
        shuffle: bool = True,
        memory: str = "auto",
    ):
        self.store, self.device, self.seed = store, torch.device(device), int(seed)
        self.rows = torch.as_tensor(np.asarray(rows, dtype=np.int64))
        if len(self.rows) and not 0 <= int(self.rows.min()) <= int(self.rows.max()) < len(store):
            raise ValueError(f"rows must lie in 0..{len(store) - 1}")
        if batch_size < 1 or per_image < 1:
            raise ValueError("batch_size and per_image must be at least 1")
        if not 0 <= foreground <= 1:
            raise ValueError(f"foreground must lie in 0..1, not {foreground}")
        if memory not in ("auto", "memory", "map"):
            raise ValueError(f"memory must be auto, memory or map, not {memory!r}")
        self.patch = tuple(int(n) for n in patch)
        if augment is not None and augment.patch != self.patch:
            raise ValueError(f"augment is for patches of {augment.patch}, not {self.patch}")
        self.batch_size, self.per_image, self.foreground = int(batch_size), int(per_image), float(foreground)
        self.structures, self.overlapping = tuple(structures), overlapping
        self.augment = augment if augment is not None and augment.active else None
        self.shuffle = shuffle
        self._lowest: dict[int, np.ndarray] = {}
        self._held = _hold(store, self.rows.tolist(), memory)

    def __len__(self) -> int:
        """Batches per epoch."""
        return len(self._bounds())

    def _bounds(self) -> list[tuple[int, int]]:
        return bounds(len(self.rows) * self.per_image, self.batch_size)

    @property
    def held(self) -> str:
        """Where the volumes are: "ram" or "map"."""
        return "map" if self._held is None else "ram"

    @torch.no_grad()
    def epoch(self, number: int) -> Iterator[Batch]:
        """Yield (images, targets, rows): images float32 (n, c, *patch) standardised; targets int64 (n, *patch), or
        float32 (n, S, *patch) of overlapping structures, both on the device; rows int64 on the CPU, the rows of the
        store."""
        number = number if self.shuffle else 0
        spatial, intensity = (generator_of(self.seed, number, name) for name in ("space", "intensity"))
        rows, draws, chosen = self._plan(number)

        def gather(bound: tuple[int, int]) -> Read:
            part = slice(*bound)
            return self._gather(rows[part], draws[part], chosen[part], spatial)

        source = read_ahead(gather, self._bounds())
        try:
            for read in source:
                yield self._finish(read, intensity)
        finally:
            source.close()

    def _plan(self, number: int) -> tuple[torch.Tensor, np.ndarray, np.ndarray]:
        """Of each patch of an epoch: its row, uniform numbers (2 + d) for its place, whether it is on a structure."""
        generator = generator_of(self.seed, number, "patches")
        count = len(self.rows) * self.per_image
        order = torch.randperm(count, generator=generator)
        if not self.shuffle:
            order = torch.arange(count)
        draws = torch.rand(count, 2 + len(self.patch), generator=generator, dtype=torch.float64).numpy()
        phase = torch.rand((), generator=generator, dtype=torch.float64).item()
        due = np.floor(np.arange(count + 1) * self.foreground + phase)
        return self.rows[order // self.per_image], draws, np.diff(due) > 0

    def _gather(self, rows: torch.Tensor, draws: np.ndarray, chosen: np.ndarray, generator: torch.Generator) -> Read:
        """Read a batch: choose the places, draw the spatial augmentation, copy the regions."""
        pairs = [self._pair(row) for row in rows.tolist()]
        starts = torch.from_numpy(
            np.stack(
                [
                    place(image.shape[1:], self.patch, draw, self.store.foreground(row) if on else ())
                    for row, (image, _), draw, on in zip(rows.tolist(), pairs, draws, chosen, strict=True)
                ]
            )
        )
        regions = plain(starts, self.patch) if self.augment is None else self.augment.place(starts, generator)
        count, pin = len(pairs), self.device.type == "cuda"  # only pinned memory is copied while the GPU computes
        heads = [array.shape[0] for array in pairs[0]]
        images = torch.empty(count, heads[0], *regions.size, dtype=torch.float16, pin_memory=pin)
        labels = torch.empty(count, heads[1], *regions.size, dtype=torch.uint8, pin_memory=pin)
        for index, (row, (image, label)) in enumerate(zip(rows.tolist(), pairs, strict=True)):
            low = regions.low[index].tolist()
            copy_region(image, low, images[index].numpy(), lambda row=row, image=image: self._smallest(row, image))
            copy_region(label, low, labels[index].numpy(), lambda: np.uint8(0))
        present = [] if regions.matrix is None else [self._present(label) for label in labels.numpy()]
        return Read(images, labels, regions.pinned() if pin else regions, present, rows)

    def _finish(self, read: Read, generator: torch.Generator) -> Batch:
        """The batch on the device: moved, recoloured, standardised."""
        images = read.images.to(self.device, non_blocking=True)
        labels = read.labels.to(self.device, non_blocking=True)
        intensity = self.store.intensity
        if self.augment is not None:
            images, labels = self.augment.move(
                images, labels, read.regions, present=read.present, overlapping=self.overlapping
            )
            images = self.augment.recolour(images.float(), generator, intensity in UNIT_RANGE)
        targets = labels.float() if self.overlapping else labels[:, 0].long()
        return standardize(images.float(), intensity), targets, read.rows

    def _pair(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        return (self.store.image(row), self.store.label(row)) if self._held is None else self._held[row]

    def _smallest(self, row: int, image: np.ndarray) -> np.ndarray:
        """The smallest value of each channel of a row's image, found once."""
        if row not in self._lowest:
            self._lowest[row] = smallest(image)
        return self._lowest[row]

    def _present(self, label: np.ndarray) -> tuple[int, ...]:
        """The structures that occur in a region's label (1 or S, *size)."""
        numbers = range(1, len(self.structures) + 1)
        if self.overlapping:
            return tuple(number for number in numbers if label[number - 1].any())
        return tuple(number for number in numbers if (label == number).any())


def place(
    shape: Sequence[int], patch: Sequence[int], draw: np.ndarray, foreground: Sequence[np.ndarray] = ()
) -> np.ndarray:
    """First voxel, int64 (d,), of a patch in a volume of ``shape``; negative where the patch is the larger of the two.

    draw: numbers uniform in [0, 1), the structure, its voxel and d for the place. foreground: for each structure its
    voxels, int (m, d); where none has any, the place is uniform among those that lie in the volume, or contain it.
    """
    shape, patch = np.asarray(shape, dtype=np.int64), np.asarray(patch, dtype=np.int64)
    first, last = np.minimum(0, shape - patch), np.maximum(0, shape - patch)
    found = [voxels for voxels in foreground if len(voxels)]
    if not found:
        return first + (draw[2:] * (last - first + 1)).astype(np.int64)
    voxels = found[int(draw[0] * len(found))]
    voxel = voxels[int(draw[1] * len(voxels))].astype(np.int64)
    within = (patch * (0.25 + 0.5 * draw[2:])).astype(np.int64)
    return np.clip(voxel - within, first, last)


def copy_region(volume: np.ndarray, low: Sequence[int], out: np.ndarray, fill: Any) -> None:
    """Copy the part of ``volume`` (c, *spatial) that begins at ``low`` into ``out`` (c, *size).

    What lies outside gets ``fill()``, one value or one per channel; it is only called where something does.
    """
    size, shape = out.shape[1:], volume.shape[1:]
    inside = [(max(0, a), max(0, min(n, a + m))) for a, m, n in zip(low, size, shape, strict=True)]
    if any(b - a < m for (a, b), m in zip(inside, size, strict=True)):
        out[:] = np.reshape(fill(), (-1, *[1] * len(size))).astype(out.dtype)  # else numpy converts voxel by voxel
    if all(b > a for a, b in inside):
        source = (slice(None), *(slice(a, b) for a, b in inside))
        target = (slice(None), *(slice(a - z, b - z) for (a, b), z in zip(inside, low, strict=True)))
        out[target] = volume[source]


def smallest(volume: np.ndarray) -> np.ndarray:
    """The smallest value of each channel of a float16 (c, *spatial), by parts, as numpy is slow on float16 itself."""
    flat = volume.reshape(len(volume), -1)
    parts = range(0, flat.shape[1], _CHUNK)
    return np.min([flat[:, at : at + _CHUNK].astype(np.float32).min(axis=1) for at in parts], axis=0)


def _hold(store: Any, rows: Sequence[int], memory: str) -> dict[int, tuple[np.ndarray, np.ndarray]] | None:
    """Copies of images and labels by row, or None to read the map."""
    if memory != "memory":
        return None
    rows = sorted(set(rows))
    try:
        return {row: (np.array(store.image(row)), np.array(store.label(row))) for row in rows}
    except MemoryError as error:
        size = sum(store.image(row).nbytes + store.label(row).nbytes for row in rows)
        raise MachineError(
            f"The {len(rows)} volumes take {size / 1e9:.1f} GB, more than there is: set pipeline.memory to map."
        ) from error
