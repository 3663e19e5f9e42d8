"""Curves for the report: the points lie on sklearn's curve, and the band holds it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.metrics import auc, roc_auc_score
from sklearn.metrics import confusion_matrix as sklearn_confusion_matrix

from medgcsam.errors import DataError
from medgcsam.evaluation import confusion_matrix, precision_recall_points, roc_points


@pytest.mark.parametrize("decimals", [1, 9])
def test_roc_points_have_the_area_and_thresholds_reproduce_them(cohort, decimals):
    labels, scores, patients = cohort(decimals=decimals)
    curve = roc_points(labels, scores, patients, replicates=100)
    assert auc(curve["fpr"], curve["tpr"]) == pytest.approx(roc_auc_score(labels, scores))
    assert (curve["fpr"][0], curve["tpr"][0], curve["fpr"][-1], curve["tpr"][-1]) == (0, 0, 1, 1)
    for fpr, tpr, threshold in list(zip(curve["fpr"], curve["tpr"], curve["threshold"], strict=True))[1:]:
        assert tpr == pytest.approx((scores >= threshold)[labels == 1].mean())
        assert fpr == pytest.approx((scores >= threshold)[labels == 0].mean())
    json.dumps(curve, allow_nan=False)


def test_band_is_ordered_and_holds_the_curve(cohort):
    labels, scores, patients = cohort(150)
    curve = roc_points(labels, scores, patients, replicates=400)
    band = {name: np.array(values) for name, values in curve["band"].items()}
    assert (band["low"] <= band["high"]).all()
    own = np.interp(band["fpr"], curve["fpr"], curve["tpr"])
    assert ((band["low"] - 1e-9 <= own) & (own <= band["high"] + 1e-9)).mean() > 0.95
    assert band["high"][-1] == band["low"][-1] == 1.0
    more = roc_points(*(np.tile(part, 4) for part in (labels, scores)), np.arange(4 * len(labels)), replicates=400)
    narrower = np.array(more["band"]["high"]) - np.array(more["band"]["low"])
    assert narrower.mean() < 0.7 * (band["high"] - band["low"]).mean()


def test_long_curves_are_thinned(cohort):
    labels, scores, patients = cohort(3000)
    curve = roc_points(labels, scores, patients, replicates=5, most_points=50)
    assert len(curve["fpr"]) == 50
    assert auc(curve["fpr"], curve["tpr"]) == pytest.approx(roc_auc_score(labels, scores), abs=0.01)
    assert len(precision_recall_points(labels, scores, most_points=50)["recall"]) == 50


def test_precision_and_recall_by_counting(cohort):
    labels, scores, _ = cohort(60, decimals=2)
    curve = precision_recall_points(labels, scores)
    points = zip(curve["recall"], curve["precision"], curve["threshold"], strict=True)
    for recall, precision, threshold in points:
        called = scores >= threshold
        assert recall == pytest.approx(labels[called].sum() / labels.sum())
        assert precision == pytest.approx(labels[called].mean())
    assert curve["recall"][-1] == 1.0


def test_confusion_matrix_agrees_with_sklearn():
    generator = np.random.default_rng(0)
    labels, decisions = generator.integers(0, 4, 100), generator.integers(0, 4, 100)
    np.testing.assert_array_equal(confusion_matrix(labels, decisions, 4), sklearn_confusion_matrix(labels, decisions))
    assert confusion_matrix([0], [0], 3).shape == (3, 3)


def test_one_class_has_no_curve():
    with pytest.raises(DataError, match="both classes"):
        roc_points(np.ones(3), np.linspace(0, 1, 3), np.arange(3))
