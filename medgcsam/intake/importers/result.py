"""What an importer found: the rows of a manifest, and everything that it left out, with the reason."""

from __future__ import annotations

import csv
import hashlib
import io
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from medgcsam.cohort.columns import STANDARD
from medgcsam.cohort.manifest import MASK_SEPARATOR, split_masks
from medgcsam.errors import DataError
from medgcsam.run_folder import write_text

Progress = Callable[[int, int], None] | None
LEFT_OUT = ".left_out.csv"
"""What the name of the table beside a manifest ends in."""
LEFT_OUT_COLUMNS = ("reference", "patient_id", "reason", "detail")
NO_PATIENT = "the pattern finds no patient"
OUTSIDE = "file outside of the folder"
_REMEDIES = {
    OUTSIDE: "name a folder that holds the table and all images and masks",
    "file missing": "name the folder that the images count from (of a table with --images), or correct the names",
    NO_PATIENT: "correct --patient-pattern",
}


@dataclass(frozen=True)
class LeftOut:
    """One thing that is not in the manifest. ``reason`` is short and the same for all of a kind, to count by."""

    reference: str
    reason: str
    detail: str = ""
    patient_id: str = ""


@dataclass
class Imported:
    """The rows of a manifest, column -> cell; ``image`` and ``mask`` are references that count from ``root``.

    ``structures``: class number of each structure in the masks, where the set says so. ``notes``: sentences for the
    user. ``scanned``: what was looked through, in words. ``packed``: of an image of several members of an archive, the
    folder in the archive that holds them.
    """

    root: Path
    rows: list[dict[str, str]] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    structures: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    scanned: str = ""
    packed: dict[str, str] = field(default_factory=dict)

    def leave_out(self, reference: str, reason: str, detail: str = "", patient_id: str = "") -> None:
        """Record that something is left out."""
        self.left_out.append(LeftOut(reference, reason, detail, patient_id))

    def reasons(self) -> dict[str, int]:
        """How many were left out for each reason, the most frequent first."""
        return dict(Counter(entry.reason for entry in self.left_out).most_common())

    def leave_out_unmatched(self, pattern: str | None) -> None:
        """With a pattern that finds patients, leave out every row that still has none."""
        if pattern is not None:
            self.keep_patients(NO_PATIENT)

    def keep_patients(self, reason: str) -> None:
        """Leave out every row that names no patient."""
        for row in self.rows:
            if not row.get("patient_id"):
                self.leave_out(row["image"], reason)
        self.rows = [row for row in self.rows if row.get("patient_id")]

    @property
    def patients_known(self) -> bool:
        """Whether every row names its patient."""
        return all(row.get("patient_id") for row in self.rows)


def write_manifest(path: Path, imported: Imported, *, base: Path | None = None) -> None:
    """Write the rows as CSV: standard columns first, those that are empty throughout left away.

    References count from ``base`` (default: the folder of ``path``, so that the manifest can be used as it is).

    Raises:
        DataError: there are no rows.
        MachineError: the file cannot be written.
    """
    if not imported.rows:
        reasons = imported.reasons()
        remedy = _REMEDIES.get(next(iter(reasons), ""), "name another folder, or mend what is told")
        raise DataError(f"{imported.root}: nothing was taken ({told(reasons) or 'no image was found'}); {remedy}.")
    used = {name for row in imported.rows for name, cell in row.items() if cell or name not in STANDARD} | {"image"}
    used -= {""}
    extra = [name for name in dict.fromkeys(name for row in imported.rows for name in row) if name not in STANDARD]
    header = [name for name in (*STANDARD, *extra) if name in used]
    base = Path(path).absolute().parent if base is None else base
    rows = [rebased(row, imported.root, base) for row in imported.rows]
    write_text(Path(path), as_csv(header, ([row.get(name, "") for name in header] for row in rows)))


def write_left_out(path: Path, entries: Sequence[LeftOut]) -> None:
    """Write one line per thing left out, in the order found."""
    cells = ((entry.reference, entry.patient_id, entry.reason, entry.detail) for entry in entries)
    write_text(Path(path), as_csv(LEFT_OUT_COLUMNS, cells))


def as_csv(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """CSV text with line feeds."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()


def rebased(row: Mapping[str, str], root: Path, base: Path) -> dict[str, str]:
    """The row with its references counted from ``base`` instead of ``root``; absolute ones stay on other drives."""
    changed = dict(row)
    changed["image"] = rebase(row["image"], root, base)
    if row.get("mask"):
        changed["mask"] = MASK_SEPARATOR.join(rebase(name, root, base) for name in split_masks(row["mask"]))
    return changed


def rebase(reference: str, root: Path, base: Path) -> str:
    """A reference from ``root`` as one from ``base``, with forward slashes."""
    whole = os.path.join(Path(root).absolute(), reference)
    try:
        return os.path.relpath(whole, base).replace(os.sep, "/")
    except ValueError:  # another drive
        return whole.replace(os.sep, "/")


def cached_manifest(cache: Path, name: str, imported: Imported) -> Path:
    """Write the rows, references as they are, to ``cache/manifests`` under a name that differs for another folder.

    What was left out is in it too, with its reason in the column ``exclude``, so that whoever uses the data set counts
    it.
    """
    place = hashlib.sha256(str(imported.root).encode()).hexdigest()[:8]
    stem = re.sub(r"[^A-Za-z0-9_-]+", "_", name).strip("_") or "manifest"
    path = Path(cache) / "manifests" / f"{stem}-{place}.csv"
    excluded = [
        {"image": entry.reference, "patient_id": entry.patient_id, "exclude": entry.reason}
        for entry in imported.left_out
    ]
    if imported.rows:
        imported = replace(imported, rows=[*imported.rows, *excluded])
    write_manifest(path, imported, base=imported.root)
    return path


def told(reasons: Mapping[str, int], shown: int = 5) -> str:
    """``reason: number`` of the first few reasons, in one line."""
    parts = [f"{reason}: {number:,}" for reason, number in list(reasons.items())[:shown]]
    return ", ".join([*parts, *(["..."] if len(reasons) > shown else [])])
