"""Seeds as readers: the variance of a mean over training seeds where patients are random too.

A multi-reader multi-case analysis after Obuchowski and Rockette (1995, Commun Stat Simul 24:285), the training seeds
being the readers, with Hillis' degrees of freedom (2007, Stat Med 26:596). The number analysed is a metric of one
setting, or the difference of two settings, which turns the two-modality analysis into the one-sample one below. With
y_s the number for seed s, MS the variance of the y_s and C the mean covariance between two seeds that comes from
patients being sampled,

    var(mean y) = MS / S + max(C, 0)        df = (S - 1) (var / (MS / S))^2.

MS holds the seeds' own variance and the part of the patients' that differs from seed to seed, so adding C counts
nothing twice. C is estimated by the bootstrap over patients. Where patients are few C is uncertain too: with f degrees
of freedom of its own, Satterthwaite's sum gives df = var^2 / ((MS / S)^2 / (S - 1) + C^2 / f).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student

from medgcsam.evaluation.intervals import MOST_UNDEFINED, Interval, no_interval, student_interval


@dataclass(frozen=True)
class Mean:
    """A mean over seeds, with what its uncertainty rests on."""

    value: float
    variance: float
    """NaN where it cannot be estimated."""
    df: float
    """Degrees of freedom; infinite where only patients vary."""
    seeds: int
    sd_seeds: float
    """Standard deviation between seeds; NaN with a single one."""
    reason: str = ""
    """Why there is no variance."""

    @property
    def error(self) -> float:
        """Standard error."""
        return float(np.sqrt(self.variance))

    def interval(self, confidence: float) -> Interval:
        """Limits of the mean on its own scale."""
        return self._limits(confidence, "plain")

    def interval_of_share(self, confidence: float) -> Interval:
        """Limits on the logit scale, for a mean in (0, 1)."""
        return self._limits(confidence, "logit")

    def interval_of_loss(self, confidence: float) -> Interval:
        """Limits on the log scale, for a mean above 0."""
        return self._limits(confidence, "log")

    def p_value(self) -> float:
        """Two-sided p of the mean being zero; NaN where there is no variance."""
        return float(2 * student.sf(abs(self.value) / self.error, self.df)) if np.isfinite(self.variance) else np.nan

    def _limits(self, confidence: float, scale: str) -> Interval:
        if not np.isfinite(self.variance):
            return no_interval(self.reason)
        return student_interval(self.value, self.error, self.df, scale=scale, confidence=confidence)


def mean_over_seeds(values: np.ndarray, replicates: np.ndarray, *, patients_df: float = np.inf) -> Mean:
    """Mean over seeds with its variance over seeds and patients.

    Args:
        values: (S,) the number per seed.
        replicates: (B, S) the same on bootstrap samples of patients, row by row the same patients for all seeds.
        patients_df: degrees of freedom of the covariance that they give; infinite where it counts as known.

    With one seed the variance is that of the patients alone: nothing is known about the seeds' part. The variance is
    never less than it would be for these very seeds (patients alone), which a small MS by luck could make it.
    """
    values, replicates = np.asarray(values, float), np.asarray(replicates, float)
    seeds, value = len(values), float(np.mean(values))
    spread = float(np.std(values, ddof=1)) if seeds > 1 else np.nan
    defined = replicates[np.isfinite(replicates).all(axis=1)]
    if not np.isfinite(value):
        return Mean(value, np.nan, np.nan, seeds, spread, "it cannot be computed from these cases")
    if len(defined) < max(2, (1 - MOST_UNDEFINED) * len(replicates)):
        undefined = len(replicates) - len(defined)
        reason = f"undefined in {undefined} of {len(replicates)} bootstrap replicates"
        return Mean(value, np.nan, np.nan, seeds, spread, reason)
    of_patients = float(np.var(defined.mean(axis=1), ddof=1))
    between = spread**2 / seeds if seeds > 1 else 0.0
    covariance = _covariance(defined)
    variance, df = between + covariance, np.inf
    if between > 1e-9 * variance:
        df = (seeds - 1) * (variance / between) ** 2
    if np.isfinite(patients_df) and variance > 0:
        df = 1 / (1 / df + (covariance / variance) ** 2 / patients_df)
    variance = max(variance, of_patients)
    if variance < 1e-18:
        reason = "all seeds and bootstrap replicates give the same number, so they say nothing about its uncertainty"
        return Mean(value, np.nan, np.nan, seeds, spread, reason)
    return Mean(value, variance, float(df), seeds, spread)


def _covariance(replicates: np.ndarray) -> float:
    """Mean covariance between two seeds over the replicates (B, S), not below 0; with one seed its variance."""
    count = replicates.shape[1]
    if count == 1:
        return float(np.var(replicates, ddof=1))
    # The variance of a sum is the sum of all variances and covariances.
    pairs = np.var(replicates.sum(axis=1), ddof=1) - np.var(replicates, axis=0, ddof=1).sum()
    return max(0.0, float(pairs) / (count * (count - 1)))
