"""The validation score that selects the best epoch: higher is better."""

from __future__ import annotations

import numpy as np

from medgcsam.evaluation.ranking import placements
from medgcsam.training.tasks import Task


def auroc(task: Task, targets: np.ndarray, probabilities: np.ndarray) -> float | None:
    """AUROC over images: of the positive class, or the mean of one-vs-rest over the classes that have both sides.

    Returns None where no class has a positive and a negative image.
    """
    values = [_area(*one_vs_rest(task, targets, probabilities, k)) for k in _columns(task)]
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def one_vs_rest(task: Task, targets: np.ndarray, probabilities: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels (m,) bool and scores (m,) of class ``k``, unknown entries left out."""
    if task.kind != "multilabel":
        return targets == k, probabilities[:, k]
    known = ~np.isnan(targets[:, k])
    return targets[known, k] > 0.5, probabilities[known, k]


def _columns(task: Task) -> list[int]:
    return [task.classes.index(task.positive)] if task.kind == "binary" else list(range(len(task.classes)))


def _area(labels: np.ndarray, scores: np.ndarray) -> float | None:
    if labels.all() or not labels.any():
        return None
    return float(placements(labels, scores)[0].mean())
