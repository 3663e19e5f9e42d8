"""The cases of a segmentation, ready to train on: cohort, survey, split, plan and prepared volumes."""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas

from medgcsam.cohort import Split, make_split
from medgcsam.config import Config
from medgcsam.errors import ConfigError, DataError
from medgcsam.evaluation.segmentation_names import colliding
from medgcsam.intake import Dataset, open_dataset
from medgcsam.intake.examine import file_of
from medgcsam.intake.fault_kinds import KINDS
from medgcsam.intake.workers import helpers
from medgcsam.journal import Journal
from medgcsam.pipeline.absent import check_structures
from medgcsam.pipeline.few import few_patients
from medgcsam.pipeline.fitting import Misfit, explain_faults, misfits
from medgcsam.pipeline.partitioned import Partitioned
from medgcsam.pipeline.plan import Plan, check_resolved, continued, make_plan, resolved
from medgcsam.pipeline.survey import Surveyed, survey
from medgcsam.pipeline.volume_store import VolumeStore, build_volume_store
from medgcsam.privacy import hash_id, load_salt

SMOKE_PATIENTS = 12
MOST_STRUCTURES = 255
NO_MASK, FAULTY = "no mask", "image or mask that cannot be used"
WORTH_HELP = 2**28
"""Bytes of files below which starting processes takes longer than it saves."""

FOLDER = 2**23
"""Bytes that a folder of DICOM counts as."""


@dataclass(frozen=True)
class SegmentationCases(Partitioned):
    """A cohort with its prepared images and labels; ``table`` and ``surveyed`` are in the order of the store's rows.

    structures: their names, in the order of their numbers from 1. config: with numbers in place of ``auto``.
    plan: what became of each ``auto``, and why. dataset: without the rows that were left out, which it counts.
    """

    dataset: Dataset
    table: pandas.DataFrame
    structures: tuple[str, ...]
    overlapping: bool
    surveyed: list[Surveyed]
    store: VolumeStore
    split: Split
    plan: Plan
    config: Config
    salt: bytes
    keep_patient_ids: bool


def prepare_segmentation(
    config: Config,
    *,
    output: Path,
    cache: Path,
    journal: Journal,
    smoke: bool = False,
    begun: Plan | None = None,
    accept: Callable[[Config, Sequence[str]], None] | None = None,
) -> SegmentationCases:
    """Open the data set, look at all images and masks, split the patients, plan by the training patients, prepare.

    Rows without a mask are left out and counted. Images or masks that are faulty or do not fit the job are all named in
    one error, or left out and counted with ``data.faulty_masks: exclude``. The split is made by the tables alone at
    first, so that a fault in them stops before any image is decoded, and again with the digests of the decoded images,
    which show identical images in two partitions. ``smoke`` keeps few patients.

    begun: the plan of a run that goes on, which is then not made anew.
    accept: called with the planned configuration and the names of the structures before images are prepared, which may
        take hours; raises what it has against them.

    Raises:
        ConfigError, DataError, MachineError: the sentence says what and where.
    """
    with journal.bar("preparing the data set") as advance:
        few = SMOKE_PATIENTS if smoke else None
        dataset = open_dataset(
            config.data, base=config.base, cache=cache, task=config.task, unlabelled=True, synthetic_patients=few,
            progress=advance,
        )  # fmt: skip
    structures, numbers = structures_of(config, dataset)
    dataset = _with_masks(dataset)
    if smoke:
        dataset = _of(dataset, few_patients(dataset.table, SMOKE_PATIENTS), {})
    salt = load_salt(output)
    split = split_by_tables(config, dataset, salt)
    surveyed = look_at(config, dataset.table, numbers, cache=cache, journal=journal)
    dataset, surveyed, split = without_unusable(config, dataset, surveyed, split, salt)
    rows = np.flatnonzero((split.partition == "train").to_numpy())
    training, table = [surveyed[row] for row in rows], dataset.table.iloc[rows]
    check_structures(training, structures, list(zip(table["image"], table["mask"], strict=True)), config.image)
    if config.training.select == "dice":
        _check_validation([surveyed[row] for row in np.flatnonzero((split.partition == "validation").to_numpy())])
    if begun is None:
        plan = make_plan(config, training, device_memory_gb=_device_memory_gb(config.training.device))
    else:
        plan = continued(config, begun, training)
    config = resolved(config, plan)
    check_resolved(config)
    if accept is not None:
        accept(config, structures)
    store = load_volumes(config, dataset.table, numbers, cache=cache, journal=journal)
    return SegmentationCases(
        dataset, dataset.table, structures, config.data.overlapping, surveyed, store, split, plan, config, salt,
        keep_patient_ids=config.output.keep_patient_ids,
    )  # fmt: skip


