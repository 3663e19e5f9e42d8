"""The test cases of predictions.csv as arrays for ``medgcsam.evaluation``, with the frozen thresholds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from medgcsam.cohort.labels import encode_labels
from medgcsam.errors import DataError
from medgcsam.report.facts import Facts


@dataclass(frozen=True)
class Question:
    """One class against the rest on its labelled test images."""

    name: str
    """The class."""
    labels: np.ndarray
    """(n,) bool, images that show it."""
    probabilities: np.ndarray
    """(n,) in [0, 1]."""
    patients: np.ndarray
    """(n,) hashes."""
    threshold: float | None
    """Frozen operating point; None where the decision is the largest probability."""

    @property
    def answerable(self) -> bool:
        """Whether both kinds of images are there, without which there is no curve."""
        return bool(self.labels.any() and not self.labels.all())


@dataclass(frozen=True)
class Cases:
    """Labelled images of the test partition."""

    labels: np.ndarray
    """(n,) class numbers, or for a multi-label task (n, k) of 0, 1 and NaN."""
    probabilities: np.ndarray
    """(n, k) in the order of the classes."""
    patients: np.ndarray
    """(n,) hashes."""
    questions: tuple[Question, ...]
    """Binary: the positive class alone; else one per class, in order."""


def test_cases(facts: Facts) -> Cases | None:
    """The test partition of predictions.csv; None where there is no file or no labelled test image.

    Raises:
        DataError: a column is missing, or a label is not one of the classes.
    """
    if facts.predictions is None:
        return None
    classes, task = facts.metrics["classes"], facts.metrics["task"]
    needed = ["patient", "partition", "label", *(f"p_{one}" for one in classes)]
    missing = [name for name in needed if name not in facts.predictions]
    if missing:
        raise DataError(f"predictions.csv: the column {missing[0]!r} is missing; restore the file or run again.")
    table = facts.predictions[facts.predictions["partition"] == "test"]
    table = table[table["label"] != ""]
    if table.empty:
        return None
    negative = (facts.config.get("data") or {}).get("negative")
    kind = "multilabel" if task == "multilabel" else "classification"
    labels = encode_labels(table["label"].tolist(), classes, kind, negative=negative)
    probabilities = table[[f"p_{one}" for one in classes]].to_numpy(dtype=np.float64)
    patients = table["patient"].to_numpy(dtype=str)
    return Cases(labels, probabilities, patients, _questions(facts.metrics, labels, probabilities, patients))


def operating_point_of(metrics: dict[str, Any], name: str) -> dict[str, Any]:
    """The operating point: the only one of a binary task, the class's own of a multi-label task; else empty."""
    point = metrics.get("operating_point") or {}
    if metrics["task"] == "multilabel":
        thresholds = point.get("threshold")
        if isinstance(thresholds, dict) and "rule" in point:
            return {**point, "threshold": thresholds.get(name)}
        found = point.get(name)
        return found if isinstance(found, dict) else {}
    return point if metrics["task"] == "binary" else {}


def positive_class(metrics: dict[str, Any]) -> str:
    """The positive class of a binary task; the last one where metrics.json names none."""
    return metrics.get("positive") or metrics["classes"][-1]


def _questions(
    metrics: dict[str, Any], labels: np.ndarray, probabilities: np.ndarray, patients: np.ndarray
) -> tuple[Question, ...]:
    classes, task = metrics["classes"], metrics["task"]
    found = []
    for name in [positive_class(metrics)] if task == "binary" else classes:
        column = classes.index(name)
        known = ~np.isnan(labels[:, column]) if task == "multilabel" else np.ones(len(labels), dtype=bool)
        truth = labels[:, column] > 0 if task == "multilabel" else labels == column
        found.append(
            Question(
                name=name,
                labels=truth[known],
                probabilities=probabilities[known, column],
                patients=patients[known],
                threshold=operating_point_of(metrics, name).get("threshold"),
            )
        )
    return tuple(found)
