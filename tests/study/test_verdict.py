"""Holm against statsmodels, and each verdict for what it takes."""

from __future__ import annotations

import numpy as np
import pytest
from statsmodels.stats.multitest import multipletests

from medgcsam.evaluation.intervals import Interval
from medgcsam.study.verdict import holm, verdict, verdict_sentence


@pytest.mark.parametrize("p", [[0.01, 0.04], [0.04, 0.01], [0.03, 0.03, 0.5, 0.001], [0.9], [0.6, 0.7]])
def test_holm_is_that_of_statsmodels(p) -> None:
    assert holm(p) == pytest.approx(list(multipletests(p, method="holm")[1]))


def test_a_test_that_could_not_be_made_keeps_its_place() -> None:
    adjusted = holm([0.02, np.nan])
    assert adjusted[0] == pytest.approx(0.04)
    assert np.isnan(adjusted[1])
    assert holm([]) == []


@pytest.mark.parametrize(
    ("difference", "p", "inner", "options", "expected"),
    [
        (0.05, 0.001, (0.03, 0.07), {}, "better"),
        (-0.05, 0.001, (-0.07, -0.03), {}, "worse"),
        (-0.05, 0.001, (-0.07, -0.03), {"less_is_better": True, "margin": None}, "better"),
        (0.05, 0.001, (0.03, 0.07), {"less_is_better": True, "margin": None}, "worse"),
        (0.001, 0.6, (-0.004, 0.006), {}, "equivalent"),
        (0.004, 0.01, (0.002, 0.006), {}, "equivalent"),
        (0.001, 0.6, (-0.004, 0.011), {}, "inconclusive"),
        (0.001, 0.6, (-0.004, 0.006), {"margin": None}, "inconclusive"),
        (0.05, np.nan, (-0.001, 0.001), {}, "inconclusive"),
    ],
)
def test_verdicts(difference, p, inner, options, expected) -> None:
    options = {"alpha": 0.05, "margin": 0.01} | options
    assert verdict(difference, p, Interval(*inner), **options) == expected


def test_the_sentence_names_budget_and_price() -> None:
    price = {"budget": "equal epochs", "gradient_evaluations": 1.4, "margin": 0.01}
    assert verdict_sentence("better", **price) == "better at equal epochs, with 1.40 times the gradient evaluations"
    assert verdict_sentence("equivalent", **price).startswith("equivalent within 0.01 at equal epochs, with 1.40 times")
    same = verdict_sentence("worse", **(price | {"gradient_evaluations": 1.0}))
    assert same.endswith("with as many gradient evaluations")
