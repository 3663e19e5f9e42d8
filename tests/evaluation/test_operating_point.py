"""The threshold: each rule does what it says, on ties and at the ends too."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.metrics import roc_curve

from medgcsam.errors import ConfigError
from medgcsam.evaluation import choose_operating_point, choose_operating_points


def rates(labels, scores, threshold):
    called = scores >= threshold
    return called[labels > 0].mean(), (~called)[labels == 0].mean()


@pytest.mark.parametrize("decimals", [1, 9])
def test_youden_is_the_best_of_all_thresholds(cohort, decimals):
    labels, scores, patients = cohort(decimals=decimals)
    point = choose_operating_point(labels, scores, patients)
    fpr, tpr, _ = roc_curve(labels, scores)
    assert point["sensitivity"] + point["specificity"] - 1 == pytest.approx((tpr - fpr).max())
    assert (point["sensitivity"], point["specificity"]) == pytest.approx(rates(labels, scores, point["threshold"]))
    assert point["chosen_on"] == "validation"
    json.dumps(point, allow_nan=False)


@pytest.mark.parametrize("decimals", [1, 9])
@pytest.mark.parametrize("target", [0.5, 0.9, 1.0])
def test_targets_are_reached_and_no_threshold_does_it_better(cohort, decimals, target):
    labels, scores, patients = cohort(decimals=decimals)
    tried = [rates(labels, scores, threshold) for threshold in np.r_[0, np.unique(scores), 2]]
    point = choose_operating_point(labels, scores, patients, rule="sensitivity", target=target)
    assert point["sensitivity"] >= target
    assert point["specificity"] == pytest.approx(max(spec for sens, spec in tried if sens >= target))
    point = choose_operating_point(labels, scores, patients, rule="specificity", target=target)
    assert point["specificity"] >= target
    assert point["sensitivity"] == pytest.approx(max(sens for sens, spec in tried if spec >= target))


def test_neighbouring_floats_are_told_apart():
    low = 0.3
    high = np.nextafter(low, 1)
    point = choose_operating_point(np.array([0, 1]), np.array([low, high]), np.arange(2))
    assert (point["sensitivity"], point["specificity"]) == (1.0, 1.0)
    assert low < point["threshold"] <= high


def test_saturated_probabilities_keep_a_finite_threshold():
    scores = np.array([0.0, 1.0, 0.0, 1.0])
    for rule in ("sensitivity", "specificity"):
        point = choose_operating_point(np.array([0, 0, 1, 1]), scores, np.arange(4), rule=rule, target=1.0)
        assert point[rule] == 1.0
        assert np.isfinite(point["threshold"])
        assert rates(np.array([0, 0, 1, 1]), scores, point["threshold"])[rule == "specificity"] == 1.0


def test_one_class_only_falls_back_and_says_so():
    point = choose_operating_point(np.zeros(5), np.linspace(0, 1, 5), np.arange(5))
    assert (point["threshold"], point["rule"]) == (0.5, "none")
    assert "no positive case in validation" in point["reason"]


def test_multilabel_has_one_point_per_class_and_masks_unlabelled():
    labels = np.array([[1, np.nan], [0, 1], [1, 0], [0, 0]])
    scores = np.array([[0.9, 0.99], [0.1, 0.8], [0.7, 0.2], [0.3, 0.1]])
    points = choose_operating_points(labels, scores, np.arange(4), classes=["a", "b"])
    assert points["a"]["threshold"] == pytest.approx(0.5)
    assert points["b"]["threshold"] == pytest.approx(0.5)
    assert points["b"]["n_images"] == 3


@pytest.mark.parametrize(("rule", "target"), [("f1", None), ("sensitivity", None), ("specificity", 90)])
def test_a_rule_that_makes_no_sense_is_a_config_error(rule, target):
    with pytest.raises(ConfigError, match="rule"):
        choose_operating_point(np.array([0, 1]), np.array([0.1, 0.9]), np.arange(2), rule=rule, target=target)
