"""Every image of a segmentation looked at once, with its mask: the facts a plan is made from, and what is faulty.

Worker processes import this module, so it imports nothing heavy.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from medgcsam.cohort.manifest import split_masks
from medgcsam.errors import DataError, MachineError
from medgcsam.imaging import Image, pixel_digest
from medgcsam.intake.workers import in_order
from medgcsam.pipeline.grids import canonical, grid_for
from medgcsam.pipeline.sources import source_digests
from medgcsam.pipeline.store import machine_errors
from medgcsam.pipeline.volumes import read_pair

FORMAT = 3
"""Raise it when reading or looking changes: what was kept before is then not used."""
SAMPLES = 2000
"""Values inside the structures that are kept of an image."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Surveyed:
    """What is known of one image and its mask. Where ``fault`` says what is wrong with them, the rest is empty.

    shape: voxels along (row, column) of a picture, or (i, j, k) of a volume in the closest canonical orientation.
    spacing: their mm, None where the file does not say.
    picture: of a picture, or a volume of one slice taken as one, its (rows, columns); None for other volumes.
    picture_spacing: their mm.
    channels, unit, modality: as in ``Image``.
    voxels: of each structure.
    foreground: float32 (channels, values), at most SAMPLES voxels inside the structures, evenly spread.
    low, high: smallest and largest value of the first channel.
    digest: of the decoded pixels. source, masks: of the files of the image and of its masks.
    """

    shape: tuple[int, ...] = ()
    spacing: tuple[float, ...] | None = None
    picture: tuple[int, ...] | None = None
    picture_spacing: tuple[float, ...] | None = None
    channels: int = 0
    unit: str = ""
    modality: str = ""
    voxels: tuple[int, ...] = ()
    foreground: np.ndarray = field(default_factory=lambda: np.empty((1, 0), np.float32), compare=False, repr=False)
    low: float = 0.0
    high: float = 0.0
    digest: str = ""
    source: str = ""
    masks: str = ""
    fault: str | None = None

    def layout(self, dimensions: int) -> tuple[tuple[int, ...], tuple[float, ...] | None]:
        """Shape and spacing as pictures (2) or volumes (3)."""
        return (self.shape, self.spacing) if dimensions == len(self.shape) else (self.picture, self.picture_spacing)


def survey(
    images: Sequence[str],
    masks: Sequence[str],
    config: Any,
    *,
    structures: Mapping[str, int],
    cache: Path,
    workers: int = 0,
    progress: Progress | None = None,
) -> list[Surveyed]:
    """Look at each image and its masks (references joined by ``|``), in order.

    config: the whole configuration; of it ``image`` (irregular, pet, orientation) and ``data.overlapping`` matter.
    structures: ``names`` of ``read_label``, their numbers from 1.
    What was seen before, of files with the same bytes, is taken from ``cache``/surveys; faults are always looked at
    again. Nothing that is wrong with an image or a mask raises.
    Raises MachineError where the cache cannot be written or memory is too small.
    """
    cache = Path(cache)
    with machine_errors(cache):
        sources, parts = pair_digests(images, masks, cache=cache)
        keys = _keys(sources, parts, config, structures)
        known = {row: found for row, key in enumerate(keys) if key and (found := _recall(cache, key))}
        todo = [row for row in range(len(images)) if row not in known]
        look = functools.partial(_look, image=config.image, names=dict(structures), overlapping=config.data.overlapping)
        pairs = ((images[row], masks[row]) for row in todo)
        results: dict[int, Surveyed] = {}
        for number, (row, found) in enumerate(zip(todo, in_order(look, pairs, len(todo), workers), strict=True), 1):
            results[row] = found
            if keys[row] and found.fault is None:
                _remember(cache, keys[row], found)
            if progress:
                progress(len(known) + number, len(images))
    found = [known.get(row) or results[row] for row in range(len(images))]
    return [
        dataclasses.replace(one, source=source, masks=part)
        for one, source, part in zip(found, sources, parts, strict=True)
    ]


