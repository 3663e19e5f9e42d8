"""Calibration: bins that add up, slopes right by construction, recalibration that repairs a known distortion."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit, log_softmax, logit, softmax
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, log_loss

from medgcsam.errors import ConfigError
from medgcsam.evaluation import (
    apply_platt,
    apply_temperature,
    calibration_numbers,
    expected_calibration_error,
    fit_platt,
    fit_temperature,
    recalibration,
    reliability_bins,
)
from medgcsam.evaluation.calibration import bin_numbers


def drawn(n: int, seed: int, *, slope: float = 1.0, intercept: float = 0.0):
    """Labels drawn from true probabilities, and predictions whose calibration line has this slope and intercept."""
    generator = np.random.default_rng(seed)
    true = generator.normal(-0.5, 1.5, size=n)
    return (generator.random(n) < expit(true)).astype(int), expit((true - intercept) / slope)


def test_slope_and_intercept_are_recovered():
    labels, probabilities = drawn(100_000, 0, slope=0.6)
    assert calibration_numbers(labels, probabilities)["calibration_slope"] == pytest.approx(0.6, abs=0.02)
    labels, probabilities = drawn(100_000, 1, intercept=0.4)
    assert calibration_numbers(labels, probabilities)["calibration_intercept"] == pytest.approx(0.4, abs=0.03)


def test_scores_agree_with_sklearn():
    labels, probabilities = drawn(500, 2)
    numbers = calibration_numbers(labels, probabilities)
    assert numbers["brier"] == pytest.approx(brier_score_loss(labels, probabilities))
    assert numbers["log_loss"] == pytest.approx(log_loss(labels, probabilities))


def test_numbers_that_do_not_exist_are_none():
    numbers = calibration_numbers(np.array([0, 0, 1, 1]), np.array([0.1, 0.2, 0.8, 0.9]))
    assert numbers["calibration_slope"] is None
    assert numbers["brier"] == pytest.approx(0.025)


@pytest.mark.parametrize(("binning", "strategy"), [("equal_width", "uniform"), ("equal_mass", "quantile")])
def test_reliability_bins_agree_with_sklearn(binning, strategy):
    labels, probabilities = drawn(1000, 3)
    points = reliability_bins(labels, probabilities, np.arange(1000), binning=binning)
    observed, predicted = calibration_curve(labels, probabilities, n_bins=10, strategy=strategy)
    np.testing.assert_allclose([point["observed"] for point in points], observed, atol=0.011)
    np.testing.assert_allclose([point["predicted"] for point in points], predicted, atol=0.005)
    assert sum(point["n_images"] for point in points) == 1000
    gaps = [abs(point["observed"] - point["predicted"]) * point["n_images"] / 1000 for point in points]
    assert sum(gaps) == pytest.approx(expected_calibration_error(labels, probabilities, binning=binning))
    assert all(point["low"] <= point["observed"] <= point["high"] for point in points)


def test_equal_probabilities_share_a_bin():
    probabilities = np.repeat([0.1, 0.5, 0.9], [400, 100, 50])
    which = bin_numbers(probabilities)
    assert len(np.unique(which)) == 3
    assert all(len(np.unique(which[probabilities == value])) == 1 for value in (0.1, 0.5, 0.9))


def test_ece_ends():
    assert expected_calibration_error(np.array([0, 1, 0, 1]), np.full(4, 0.5)) == 0.0
    assert expected_calibration_error(np.zeros(10), np.ones(10)) == 1.0
    with pytest.raises(ConfigError, match="binning"):
        expected_calibration_error(np.zeros(2), np.ones(2), binning="round")


def test_temperature_undoes_a_sharpening_of_a_softmax():
    generator = np.random.default_rng(4)
    logits = generator.uniform(-1.8, 1.8, size=(20_000, 3))
    labels = (softmax(logits, axis=1).cumsum(axis=1) < generator.random((20_000, 1))).sum(axis=1)
    sharpened = softmax(2.5 * logits, axis=1)
    temperature = fit_temperature(labels, sharpened)
    assert temperature == pytest.approx(2.5, rel=0.04)
    np.testing.assert_allclose(apply_temperature(sharpened, 2.5), softmax(logits, axis=1), atol=1e-6)
    losses = [-log_softmax(2.5 * logits / t, axis=1)[np.arange(20_000), labels].mean() for t in (2.0, temperature, 3.0)]
    assert losses[1] < min(losses[0], losses[2])


def test_temperature_of_one_column_is_that_of_two():
    labels, probabilities = drawn(400, 5, slope=0.5)
    two = np.stack([1 - probabilities, probabilities], axis=1)
    assert fit_temperature(labels, probabilities) == pytest.approx(fit_temperature(labels, two))
    np.testing.assert_allclose(apply_temperature(probabilities, 2.0), expit(logit(probabilities) / 2), atol=1e-5)


def test_platt_repairs_slope_and_intercept_on_other_cases():
    validation, test = drawn(4000, 6, slope=0.5, intercept=0.8), drawn(4000, 7, slope=0.5, intercept=0.8)
    result = recalibration(*validation, *test, method="platt")
    assert result["parameters"] == pytest.approx({"intercept": 0.8, "slope": 0.5}, abs=0.12)
    assert result["after"]["calibration_slope"] == pytest.approx(1.0, abs=0.1)
    for name in ("brier", "log_loss", "ece"):
        assert result["after"][name] < result["before"][name]
    with pytest.raises(ConfigError, match="isotonic"):
        recalibration(*validation, *test, method="isotonic")


def test_temperature_keeps_the_decision_at_one_half():
    labels, probabilities = drawn(500, 8, slope=0.4)
    result = recalibration(labels, probabilities, labels, probabilities)
    after = apply_temperature(probabilities, result["parameters"]["temperature"])
    np.testing.assert_array_equal(after > 0.5, probabilities > 0.5)
    assert result["after"]["log_loss"] < result["before"]["log_loss"]


def test_platt_of_separated_or_missing_classes_stays_finite():
    intercept, slope = fit_platt(np.array([0, 0, 1, 1]), np.array([0.1, 0.2, 0.8, 0.9]))
    assert np.isfinite([intercept, slope]).all()
    assert slope > 0
    line = fit_platt(np.zeros(4), np.linspace(0.1, 0.9, 4))
    np.testing.assert_allclose(apply_platt(np.array([0.2, 0.7]), line), [0.2, 0.7])