def structures_of(config: Config, dataset: Dataset) -> tuple[tuple[str, ...], Mapping[str, int]]:
    """Names of the structures in the order of their numbers, and ``names`` for ``read_label``.

    Raises ConfigError where nobody names them, their numbers do not run from 1, or two metrics would have one name.
    """
    numbers = dataset.structures
    if not numbers:
        raise ConfigError(
            "data.structures: the structures of the masks have no names yet; name them, such as {lesion: [1]} for "
            "masks of 0 and 1 (or 255), or {tumour: [GTV*]} for contours."
        )
    if config.data.structures:
        names = tuple(config.data.structures)
    else:  # of a data description: several names of one structure are joined by "|"
        first: dict[int, str] = {}
        for key, number in numbers.items():
            first.setdefault(number, key.split("|")[0].strip())
        names = tuple(first[number] for number in sorted(first))
    if sorted(set(numbers.values())) != list(range(1, len(names) + 1)) or len(names) > MOST_STRUCTURES:
        raise ConfigError(
            f"data.structures: the numbers of the structures ({', '.join(map(str, sorted(set(numbers.values()))))}) "
            f"must run from 1 without a gap, to {MOST_STRUCTURES} at most."
        )
    if said := colliding(names):
        raise ConfigError(f"data.structures: {said} in metrics.json; give the structure another name.")
    return names, numbers


def split_by_tables(config: Config, dataset: Dataset, salt: bytes, digests: pandas.DataFrame | None = None) -> Split:
    """The split of ``config``, stratified by labels where there are any; without digests no twins are looked for."""
    return make_split(
        dataset.table,
        config.split,
        classes=(),  # labels help to deal the patients evenly, but no partition needs all of them
        task=config.task,
        hash_patient=lambda value: hash_id(salt, "patient", value),
        hash_case=lambda value: hash_id(salt, "case", value),
        digests=digests,
        patients=dataset.patients,
        base=config.base,
    )


def look_at(
    config: Config, table: pandas.DataFrame, numbers: Mapping[str, int], *, cache: Path, journal: Journal
) -> list[Surveyed]:
    """The survey of all rows, with a progress bar."""
    images = list(table["image"])
    with journal.bar("looking at images and masks") as advance:
        workers = worker_count(config.pipeline.workers, images)
        return survey(
            images, list(table["mask"]), config, structures=numbers, cache=cache, workers=workers, progress=advance
        )


def without_unusable(
    config: Config, dataset: Dataset, surveyed: list[Surveyed], split: Split, salt: bytes
) -> tuple[Dataset, list[Surveyed], Split]:
    """Data set, survey and split, by tables and digests, without images and masks that are faulty or do not fit.

    split: of all rows, by the tables. What fits is decided by its training rows, and by those of each further split
    that leaving images out makes necessary, until nothing is left that does not fit.
    Raises DataError naming all that cannot be used, unless ``data.faulty_masks`` says to leave it out.
    """
    digests = None
    while True:
        training = np.flatnonzero((split.partition == "train").to_numpy())
        unfit = misfits(surveyed, training.tolist(), config.image)
        faulty = {row: seen.fault for row, seen in enumerate(surveyed) if seen.fault is not None}
        if unfit or faulty:
            dataset, surveyed = _left_out(config, dataset, surveyed, faulty, unfit)
        elif digests is not None:
            return dataset, surveyed, split
        digests = pandas.DataFrame(
            {"source": [seen.source for seen in surveyed], "pixels": [seen.digest for seen in surveyed]}, dtype=str
        )
        split = split_by_tables(config, dataset, salt, digests)


