"""The engine: patients move together, strata keep their size, replicates do not depend on how they are chunked."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from medgcsam.evaluation import PatientBootstrap, bca, patient_strata, statistic_of_sums


def test_replicates_keep_the_size_of_every_stratum():
    strata = np.array([0] * 7 + [1] * 3 + [2] * 20)
    weights = np.concatenate(list(PatientBootstrap(strata, 30, replicates=200).draws()))
    assert weights.shape == (200, 30)
    for stratum, size in ((0, 7), (1, 3), (2, 20)):
        assert (weights[:, strata == stratum].sum(axis=1) == size).all()
    # Each patient is drawn once on average, with the variance of a multinomial count.
    assert weights.mean() == pytest.approx(1.0)
    assert weights[:, strata == 2].var() == pytest.approx(1 - 1 / 20, abs=0.1)


def test_chunks_do_not_change_the_replicates():
    strata = np.array([0] * 11 + [1] * 6)
    whole = PatientBootstrap(strata, 17, replicates=50, seed=3)
    small = PatientBootstrap(strata, 17, replicates=50, seed=3, chunk_bytes=17 * 8 * 4)
    assert len(list(small.draws())) > 5
    np.testing.assert_array_equal(np.concatenate(list(whole.draws())), np.concatenate(list(small.draws())))
    other = PatientBootstrap(strata, 17, replicates=50, seed=4)
    assert not np.array_equal(np.concatenate(list(whole.draws())), np.concatenate(list(other.draws())))


def test_chunks_bound_the_memory():
    bootstrap = PatientBootstrap(np.zeros(1000, dtype=int), 100_000, replicates=2000)
    rows = len(next(bootstrap.draws()))
    assert rows * 100_000 * 8 <= bootstrap.chunk_bytes


def test_leaving_out_keeps_the_strata_in_balance():
    strata = np.array([0] * 4 + [1] * 3 + [2])
    rows, of = zip(*PatientBootstrap(strata, 8).leave_out(), strict=True)
    weights, of = np.concatenate(rows), np.concatenate(of)
    assert weights.shape == (7, 8)  # the patient alone in its stratum stays
    assert (np.count_nonzero(weights == 0, axis=1) == 1).all()
    for stratum in range(3):
        np.testing.assert_allclose(weights[:, strata == stratum].sum(axis=1), (strata == stratum).sum())
    assert (strata[(weights == 0).argmax(axis=1)] == of).all()


def test_large_samples_leave_out_groups_and_every_patient_once():
    strata = np.arange(3000) % 2
    rows = np.concatenate([weights for weights, _ in PatientBootstrap(strata, 3000, most_left_out=100).leave_out()])
    assert len(rows) == 100
    np.testing.assert_array_equal((rows == 0).sum(axis=0), 1)


def test_bca_of_a_mean_agrees_with_scipy():
    values = np.random.default_rng(1).exponential(size=60)
    statistic = statistic_of_sums(
        np.stack([values, np.ones(60)], axis=1), np.arange(60), 60, lambda sums: sums[:, :1] / sums[:, 1:]
    )
    found = PatientBootstrap(np.zeros(60, dtype=int), 60, replicates=20_000).run(statistic)
    ours = bca(found.estimate[0], found.values[:, 0], found.left_out[:, 0])
    theirs = stats.bootstrap((values,), np.mean, n_resamples=20_000, method="BCa", rng=2).confidence_interval
    assert found.estimate[0] == pytest.approx(values.mean())
    # Both are Monte Carlo; their limits scatter by some 2% of the width, and the percentile interval is 10% away.
    width = theirs.high - theirs.low
    assert ours.low == pytest.approx(theirs.low, abs=0.04 * width)
    assert ours.high == pytest.approx(theirs.high, abs=0.05 * width)
    assert ours.high - values.mean() > values.mean() - ours.low  # skewed to the right, as the data


def test_bca_of_two_samples_agrees_with_scipy():
    generator = np.random.default_rng(5)
    first, second = generator.exponential(size=25), generator.exponential(size=50)
    strata = np.repeat([0, 1], [25, 50])
    columns = np.zeros((75, 2))
    columns[:25, 0], columns[25:, 1] = first / 25, second / 50
    statistic = statistic_of_sums(columns, np.arange(75), 75, lambda sums: sums[:, :1] - sums[:, 1:])
    found = PatientBootstrap(strata, 75, replicates=20_000).run(statistic)
    ours = bca(found.estimate[0], found.values[:, 0], found.left_out[:, 0], strata=found.left_out_strata)

    def difference(a: np.ndarray, b: np.ndarray, axis: int = -1) -> np.ndarray:
        return a.mean(axis=axis) - b.mean(axis=axis)

    theirs = stats.bootstrap((first, second), difference, n_resamples=20_000, method="BCa", rng=2).confidence_interval
    width = theirs.high - theirs.low
    assert ours.low == pytest.approx(theirs.low, abs=0.03 * width)
    assert ours.high == pytest.approx(theirs.high, abs=0.03 * width)


def test_images_of_a_patient_move_together():
    """Ten copies of each image in the same patient must not narrow the interval."""
    values = np.random.default_rng(0).normal(size=40)

    def interval(copies: int):
        columns = np.stack([np.repeat(values, copies), np.ones(40 * copies)], axis=1)
        codes = np.repeat(np.arange(40), copies)
        statistic = statistic_of_sums(columns, codes, 40, lambda sums: sums[:, :1] / sums[:, 1:])
        found = PatientBootstrap(np.zeros(40, dtype=int), len(codes), replicates=500).run(statistic)
        return bca(found.estimate[0], found.values[:, 0], found.left_out[:, 0])

    np.testing.assert_allclose(interval(1)[:2], interval(10)[:2])


def test_strata_are_negative_positive_and_both():
    labels = np.r_[np.zeros(40, dtype=bool), np.ones(40, dtype=bool), np.tile([True, False], 20)]
    codes = np.r_[np.arange(40), np.arange(40, 80), np.repeat(np.arange(80, 100), 2)]
    strata = patient_strata(np.stack([~labels, labels], axis=1), codes, 100)
    assert [len(np.unique(strata[part])) for part in (slice(0, 40), slice(40, 80), slice(80, 100))] == [1, 1, 1]
    assert len(np.unique(strata)) == 3


def test_a_lone_mixed_patient_joins_the_rarer_class():
    labels = np.r_[np.zeros(30, dtype=bool), np.ones(12, dtype=bool), [True, False]]
    codes = np.r_[np.arange(42), [42, 42]]
    strata = patient_strata(np.stack([~labels, labels], axis=1), codes, 43)
    assert strata[42] == strata[35] != strata[0]
