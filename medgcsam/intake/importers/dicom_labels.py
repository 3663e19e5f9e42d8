"""Labels of DICOM images: SEG and RTSTRUCT by what they refer to, masks by their name, tables by identifier."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from medgcsam.cohort.columns import read_rows
from medgcsam.errors import ConfigError, DataError
from medgcsam.intake.description import Description, Selection
from medgcsam.intake.importers.dicom_scan import Header
from medgcsam.intake.importers.files import is_image_name, stem_of, walk_files
from medgcsam.intake.importers.result import Imported

KEYS = {
    "SOPInstanceUID": "instance",
    "SeriesInstanceUID": "series",
    "StudyInstanceUID": "study",
    "AccessionNumber": "accession",
    "PatientID": "patient_id",
}
"""Column of a table of labels -> column of the rows, the most precise first."""


class LabelObjects:
    """The SEG and RTSTRUCT objects of a folder, and which of them a row has taken."""

    def __init__(self, headers: Sequence[Header], kinds: Mapping[str, str]) -> None:
        self.headers = headers
        self.kinds = kinds
        self.used: set[str] = set()
        self.reasons: dict[str, str] = {}
        self.asked = False

    def match(self, imported: Imported, select: Selection) -> None:
        """Fill ``mask`` of the rows with the label that refers to their series, or by name from a folder of masks.

        A row that two labels refer to is left out, because which of them counts is not known; ``label_description``
        (an expression searched in SeriesDescription, ContentLabel and StructureSetLabel) chooses among them.
        """
        if select.labels not in ("seg", "rtstruct"):
            _match_by_name(imported, Path(str(select.labels)).absolute())
            return
        self.asked = True
        by_series: dict[str, list[Header]] = {}
        for header in self.headers:
            if self.kinds[header["SOPClassUID"]] != select.labels:
                self.reasons[header.reference] = f"label is no {select.labels.upper()}"
            elif not _described(header, select.label_description):
                self.reasons[header.reference] = "label description does not match"
            else:
                for uid in header.refers:
                    by_series.setdefault(uid, []).append(header)
        kept = []
        for row in imported.rows:
            found = by_series.get(row["series"], [])
            if len(found) > 1:
                for header in found:
                    self.reasons[header.reference] = "one of several labels of a series"
                named = " and ".join(header.reference for header in found)
                imported.leave_out(row["image"], "several labels refer to it", named, row["patient_id"])
                continue
            if found and found[0]["PatientID"] != row["patient_id"]:
                imported.leave_out(
                    row["image"], "its label is of another patient", found[0].reference, row["patient_id"]
                )
                continue
            if found:
                row["mask"] = found[0].reference
                self.used.add(found[0].reference)
            kept.append(row)
        imported.rows = kept

    def leave_out_unused(self, imported: Imported) -> None:
        """Record every label that no row has taken."""
        rest = "label of no image that is taken" if self.asked else "label, and none was asked for"
        for header in self.headers:
            if header.reference not in self.used:
                reason = self.reasons.get(header.reference, rest)
                imported.leave_out(header.reference, reason, header["SeriesDescription"], header["PatientID"])


def _described(header: Header, pattern: str | None) -> bool:
    texts = (header["SeriesDescription"], header["ContentLabel"], header["StructureSetLabel"])
    return pattern is None or any(text and re.search(pattern, text, re.IGNORECASE) for text in texts)


def _match_by_name(imported: Imported, folder: Path) -> None:
    """Masks named like the series' UID, or like the patient where one image of the patient is taken."""
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder of masks; give --labels seg, rtstruct, a folder or a CSV.")
    patients: dict[str, list[dict[str, str]]] = {}
    for row in imported.rows:
        patients.setdefault(row["patient_id"], []).append(row)
    series = {row["series"]: row for row in imported.rows}
    for path in walk_files(folder, imported):
        if not is_image_name(path.name):
            continue
        stem = stem_of(path.name)
        rows = [series[stem]] if stem in series else patients.get(stem, [])
        if len(rows) != 1 or rows[0]["mask"]:
            reason = "mask without an image" if not rows else "mask of several images, or one of several masks"
            imported.leave_out(str(path), reason, "masks are named by SeriesInstanceUID or PatientID")
        else:
            rows[0]["mask"] = str(path)


def join_table(imported: Imported, path: Path, description: Description) -> None:
    """Fill ``label`` of the rows from a table that names images by a DICOM identifier (the first of ``KEYS`` it has).

    Raises:
        ConfigError: the table has no such column, or no column of labels.
        DataError: the table cannot be read.
    """
    header, cells, _, faults = read_rows(path)
    if faults:
        raise DataError(f"{path}: {faults[0].sentence} ({len(faults)} such rows); repair the table.")
    key = next((name for name in KEYS if name in header), None)
    column = description.columns.get("label", "label")
    if key is None or column not in header:
        raise ConfigError(
            f"{path}: it needs a column of labels ({column!r}, or --column label=NAME) and one of {', '.join(KEYS)}; "
            f"it has {', '.join(header)}."
        )
    words: dict[str, set[str]] = {}
    for values in cells:
        words.setdefault(values[header.index(key)], set()).add(values[header.index(column)])
    kept, seen = [], set()
    for row in imported.rows:
        name = row[KEYS[key]]
        seen.add(name)
        labels = words.get(name, set())
        if len(labels) > 1:
            told = " and ".join(sorted(labels))
            imported.leave_out(row["image"], "contradictory labels in the table", told, row["patient_id"])
        else:
            row["label"] = next(iter(labels), "")
            kept.append(row)
    imported.rows = kept
    for name in words:
        if name not in seen:
            imported.leave_out(name, "label in the table without an image", f"{key} {name}")
