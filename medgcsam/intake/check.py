"""Every fault of a data set at once: rows of the manifest, images and masks, copies across patients, conflicts."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from medgcsam.cohort.faults import Fault, shorten
from medgcsam.errors import DataError, MachineError
from medgcsam.imaging import pixel_digest, read_image, source_digest
from medgcsam.intake.examine import MASK_SEPARATOR, PLAIN, Found, Reading, closer_look, examine_each
from medgcsam.intake.fault_kinds import KINDS
from medgcsam.intake.fingerprints import NONE, Fingerprints, fingerprint, same_groups
from medgcsam.intake.near_duplicates import SURE, near_duplicates
from medgcsam.intake.outliers import inverted, odd_sizes, too_few
from medgcsam.intake.table_faults import (
    conflict,
    listed_with_other_labels,
    patients_in_two_partitions,
    shared_studies,
    similar_patients,
)
from medgcsam.intake.workers import helpers

if TYPE_CHECKING:
    from medgcsam.intake.datasets import Dataset

__all__ = ["KINDS", "Checked", "Copies", "check_dataset"]

Progress = Callable[[int, int], None]
Bar = Callable[[str], AbstractContextManager[Progress | None]]

LOOK = ": look at it, exclude the row if it is wrong"
REMEDIES = {
    **dict.fromkeys(("missing", "mask_missing"), ": put it there, or exclude the row"),
    **dict.fromkeys(("constant", "burned_in_text"), LOOK),
}
"""What to do, where the sentence of a fault does not say it."""


@dataclass(frozen=True)
class Copies:
    """Two images of different patients that are copies, 1 being identical; lines are those of the manifest."""

    first: str
    second: str
    lines: tuple[int, int]
    similarity: float


@dataclass(frozen=True)
class Checked:
    """What a check found: faults in the order of the manifest's lines, pairs of near-duplicates by similarity.

    ``known``: images that an earlier check had looked at. ``notes``: what was not looked for, and why, in sentences.
    """

    faults: tuple[Fault, ...]
    copies: tuple[Copies, ...]
    known: int
    notes: tuple[str, ...] = ()


def _no_bar(description: str) -> AbstractContextManager[None]:
    return nullcontext()


def check_dataset(
    dataset: Dataset,
    *,
    reading: Reading = PLAIN,
    cache: Path | None = None,
    workers: int | str = 0,
    bar: Bar = _no_bar,
) -> Checked:
    """Read every image and mask of a data set and list all that is wrong; see ``KINDS``.

    Args:
        dataset: opened with ``strict=False``, so that faults of rows are in the list too.
        reading: how images and masks are read; ``names`` None allows every class number in a mask.
        cache: folder that remembers what was seen, so that an interrupted check goes on; None remembers nothing.
        workers: processes beside this one, or "auto".
        bar: called with a description, gives a context that yields a function told (done, total).

    Raises:
        MachineError: the cache cannot be written.
    """
    table = dataset.table
    whose = "of different patients" if dataset.patients == "known" else "of patients that are not known"
    masks = list(table["mask"]) if "mask" in table else None
    # Matrices here are small: threads of BLAS only spin, twice the work in the same time.
    with threadpool_limits(1, "blas"):
        with bar("checking images") as advance:
            prints = fingerprint(
                list(table["image"]), masks, cache=_cache(cache, reading), workers=workers, progress=advance,
                look=partial(examine_each, reading=reading),
            )  # fmt: skip
        try:
            identical = list(_identical(table, prints, reading))
            with bar("looking for copies") as advance:
                references = table["image"].to_numpy()
                pairs, similarity = near_duplicates(
                    prints.coefficients,
                    _patients(table),
                    prints.thumbnails,
                    lambda row: closer_look(references[row], reading),
                    labels=pd.factorize(table["label"])[0],
                    threads=1 + helpers(workers, len(table)),
                    progress=advance,
                )
            copies, near = _near(table, pairs, similarity, identical, whose)
        finally:
            prints.cache.close()
    faults = [
        *dataset.faults,
        *_image_faults(table, prints, dataset.root),
        *_mask_faults(table, prints, dataset.root),
        *patients_in_two_partitions(table),
        *(similar_patients(table) if dataset.patients == "known" else ()),
        *shared_studies(table, (list(group) for group in same_groups(prints.study))),
        *listed_with_other_labels(table),
        *_identical_images(table, identical, whose),
        *near,
    ]
    faults.sort(key=lambda fault: (fault.row, fault.kind))
    return Checked(tuple(faults), copies, prints.known, tuple(too_few(prints.shape, prints.sort)))


def _cache(folder: Path | None, reading: Reading) -> Path | None:
    """What was seen in one way of reading says nothing of another."""
    if folder is None or reading == PLAIN:
        return folder
    return Path(folder) / hashlib.sha256(repr(reading).encode()).hexdigest()[:16]


def _patients(table: pd.DataFrame) -> np.ndarray:
    """int (n,), equal for rows of one patient; rows that name none are patients of their own."""
    codes = pd.factorize(table["patient_id"])[0]
    nameless = np.flatnonzero(table["patient_id"] == "")
    codes[nameless] = len(table) + nameless
    return codes


def _image_faults(table: pd.DataFrame, prints: Fingerprints, root: Path) -> Iterator[Fault]:
    names = _names(table)
    for row, faults in prints.faults.items():
        for found in faults:
            yield from _of_row(names, row, found.kind, _told(table, row, found, root))
    for row, usual in odd_sizes(prints.shape, prints.shapes):
        own = prints.shapes[prints.shape[row]][1:]
        sizes = ("x".join(str(length) for length in size) for size in (own, usual))
        yield from _of_row(names, row, "odd_size", "is {} where nearly all others are {}{}".format(*sizes, LOOK))
    for row in inverted(prints.coefficients, prints.sort):
        yield from _of_row(names, row, "inverted_contrast", f"seems to have black and white exchanged{LOOK}")


def _told(table: pd.DataFrame, row: int, found: Found, root: Path) -> str:
    """The sentence of a fault, which for a mask names its file, and what to do about it."""
    remedy = REMEDIES.get(found.kind, "")
    if not found.kind.startswith("mask"):
        return found.sentence + remedy
    return f"has the mask {_mask_names(table, row, root)[found.mask]}, which {found.sentence}{remedy}"


def _mask_names(table: pd.DataFrame, row: int, root: Path) -> list[str]:
    """Masks of a row, as seen from the folder of the data set."""
    return [mask.removeprefix(f"{root}{os.sep}") for mask in table["mask"].iat[row].split(MASK_SEPARATOR)]


def _names(table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Lines and cases, as arrays: a table takes long to give one value."""
    return table["line"].to_numpy(), table["case"].to_numpy()


