"""AUROC and average precision against sklearn; variances against DeLong, MLstatkit and the jackknife."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from medgcsam.evaluation import Ranking, auroc_variance, auroc_with_interval


@pytest.mark.parametrize("decimals", [1, 9])
def test_weighted_areas_agree_with_sklearn(cohort, decimals):
    labels, scores, patients = cohort(decimals=decimals)
    weights = np.random.default_rng(0).integers(0, 4, size=(20, 120)).astype(float)
    found = Ranking.of(labels > 0, scores, patients).auroc_and_auprc(weights)
    for row, (auroc, auprc) in zip(weights[:, patients], found, strict=True):
        assert auroc == pytest.approx(roc_auc_score(labels, scores, sample_weight=row))
        assert auprc == pytest.approx(average_precision_score(labels, scores, sample_weight=row))


def test_weights_are_repeated_images(cohort):
    labels, scores, patients = cohort(60)
    weights = np.random.default_rng(1).integers(0, 3, size=60)
    repeats = weights[patients]
    found = Ranking.of(labels > 0, scores, patients).auroc_and_auprc(weights[None].astype(float))[0]
    assert found[0] == pytest.approx(roc_auc_score(np.repeat(labels, repeats), np.repeat(scores, repeats)))


def test_a_missing_class_is_undefined_not_a_number_made_up():
    labels, scores = np.array([True, False, False]), np.array([0.9, 0.2, 0.1])
    found = Ranking.of(labels, scores, np.arange(3)).auroc_and_auprc(np.array([[0.0, 1.0, 1.0]]))
    assert np.isnan(found).all()


def delong_by_definition(labels: np.ndarray, scores: np.ndarray) -> float:
    """DeLong's variance (1988) written out pair by pair."""
    positive, negative = scores[labels > 0], scores[labels == 0]
    kernel = (positive[:, None] > negative) + 0.5 * (positive[:, None] == negative)
    return kernel.mean(axis=1).var(ddof=1) / len(positive) + kernel.mean(axis=0).var(ddof=1) / len(negative)


@pytest.mark.parametrize("decimals", [1, 9])
def test_one_image_per_patient_is_delong(cohort, decimals):
    labels, scores, patients = cohort(most_images=1, decimals=decimals)
    area, variance = auroc_variance(labels > 0, scores, patients)
    assert area == pytest.approx(roc_auc_score(labels, scores))
    assert variance == pytest.approx(delong_by_definition(labels, scores))


def test_delong_agrees_with_mlstatkit(cohort):
    from MLstatkit import Delong_test

    labels, scores, patients = cohort(most_images=1)
    result = Delong_test(labels, scores, scores[::-1].copy(), return_ci=True, verbose=0)
    area, variance = auroc_variance(labels > 0, scores, patients)
    half = 1.959964 * variance**0.5
    # Its third answer is the plain Wald interval of the first model.
    assert result[2] == pytest.approx((area - half, area + half), abs=1e-6)


def test_copies_of_images_do_not_narrow_the_interval(cohort):
    labels, scores, patients = cohort(most_images=1)
    once = auroc_variance(labels > 0, scores, patients)
    thrice = auroc_variance(np.repeat(labels, 3) > 0, np.repeat(scores, 3), np.repeat(patients, 3))
    np.testing.assert_allclose(once, thrice)


def test_clustered_variance_agrees_with_the_jackknife_over_patients(cohort):
    labels, scores, patients = cohort(200, mixed=0.2)
    _, variance = auroc_variance(labels > 0, scores, patients)
    left_out = np.array(
        [roc_auc_score(labels[patients != patient], scores[patients != patient]) for patient in range(200)]
    )
    jackknife = 199 / 200 * ((left_out - left_out.mean()) ** 2).sum()
    assert variance == pytest.approx(jackknife, rel=0.05)
    assert variance > 1.1 * delong_by_definition(labels, scores)


def test_perfect_separation_gets_an_honest_interval():
    labels, scores = np.arange(40) >= 20, np.arange(40) / 40
    area, interval, method = auroc_with_interval(labels, scores, np.arange(40))
    assert area == 1.0
    assert interval.low < 0.97
    assert interval.high == 1.0
    assert "Newcombe" in method
    _, clustered, _ = auroc_with_interval(labels, scores, np.arange(40) // 4)
    assert clustered.low < interval.low


def test_constant_scores_get_a_wide_interval_around_one_half():
    area, interval, _ = auroc_with_interval(np.arange(40) >= 20, np.full(40, 0.3), np.arange(40))
    assert area == 0.5
    assert interval.low < 0.4
    assert interval.high > 0.6


def test_a_class_from_one_patient_has_no_interval():
    labels = np.r_[np.ones(5, dtype=bool), np.zeros(20, dtype=bool)]
    patients = np.r_[np.zeros(5, dtype=int), np.arange(1, 21)]
    _, interval, _ = auroc_with_interval(labels, np.random.default_rng(0).random(25), patients)
    assert np.isnan(interval.low)
    assert "single patient" in interval.reason


def test_interval_covers_the_true_area(cohort):
    """400 samples of 100 patients with 1 to 3 images, correlation 0.6, and a 95% interval each."""
    truth = 0.8556  # Phi(1.5 / sqrt 2), the scores being normal on the logit scale
    covered = 0
    for seed in range(400):
        labels, scores, patients = cohort(100, seed=seed, mixed=0.0)
        _, interval, _ = auroc_with_interval(labels > 0, scores, patients)
        covered += interval.low <= truth <= interval.high
    assert 0.92 <= covered / 400 <= 0.98
