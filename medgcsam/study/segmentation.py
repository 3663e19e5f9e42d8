"""Segmentation in a comparison: cases.csv, and its metrics as functions of patient weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas

from medgcsam.errors import DataError
from medgcsam.evaluation.bootstrap import Statistic
from medgcsam.evaluation.patients import patient_strata, patient_sums
from medgcsam.evaluation.segmentation_summary import mean_statistic
from medgcsam.run_folder import RunFolder
from medgcsam.study.cases import Cases, Measures, read_test_cases

MEASURES = Measures(
    words={"dice": "Dice", "nsd": "NSD", "hd95_mm": "HD95 (mm)", "hd95_px": "HD95 (px)"},
    losses=("hd95_mm", "hd95_px"),
    optional=("hd95_mm", "hd95_px"),
    bootstrap="bootstrap over patients stratified by the structures they show, n - 1 of n drawn (Rao and Wu 1988)",
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
    """Patient weights (b, P), stratified by the structures that a patient's references show and do not show.

    Of n patients in a stratum n - 1 are drawn, each weighing n / (n - 1) (Rao and Wu 1988, J Am Stat Assoc 83:231):
    drawing n makes the variance of a mean too small by 1 / n, which counts where a fold has a handful of patients.
    """
    shown = np.isfinite(cases.labels)
    strata = patient_strata(np.concatenate([shown, ~shown], axis=1), codes, n_patients)
    members = [np.flatnonzero(strata == stratum) for stratum in np.unique(strata)]
    generators = [np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(len(members))]
    for start in range(0, replicates, _ROWS):
        rows = min(_ROWS, replicates - start)
        weights = np.ones((rows, n_patients))
        for patients, generator in zip(members, generators, strict=True):
            n = len(patients)
            if n > 1:
                drawn = generator.integers(0, n, size=(rows, n - 1)) + np.arange(rows)[:, None] * n
                counts = np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n)
                weights[:, patients] = counts * n / (n - 1)
        yield weights


def statistic(
    answers: np.ndarray, cases: Cases, metrics: Mapping[str, Any], codes: np.ndarray, n_patients: int
) -> Statistic:
    """Patient weights (b, P) -> (b, MEASURES): mean over structures of the mean over patients of that over images."""
    n, structures, width = answers.shape
    flat = answers.reshape(n, -1)
    known = np.isfinite(flat)
    sums = patient_sums(np.where(known, flat, 0.0), codes, n_patients)
    with np.errstate(invalid="ignore"):
        per_patient = sums / patient_sums(known, codes, n_patients)
    each = mean_statistic(per_patient.reshape(n_patients, structures, width).transpose(0, 2, 1))
    return lambda weights: each(weights).reshape(len(weights), width, 1 + structures)[:, :, 0]


def _wide(table: pandas.DataFrame, structures: Sequence[str], path: Path) -> pandas.DataFrame:
    """One row per case in the order of the file, columns (name, structure)."""
    again = "run the study anew with --restart."
    missing = [name for name in ("structure", *_COLUMNS) if name not in table]
    if missing:
        raise DataError(f"{path}: the column {missing[0]!r} is missing; {again}")
    twice = table.duplicated(["case", "structure"])
    if twice.any():
        raise DataError(f"{path}: case {table['case'][twice].iloc[0]} has a structure twice; {again}")
    wide = table.pivot(index="case", columns="structure", values=list(_COLUMNS)).loc[table["case"].unique()]
    wanted = pandas.MultiIndex.from_product([_COLUMNS, structures])
    if set(wide.columns) != set(wanted) or wide.isna().any(axis=None):
        raise DataError(f"{path}: not every case has a line for each of {', '.join(structures)}; {again}")
    return wide[list(wanted)]


def _numbers(texts: pandas.DataFrame, shown: np.ndarray, path: Path) -> np.ndarray:
    """(n, S) float64, NaN where the reference does not show the structure."""
    numbers = texts.apply(pandas.to_numeric, errors="coerce").to_numpy(np.float64)
    if not np.isfinite(numbers[shown]).all():
        case = texts.index[(shown & ~np.isfinite(numbers)).any(axis=1)][0]
        raise DataError(f"{path}: a number of case {case} is missing or damaged; run the study anew with --restart.")
    return np.where(shown, numbers, np.nan)
