"""The store of a segmentation: prepared images and labels of any shapes, memory-mapped.

A folder named by the hash of what made it, with three plain files of numbers, one image after another: images.bin
(float16), labels.bin (uint8) and foreground.bin (int32, where the structures are). volumes.json says where each begins.
The shapes are known from the survey, so the space is reserved before anything is decoded, and worker processes write
their images themselves.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from medgcsam.errors import DataError, MachineError
from medgcsam.intake.workers import in_order
from medgcsam.pipeline.fitting import explain_faults
from medgcsam.pipeline.grids import Grid, resampled_size
from medgcsam.pipeline.store import exclusive, machine_errors
from medgcsam.pipeline.survey import Progress, Surveyed, pair_digests, survey
from medgcsam.pipeline.volume_writer import Job, VolumeWriter, prepare_pair
from medgcsam.pipeline.volumes import prepare_volume

__all__ = ["VolumeStore", "build_volume_store", "open_volume_store", "prepare_volume", "store_fields"]

FORMAT = 3
"""Part of every key: raise it when preparation or the layout of the folder changes."""
_IMAGE_FIELDS = ("dimensions", "spacing", "channels", "intensity", "irregular", "pet", "orientation")


@dataclass(frozen=True, eq=False)
class VolumeStore:
    """Prepared images and labels, aligned with the sequence of references that built them.

    digests: table of n rows: ``source`` and ``masks`` (hashes of the files' bytes), ``pixels`` (of the decoded image).
    intensity: as in ``volumes.prepare_volume``. structures: how many. overlapping: whether labels have a channel each.
    shapes: int64 (n, axes), voxels per axis. foreground_counts: int64 (n, structures), length of each ``foreground``.
    """

    folder: Path
    digests: pd.DataFrame
    intensity: str
    channels: int
    structures: int
    overlapping: bool
    shapes: np.ndarray
    foreground_counts: np.ndarray
    grids: list[Grid] = field(repr=False)
    _images: np.memmap = field(repr=False)
    _labels: np.memmap = field(repr=False)
    _foreground: np.ndarray = field(repr=False)
    _starts: np.ndarray = field(repr=False)
    _foreground_starts: np.ndarray = field(repr=False)

    def __len__(self) -> int:
        return len(self.grids)

    @property
    def key(self) -> str:
        """Hash of format, configuration and ordered sources: the name of the folder."""
        return self.folder.name

    @property
    def images_sha256(self) -> str:
        """Hash of the ordered digests of images and masks: which ones, however they are prepared."""
        pairs = self.digests["source"] + " " + self.digests["masks"]
        return hashlib.sha256("\n".join(pairs).encode()).hexdigest()

    def image(self, row: int) -> np.memmap:
        """Read-only float16 (channels, *spatial)."""
        return self._view(self._images, row, self.channels)

    def label(self, row: int) -> np.memmap:
        """Read-only uint8: numbers (1, *spatial), or 0 and 1 (structures, *spatial) where they overlap."""
        return self._view(self._labels, row, self.structures if self.overlapping else 1)

    def foreground(self, row: int) -> tuple[np.ndarray, ...]:
        """For each structure int32 (m, axes): at most 2000 of its voxels, evenly spread."""
        start, axes, found = self._foreground_starts[row], self.shapes.shape[1], []
        for count in self.foreground_counts[row]:
            found.append(self._foreground[start : start + count * axes].reshape(count, axes))
            start += count * axes
        return tuple(found)

    def grid(self, row: int) -> Grid:
        """The way back to the grid of the file."""
        return self.grids[row]

    def _view(self, values: np.memmap, row: int, channels: int) -> np.memmap:
        start, count = channels * self._starts[row], channels * (self._starts[row + 1] - self._starts[row])
        return values[start : start + count].reshape(channels, *self.shapes[row])


def build_volume_store(
    images: Sequence[str],
    masks: Sequence[str],
    config: Any,
    *,
    structures: Mapping[str, int],
    cache: Path,
    workers: int = 0,
    progress: Progress | None = None,
) -> VolumeStore:
    """The store of these images and masks under a resolved configuration: opened where it exists, else built.

    images, masks: references as ``read_image`` and ``read_label`` take them, several masks of an image joined by ``|``.
    structures: ``names`` of ``read_label``, numbered from 1. workers: processes that help, 0 for none.
    An interrupted build goes on where it stopped; two processes that want the same store build it once.
    Raises DataError naming the images and masks that cannot be used, MachineError for a full disk, an unwritable cache
    or too little memory.
    """
    if not images:
        raise DataError("There are no images to prepare: the manifest lists none that are in use.")
    cache = Path(cache)
    reading = {"structures": structures, "cache": cache, "workers": workers}
    with machine_errors(cache):
        sources, parts = pair_digests(images, masks, cache=cache)
        folder = cache / "stores" / _key(config, structures, sources, parts)
        store = open_volume_store(folder)
        if store is None:
            with exclusive(folder) as partial:
                store = open_volume_store(folder)  # built by another process while this one waited
                if store is None:
                    surveyed = survey(images, masks, config, **reading)
                    _build(folder, partial, images, masks, config, surveyed, structures, workers, progress)
                    store = open_volume_store(folder)
        if store is None:
            raise MachineError(f"The store {folder} vanished while it was being opened: run the same command again.")
    if progress:
        progress(len(images), len(images))
    return store


def store_fields(config: Any) -> dict[str, Any]:
    """What of the configuration decides the voxels of a store, as plain JSON values."""
    image = config.image
    fields = {name: getattr(image, name) for name in _IMAGE_FIELDS}
    if image.intensity == "foreground":
        fields |= {name: getattr(image, name) for name in ("clip", "mean", "std")}
    if image.dimensions == 2 and image.spacing is None:
        fields["size"] = image.size
    return json.loads(json.dumps(fields | {"overlapping": bool(config.data.overlapping)}))


def _key(config: Any, structures: Mapping[str, int], sources: Sequence[str], parts: Sequence[str]) -> str:
    head = json.dumps(["volumes", FORMAT, store_fields(config), dict(structures)], sort_keys=True)
    return hashlib.sha256("\n".join([head, *sources, *parts]).encode()).hexdigest()


def open_volume_store(folder: Path) -> VolumeStore | None:
    """The finished store in ``folder``; None where there is none, or where a part of it is missing or cut short."""
    try:
        facts = json.loads((folder / "volumes.json").read_text(encoding="utf-8"))
        rows = facts["rows"]
        grids = [Grid(*(tuple(part) if part is not None else None for part in row["grid"])) for row in rows]
        shapes = np.array([grid.size for grid in grids], np.int64)
        starts = np.concatenate([[0], shapes.prod(1).cumsum()])
        counts = np.array([row["foreground"] for row in rows], np.int64)
        ends = counts.sum(1) * shapes.shape[1]
        used = np.array([row["foreground_start"] for row in rows], np.int64)
        wide = facts["structures"] if facts["overlapping"] else 1
        files = {
            "images.bin": ("<f2", facts["channels"] * int(starts[-1])),
            "labels.bin": ("u1", wide * int(starts[-1])),
            "foreground.bin": ("<i4", int((used + ends).max())),
        }
        if facts["key"] != folder.name:
            return None
        mapped = [_mapped(folder / name, *what) for name, what in files.items()]
        digests = pd.DataFrame({name: [row[name] for row in rows] for name in ("source", "masks", "pixels")}, dtype=str)
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None
    return VolumeStore(
        folder, digests, facts["fields"]["intensity"], facts["channels"], facts["structures"], facts["overlapping"],
        shapes, counts, grids, *mapped, starts, used,
    )  # fmt: skip


def _mapped(path: Path, kind: str, count: int) -> np.ndarray:
    if not count:  # nothing can be mapped of an empty file
        return np.empty(0, kind)
    return np.memmap(path, kind, mode="r", shape=(count,))


def _build(
    folder: Path,
    partial: Path,
    images: Sequence[str],
    masks: Sequence[str],
    config: Any,
    surveyed: Sequence[Surveyed],
    structures: Mapping[str, int],
    workers: int,
    progress: Progress | None,
) -> None:
    faults = {row: one.fault for row, one in enumerate(surveyed) if one.fault is not None}
    sizes = [_size(one, config.image) for one in surveyed]
    faults |= {
        row: _misfit(images[row], config) for row, size in enumerate(sizes) if size is None and row not in faults
    }
    if faults:
        raise DataError(explain_faults(images, masks, faults))
    starts = np.concatenate([[0], np.cumsum([prod(size) for size in sizes], dtype=np.int64)])
    number = max(structures.values())
    writer = VolumeWriter(
        partial, starts=starts, channels=int(config.image.channels), structures=number, axes=len(sizes[0]),
        overlapping=bool(config.data.overlapping),
    )  # fmt: skip
    rows = [row for row in range(len(images)) if row not in writer.done]
    jobs = (
        Job(row, images[row], masks[row], sizes[row], int(starts[row]), str(partial), config.image, dict(structures),
            bool(config.data.overlapping))
        for row in rows
    )  # fmt: skip
    try:
        for done, prepared in enumerate(in_order(prepare_pair, jobs, len(rows), workers), len(images) - len(rows) + 1):
            if prepared.fault is not None:
                faults[prepared.row] = prepared.fault
            else:
                writer.note(prepared)
            if progress:
                progress(done, len(images))
        if not faults:
            facts = {"format": FORMAT, "key": folder.name, "fields": store_fields(config), "channels": writer.channels}
            facts |= {"structures": number, "overlapping": writer.overlapping}
            writer.finish(folder, facts, [{"source": one.source, "masks": one.masks} for one in surveyed])
    finally:
        writer.close()
    if faults:
        writer.discard()  # its key names the faulty files, so a corrected set never comes back to it
        raise DataError(explain_faults(images, masks, faults))


def _size(seen: Surveyed, image: Any) -> tuple[int, ...] | None:
    """The shape that an image will have; None where it is a picture or volume and the other is asked for."""
    if seen.fault is not None:
        return None
    shape, mm = seen.layout(image.dimensions)
    if shape is None or len(shape) != image.dimensions:
        return None
    return resampled_size(shape, mm, image.spacing, image.size if image.dimensions == 2 else None)


def _misfit(reference: str, config: Any) -> str:
    other = "a volume of several slices" if config.image.dimensions == 2 else "a picture"
    return f"{reference} is {other}, where image.dimensions is {config.image.dimensions}"
