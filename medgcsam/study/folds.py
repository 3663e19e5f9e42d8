"""Folds become one number: each part of a metric is averaged over the folds that have it, and by what patients.

A part is a structure of a segmentation; a metric of a classification is one part. A fold whose test cases lack a part
has no say on it, and a fold that lacks all parts has none on the metric.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medgcsam.evaluation.intervals import degrees_of_freedom
from medgcsam.evaluation.structure_means import too_few


def as_totals(numbers: np.ndarray) -> np.ndarray:
    """Totals (R, M, S, 2) of a task's numbers: its own, or of (R, M), row 0 the sample, each metric as one part."""
    if numbers.ndim == 4:
        return numbers
    known = np.isfinite(numbers[0])
    weights = np.broadcast_to(known.astype(np.float64), numbers.shape)
    return np.stack([np.where(known, numbers, 0.0), weights], axis=2)[:, :, None]


def over_folds(totals: Sequence[np.ndarray]) -> np.ndarray:
    """Mean of each part over folds, (R, S), NaN where no fold has it, from the folds' totals (R, S, 2).

    Of a structure: the sum over folds of its weighted mean, divided by that of its weights, which on the sample is the
    mean over folds of the means over patients. In a bootstrap sample a structure that one fold lacks by chance thus
    loses this fold, and only one that all lack is undefined.
    """
    top, bottom = np.moveaxis(np.sum(totals, axis=0), -1, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(bottom > 0, top / bottom, np.nan)


@dataclass(frozen=True)
class Support:
    """What a metric rests on: F folds and S parts."""

    folds: Sequence[int]
    parts: Sequence[str]
    """Names of the structures; one nameless part of a classification."""
    behind: np.ndarray
    """(F, S) patients that have a part; infinite where their number plays no role, 0 where the fold lacks it."""
    sizes: np.ndarray
    """(F,) test patients of each fold."""

    @property
    def usable(self) -> np.ndarray:
        """(S,) whether any fold has the part."""
        return (self.behind > 0).any(axis=0)

    @property
    def heard(self) -> list[int]:
        """The folds that have any part."""
        return [fold for fold, any_part in zip(self.folds, (self.behind > 0).any(axis=1), strict=True) if any_part]

    @property
    def uneven(self) -> bool:
        """Whether a fold lacks a part, so that the mean is not over the same folds for all."""
        return bool(self.usable.any() and (self.behind == 0).any())

    def too_few(self) -> str:
        """Why patients are too few for an interval; empty where they are not."""
        counts = zip(self.parts, self.behind.sum(axis=0), self.usable, strict=True)
        return too_few({name: count for name, count, usable in counts if usable})

    def degrees_of_freedom(self, variances: np.ndarray) -> float:
        """Of the variance over patients of the mean over usable parts, from the variance of each of these, (S',).

        Patients are drawn within folds, so a fold takes one degree from a structure that all its patients show, and
        less from one that few show, as then the zeros of the others vary too.
        """
        behind = self.behind[:, self.usable]
        if not np.isfinite(behind).all():
            return np.inf
        lost = (behind / self.sizes[:, None]).sum(axis=0)
        of_each = np.maximum(behind.sum(axis=0) - np.maximum(lost, 1.0), 1.0)
        return degrees_of_freedom(variances, of_each, max(1.0, self.sizes.sum() - len(self.sizes)))

    def words(self) -> str:
        """Over which folds the mean is, and each structure's where they differ."""
        heard, away = self.heard, [fold for fold in self.folds if fold not in self.heard]
        over = f"mean over {len(heard)} folds" if len(heard) > 1 else "one fold"
        if away and heard:
            over += f" of {len(self.folds)} ({_folds(away)} no test case for it)"
        counts = (self.behind > 0).sum(axis=0)
        if (counts < len(heard)).any():
            over += ", each structure over the folds whose test cases show it: "
            over += ", ".join(f"{name} {count}" for name, count in zip(self.parts, counts, strict=True))
            if not counts.all():
                over += " (one that no fold shows is left out)"
        return over


def _folds(numbers: Sequence[int]) -> str:
    listed = ", ".join(map(str, numbers))
    return f"fold {listed} has" if len(numbers) == 1 else f"folds {listed} have"