def _left_out(
    config: Config, dataset: Dataset, surveyed: list[Surveyed], faulty: Mapping[int, str], unfit: Mapping[int, Misfit]
) -> tuple[Dataset, list[Surveyed]]:
    """The rows that are neither faulty nor unfit; the others are counted, or named in an error."""
    images = list(dataset.table["image"])
    told = dict(faulty) | {row: f"{images[row]} {misfit.sentence}" for row, misfit in unfit.items()}
    can_exclude = config.data.faulty_masks == "error" and len(told) < len(images)
    if config.data.faulty_masks == "error" or len(told) == len(images):
        raise DataError(explain_faults(images, list(dataset.table["mask"]), told, can_exclude=can_exclude))
    reasons = Counter({FAULTY: len(faulty)} if faulty else {})
    reasons.update(KINDS[misfit.kind] for misfit in unfit.values())
    kept = [row for row in range(len(images)) if row not in told]
    return _of(dataset, dataset.table.iloc[kept], reasons), [surveyed[row] for row in kept]


def load_volumes(
    config: Config, table: pandas.DataFrame, numbers: Mapping[str, int], *, cache: Path, journal: Journal
) -> VolumeStore:
    """The store of a table's images and masks under a resolved configuration, with a progress bar while it is built."""
    images = list(table["image"])
    with journal.bar("preparing images") as advance:
        workers = worker_count(config.pipeline.workers, images)
        return build_volume_store(
            images, list(table["mask"]), config, structures=numbers, cache=cache, workers=workers, progress=advance
        )


def worker_count(workers: int | str, images: Sequence[str]) -> int:
    """Processes that help: as configured; "auto" leaves one core for this one, none for little work."""
    if workers != "auto":
        return int(workers)
    total = 0
    for reference in images:
        path = file_of(reference)
        total += FOLDER if os.path.isdir(path) else os.path.getsize(path) if os.path.exists(path) else 0
    return helpers("auto", 10**6 if total >= WORTH_HELP else len(images))


def _with_masks(dataset: Dataset) -> Dataset:
    """The rows that have a mask; the others are counted."""
    table = dataset.table
    if "mask" not in table:
        raise DataError(
            f"{dataset.manifest_path}: a segmentation needs a column 'mask'; map it with data.columns.mask."
        )
    kept = (table["mask"] != "").to_numpy()
    if not kept.any():
        raise DataError(f"{dataset.manifest_path}: no row has a mask; fill in the column 'mask'.")
    return dataset if kept.all() else _of(dataset, table[kept], {NO_MASK: int((~kept).sum())})


def _of(dataset: Dataset, table: pandas.DataFrame, excluded: Mapping[str, int]) -> Dataset:
    """The data set with fewer rows, and the reasons counted."""
    counts = dict(dataset.excluded)
    for reason, number in excluded.items():
        counts[reason] = counts.get(reason, 0) + number
    attributes = dict(dataset.table.attrs) | {"excluded": counts}
    table = table.reset_index(drop=True)
    table.attrs.update(attributes)
    return dataclasses.replace(dataset, table=table, excluded=counts)


def _check_validation(validation: Sequence[Surveyed]) -> None:
    """Raise DataError where Dice, which selects the epoch, has nothing to be measured on."""
    if not any(any(seen.voxels) for seen in validation):
        raise DataError(
            f"none of the {len(validation)} masks of validation patients holds a structure, so no epoch can be chosen "
            "by Dice: set training.select=loss, or take another split, such as by split.seed."
        )


def _device_memory_gb(device: str) -> float | None:
    """Memory of the GPU that trains; None for a CPU."""
    import torch

    if device == "cpu" or not torch.cuda.is_available():
        return None
    number = int(device.partition(":")[2] or torch.cuda.current_device())
    if number >= torch.cuda.device_count():
        return None  # refused by name where training begins
    return torch.cuda.get_device_properties(number).total_memory / 1e9
