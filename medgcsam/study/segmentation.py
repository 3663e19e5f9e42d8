"""Segmentation in a comparison: cases.csv, and its metrics as functions of patient weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas

from medgcsam.case_lines import check_lines
from medgcsam.errors import DataError
from medgcsam.evaluation.bootstrap import Statistic
from medgcsam.evaluation.patients import patient_sums
from medgcsam.run_folder import RunFolder
from medgcsam.study.cases import Cases, Measures, read_test_cases

MEASURES = Measures(
    words={"dice": "Dice", "nsd": "NSD", "hd95_mm": "HD95 (mm)", "hd95_px": "HD95 (px)"},
    losses=("hd95_mm", "hd95_px"),
    optional=("hd95_mm", "hd95_px"),
    bootstrap="bootstrap over patients, n - 1 of the n of a fold drawn (Rao and Wu 1988)",
)
_COLUMNS = ("status", "unit", "reference_size", "dice", "nsd", "hd95")
_SHOWN = ("ok", "missed")
_ROWS = 256


def read_run(run: RunFolder, metrics: Mapping[str, Any], *, baseline: bool = False) -> Cases:
    """Test cases from cases.csv, or baseline.csv.

    labels are the sizes of the structures in the reference, (n, S), NaN where it does not show them. answers are
    (n, S, MEASURES), NaN where the reference does not show the structure (then a metric is not about the case) or
    distances are in the other unit; missed structures have the values of the empty-case rule.

    Raises:
        DataError: a table is absent or damaged, lacks a line of a case and structure or has it twice.
    """
    path = run.baseline if baseline else run.cases
    structures = metrics["structures"]
    table = read_test_cases(path)
    wide = _wide(table, structures, path)
    status, unit = (wide[name].to_numpy(str) for name in ("status", "unit"))
    shown = np.isin(status, _SHOWN)
    size, *values = (_numbers(wide[name], shown, path) for name in ("reference_size", "dice", "nsd", "hd95"))
    dice, nsd, hd95 = values
    answers = np.stack([dice, nsd, *(np.where(unit == one, hd95, np.nan) for one in ("mm", "px"))], axis=2)
    patients = table.drop_duplicates("case").set_index("case")["patient"]
    return Cases(wide.index.to_numpy(str), patients[wide.index].to_numpy(str), size, answers)


def draws(
    cases: Cases, metrics: Mapping[str, Any], codes: np.ndarray, n_patients: int, *, replicates: int, seed: int
) -> Iterator[np.ndarray]:
    """Patient weights (b, P): of the n patients of a fold n - 1 are drawn, each weighing n / (n - 1).

    Drawing n makes the variance of a mean too small by 1 / n (Rao and Wu 1988, J Am Stat Assoc 83:231), which counts
    where a fold has a handful of patients. They are not stratified by the structures they show: strata of one or two
    patients would hardly vary. A single patient keeps its weight of 1.
    """
    generator = np.random.default_rng(seed)
    for start in range(0, replicates, _ROWS):
        rows = min(_ROWS, replicates - start)
        if n_patients == 1:
            yield np.ones((rows, 1))
            continue
        drawn = generator.integers(0, n_patients, size=(rows, n_patients - 1)) + np.arange(rows)[:, None] * n_patients
        counts = np.bincount(drawn.ravel(), minlength=rows * n_patients).reshape(rows, n_patients)
        yield counts * n_patients / (n_patients - 1)


def statistic(
    answers: np.ndarray, cases: Cases, metrics: Mapping[str, Any], codes: np.ndarray, n_patients: int
) -> Statistic:
    """Patient weights (b, P) -> totals (b, MEASURES, S, 2) that ``folds.over_folds`` makes means of.

    Of each structure the sum over patients of the mean over their images and the sum of their weights, both divided by
    the number of patients that have it: on the sample the first is the fold's mean over patients, the second 1. Both
    are 0 where no patient has it.
    """
    n, structures, width = answers.shape
    flat = answers.reshape(n, -1)
    known = np.isfinite(flat)
    images = patient_sums(known, codes, n_patients)
    has = images > 0
    per_patient = patient_sums(np.where(known, flat, 0.0), codes, n_patients) / np.maximum(images, 1)
    totals = np.stack([per_patient, has], axis=2) / np.maximum(has.sum(axis=0), 1)[:, None]
    totals = totals.reshape(n_patients, structures, width, 2).transpose(0, 2, 1, 3).reshape(n_patients, -1)
    return lambda weights: (weights @ totals).reshape(len(weights), width, structures, 2)


def patients_behind(cases: Cases) -> np.ndarray:
    """Number of patients that each measure of each structure rests on, (MEASURES, S)."""
    has = np.isfinite(cases.answers)
    count = [len(np.unique(cases.patients[column])) for column in has.reshape(len(has), -1).T]
    return np.array(count, dtype=np.float64).reshape(has.shape[1:]).T


def _wide(table: pandas.DataFrame, structures: Sequence[str], path: Path) -> pandas.DataFrame:
    """One row per case in the order of the file, columns (name, structure)."""
    again = "run the study anew with --restart."
    missing = [name for name in _COLUMNS if name not in table]
    if missing:
        raise DataError(f"{path}: the column {missing[0]!r} is missing; {again}")
    check_lines(table, structures, str(path), again=again)
    wide = table.pivot(index="case", columns="structure", values=list(_COLUMNS)).loc[table["case"].unique()]
    return wide[list(pandas.MultiIndex.from_product([_COLUMNS, structures]))]


def _numbers(texts: pandas.DataFrame, shown: np.ndarray, path: Path) -> np.ndarray:
    """(n, S) float64, NaN where the reference does not show the structure."""
    numbers = texts.apply(pandas.to_numeric, errors="coerce").to_numpy(np.float64)
    if not np.isfinite(numbers[shown]).all():
        case = texts.index[(shown & ~np.isfinite(numbers)).any(axis=1)][0]
        raise DataError(f"{path}: a number of case {case} is missing or damaged; run the study anew with --restart.")
    return np.where(shown, numbers, np.nan)
