"""What the report draws: ROC with a band from the patient bootstrap, precision-recall, confusion matrix."""

from __future__ import annotations

from typing import Any

import numpy as np

from medgcsam.errors import DataError
from medgcsam.evaluation.bootstrap import PatientBootstrap
from medgcsam.evaluation.patients import patient_codes, patient_strata
from medgcsam.evaluation.ranking import Ranking


def roc_points(
    labels: np.ndarray,
    probabilities: np.ndarray,
    patients: np.ndarray,
    *,
    replicates: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
    grid: int = 101,
    most_points: int = 500,
) -> dict[str, Any]:
    """ROC curve and its pointwise confidence band.

    labels: (n,) bool, both classes present; probabilities: (n,) of the positive class; patients: (n,). Returns lists
    {"fpr", "tpr", "threshold", "band": {"fpr", "low", "high"}}: the curve from (0, 0), whose threshold is None, to
    (1, 1), a point for each threshold where it turns, at most most_points; the band holds percentiles of the
    sensitivity over replicates at `grid` equally spaced false-positive rates. Raises DataError where a class is
    missing.
    """
    labels, scores, codes, n_patients = _binary(labels, probabilities, patients)
    ranking = Ranking.of(labels, scores, codes)
    positive, negative = (counts[0] for counts in ranking.cumulative(np.ones((1, n_patients))))
    tpr, fpr = np.r_[0.0, positive / positive[-1]], np.r_[0.0, negative / negative[-1]]
    kept = _thinned(_turns(positive, negative), most_points)
    thresholds = np.r_[np.nan, np.unique(scores)[::-1]]

    strata = patient_strata(np.stack([~labels, labels], axis=1), codes, n_patients)
    rates = np.linspace(0.0, 1.0, grid)

    def sensitivity(weights: np.ndarray) -> np.ndarray:
        ups, alongs = ranking.cumulative(weights)
        rows = zip(ups, alongs, strict=True)
        return np.stack([np.interp(rates, np.r_[0.0, b / b[-1]], np.r_[0.0, a / a[-1]]) for a, b in rows])

    bootstrap = PatientBootstrap(strata, len(labels), replicates, seed)
    values = np.concatenate([sensitivity(weights) for weights in bootstrap.draws()])
    low, high = np.quantile(values, [0.5 - confidence / 2, 0.5 + confidence / 2], axis=0)
    return {
        "fpr": fpr[kept].tolist(),
        "tpr": tpr[kept].tolist(),
        "threshold": [None if np.isnan(value) else float(value) for value in thresholds[kept]],
        "band": {"fpr": rates.tolist(), "low": low.tolist(), "high": high.tolist()},
    }


def precision_recall_points(
    labels: np.ndarray, probabilities: np.ndarray, *, most_points: int = 500
) -> dict[str, list[float]]:
    """Precision and recall at each distinct threshold, from the highest down: equal lists of at most most_points.

    labels: (n,) bool, both classes present; probabilities: (n,). Interpolating linearly between points is optimistic:
    draw steps.
    """
    labels, scores, codes, n_images = _binary(labels, probabilities, np.arange(len(labels)))
    ranking = Ranking.of(labels, scores, codes)
    positive, negative = (counts[0] for counts in ranking.cumulative(np.ones((1, n_images))))
    kept = _thinned(np.arange(len(positive)), most_points)
    return {
        "recall": (positive / positive[-1])[kept].tolist(),
        "precision": (positive / (positive + negative))[kept].tolist(),
        "threshold": np.unique(scores)[::-1][kept].tolist(),
    }


def confusion_matrix(labels: np.ndarray, decisions: np.ndarray, n_classes: int) -> np.ndarray:
    """Counts (n_classes, n_classes), rows the reference standard, columns the decision; both (n,) class numbers."""
    labels, decisions = np.asarray(labels, dtype=int), np.asarray(decisions, dtype=int)
    return np.bincount(labels * n_classes + decisions, minlength=n_classes**2).reshape(n_classes, n_classes)


def _binary(
    labels: np.ndarray, probabilities: np.ndarray, patients: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    labels, scores = np.asarray(labels).astype(bool), np.asarray(probabilities, dtype=np.float64)
    if labels.all() or not labels.any():
        raise DataError("A curve needs cases of both classes, and these are all of one: there is nothing to draw.")
    return labels, scores, *patient_codes(patients)


def _turns(positive: np.ndarray, negative: np.ndarray) -> np.ndarray:
    """Points of the curve, the origin being number 0, where it changes direction, and both ends."""
    up, along = np.diff(positive, prepend=0.0), np.diff(negative, prepend=0.0)
    straight = up[:-1] * along[1:] == up[1:] * along[:-1]
    return np.r_[0, np.flatnonzero(~straight) + 1, len(positive)]


def _thinned(indices: np.ndarray, most: int) -> np.ndarray:
    if len(indices) <= most:
        return indices
    return indices[np.unique(np.linspace(0, len(indices) - 1, most).round().astype(int))]
