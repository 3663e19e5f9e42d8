"""Partitions that somebody else decided: by the manifest, by site, by date, or by an earlier split.json."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from medgcsam.cohort.faults import nearest, shorten
from medgcsam.errors import ConfigError, DataError

NAMES = ("train", "validation", "test")
REST = "rest"


def by_manifest(table: pd.DataFrame) -> pd.Series:
    """The manifest's own partitions; where it has no validation rows, its training rows become ``rest``.

    Raises:
        ConfigError: the manifest has no such column.
        DataError: rows without a partition, or no row to train on or to test on.
    """
    partition = _column(table, "partition", "split.by: manifest")
    empty = table.index[partition == ""]
    if len(empty):
        raise DataError(
            f"{len(empty)} of {len(table)} rows have no partition (lines {_lines(table, empty)}); "
            "give each train, validation or test, or a reason in the column 'exclude'."
        )
    _need(partition, "train", "column 'partition'")
    _need(partition, "test", "column 'partition'")
    return partition if (partition == "validation").any() else partition.replace("train", REST)


def by_site(table: pd.DataFrame, test_site: str | None) -> pd.Series:
    """Images of ``test_site`` are the test partition, all others ``rest``.

    Raises:
        ConfigError: no column ``site``, or no such site in it.
        DataError: there is no other site.
    """
    site = _column(table, "site", "split.by: site")
    sites = sorted(set(site))
    if test_site not in sites:
        hint = nearest(test_site, sites) if test_site else ""
        raise ConfigError(f"split.test_site: {test_site!r} is no site of the manifest{hint}; it has {shorten(sites)}.")
    if len(sites) == 1:
        raise DataError(f"every image comes from the site {test_site!r}, none is left to train on; add another site.")
    return pd.Series(["test" if name == test_site else REST for name in site], index=table.index, dtype=str)


def by_date(table: pd.DataFrame, test_from: str | datetime.date | None) -> pd.Series:
    """Images from ``test_from`` on (ISO date, that day included) are the test partition, earlier ones ``rest``.

    The column ``date`` holds ISO dates, with or without a time, or DICOM's YYYYMMDD.

    Raises:
        ConfigError: no column ``date``, no ``test_from`` or one that is no date.
        DataError: rows without a readable date, or all dates on one side.
    """
    written = _column(table, "date", "split.by: date")
    try:
        start = datetime.date.fromisoformat(str(test_from))
    except ValueError as error:
        raise ConfigError(f"split.test_from: {test_from!r} is no date; write it as 2024-01-31.") from error
    dates = written.map({text: _date(text) for text in set(written)})
    bad = table.index[dates.isna()]
    if len(bad):
        raise DataError(f"{len(bad)} rows have no readable date (lines {_lines(table, bad)}); write 2024-01-31.")
    partition = pd.Series(["test" if date >= start else REST for date in dates], index=table.index, dtype=str)
    _need(partition, "test", f"the images from {start} on")
    _need(partition, REST, f"the images before {start}")
    return partition


def by_file(
    table: pd.DataFrame, path: Path, hash_patient: Callable[[str], str], hash_case: Callable[[str], str]
) -> pd.Series:
    """The partitions of an earlier ``split.json``, found again by hashed patient; its dropped images stay dropped.

    Raises:
        DataError: the file is absent or is no split.json, or it and the manifest do not name the same patients.
    """
    document = _read_split(path)
    where = {code: name for name in NAMES for code in document["partitions"][name]}
    dropped = set(document.get("dropped", ()))
    codes = {patient: hash_patient(patient) for patient in table["patient_id"].unique()}
    found = [where.get(codes[patient], "") for patient in table["patient_id"]]
    partition = pd.Series(found, index=table.index, dtype=str)
    if dropped:
        partition = partition.mask([hash_case(name) in dropped for name in table["case"]], "dropped")
    strangers = table.loc[partition == "", "patient_id"].nunique()
    absent = len(where.keys() - set(codes.values()))
    if not (partition.isin(NAMES)).any():
        raise DataError(
            f"{path}: none of its {len(where)} patients is in the manifest; patients are hashed with the salt of the "
            "output folder (the file .salt in it), so use the output folder, or copy the salt, of its run."
        )
    if strangers or absent:
        raise DataError(
            f"{path}: {strangers} patients of the manifest are not in this split and {absent} of the split are not in "
            "the manifest; use the manifest it was made from, or make a new split."
        )
    return partition


def _read_split(path: Path) -> Mapping[str, Any]:
    try:
        document = json.loads(Path(path).read_text("utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such split; check split.file.") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: this split cannot be read ({error}); name a split.json of a run.") from error
    partitions = document.get("partitions") if isinstance(document, dict) else None
    if not isinstance(partitions, dict) or not all(isinstance(partitions.get(name), list) for name in NAMES):
        raise DataError(f"{path}: this is no split.json, its partitions are missing; name a split.json of a run.")
    codes = [code for name in NAMES for code in partitions[name]]
    if len(set(codes)) < len(codes):
        raise DataError(f"{path}: {len(codes) - len(set(codes))} patients are in two partitions of this split.")
    return document


def _date(text: str) -> datetime.date | None:
    try:
        return datetime.datetime.fromisoformat(text).date()
    except ValueError:
        return None


def _column(table: pd.DataFrame, name: str, reason: str) -> pd.Series:
    if name not in table:
        raise ConfigError(f"{reason} needs a column {name!r} in the manifest; map it with data.columns.{name}.")
    return table[name]


def _need(partition: pd.Series, name: str, what: str) -> None:
    if not (partition == name).any():
        raise DataError(f"{what} gives no {'training' if name in ('train', REST) else name} image; check it.")


def _lines(table: pd.DataFrame, rows: pd.Index) -> str:
    return shorten(table.loc[rows, "line"] if "line" in table else [row + 2 for row in rows])
