"""What the training of a segmentation would refuse, image by image, where a check of any data set has no fault yet."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import Path

import pandas

from medgcsam.cohort.faults import Fault
from medgcsam.config import Config
from medgcsam.intake import Dataset
from medgcsam.intake.examine import MASK_FAULTS
from medgcsam.journal import Journal
from medgcsam.pipeline.fitting import Misfit, misfits
from medgcsam.pipeline.segmentation_cases import look_at, structures_of
from medgcsam.pipeline.survey import Surveyed

UNUSABLE = {"missing", "unreadable", "not_finite", "mask_missing", "mask_unreadable", *MASK_FAULTS}
"""Kinds of faults that say already why a pair of image and mask cannot be used."""


def refused_images(
    config: Config, dataset: Dataset, known: Sequence[Fault], *, cache: Path, journal: Journal
) -> list[Fault]:
    """Images with a mask that cannot be used for this job, in the order of the manifest.

    ``known``: faults that are listed already; an image whose files cannot be used by one of them has no second fault.
    What kind of images the job takes is decided by most of all of them, where training asks most of its own patients.
    The survey is kept in ``cache``: training finds it there.
    Raises ConfigError where ``data.structures`` names no structures; MachineError for an unwritable cache.
    """
    _, numbers = structures_of(config, dataset)
    table = dataset.table
    table = table[(table["mask"] != "") & (table["image"] != "")].reset_index(drop=True)
    if table.empty:
        return []
    surveyed = look_at(config, table, numbers, cache=cache, journal=journal)
    told = {fault.row for fault in known if fault.kind in UNUSABLE}
    unfit = misfits(surveyed, range(len(table)), config.image, whose="images")
    return list(_faults(table, surveyed, unfit, told, dataset.root))


def _faults(
    table: pandas.DataFrame, surveyed: Sequence[Surveyed], unfit: Mapping[int, Misfit], told: Set[int], root: Path
) -> Iterator[Fault]:
    for row, (line, case) in enumerate(zip(table["line"], table["case"], strict=True)):
        fault, kind, said = surveyed[row].fault, None, ""
        if row in unfit:
            kind, said = unfit[row].kind, unfit[row].sentence
        elif fault is not None and int(line) not in told:
            kind = next((kind for kind, words in MASK_FAULTS.items() if words.search(fault)), "mask_unreadable")
            said = f"cannot be used: {fault.replace(f'{root}{os.sep}', '')}"
        if kind is not None:
            yield Fault(kind, int(line), case, f"line {line}: {case} {said}")
