"""Predictive values at a prevalence: those of the test set at its own, and textbook numbers elsewhere."""

from __future__ import annotations

import numpy as np
import pytest

from medgcsam.evaluation import classification_metrics, predictive_values_at


def metrics(specific: float = 0.3) -> dict:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 300)
    scores = np.clip(0.5 + specific * (labels - 0.5) + rng.normal(0, 0.15, 300), 0, 1)
    return classification_metrics(labels, scores, np.arange(300), classes=["no", "yes"], task="binary", replicates=300)


def test_at_the_prevalence_of_the_test_set_they_are_its_own() -> None:
    found = metrics()
    prevalence = found["ppv"]["n_events"] / found["ppv"]["n_images"]
    there = predictive_values_at(prevalence, found["lr_positive"], found["lr_negative"])
    assert there["ppv_at_prevalence"]["value"] == pytest.approx(found["ppv"]["value"])
    assert there["npv_at_prevalence"]["value"] == pytest.approx(found["npv"]["value"])


def test_a_screening_example() -> None:
    """Sensitivity 90%, specificity 91%, prevalence 1%: PPV 9.2% (Gigerenzer et al. 2007, Box 1: 10 women in 1000)."""
    ratios = [{"value": v, "low": v, "high": v, "method": "", "n_patients": 1, "n_images": 1, "n_events": 1}
              for v in (0.90 / 0.09, 0.10 / 0.91)]  # fmt: skip
    there = predictive_values_at(0.01, *ratios)
    assert there["ppv_at_prevalence"]["value"] == pytest.approx(9 / (9 + 89.1), abs=1e-6)
    assert there["npv_at_prevalence"]["value"] == pytest.approx(900.9 / (900.9 + 1), abs=1e-6)


def test_intervals_hold_the_value_and_rise_with_prevalence() -> None:
    found = metrics()
    values = []
    for prevalence in (0.01, 0.1, 0.5):
        there = predictive_values_at(prevalence, found["lr_positive"], found["lr_negative"])
        for entry in there.values():
            assert 0 <= entry["low"] <= entry["value"] <= entry["high"] <= 1
        values.append(there["ppv_at_prevalence"]["value"])
    assert values == sorted(values)


def test_no_false_positive_means_a_predictive_value_of_one() -> None:
    found = metrics(specific=2.0)
    assert found["lr_positive"]["value"] is None
    there = predictive_values_at(0.1, found["lr_positive"], found["lr_negative"])
    assert there["ppv_at_prevalence"]["value"] == 1
    assert there["ppv_at_prevalence"]["low"] < 1
