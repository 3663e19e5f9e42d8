"""Structures that no training mask holds: nothing can be learned of them, and what the masks hold says why."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import PurePath
from typing import Any

import numpy as np

from medgcsam.cohort.manifest import split_masks
from medgcsam.errors import DataError, MedgcsamError
from medgcsam.imaging import read_image
from medgcsam.imaging.labels.door import names_at
from medgcsam.pipeline.survey import Surveyed

LOOKED_AT, NAMED = 10, 12


def check_structures(
    training: Sequence[Surveyed], structures: Sequence[str], pairs: Sequence[tuple[str, str]], image: Any
) -> None:
    """Each structure must be in the mask of a training patient.

    pairs: the training images and masks, as references. image: the section of the configuration.

    Raises:
        DataError: one is in none; the sentence says what the first masks hold instead.
    """
    voxels = np.array([seen.voxels for seen in training])
    absent = [name for name, found in zip(structures, voxels.any(0), strict=True) if not found]
    if absent:
        held = names_held(pairs[:LOOKED_AT], image)
        more = ", ..." if len(held) > NAMED else ""
        holds = f"they hold {', '.join(held[:NAMED])}{more}" if held else "the first of them are empty"
        raise DataError(
            f"no mask of a training patient holds {', '.join(absent)}, so it cannot be learned ({holds}); correct the "
            "names or numbers in data.structures, or take it out."
        )


def names_held(pairs: Iterable[tuple[str, str]], image: Any) -> list[str]:
    """What ``data.structures`` can name in these masks; of several masks of an image also the names of the files."""
    held: dict[str, None] = {}
    for reference, masks in pairs:
        parts = split_masks(masks)
        if len(parts) > 1:
            held |= dict.fromkeys(PurePath(part).name for part in parts)
        try:
            read = read_image(reference, irregular=image.irregular, pet=image.pet, orientation=image.orientation)
            for part in parts:
                held |= dict.fromkeys(names_at(part, read, irregular=image.irregular, orientation=image.orientation))
        except MedgcsamError:
            continue  # the survey has said what is wrong with it
    return sorted(held, key=lambda name: (not name.isdecimal(), int(name) if name.isdecimal() else 0, name))
