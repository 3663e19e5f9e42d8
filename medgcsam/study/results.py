"""What finished runs say about their test cases, read from predictions.csv and metrics.json alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas
import yaml

from medgcsam.cohort import encode_labels
from medgcsam.errors import DataError
from medgcsam.run_folder import RunFolder, read_json, read_table
from medgcsam.study.plan import PlannedRun


@dataclass(frozen=True)
class Result:
    """The test cases of one finished run and what it and the sanity baseline made of them."""

    setting: str
    seed: int
    fold: int
    cases: np.ndarray
    """(n,) hashes."""
    patients: np.ndarray
    """(n,) hashes."""
    labels: np.ndarray
    """int64 (n,), or float (n, classes) with NaN where unknown, for multi-label tasks."""
    probabilities: np.ndarray
    """(n, classes)."""
    baseline: np.ndarray | None
    """(n, classes), the sanity baseline's."""
    metrics: Mapping[str, Any]
    """The run's metrics.json."""
    margin: float | None
    """`compare.margin` when the run began."""


def read_result(planned: PlannedRun, run: RunFolder) -> Result:
    """The result of a finished run.

    Raises:
        DataError: a file is absent or damaged, or the baseline was made for other cases.
    """
    metrics = read_json(run.metrics)
    classes = metrics["classes"]
    table = _test_cases(run.predictions)
    baseline = None
    if run.baseline.is_file():
        beside = _test_cases(run.baseline)
        if list(beside["case"]) != list(table["case"]):
            raise DataError(f"{run.baseline}: its cases are not those of predictions.csv; begin anew with --restart.")
        baseline = _probabilities(beside, classes)
    task = "multilabel" if metrics["task"] == "multilabel" else "classification"
    return Result(
        setting=planned.setting,
        seed=planned.seed,
        fold=planned.fold,
        cases=table["case"].to_numpy(str),
        patients=table["patient"].to_numpy(str),
        labels=encode_labels(table["label"], classes, task),
        probabilities=_probabilities(table, classes),
        baseline=baseline,
        metrics=metrics,
        margin=_margin(run),
    )


def check_paired(first: Result, other: Result) -> None:
    """Two runs of one fold must be about the same cases, patients and labels, in the same order.

    Raises:
        DataError: they are not.
    """
    same = (
        first.metrics["classes"] == other.metrics["classes"]
        and np.array_equal(first.cases, other.cases)
        and np.array_equal(first.patients, other.patients)
        and np.array_equal(first.labels, other.labels, equal_nan=first.labels.dtype.kind == "f")
    )
    if not same:
        raise DataError(
            f"fold {first.fold}: {first.setting} with seed {first.seed} and {other.setting} with seed {other.seed} "
            "were not tested on the same cases, so they cannot be paired; run the study anew with --restart."
        )


def _test_cases(path) -> pandas.DataFrame:
    table = read_table(path)
    table = table[table["partition"] == "test"]
    if table.empty:
        raise DataError(f"{path}: there is no test case in it; run the study anew with --restart.")
    return table


def _probabilities(table: pandas.DataFrame, classes: list[str]) -> np.ndarray:
    return table[[f"p_{name}" for name in classes]].to_numpy(np.float64)


def _margin(run: RunFolder) -> float | None:
    try:
        written = yaml.safe_load(run.config.read_text("utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise DataError(f"{run.config}: cannot be read ({error}); begin the run anew with --restart.") from error
    return (written.get("compare") or {}).get("margin")
