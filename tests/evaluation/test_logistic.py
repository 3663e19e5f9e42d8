"""Weighted logistic fits of many rows at once against statsmodels, and where no finite fit exists."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm
from scipy.special import logit

from medgcsam.evaluation.logistic import calibration_in_the_large, calibration_line


@pytest.mark.parametrize("start", [(0.0, 1.0), (8.0, -6.0)])
def test_fits_agree_with_statsmodels(cohort, start):
    labels, scores, _ = cohort()
    logits = logit(scores)
    weights = np.random.default_rng(0).integers(0, 4, size=(6, len(labels))).astype(float)
    lines = calibration_line(labels, logits, weights, start=start)
    shifts = calibration_in_the_large(labels, logits, weights)
    for row, line, shift in zip(weights, lines, shifts, strict=True):
        family = {"family": sm.families.Binomial(), "freq_weights": row}
        np.testing.assert_allclose(line, sm.GLM(labels, sm.add_constant(logits), **family).fit().params, atol=1e-5)
        expected = sm.GLM(labels, np.ones(len(labels)), offset=logits, **family).fit().params[0]
        assert shift == pytest.approx(expected, abs=1e-5)


def test_separated_classes_have_an_infinite_slope():
    logits = np.array([-2.0, -1.0, 1.0, 2.0])
    assert calibration_line(np.array([0, 0, 1, 1]), logits)[0, 1] == np.inf
    assert calibration_line(np.array([1, 1, 0, 0]), logits)[0, 1] == -np.inf


def test_one_class_or_one_probability_has_no_fit():
    assert np.isnan(calibration_line(np.ones(4), np.arange(4.0))).all()
    assert np.isnan(calibration_line(np.array([0, 1, 0, 1]), np.ones(4))).all()
    assert calibration_in_the_large(np.ones(4), np.arange(4.0))[0] == np.inf
    assert calibration_in_the_large(np.zeros(4), np.arange(4.0))[0] == -np.inf


def test_hopeless_rows_leave_the_others_alone(cohort):
    labels, scores, _ = cohort()
    weights = np.ones((3, len(labels)))
    weights[1, labels == 1] = 0
    lines = calibration_line(labels, logit(scores), weights)
    assert np.isnan(lines[1]).all()
    np.testing.assert_allclose(lines[0], lines[2])
    assert np.isfinite(lines[0]).all()
