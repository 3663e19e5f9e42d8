"""AUROC and average precision: from weighted images for the bootstrap, and the AUROC's variance over patients."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medgcsam.evaluation.intervals import Interval, logit_interval, mann_whitney_score, no_interval
from medgcsam.evaluation.patients import patient_sums


@dataclass(frozen=True)
class Ranking:
    """Images sorted once by falling score, so that each replicate costs cumulative sums only."""

    codes: np.ndarray
    """(n,) patient of each image, best score first."""
    labels: np.ndarray
    """(n,) 1.0 for positive images, in the same order."""
    starts: np.ndarray | None
    """First position of each group of equal scores; None where all scores differ."""

    @classmethod
    def of(cls, labels: np.ndarray, scores: np.ndarray, codes: np.ndarray) -> Ranking:
        """labels: (n,) bool; scores: (n,) higher means more positive; codes: (n,) patient numbers."""
        order = np.argsort(-scores, kind="stable")
        ordered = scores[order]
        starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
        return cls(codes[order], labels[order].astype(np.float64), None if len(starts) == len(order) else starts)

    def auroc_and_auprc(self, weights: np.ndarray) -> np.ndarray:
        """AUROC (ties count half) and average precision (as sklearn defines it) for patient weights (b, P): (b, 2)."""
        step, drop = self._per_score(weights)
        positive, negative = np.cumsum(step, axis=1), np.cumsum(drop, axis=1)
        positives, negatives = positive[:, -1], negative[:, -1]
        called = positive + negative
        precision = np.divide(positive, called, out=positive.copy(), where=called > 0)
        # Negatives below a score, and half of those that share it.
        below = np.subtract(negatives[:, None], negative, out=called)
        below += 0.5 * drop
        with np.errstate(invalid="ignore", divide="ignore"):
            auroc = np.einsum("bi,bi->b", step, below) / (positives * negatives)
            auprc = np.einsum("bi,bi->b", step, precision) / positives
        return np.stack([auroc, auprc], axis=1)

    def cumulative(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Weighted counts of positives and of negatives scored at or above each distinct score: twice (b, groups)."""
        step, drop = self._per_score(weights)
        return np.cumsum(step, axis=1), np.cumsum(drop, axis=1)

    def _per_score(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        images = np.take(weights, self.codes, axis=1)
        positive = images * self.labels
        negative = np.subtract(images, positive, out=images)
        if self.starts is not None:
            positive = np.add.reduceat(positive, self.starts, axis=1)
            negative = np.add.reduceat(negative, self.starts, axis=1)
        return positive, negative


def placements(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each positive image the share of negatives below it, of each negative that of positives above; ties half."""
    positive, negative = np.sort(scores[labels]), np.sort(scores[~labels])
    return _share_below(negative, scores[labels]), 1 - _share_below(positive, scores[~labels])


def _share_below(ordered: np.ndarray, scores: np.ndarray) -> np.ndarray:
    both = np.searchsorted(ordered, scores, "left") + np.searchsorted(ordered, scores, "right")
    return both / (2 * len(ordered))


def auroc_variance(labels: np.ndarray, scores: np.ndarray, codes: np.ndarray) -> tuple[float, float]:
    """AUROC over images and its variance with patients as clusters (Obuchowski 1997, Biometrics 53:567).

    labels: (n,) bool, both present; scores: (n,); codes: (n,) patient numbers. With one image per patient this is
    DeLong's variance (1988). The variance is NaN where a class comes from a single patient.
    """
    of_positive, of_negative = placements(labels, scores)
    area = float(of_positive.mean())
    n_patients = int(codes.max()) + 1
    columns = np.zeros((len(labels), 4))
    columns[labels, 0], columns[labels, 1] = of_positive - area, 1
    columns[~labels, 2], columns[~labels, 3] = of_negative - area, 1
    up, positives, down, negatives = patient_sums(columns, codes, n_patients).T
    with_positive, with_negative = (positives > 0).sum(), (negatives > 0).sum()
    if min(with_positive, with_negative) < 2:
        return area, float("nan")
    present = ((positives + negatives) > 0).sum()
    m, n = positives.sum(), negatives.sum()
    variance = with_positive / (with_positive - 1) * (up**2).sum() / m**2
    variance += with_negative / (with_negative - 1) * (down**2).sum() / n**2
    variance += 2 * present / (present - 1) * (up * down).sum() / (m * n)
    return area, float(variance)


def auroc_with_interval(
    labels: np.ndarray, scores: np.ndarray, codes: np.ndarray, *, confidence: float = 0.95
) -> tuple[float, Interval, str]:
    """AUROC over images, its interval with patients as clusters, and the method in words.

    Logit scale around DeLong's or Obuchowski's variance. Where that variance is zero (perfect separation, constant
    scores) Newcombe's score interval with the numbers of patients takes its place, since [1, 1] would be a false
    promise.
    """
    area, variance = auroc_variance(labels, scores, codes)
    patients = [len(np.unique(codes[labels])), len(np.unique(codes[~labels]))]
    single = len(np.unique(codes)) == len(codes)
    level = "one image per patient" if single else "image level, patients as clusters"
    if np.isnan(variance):
        return area, no_interval("one of the classes comes from a single patient"), level
    if 0 < area < 1 and variance > 1e-14:
        name = "DeLong's variance" if single else "Obuchowski's clustered variance"
        return area, logit_interval(area, variance**0.5, confidence=confidence), f"{level}; {name}, logit scale"
    interval = mann_whitney_score(area, *patients, confidence=confidence)
    why = "with the numbers of patients, as the estimated variance is zero"
    return area, interval, f"{level}; Newcombe's score interval {why}"
