"""Means over patients, averaged over structures, with an interval that holds where patients are few."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medgcsam.evaluation.intervals import Interval, degrees_of_freedom, no_interval, student_interval

FEWEST_PATIENTS = 3
"""An interval needs this many patients of every structure: from them on simulated 95% intervals of Dice hold the truth
in 94% or more (benchmarks/coverage_segmentation.py); two patients say nearly nothing of how patients vary."""


@dataclass(frozen=True)
class StructureMean:
    """A mean over structures, with its standard error and degrees of freedom; NaN and a reason where it has none."""

    value: float
    error: float
    df: float
    reason: str = ""

    def interval(self, scale: str, confidence: float) -> Interval:
        """Student's t interval on a scale that ``student_interval`` knows."""
        if self.reason:
            return no_interval(self.reason)
        return student_interval(self.value, self.error, self.df, scale=scale, confidence=confidence)


def mean_over_structures(means: np.ndarray, structures: Sequence[str]) -> StructureMean:
    """Mean over the S structures of the mean over the patients that have a value, and its error over patients.

    means: (P, S), one number per patient and structure, NaN where the patient has none. structures: their S names.

    A patient moves the mean by u = sum over its structures of (x_s - mean_s) / (n_s S), with n_s the number of patients
    of structure s, and the variance is the sum of u^2 over patients: structures that share patients need no
    independence. Each term is larger by sqrt(n_s / (n_s - 1)), so that of one structure it is s^2 / n. A t interval of
    this covers better than a bootstrap, whose replicates of a handful of patients cannot leave their range.
    """
    present = np.isfinite(means)
    usable = present.any(axis=0)
    if not usable.any():
        return StructureMean(np.nan, np.nan, np.nan, "no patient has a value")
    means, present = means[:, usable], present[:, usable]
    count, parts = present.sum(axis=0), int(usable.sum())
    each = np.where(present, means, 0.0).sum(axis=0) / count
    value = float(each.mean())
    names = [name for name, one in zip(structures, usable, strict=True) if one]
    why = too_few(dict(zip(names, count, strict=True)))
    if why:
        return StructureMean(value, np.nan, np.nan, why)
    moved = np.where(present, means - each, 0.0) / (np.sqrt(count * (count - 1.0)) * parts)
    error = float(np.sqrt((moved.sum(axis=1) ** 2).sum()))
    if error < 1e-9 * max(1.0, abs(value)):
        return StructureMean(value, np.nan, np.nan, "all patients have the same value, so they say nothing about it")
    df = degrees_of_freedom((moved**2).sum(axis=0), count - 1.0, float(present.any(axis=1).sum() - 1))
    return StructureMean(value, error, df)


def too_few(patients: dict[str, float]) -> str:
    """Why there is no interval where a structure has fewer than FEWEST_PATIENTS; empty where none has."""
    few = [f"{name} {int(count)}" for name, count in patients.items() if count < FEWEST_PATIENTS]
    if not few:
        return ""
    return f"too few patients for an interval: {', '.join(few)}, where {FEWEST_PATIENTS} are needed"
