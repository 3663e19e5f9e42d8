"""Intervals against statsmodels, and their behaviour at the boundary."""

from __future__ import annotations

import numpy as np
import pytest
from statsmodels.stats.proportion import proportion_confint

from medgcsam.evaluation import bca, mann_whitney_score, wilson
from medgcsam.evaluation.intervals import (
    Interval,
    acceleration,
    degrees_of_freedom,
    mean_interval,
    ratio_interval,
    student_interval,
)


@pytest.mark.parametrize(("count", "n"), [(0, 12), (3, 12), (12, 12), (57, 83)])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_wilson_agrees_with_statsmodels(count, n, confidence):
    expected = proportion_confint(count, n, alpha=1 - confidence, method="wilson")
    np.testing.assert_allclose(wilson(count / n, n, confidence=confidence)[:2], expected, atol=1e-9)


def test_perfect_separation_is_no_proof():
    few, many = mann_whitney_score(1.0, 10, 10), mann_whitney_score(1.0, 200, 200)
    assert few.high == many.high == 1.0
    assert 0.6 < few.low < 0.9 < many.low < 1.0


def test_score_interval_is_symmetric_in_the_classes():
    up, down = mann_whitney_score(0.8, 15, 40), mann_whitney_score(0.2, 40, 15)
    assert up.low == pytest.approx(1 - down.high)
    assert up.high == pytest.approx(1 - down.low)
    assert up.low < 0.8 < up.high


def test_bca_is_equivariant_under_monotone_transformations():
    generator = np.random.default_rng(0)
    replicates, left_out = generator.gamma(4, size=5000), generator.gamma(400, size=50) / 100
    plain = bca(4.0, replicates, np.full(50, 4.0))
    logs = bca(np.log(4.0), np.log(replicates), np.full(50, np.log(4.0)))
    np.testing.assert_allclose(np.log(plain[:2]), logs[:2], atol=0.01)
    assert abs(acceleration(left_out)) > 0


def test_bca_says_why_there_is_none():
    assert "equal" in bca(1.0, np.ones(100), np.ones(10)).reason
    undefined = np.r_[np.full(50, np.nan), np.arange(50.0)]
    assert "undefined in 50 of 100" in bca(20.0, undefined, np.arange(10.0)).reason


def test_bca_with_infinite_replicates_has_an_infinite_limit_and_no_nan():
    interval = bca(50.0, np.r_[np.arange(95.0), np.full(5, np.inf)], np.arange(10.0))
    assert interval.high == np.inf
    assert np.isfinite(interval.low)
    assert interval.reason


def test_acceleration_of_a_mean_is_its_skewness():
    values = np.random.default_rng(0).exponential(size=80)
    left_out = (values.sum() - values) / 79
    centred = values - values.mean()
    expected = (centred**3).sum() / (6 * (centred**2).sum() ** 1.5)
    assert acceleration(left_out) == pytest.approx(expected)


def test_ratio_of_rates_against_the_log_method():
    """Far from the boundary MOVER and the usual log-scale interval of a likelihood ratio nearly agree."""
    top, bottom, n = 0.8, 0.3, 400
    found = ratio_interval(top, wilson(top, n), bottom, wilson(bottom, n))
    half = 1.96 * np.sqrt((1 - top) / (top * n) + (1 - bottom) / (bottom * n))
    np.testing.assert_allclose(found[:2], top / bottom * np.exp([-half, half]), rtol=0.02)


def test_ratio_with_a_denominator_of_zero_keeps_its_lower_limit():
    interval = ratio_interval(0.8, wilson(0.8, 50), 0.0, wilson(0.0, 50))
    assert interval.high == np.inf
    assert 5 < interval.low < 20


def test_mean_of_two_rates_is_narrower_than_either():
    one = wilson(0.9, 50)
    mean = mean_interval(0.9, one, 0.9, one)
    assert mean.high - mean.low == pytest.approx((one.high - one.low) / np.sqrt(2), rel=0.05)
    assert isinstance(mean, Interval)


def test_students_interval_keeps_to_the_range_of_its_scale():
    plain = student_interval(0.9, 0.1, 4)
    assert plain.high == pytest.approx(0.9 + 2.776 * 0.1, abs=1e-3)
    low, high, _ = student_interval(0.9, 0.1, 4, scale="logit")
    assert 0 < low < 0.9 < high < 1
    # On the logit scale the two sides are equal.
    odds = [np.log(value / (1 - value)) for value in (low, 0.9, high)]
    assert odds[2] - odds[1] == pytest.approx(odds[1] - odds[0]) == pytest.approx(2.776 * 0.1 / 0.09, abs=1e-2)
    low, high, _ = student_interval(3.0, 2.0, np.inf, scale="log")
    assert (low, high) == pytest.approx((3 * np.exp(-1.96 * 2 / 3), 3 * np.exp(1.96 * 2 / 3)), rel=1e-3)


@pytest.mark.parametrize(("mean", "scale"), [(0.0, "logit"), (1.0, "logit"), (0.0, "log")])
def test_a_mean_at_the_boundary_has_no_interval(mean, scale):
    found = student_interval(mean, 0.1, 4, scale=scale)
    assert np.isnan(found.low)
    assert "boundary" in found.reason


def test_degrees_of_freedom_of_a_sum():
    assert degrees_of_freedom(np.array([1.0, 0.0]), np.array([4.0, 9.0]), 20) == pytest.approx(4)
    assert degrees_of_freedom(np.array([1.0, 1.0]), np.array([5.0, 5.0]), 20) == pytest.approx(10)
    assert degrees_of_freedom(np.array([1.0, 1.0]), np.array([5.0, 5.0]), 5) == pytest.approx(5)
