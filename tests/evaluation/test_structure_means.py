"""The mean over structures of means over patients: its error, its degrees of freedom, and when it has none."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from medgcsam.evaluation.structure_means import mean_over_structures

NAMES = ("a", "b", "c")


def test_one_structure_is_the_t_interval_of_a_mean() -> None:
    values = np.random.default_rng(0).normal(5, 2, 9)
    found = mean_over_structures(np.r_[values, np.nan][:, None], NAMES[:1])
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.9)
    assert found.interval("plain", 0.9)[:2] == pytest.approx(expected)
    assert found.df == 8


def test_structures_of_the_same_patients_are_the_mean_of_each_patient() -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(size=(12, 1)) + rng.normal(size=(12, 3))
    found = mean_over_structures(values, NAMES)
    rows = values.mean(axis=1)
    assert found.value == pytest.approx(rows.mean())
    assert found.error == pytest.approx(rows.std(ddof=1) / np.sqrt(12))
    assert found.df <= 11


def test_structures_of_different_patients_are_welchs_sum() -> None:
    rng = np.random.default_rng(2)
    first, second = rng.normal(0, 1, 5), rng.normal(3, 4, 14)
    values = np.full((19, 2), np.nan)
    values[:5, 0], values[5:, 1] = first, second
    found = mean_over_structures(values, NAMES[:2])
    # The mean of the two is half of their sum, that is half of the difference of first and -second.
    expected = stats.ttest_ind(first, -second, equal_var=False)
    assert found.df == pytest.approx(expected.df)
    assert np.array(found.interval("plain", 0.95)[:2]) == pytest.approx(
        np.array(expected.confidence_interval(0.95)) / 2
    )


def test_the_variance_is_right_on_average_where_patients_show_some_structures() -> None:
    rng = np.random.default_rng(3)
    shown = rng.random((10, 3)) < 0.6
    cohorts = rng.normal(size=(4000, 10, 1)) + rng.normal(size=(4000, 10, 3))
    found = [mean_over_structures(np.where(shown, values, np.nan), NAMES) for values in cohorts]
    variance = np.var([one.value for one in found])
    assert np.mean([one.error**2 for one in found]) == pytest.approx(variance, rel=0.1)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([[np.nan], [np.nan], [np.nan]], "no patient has a value"),
        ([[0.935], [0.938], [np.nan]], "too few patients for an interval: a 2, where 3 are needed"),
        ([[0.5], [0.5], [0.5]], "all patients have the same value"),
    ],
)
def test_no_interval_says_why(values, reason) -> None:
    limits = mean_over_structures(np.array(values), NAMES[:1]).interval("logit", 0.95)
    assert np.isnan(limits.low)
    assert limits.reason.startswith(reason)


def test_a_structure_without_patients_is_no_part_of_it() -> None:
    values = np.random.default_rng(4).random((6, 1))
    alone, beside = (
        mean_over_structures(values, NAMES[:1]),
        mean_over_structures(np.c_[values, np.full(6, np.nan)], NAMES[:2]),
    )
    assert alone == beside
