"""What a table of images alone shows to be wrong: patients and studies that do not agree with each other."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import pandas as pd

from medgcsam.cohort.faults import Fault, shorten


def patients_in_two_partitions(table: pd.DataFrame) -> Iterator[Fault]:
    """One fault per patient that the manifest's own partitions tear apart."""
    if "partition" not in table:
        return
    given = table[(table["partition"] != "") & (table["patient_id"] != "")]
    torn = given.groupby("patient_id")["partition"].transform("nunique") > 1
    for patient, rows in given[torn].groupby("patient_id", sort=False):
        names = sorted(rows["partition"].unique())
        sentence = f"patient {patient} has images in {' and '.join(names)} (lines {shorten(rows['line'])})"
        yield _fault("patient_in_two_partitions", rows, sentence)


def similar_patients(table: pd.DataFrame) -> Iterator[Fault]:
    """One fault per set of patients whose names differ in capitals, spaces or leading zeros alone: 0012 and 12.

    Where the manifest gives partitions, only names that lie in different ones matter.
    """
    rows = table[table["patient_id"] != ""]
    names = rows["patient_id"].unique()
    plain = rows["patient_id"].map(dict(zip(names, map(_plain, names), strict=True)))
    several = rows.groupby(plain)["patient_id"].transform("nunique") > 1
    for _, group in rows[several].groupby(plain[several], sort=False):
        parts = set(group["partition"]) - {""} if "partition" in group else set()
        if len(parts) == 1:
            continue
        patients = shorten(dict.fromkeys(group["patient_id"]))
        where = f" in {' and '.join(sorted(parts))}" if parts else ""
        sentence = (
            f"the patients {patients}{where} differ in capitals, spaces or leading zeros alone (lines "
            f"{shorten(group['line'])}): if they are one patient, give them one patient_id"
        )
        yield _fault("similar_patients", group, sentence)


def _plain(name: str) -> str:
    return "".join(re.sub(r"(?<![\d.])0+(?=\d)", "", name.casefold()).split())


def shared_studies(table: pd.DataFrame, groups: Iterable[list[int]]) -> Iterator[Fault]:
    """One fault per study that several patients share, by the column ``study`` or by ``groups`` of rows.

    A study is of one patient (PS3.3 A.1.2), so these are one patient under two names, or a wrong patient_id.
    """
    told: set[frozenset[str]] = set()
    named = [] if "study" not in table else [rows.index for _, rows in table[table["study"] != ""].groupby("study")]
    for group in (*named, *groups):
        rows = table.loc[group]
        rows = rows[rows["patient_id"] != ""]
        patients = list(dict.fromkeys(rows["patient_id"]))
        if len(patients) < 2 or frozenset(patients) in told:
            continue
        told.add(frozenset(patients))
        sentence = (
            f"patients {shorten(patients)} share one study (lines {shorten(rows['line'])}): one patient under several "
            "names, or a wrong patient_id"
        )
        yield _fault("shared_study", rows, sentence)


def listed_with_other_labels(table: pd.DataFrame) -> Iterator[Fault]:
    """One fault per image reference that is listed several times with different labels."""
    again = table[(table["image"] != "") & table["image"].duplicated(keep=False)]
    for _, rows in again.groupby("image", sort=False):
        if rows["label"].nunique() > 1:
            yield conflict(rows, "is listed")


def conflict(rows: pd.DataFrame, what: str) -> Fault:
    """The fault of rows that are one image and have several labels."""
    labels = " and ".join(sorted(label or "nothing" for label in rows["label"].unique()))
    cases = list(dict.fromkeys(rows["case"]))
    sentence = f"{shorten(cases)} {what} with the labels {labels} (lines {shorten(rows['line'])})"
    return _fault("conflicting_labels", rows, sentence)


def _fault(kind: str, rows: pd.DataFrame, sentence: str) -> Fault:
    return Fault(kind, int(rows["line"].iat[0]), rows["case"].iat[0], sentence)
