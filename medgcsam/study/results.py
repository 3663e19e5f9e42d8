"""What finished runs say about their test cases, read from their tables of cases and metrics.json alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import yaml

from medgcsam.errors import DataError
from medgcsam.run_folder import RunFolder, read_json
from medgcsam.study import classification, segmentation
from medgcsam.study.cases import Cases
from medgcsam.study.plan import PlannedRun

_QUESTION = ("task", "classes", "structures", "nsd_tolerance")
"""What of metrics.json says which question a run answers."""


@dataclass(frozen=True)
class Result:
    """The test cases of one finished run and what it and the sanity baseline made of them."""

    setting: str
    seed: int
    fold: int
    tested: Cases
    baseline: np.ndarray | None
    """The sanity baseline's answers on the same cases."""
    metrics: Mapping[str, Any]
    """The run's metrics.json."""
    margin: float | None
    """`compare.margin` when the run began."""


def task_of(metrics: Mapping[str, Any]) -> ModuleType:
    """The file of this room for a run's task: its MEASURES, ``read_run``, ``draws`` and ``statistic``."""
    return segmentation if metrics["task"] == "segmentation" else classification


def read_result(planned: PlannedRun, run: RunFolder) -> Result:
    """The result of a finished run.

    Raises:
        DataError: a file is absent or damaged, or the baseline was made for other cases.
    """
    metrics = read_json(run.metrics)
    task = task_of(metrics)
    tested, baseline = task.read_run(run, metrics), None
    if run.baseline.is_file():
        beside = task.read_run(run, metrics, baseline=True)
        if not np.array_equal(beside.cases, tested.cases):
            raise DataError(f"{run.baseline}: its cases are not those of the run; begin anew with --restart.")
        baseline = beside.answers
    return Result(planned.setting, planned.seed, planned.fold, tested, baseline, metrics, _margin(run))


def check_paired(first: Result, other: Result) -> None:
    """Two runs of one fold must be about the same cases, patients and labels, in the same order.

    Raises:
        DataError: they are not.
    """
    a, b = first.tested, other.tested
    same = (
        all(first.metrics.get(key) == other.metrics.get(key) for key in _QUESTION)
        and np.array_equal(a.cases, b.cases)
        and np.array_equal(a.patients, b.patients)
        and np.array_equal(a.labels, b.labels, equal_nan=a.labels.dtype.kind == "f")
    )
    if not same:
        raise DataError(
            f"fold {first.fold}: {first.setting} with seed {first.seed} and {other.setting} with seed {other.seed} "
            "were not tested on the same cases, so they cannot be paired; run the study anew with --restart."
        )


def _margin(run: RunFolder) -> float | None:
    try:
        written = yaml.safe_load(run.config.read_text("utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise DataError(f"{run.config}: cannot be read ({error}); begin the run anew with --restart.") from error
    return (written.get("compare") or {}).get("margin")
