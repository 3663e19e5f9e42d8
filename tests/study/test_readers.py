"""Seeds as readers: against the full two-modality analysis of Obuchowski and Rockette, and by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import t as student

from medgcsam.study.readers import mean_over_seeds


def simulated(rng, *, seeds=4, patients=60, sd_seed=0.02, sd_patient=0.3, sd_both=0.2, replicates=200, truth=0.0):
    """Per-patient numbers (patients, seeds) with known variance components; the statistic is their mean."""
    numbers = truth + sd_patient * rng.normal(size=(patients, 1)) + sd_seed * rng.normal(size=(1, seeds))
    numbers = numbers + sd_both * rng.normal(size=(patients, seeds))
    drawn = rng.multinomial(patients, np.full(patients, 1 / patients), size=replicates)
    return numbers.mean(axis=0), drawn @ numbers / patients


def obuchowski_rockette(values: np.ndarray, replicates: np.ndarray) -> tuple[float, float, float]:
    """Variance, df and p of the difference of two modalities, by the formulas of Hillis (2007).

    values (2, S); replicates (B, 2, S): covariances between readers within (Cov2) and across modalities (Cov3).
    """
    seeds = values.shape[1]
    residual = values - values.mean(axis=0) - values.mean(axis=1, keepdims=True) + values.mean()
    ms_tr = (residual**2).sum() / (seeds - 1)
    covariance = np.cov(replicates.reshape(len(replicates), -1).T).reshape(2, seeds, 2, seeds)
    others = ~np.eye(seeds, dtype=bool)
    cov2 = np.mean([covariance[m, :, m][others].mean() for m in (0, 1)])
    cov3 = np.mean([covariance[0, :, 1][others].mean(), covariance[1, :, 0][others].mean()])
    denominator = ms_tr + max(seeds * (cov2 - cov3), 0)
    variance = 2 / seeds * denominator
    df = denominator**2 / (ms_tr**2 / (seeds - 1))
    difference = values[0].mean() - values[1].mean()
    return variance, df, 2 * student.sf(abs(difference) / np.sqrt(variance), df)


def test_a_difference_is_the_two_modality_analysis() -> None:
    rng = np.random.default_rng(1)
    values, replicates = zip(*(simulated(rng, sd_seed=0.2) for _ in range(2)), strict=True)
    both = np.stack(values), np.stack(replicates, axis=1)
    found = mean_over_seeds(both[0][0] - both[0][1], both[1][:, 0] - both[1][:, 1])
    variance, df, p = obuchowski_rockette(*both)
    assert variance > np.var((both[1][:, 0] - both[1][:, 1]).mean(axis=1), ddof=1)
    assert found.variance == pytest.approx(variance)
    assert found.df == pytest.approx(df)
    assert found.p_value() == pytest.approx(p)


def test_variance_and_coverage_over_seeds_and_patients() -> None:
    rng = np.random.default_rng(2)
    found = [mean_over_seeds(*simulated(rng, seeds=3, sd_seed=0.05)) for _ in range(600)]
    truth = 0.05**2 / 3 + 0.3**2 / 60 + 0.2**2 / (3 * 60)
    assert np.mean([mean.variance for mean in found]) == pytest.approx(truth, rel=0.12)
    intervals = [mean.interval(0.95) for mean in found]
    covered = np.mean([interval.low < 0 < interval.high for interval in intervals])
    assert 0.93 < covered < 0.985


def test_never_less_than_patients_alone_and_exactly_that_for_equal_seeds() -> None:
    rng = np.random.default_rng(3)
    values, replicates = simulated(rng, sd_seed=0.0)
    assert mean_over_seeds(values, replicates).variance >= np.var(replicates.mean(axis=1), ddof=1) * (1 - 1e-9)
    same = mean_over_seeds(np.full(4, values[0]), np.repeat(replicates[:, :1], 4, axis=1))
    assert same.variance == pytest.approx(np.var(replicates[:, 0], ddof=1))
    assert np.isinf(same.df)
    alone = mean_over_seeds(values[:1], replicates[:, :1])
    assert alone.variance == pytest.approx(same.variance)
    assert np.isnan(alone.sd_seeds)


def test_more_spread_between_seeds_means_fewer_degrees_of_freedom() -> None:
    rng = np.random.default_rng(4)
    wide, narrow = (mean_over_seeds(*simulated(rng, seeds=3, sd_seed=sd)) for sd in (5.0, 0.01))
    assert 2 <= wide.df < 3 < narrow.df


def test_few_patients_take_degrees_of_freedom_too() -> None:
    """Satterthwaite's sum; with one seed only those of the patients are left."""
    values, replicates = simulated(np.random.default_rng(6), seeds=3, sd_seed=0.2)
    known, few = (mean_over_seeds(values, replicates, patients_df=df) for df in (np.inf, 5.0))
    assert few.variance == known.variance
    between = np.var(values, ddof=1) / 3
    share = 1 - between / known.variance
    assert few.df == pytest.approx(1 / (1 / known.df + share**2 / 5))
    alone = mean_over_seeds(values[:1], replicates[:, :1], patients_df=5.0)
    assert alone.df == pytest.approx(5)
    assert alone.interval(0.95).high > mean_over_seeds(values[:1], replicates[:, :1]).interval(0.95).high


def test_numbers_that_never_change_have_no_interval() -> None:
    mean = mean_over_seeds(np.ones(3), np.ones((50, 3)))
    assert np.isnan(mean.p_value())
    assert np.isnan(mean.interval(0.95).low)
    assert "same number" in mean.interval(0.95).reason
    undefined = mean_over_seeds(np.ones(3), np.where(np.arange(50)[:, None] < 10, np.nan, np.ones((50, 3))))
    assert "undefined in 10 of 50" in undefined.reason


def test_limits_stay_inside_the_metrics_range() -> None:
    rng = np.random.default_rng(5)
    shares = 1 / (1 + np.exp(-rng.normal(4, 1, (200, 3))))
    low, high, _ = mean_over_seeds(shares[0], shares).interval_of_share(0.95)
    assert 0 < low < shares[0].mean() < high < 1
    low, high, _ = mean_over_seeds(np.array([0.1, 0.02, 0.3]), rng.gamma(1, 0.2, (200, 3))).interval_of_loss(0.95)
    assert 0 < low < 0.14 < high