def _of_row(names: tuple[np.ndarray, np.ndarray], row: int, kind: str, sentence: str) -> Iterator[Fault]:
    line, case = int(names[0][row]), names[1][row]
    if case:  # a row that names no image has that fault alone
        yield Fault(kind, line, case, f"line {line}: {case} {sentence}")


def _mask_faults(table: pd.DataFrame, prints: Fingerprints, root: Path) -> Iterator[Fault]:
    """Empty masks, unless all masks of that label are empty (normal images)."""
    rows = np.flatnonzero(prints.mask != NONE)
    empty = np.array([not any(values) for values in prints.masks], bool)[prints.mask[rows]]
    labels = table["label"].iloc[rows].to_numpy()
    filled = set(labels[~empty])
    for row in rows[empty]:
        if table["label"].iat[row] == "" or table["label"].iat[row] in filled:
            names = ", ".join(_mask_names(table, int(row), root))
            yield from _of_row(_names(table), row, "mask_empty", f"has an empty mask, {names}{LOOK}")


def _identical(table: pd.DataFrame, prints: Fingerprints, reading: Reading) -> Iterator[np.ndarray]:
    """Groups of rows, two or more, whose different references hold equal pixels.

    Equal pixels have equal thumbnails, so only images that share one are looked at again: their bytes, then, of one for
    each content, their pixels.
    """
    references = table["image"].to_numpy()
    for group in same_groups(prints.picture):
        rows = group[~pd.Series(references[group]).duplicated().to_numpy()]
        sources = [_digest(source_digest, references[row]) for row in rows]
        pixels = dict(zip(sources, references[rows], strict=True))
        if len(pixels) > 1:
            pixels = {source: _digest(partial(_pixels, reading=reading), name) for source, name in pixels.items()}
        codes = pd.factorize(np.array([pixels[source] for source in sources], object))[0]
        for code in range(codes.max() + 1):
            if np.count_nonzero(codes == code) > 1:
                yield rows[codes == code]


def _pixels(reference: str, reading: Reading) -> str:
    options = {"irregular": reading.irregular, "pet": reading.pet, "orientation": reading.orientation}
    return pixel_digest(read_image(reference, **options))


def _digest(what: Callable[[str], str], reference: str) -> str:
    try:
        return what(reference)
    except (DataError, MachineError):  # it could be read a moment ago: like no other
        return reference


def _identical_images(table: pd.DataFrame, groups: list[np.ndarray], whose: str) -> Iterator[Fault]:
    for group in groups:
        rows = table.iloc[group]
        line, case = int(rows["line"].iat[0]), rows["case"].iat[0]
        images = f"{shorten(rows['case'])} (lines {shorten(rows['line'])})"
        if rows["patient_id"].nunique() > 1:
            yield Fault("identical_images", line, case, f"identical images {whose}: {images}")
        if rows["label"].nunique() > 1:
            yield conflict(rows, "are identical images")


def _near(
    table: pd.DataFrame, pairs: np.ndarray, similarity: np.ndarray, identical: list[np.ndarray], whose: str
) -> tuple[tuple[Copies, ...], list[Fault]]:
    """Near-duplicates that are not identical, the most similar first, and a fault for each pair; a pair of one patient
    is a conflict of labels, where it is one of copies without doubt."""
    groups = np.arange(len(table)) + len(table)
    for number, rows in enumerate(identical):
        groups[rows] = number
    references, cases, lines, patients, labels = (
        table[name].to_numpy() for name in ("image", "case", "line", "patient_id", "label")
    )
    other = (groups[pairs[:, 0]] != groups[pairs[:, 1]]) & (references[pairs[:, 0]] != references[pairs[:, 1]])
    pairs, similarity = pairs[other], similarity[other]
    copies, faults = [], []
    for number in np.argsort(-similarity, kind="stable"):
        (a, b), alike = pairs[number], float(similarity[number])
        if patients[a] == patients[b] != "":
            if alike >= SURE:  # pictures of one patient are alike without being copies
                told = f"are nearly identical (similarity {alike:.2f}) images of one patient"
                faults.append(conflict(table.iloc[[a, b]], told))
            continue
        first, second = int(lines[a]), int(lines[b])
        copies.append(Copies(cases[a], cases[b], (first, second), round(alike, 3)))
        labelled = f", labelled {labels[a]} and {labels[b]}" if labels[a] != labels[b] else ""
        sentence = (
            f"{cases[a]} and {cases[b]} {whose} are nearly identical (lines {first}, {second}; "
            f"similarity {alike:.2f}{labelled})"
        )
        faults.append(Fault("near_duplicates", first, cases[a], sentence))
    return tuple(copies), faults
