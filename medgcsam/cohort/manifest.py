"""Read a manifest: one row per image, its patient, its label or mask, and what else is known of it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from medgcsam.cohort.columns import OPTIONAL, locate, read_rows
from medgcsam.cohort.faults import Fault, raise_faults
from medgcsam.cohort.labels import Translation, join_columns, label_rules, translate
from medgcsam.errors import DataError

_PARTITIONS = {
    **dict.fromkeys(("train", "training", "tr"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev", "tuning"), "validation"),
    **dict.fromkeys(("test", "testing", "ts"), "test"),
}
MASK_SEPARATOR = "|"
_KEPT = {"", "0", "no", "false", "n"}
_EXCLUDED = {"1", "yes", "true", "y", "x"}


def read_manifest(
    path: str | os.PathLike[str],
    columns: Mapping[str, str] | None = None,
    *,
    root: str | os.PathLike[str] | None = None,
    patients: str = "known",
    classes: Sequence[str] | Mapping[str, Sequence[object]] | None = None,
    exclude_labels: Sequence[object] = (),
    negative: str | None = None,
    label_columns: Mapping[str, str] | None = None,
    uncertain: str = "mask",
    task: str | None = None,
    unlabelled: bool = False,
    faults: list[Fault] | None = None,
) -> pd.DataFrame:
    """The cohort of a manifest.

    Args:
        path: CSV file, one row per image.
        columns: standard name -> name in the file; columns called by their standard name need none.
        root: folder that relative image names count from (default: the manifest's own).
        patients: "known", or "unknown" where the set has no patients: then rows without a ``patient_id`` (a mapped
            grouping column may give some) count as a patient each, named by their image.
        classes: class names, or class -> the words of the file that mean it; None takes every label as it is.
        exclude_labels: words whose rows are left out and counted.
        negative: the word that means "none of the classes" in a multi-label file.
        label_columns: class -> column holding 1, 0, -1 or nothing, instead of one label column.
        uncertain: what -1 becomes: "mask", "positive" or "negative".
        task: "classification" or "multilabel" where it is known; a classification row without a label is left out.
        unlabelled: take a manifest without a column of labels, or with an empty one, whatever the task.
        faults: collects the faults of rows instead of raising them.

    Returns:
        DataFrame of text columns with a RangeIndex: ``image`` (absolute reference), ``case`` (as the file writes it,
        which stays the same when the folder moves), ``line`` (in the file), ``patient_id``, ``label`` (empty where a
        file of masks has none) and those present of ``mask`` (absolute references, several of one image joined by
        ``|``, empty where there is none), study, site, scanner, date, sex, age, partition (train, validation, test or
        empty). Rows left out are not in it; ``attrs["excluded"]`` counts them by reason (the words of the ``exclude``
        column reach the outputs). ``attrs["labelled"]``: whether any row of the file has a label.

    Raises:
        ConfigError: a column that is not there; classes that contradict each other.
        DataError: no manifest, an empty one, or faulty rows: all faults of all rows in one error.
    """
    path = Path(path)
    collected: list[Fault] = [] if faults is None else faults
    header, rows, lines, bad = read_rows(path)
    collected += bad
    places = locate(
        path, header, columns, label_columns=label_columns, patients=patients, task=task, unlabelled=unlabelled
    )
    frame = pd.DataFrame(rows, columns=range(len(header)), dtype=str)
    names = [name for name in ("image", "patient_id", "mask", *OPTIONAL) if name in places]
    table = pd.DataFrame({name: frame[places[name]] for name in names}).astype(str)
    table["line"] = pd.Series(lines, dtype=str)
    labelled = bool(label_columns) or ("label" in places and bool((frame[places["label"]] != "").any()))
    if unlabelled and not labelled:
        task = None
    if label_columns:
        rules = label_rules(list(label_columns), exclude_labels=exclude_labels, negative=negative, task=task)
        texts = list(zip(*(frame[places[f"label:{name}"]] for name in label_columns), strict=True))
        words = {text: join_columns(text, list(label_columns), uncertain) for text in set(texts)}
    else:
        rules = label_rules(classes, exclude_labels=exclude_labels, negative=negative, task=task)
        texts = list(frame[places["label"]]) if "label" in places else [""] * len(frame)
        words = {text: translate(text, rules) for text in set(texts)}
    table, excluded = _leave_out(table, [words[text] for text in texts], collected)
    if table.empty and not collected:
        raise DataError(f"{path}: every row is excluded ({_told(excluded)}); there is no image left.")
    folder = Path(root) if root is not None else path.parent
    table = _identify(table, folder.absolute(), patients, collected)
    if "partition" in table:
        table["partition"] = _partitions(table, collected)
    if faults is None:
        raise_faults(path, collected)
    first = [name for name in ("image", "case", "line", "patient_id", "label", "mask") if name in table]
    table = table[first + [name for name in OPTIONAL if name in table and name != "exclude"]].reset_index(drop=True)
    table.attrs |= {"excluded": excluded, "labelled": labelled}
    return table


def _leave_out(
    table: pd.DataFrame, labels: Sequence[Translation], faults: list[Fault]
) -> tuple[pd.DataFrame, dict[str, int]]:
    """The rows that stay, with their labels, and the number left out for each reason."""
    reasons = [""] * len(table)
    if "exclude" in table:
        for position, value in enumerate(table["exclude"]):
            if value.lower() not in _KEPT:
                reasons[position] = "excluded in the manifest" if value.lower() in _EXCLUDED else value
    for position, label in enumerate(labels):
        reasons[position] = reasons[position] or label.excluded or ""
    for position, label in enumerate(labels):
        if label.fault and not reasons[position]:
            line, image = int(table["line"].iat[position]), table["image"].iat[position]
            faults.append(Fault("label", line, image, f"line {line}: {label.fault}"))
    table = table.assign(label=pd.Series([label.label for label in labels], index=table.index, dtype=str))
    kept = [not reason for reason in reasons]
    excluded = dict(sorted(Counter(reason for reason in reasons if reason).items()))
    return table[kept].reset_index(drop=True), excluded


def _identify(table: pd.DataFrame, folder: Path, patients: str, faults: list[Fault]) -> pd.DataFrame:
    """Absolute image references and patients; faults for a missing name, a missing patient, an image listed twice."""
    case = table["image"]
    images = [_absolute(name, folder) for name in case]
    table = table.assign(image=pd.Series(images, dtype=str), case=case)
    if "mask" in table:
        masks = [MASK_SEPARATOR.join(_absolute(name, folder) for name in split_masks(text)) for text in table["mask"]]
        table["mask"] = pd.Series(masks, dtype=str)
    if patients == "unknown":
        given = table["patient_id"] if "patient_id" in table else pd.Series([""] * len(table), dtype=str)
        table["patient_id"] = given.where(given != "", case)
    seen: dict[str, str] = {}
    for image, name, patient, line in zip(table["image"], case, table["patient_id"], table["line"], strict=True):
        if not name:
            faults.append(Fault("image", int(line), "", f"line {line} names no image"))
        elif seen.setdefault(image, line) != line:
            sentence = f"line {line} lists {name} again (first in line {seen[image]})"
            faults.append(Fault("listed_twice", int(line), name, sentence))
        if not patient:
            faults.append(Fault("patient", int(line), name, f"line {line} has no patient_id"))
    return table


def _absolute(name: str, folder: Path) -> str:
    return os.path.normpath(os.path.join(folder, name)) if name else ""


def split_masks(text: str) -> list[str]:
    """The references in a cell of the column ``mask``; none of an empty cell."""
    return [part.strip() for part in text.split(MASK_SEPARATOR) if part.strip()]


def _partitions(table: pd.DataFrame, faults: list[Fault]) -> pd.Series:
    words = table["partition"].str.lower()
    for word, name, line in zip(words, table["case"], table["line"], strict=True):
        if word and word not in _PARTITIONS:
            sentence = f"line {line}: partition {word!r} is none of train, validation, test"
            faults.append(Fault("partition", int(line), name, sentence))
    return words.map(lambda word: _PARTITIONS.get(word, word)).astype(str)


def _told(excluded: Mapping[str, int]) -> str:
    return ", ".join(f"{reason}: {number}" for reason, number in excluded.items())
