"""Every fault of a data set at once: rows of the manifest, unreadable images, identical images, conflicts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pandas as pd

from medgcsam.cohort.faults import Fault, shorten
from medgcsam.cohort.leakage import twin_groups
from medgcsam.intake.fingerprints import fingerprint

if TYPE_CHECKING:
    from medgcsam.intake.datasets import Dataset


def check_dataset(
    dataset: Dataset, *, workers: int = 0, progress: Callable[[int, int], None] | None = None
) -> list[Fault]:
    """Read every image of a data set and list all that is wrong, in the order of the manifest's lines.

    Open the data set with ``strict=False``, so that faults of rows are in the list too. Kinds beside those of
    ``read_manifest`` (fields, image, listed_twice, patient, label, partition): ``missing``, ``unreadable``,
    ``constant``, ``not_finite``; ``patient_in_two_partitions`` (of the manifest's own); ``identical_images`` of
    different patients; ``conflicting_labels`` of identical images. The last three are one fault per patient or
    group, at its first line.
    """
    table = dataset.table
    prints = fingerprint(list(table["image"]), workers=workers, progress=progress)
    faults = [
        *dataset.faults,
        *_image_faults(table, prints),
        *_patients_in_two_partitions(table),
        *_identical_images(table, prints),
    ]
    return sorted(faults, key=lambda fault: (fault.row, fault.kind))


def _image_faults(table: pd.DataFrame, prints: pd.DataFrame) -> Iterator[Fault]:
    named = table["case"] != ""
    faulty = prints[(prints["kind"] != "") & named]
    for row, kind, fault in zip(faulty.index, faulty["kind"], faulty["fault"], strict=True):
        line, case = int(table["line"].iat[row]), table["case"].iat[row]
        yield Fault(kind, line, case, f"line {line}: {case} {fault}")


def _patients_in_two_partitions(table: pd.DataFrame) -> Iterator[Fault]:
    if "partition" not in table:
        return
    given = table[(table["partition"] != "") & (table["patient_id"] != "")]
    for patient, rows in given.groupby("patient_id", sort=False):
        names = sorted(rows["partition"].unique())
        if len(names) > 1:
            line = int(rows["line"].iat[0])
            sentence = f"patient {patient} has images in {' and '.join(names)} (lines {shorten(rows['line'])})"
            yield Fault("patient_in_two_partitions", line, rows["case"].iat[0], sentence)


def _identical_images(table: pd.DataFrame, prints: pd.DataFrame) -> Iterator[Fault]:
    names = twin_groups(prints)
    # The same file in two rows is the fault listed_twice; here count different files that are equal.
    distinct = table[(names != "") & ~table["image"].duplicated()]
    for _, rows in distinct.groupby(names, sort=False):
        if len(rows) < 2:
            continue
        line, case = int(rows["line"].iat[0]), rows["case"].iat[0]
        images = f"{shorten(rows['case'])} (lines {shorten(rows['line'])})"
        if rows["patient_id"].nunique() > 1:
            yield Fault("identical_images", line, case, f"identical images of different patients: {images}")
        if rows["label"].nunique() > 1:
            labels = " and ".join(sorted(rows["label"].unique()))
            yield Fault("conflicting_labels", line, case, f"identical images labelled {labels}: {images}")