def _look(pair: tuple[str, str], *, image: Any, names: Mapping[str, int], overlapping: bool) -> Surveyed:
    reference, masks = pair
    try:
        read, label = read_pair(reference, masks, image, names, overlapping=overlapping)
        return examine_pair(read, label, structures=max(names.values()), overlapping=overlapping)
    except (DataError, OSError) as error:
        return Surveyed(fault=str(error).rstrip("."))
    except MemoryError as error:
        raise MachineError(f"Reading {reference} took more memory than there is: lower pipeline.workers.") from error


def examine_pair(image: Image, label: np.ndarray, *, structures: int, overlapping: bool) -> Surveyed:
    """The facts of an image and its label (1, *spatial) or, overlapping, (structures, *spatial)."""
    dimensions = len(image.spatial_shape)
    grid = grid_for(image, dimensions=dimensions, spacing=None)
    flat = grid_for(image, dimensions=2, spacing=None) if dimensions == 2 or image.spatial_shape[2] == 1 else None
    values, inside = canonical(image.array, grid), canonical(label, grid)
    if overlapping:
        voxels = [int(np.count_nonzero(channel)) for channel in inside]
    else:
        voxels = np.bincount(inside[0].ravel(), minlength=structures + 1)[1:].tolist()
    used = np.flatnonzero(inside.any(0))
    chosen = used[np.linspace(0, len(used) - 1, min(SAMPLES, len(used))).round().astype(int)] if len(used) else used
    return Surveyed(
        shape=grid.size,
        spacing=grid.spacing,
        picture=flat.size if flat else None,
        picture_spacing=flat.spacing if flat else None,
        channels=len(image.array),
        unit=image.unit,
        modality=str(image.source.get("modality", "")),
        voxels=tuple(voxels),
        foreground=values[(slice(None), *np.unravel_index(chosen, values.shape[1:]))].astype(np.float32),
        low=float(values[0].min()),
        high=float(values[0].max()),
        digest=pixel_digest(image),
    )


def pair_digests(images: Sequence[str], masks: Sequence[str], *, cache: Path) -> tuple[list[str], list[str]]:
    """Digest of the files of each image, and of its masks; empty where one of them cannot be read.

    Names of masks count where there are several, since each may be the structure that it is named after.
    """
    each = [split_masks(text) for text in masks]
    sources, _ = source_digests(images, cache=cache)
    flat, _ = source_digests([name for names in each for name in names], cache=cache)
    left, parts = iter(flat), []
    for names in each:
        digests = [next(left) for _ in names]
        if len(digests) != 1 and all(digests):
            text = "\n".join([*digests, *(os.path.basename(name) for name in names)])
            digests = [hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()]
        parts.append(digests[0] if all(digests) else "")
    return sources, parts


def _keys(sources: Sequence[str], parts: Sequence[str], config: Any, structures: Mapping[str, int]) -> list[str]:
    """A name in the cache for each pair; empty where a file cannot be read."""
    image = config.image
    head = [FORMAT, image.irregular, image.pet, image.orientation, dict(structures), bool(config.data.overlapping)]
    return [
        hashlib.sha256(json.dumps([*head, source, part]).encode()).hexdigest() if source and part else ""
        for source, part in zip(sources, parts, strict=True)
    ]


def _place(cache: Path, key: str) -> Path:
    return cache / "surveys" / key[:2] / f"{key}.npz"


def _remember(cache: Path, key: str, seen: Surveyed) -> None:
    place = _place(cache, key)
    place.parent.mkdir(parents=True, exist_ok=True)
    facts = {name: getattr(seen, name) for name in _FACTS}
    temporary = place.with_name(f"{place.name}.{os.getpid()}")
    with open(temporary, "wb") as file:
        np.savez(file, facts=np.array(json.dumps(facts)), foreground=seen.foreground)
    os.replace(temporary, place)


def _recall(cache: Path, key: str) -> Surveyed | None:
    place = _place(cache, key)
    try:
        with np.load(place, allow_pickle=False) as kept:
            facts = json.loads(str(kept["facts"]))
            lists = {name: tuple(facts[name]) for name in _TUPLES if facts[name] is not None}
            return Surveyed(**(facts | lists), foreground=kept["foreground"])
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
        return None  # not there, or cut short


_TUPLES = ("shape", "spacing", "picture", "picture_spacing", "voxels")
_FACTS = (*_TUPLES, "channels", "unit", "modality", "low", "high", "digest")
