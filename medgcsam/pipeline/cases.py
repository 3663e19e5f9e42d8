"""The cases of a configuration, ready to train on: the cohort, its preprocessed images and its checked split."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas

from medgcsam.cohort import Split, encode_labels, make_split
from medgcsam.config import Config
from medgcsam.errors import ConfigError
from medgcsam.intake import Dataset, open_dataset
from medgcsam.journal import Journal
from medgcsam.pipeline.few import few_patients
from medgcsam.pipeline.partitioned import Partitioned
from medgcsam.pipeline.preprocess import build_store
from medgcsam.pipeline.store import Store
from medgcsam.privacy import hash_id, load_salt

SMOKE_PATIENTS = 60


@dataclass(frozen=True)
class Cases(Partitioned):
    """A cohort with its images; ``table`` and ``targets`` are in the order of the store's rows.

    ``targets``: int64 (n,) or float32 (n, classes) with NaN where unknown; see ``cohort.encode_labels``.
    """

    dataset: Dataset
    table: pandas.DataFrame
    targets: np.ndarray
    classes: tuple[str, ...]
    positive: str | None
    store: Store
    split: Split
    salt: bytes
    keep_patient_ids: bool


def prepare_cases(config: Config, *, output: Path, cache: Path, journal: Journal, smoke: bool = False) -> Cases:
    """Open the data set, split its patients, preprocess its images once and look for leakage between partitions.

    The split is made twice: first by the tables alone, so that a fault in them stops before any image is decoded, then
    with the digests of the decoded images, which show identical images in two partitions. ``smoke`` keeps few patients.

    Raises:
        ConfigError, DataError, MachineError: the sentence says what and where.
    """
    with journal.bar("preparing the data set") as advance:
        few = SMOKE_PATIENTS if smoke else None
        dataset = open_dataset(
            config.data, base=config.base, cache=cache, task=config.task, synthetic_patients=few, progress=advance
        )
    classes, positive = dataset.classes, dataset.positive
    table = few_patients(dataset.table, SMOKE_PATIENTS) if smoke else dataset.table
    targets = encode_labels(table["label"], classes, config.task)
    if config.task == "classification" and len(classes) < 2:
        raise ConfigError(f"data.classes: a classification needs two classes or more, not {list(classes)}.")
    salt = load_salt(output)
    make_split_from_tables(config, table, classes, dataset, salt)
    store = load_images(config, list(table["image"]), cache=cache, journal=journal)
    split = make_split_from_tables(config, table, classes, dataset, salt, digests=store.digests)
    return Cases(
        dataset, table, targets, classes, positive, store, split, salt, keep_patient_ids=config.output.keep_patient_ids
    )


def make_split_from_tables(
    config: Config,
    table: pandas.DataFrame,
    classes: tuple[str, ...],
    dataset: Dataset,
    salt: bytes,
    digests: pandas.DataFrame | None = None,
) -> Split:
    """The split of ``config``; without digests identical images are not looked for."""
    return make_split(
        table,
        config.split,
        classes=classes,
        task=config.task,
        hash_patient=lambda value: hash_id(salt, "patient", value),
        hash_case=lambda value: hash_id(salt, "case", value),
        digests=digests,
        patients=dataset.patients,
        base=config.base,
    )


def load_images(config: Config, images: Sequence[str], *, cache: Path, journal: Journal) -> Store:
    """The store of images under ``config.image``, with a progress bar while it is built."""
    with journal.bar("reading images") as advance:
        workers = worker_count(config.pipeline.workers, len(images))
        return build_store(images, config.image, cache=cache, workers=workers, progress=advance)


def worker_count(workers: int | str, images: int) -> int:
    """Decoding processes: as configured; "auto" is one per core, none where starting them costs more than it saves."""
    if workers != "auto":
        return int(workers)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 0 if cores == 1 or images < 500 else cores
