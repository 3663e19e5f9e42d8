"""Confidence intervals: BCa, Wilson, logit scale, and limits that hold where the plain ones would be false."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit, logit
from scipy.stats import norm
from scipy.stats import t as student

MOST_UNDEFINED = 0.1
"""Largest share of replicates that may leave a statistic undefined before its interval is withheld."""


class Interval(NamedTuple):
    """Limits of an interval; NaN or infinite where there is no limit to give, and then the reason in words."""

    low: float
    high: float
    reason: str = ""


def no_interval(reason: str) -> Interval:
    """An interval that cannot be given, and why."""
    return Interval(np.nan, np.nan, reason)


def z_value(confidence: float) -> float:
    """Two-sided standard normal quantile: 1.96 for 0.95."""
    return float(norm.ppf(0.5 + confidence / 2))


def bca(
    estimate: float,
    replicates: np.ndarray,
    left_out: np.ndarray,
    *,
    strata: np.ndarray | None = None,
    confidence: float = 0.95,
) -> Interval:
    """Bias-corrected and accelerated bootstrap interval (Efron 1987; several samples: Davison and Hinkley 1997, 5.3.2).

    estimate: on the sample. replicates: (B,), NaN where undefined, infinite values keep their place in the order.
    left_out: (G,) with one patient left out each. strata: (G,) stratum of each of them (None: all one).
    """
    defined = replicates[~np.isnan(replicates)]
    if len(defined) < (1 - MOST_UNDEFINED) * len(replicates) or len(defined) == 0:
        return no_interval(f"undefined in {len(replicates) - len(defined)} of {len(replicates)} bootstrap replicates")
    finite = defined[np.isfinite(defined)]
    if len(finite) == 0 or np.ptp(finite) < 1e-12:
        return no_interval("all bootstrap replicates are equal, so they say nothing about its uncertainty")
    # Half of the ties count as below: for a discrete statistic the strict count would be a bias of its own.
    ties = np.isclose(defined, estimate, rtol=1e-12, atol=1e-14)
    below = np.mean((defined < estimate) & ~ties) + 0.5 * np.mean(ties)
    bias = norm.ppf(np.clip(below, 0.5 / len(defined), 1 - 0.5 / len(defined)))
    speed = acceleration(left_out, strata)
    tails = bias + np.array([-1.0, 1.0]) * z_value(confidence)
    shrink = 1 - speed * tails
    levels = np.where(shrink > 0, norm.cdf(bias + tails / np.where(shrink > 0, shrink, 1)), tails > 0)
    method = "linear" if np.isfinite(defined).all() else "inverted_cdf"
    low, high = np.quantile(defined, levels, method=method)
    reason = "" if np.isfinite(low) and np.isfinite(high) else "one limit is infinite"
    return Interval(float(low), float(high), reason)


def acceleration(left_out: np.ndarray, strata: np.ndarray | None = None) -> float:
    """Skewness of the estimate from leaving out one patient at a time; 0 where nothing varies or some are undefined."""
    if len(left_out) == 0 or not np.isfinite(left_out).all():
        return 0.0
    strata = np.zeros(len(left_out), dtype=int) if strata is None else strata
    squares = cubes = 0.0
    for stratum in np.unique(strata):
        values = left_out[strata == stratum]
        influence = (values.mean() - values) * (len(values) - 1) / len(values)
        squares += (influence**2).sum()
        cubes += (influence**3).sum()
    return float(cubes / (6 * squares**1.5)) if squares > 1e-30 else 0.0


def wilson(rate: float, n: float, *, confidence: float = 0.95) -> Interval:
    """Wilson's score interval (1927) of a proportion out of n, which may be an effective number of cases."""
    z = z_value(confidence)
    centre = (rate + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(rate * (1 - rate) / n + z**2 / (4 * n**2))
    # The limit on the boundary is exact in theory; rounding must not push it past.
    low = 0.0 if rate == 0 else max(0.0, centre - half)
    high = 1.0 if rate == 1 else min(1.0, centre + half)
    return Interval(float(low), float(high))


def logit_interval(estimate: float, standard_error: float, *, confidence: float = 0.95) -> Interval:
    """Wald interval on the logit scale, for an estimate strictly between 0 and 1."""
    half = z_value(confidence) * standard_error / (estimate * (1 - estimate))
    return Interval(float(expit(logit(estimate) - half)), float(expit(logit(estimate) + half)))


def student_interval(
    estimate: float, standard_error: float, df: float, *, scale: str = "plain", confidence: float = 0.95
) -> Interval:
    """Student's t interval of a mean, the normal one where ``df`` is infinite.

    scale: "logit" for a mean in 0..1, "log" for one above 0, else "plain"; the standard error, given on the plain one,
    is carried over by the slope of the scale, and no limit leaves the range of the metric.
    """
    if (scale == "logit" and not 0 < estimate < 1) or (scale == "log" and not estimate > 0):
        return no_interval("the mean is at the boundary")
    half = student.ppf(0.5 + confidence / 2, df) * standard_error
    if scale == "logit":
        centre, half = np.log(estimate / (1 - estimate)), half / (estimate * (1 - estimate))
        return Interval(*(float(1 / (1 + np.exp(-limit))) for limit in (centre - half, centre + half)))
    if scale == "log":
        centre, half = np.log(estimate), half / estimate
        return Interval(float(np.exp(centre - half)), float(np.exp(centre + half)))
    return Interval(float(estimate - half), float(estimate + half))


def degrees_of_freedom(variances: np.ndarray, of_each: np.ndarray, most: float) -> float:
    """Degrees of freedom of a sum of variances (Welch 1947, Satterthwaite 1946).

    variances, of_each: (S,) the estimated parts and the degrees of freedom of each. most: those of all patients
    together, which parts of the same patients, not being independent, cannot exceed.
    """
    squares = (variances**2 / of_each).sum()
    return float(min(most, variances.sum() ** 2 / squares)) if squares > 0 else float(most)


def mann_whitney_score(auroc: float, positives: float, negatives: float, *, confidence: float = 0.95) -> Interval:
    """Score-type interval of an AUROC that needs no estimated variance (Newcombe 2006, part 2, method 5).

    It stays honest at 0 and 1, where DeLong's variance is zero. positives, negatives: numbers of independent cases.
    """
    z = z_value(confidence)
    spread = (positives + negatives) / 2 - 1

    def lower(value: float) -> float:
        def excess(theta: float) -> float:
            bracket = 1 + spread * (1 - theta) / (2 - theta) + spread * theta / (1 + theta)
            return value - theta - z * np.sqrt(theta * (1 - theta) * bracket / (positives * negatives))

        # theta = value solves it trivially at the boundary, so the search stops just short of it.
        return 0.0 if value < 1e-9 else float(brentq(excess, 0.0, value - 1e-10))

    return Interval(lower(auroc), 1.0 - lower(1.0 - auroc))


def ratio_interval(top: float, of_top: Interval, bottom: float, of_bottom: Interval) -> Interval:
    """Interval of top/bottom from the intervals of two independent rates (MOVER, Donner and Zou 2012).

    Where bottom is 0 the ratio has no upper limit (infinite), but still a lower one.
    """
    product = top * bottom
    inside = product**2 - of_top.low * of_bottom.high * (2 * top - of_top.low) * (2 * bottom - of_bottom.high)
    divisor = of_bottom.high * (2 * bottom - of_bottom.high)
    low = (product - np.sqrt(max(0.0, inside))) / divisor if abs(divisor) > 1e-15 else 0.0
    if of_bottom.low <= 0:
        return Interval(float(max(0.0, low)), np.inf, "no upper limit: the denominator may be zero")
    inside = product**2 - of_top.high * of_bottom.low * (2 * top - of_top.high) * (2 * bottom - of_bottom.low)
    divisor = of_bottom.low * (2 * bottom - of_bottom.low)
    return Interval(float(max(0.0, low)), float((product + np.sqrt(max(0.0, inside))) / divisor))


def mean_interval(first: float, of_first: Interval, second: float, of_second: Interval) -> Interval:
    """Interval of the mean of two independent rates from their intervals (MOVER, Zou and Donner 2008)."""
    mean = (first + second) / 2
    down = np.hypot(first - of_first.low, second - of_second.low) / 2
    up = np.hypot(of_first.high - first, of_second.high - second) / 2
    return Interval(float(mean - down), float(mean + up))
