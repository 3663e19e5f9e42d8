"""Which patient is in which partition, checked, and written down as split.json."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd

from medgcsam.cohort import partitions
from medgcsam.cohort.dealing import deal
from medgcsam.cohort.faults import shorten
from medgcsam.cohort.labels import NONE, encode_labels
from medgcsam.cohort.leakage import drop_leaked
from medgcsam.errors import ConfigError, DataError

SCHEMA = 1


class SplitSettings(Protocol):
    """What ``make_split`` reads of the ``split`` section."""

    by: str
    folds: int
    fold: int
    seed: int
    validation: float
    stratify: bool
    test_site: str | None
    test_from: str | datetime.date | None
    file: str | None
    duplicates: str


@dataclass(frozen=True)
class Split:
    """A split: ``partition`` is train, validation, test or dropped per row of the table; ``document`` is split.json."""

    partition: pd.Series
    document: Mapping[str, Any]


def split_patients(
    table: pd.DataFrame, folds: int, fold: int, seed: int, stratify: bool = True, validation: float = 0.2
) -> pd.Series:
    """Partition of every row when all patients are dealt into ``folds`` parts and part ``fold`` is tested.

    Over the folds every patient is tested exactly once. ``validation`` is the share of the other patients that
    validates. Stratified by what a patient's images show: a patient with images of two classes is a kind of its own
    (in multi-label tables every finding is a kind). Depends on patients, labels and seed, not on the order of rows.

    Raises:
        ConfigError: ``fold`` is not one of the folds, fewer than two folds, a share that is not between 0 and 1.
        DataError: there are fewer patients than folds.
    """
    if folds < 2 or not 0 <= fold < folds:
        raise ConfigError(f"split.fold {fold} of split.folds {folds}: there must be 2 or more, counted from 0.")
    kinds = _kinds(table, stratify)
    if len(kinds) < folds:
        raise DataError(f"{len(kinds)} patients cannot be split into {folds} folds; lower split.folds.")
    parts = deal(kinds, [1 / folds] * folds, seed=seed, purpose="folds")
    tested = [parts[patient] == fold for patient in table["patient_id"]]
    partition = pd.Series(np.where(tested, "test", partitions.REST), index=table.index).astype(str)
    return _add_validation(table, partition, validation, seed, stratify, purpose=f"validation of fold {fold}")


def make_split(
    table: pd.DataFrame,
    split: SplitSettings,
    *,
    classes: Sequence[str],
    task: str,
    hash_patient: Callable[[str], str],
    hash_case: Callable[[str], str],
    digests: pd.DataFrame | None = None,
    patients: str = "known",
    base: Path | None = None,
) -> Split:
    """The split that the ``split`` section asks for, checked for leakage and for classes without cases.

    Args:
        table: from ``read_manifest``.
        split: the ``split`` section.
        classes, task: as for ``encode_labels``; a set without labels has no classes, and any task.
        hash_patient, hash_case: name a patient_id, and a ``case`` of the table, as outputs do.
        digests: columns ``source`` and ``pixels`` per row of the table, in its order; None leaves the search for
            identical images out, for a table whose images cannot be read yet.
        patients: "known" or "unknown"; written down.
        base: folder that a relative ``split.file`` counts from.

    ``document["leakage"]["identical_images_across_partitions"]`` counts the images of a lower partition that were
    identical to one in a higher one when found; the policy either made that an error or dropped them all.

    Raises:
        ConfigError, DataError: as in ``split_patients``, ``partitions`` and ``leakage``; a patient in two partitions;
            a class that a partition has no case of.
    """
    partition = _partition(table, split, hash_patient, hash_case, base)
    _check_patients(table, partition)
    _check_classes(table, partition, classes, task, split)
    if digests is not None:
        partition = drop_leaked(partition, digests, list(table["case"]), policy=split.duplicates)
        _check_classes(table, partition, classes, task, split)
    document = _document(table, partition, split, classes, task, hash_patient, patients)
    document["dropped"] = sorted(hash_case(name) for name in table.loc[partition == "dropped", "case"])
    return Split(partition, document)


def _partition(
    table: pd.DataFrame,
    split: SplitSettings,
    hash_patient: Callable[[str], str],
    hash_case: Callable[[str], str],
    base: Path | None,
) -> pd.Series:
    if split.by == "folds":
        return split_patients(table, split.folds, split.fold, split.seed, split.stratify, split.validation)
    if split.by == "file":
        if not split.file:
            raise ConfigError("split.by: file needs split.file, the split.json of an earlier run.")
        path = Path(base, split.file) if base is not None else Path(split.file)
        return partitions.by_file(table, path, hash_patient, hash_case)
    if split.by == "manifest":
        partition = partitions.by_manifest(table)
    elif split.by == "site":
        partition = partitions.by_site(table, split.test_site)
    elif split.by == "date":
        partition = partitions.by_date(table, split.test_from)
    else:
        raise ConfigError(f"split.by: {split.by!r} is none of folds, manifest, site, date, file.")
    _check_patients(table, partition)
    return _add_validation(table, partition, split.validation, split.seed, split.stratify, purpose="validation")


def _kinds(table: pd.DataFrame, stratify: bool) -> dict[str, frozenset[str]]:
    """Patient -> the kinds that stratification counts it as."""
    if not stratify:
        return {patient: frozenset({"any"}) for patient in table["patient_id"].unique()}
    several = table["label"].str.contains("|", regex=False).any()
    labels: dict[str, set[str]] = {}
    for patient, text in zip(table["patient_id"], table["label"], strict=True):
        labels.setdefault(patient, set()).add(text)
    if several:
        findings = {patient: {part for text in texts for part in text.split("|")} for patient, texts in labels.items()}
        return {patient: frozenset(names - {NONE, ""} or {NONE}) for patient, names in findings.items()}
    return {patient: frozenset({"+".join(sorted(names))}) for patient, names in labels.items()}


def _add_validation(
    table: pd.DataFrame, partition: pd.Series, share: float, seed: int, stratify: bool, *, purpose: str
) -> pd.Series:
    """Divide the rows marked ``rest`` into train and validation, by patient."""
    rest = partition == partitions.REST
    if not rest.any():
        return partition
    if not 0 < share < 1:
        raise ConfigError(f"split.validation: {share} must lie between 0 and 1, it is a share of the patients.")
    parts = deal(_kinds(table[rest], stratify), [1 - share, share], seed=seed, purpose=purpose)
    names = [("train", "validation")[parts[patient]] for patient in table.loc[rest, "patient_id"]]
    partition = partition.copy()
    partition[rest] = names
    return partition


def _check_patients(table: pd.DataFrame, partition: pd.Series) -> None:
    used = partition != "dropped"
    number = partition[used].groupby(table.loc[used, "patient_id"]).nunique()
    both = number.index[number > 1]
    if len(both):
        raise DataError(
            f"{len(both)} patients (or groups) have images in two partitions: {shorten(both)}; "
            "put all images of a patient into one, or give the others a reason in the column 'exclude'."
        )


def _cases(table: pd.DataFrame, classes: Sequence[str], task: str) -> dict[str, np.ndarray]:
    """What every partition needs -> the rows that show it; images alone where there are no classes."""
    if not len(classes):
        return {"the set": np.ones(len(table), bool)}
    if task != "multilabel":
        codes = encode_labels(table["label"], classes, task)
        return {f"class {name!r}": codes == index for index, name in enumerate(classes)}
    values = encode_labels(table["label"], classes, task)
    with_it = {f"class {name!r}": values[:, index] == 1 for index, name in enumerate(classes)}
    return with_it | {f"the absence of {name!r}": values[:, index] == 0 for index, name in enumerate(classes)}


def _check_classes(
    table: pd.DataFrame, partition: pd.Series, classes: Sequence[str], task: str, split: SplitSettings
) -> None:
    """Every partition must show every class: nothing can be learned, selected or tested without."""
    missing = []
    for what, rows in _cases(table, classes, task).items():
        number = table.loc[rows, "patient_id"].nunique()
        if split.by == "folds" and number < split.folds:
            raise DataError(
                f"{what} has cases of {number} patient(s), too few to test it in each of {split.folds} folds; lower "
                "split.folds, add patients or take the class out of data.classes."
            )
        without = [name for name in partitions.NAMES if not (rows & (partition == name).to_numpy()).any()]
        if without:
            missing.append(f"{what} ({number} {'patient' if number == 1 else 'patients'}) in {' and '.join(without)}")
    if missing and not len(classes):
        raise DataError(f"a partition has no image: {shorten(missing)}; add patients or choose another split.")
    if missing:
        raise DataError(
            f"a partition has no case of a class: {shorten(missing)}; every class needs patients in each of train, "
            f"validation and test, so add patients or take the class out of data.classes."
        )


def _document(
    table: pd.DataFrame,
    partition: pd.Series,
    split: SplitSettings,
    classes: Sequence[str],
    task: str,
    hash_patient: Callable[[str], str],
    patients: str,
) -> dict[str, Any]:
    shown = {name: rows for name, rows in _cases(table, classes, task).items() if name.startswith("class ")}
    named, counts = {}, {}
    for name in partitions.NAMES:
        rows = partition == name
        ids = table.loc[rows, "patient_id"].unique()
        named[name] = sorted(hash_patient(patient) for patient in ids)
        numbers = zip(classes, shown.values(), strict=True)
        labels = {label: int((found & rows.to_numpy()).sum()) for label, found in numbers}
        counts[name] = {"patients": len(ids), "images": int(rows.sum()), "labels": labels}
    dropped = int((partition == "dropped").sum())
    return {
        "schema": SCHEMA,
        "by": split.by,
        "folds": split.folds if split.by == "folds" else None,
        "fold": split.fold if split.by == "folds" else None,
        "seed": split.seed,
        "duplicates": split.duplicates,
        "patients": patients,
        "partitions": named,
        "counts": counts,
        "leakage": {
            "patients_in_two_partitions": 0,
            "identical_images_across_partitions": dropped,
            "dropped_from_train": dropped,
        },
        "excluded": dict(table.attrs.get("excluded", {})),
    }
