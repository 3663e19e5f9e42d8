"""Folds become one number: who has a say, what samples leave out, and how it is said."""

from __future__ import annotations

import numpy as np
import pytest

from medgcsam.study.folds import Support, as_totals, over_folds


def test_a_metric_that_a_fold_lacks_is_the_mean_over_the_others() -> None:
    folds = [np.array([[0.8, 0.1], [0.7, 0.2]]), np.array([[np.nan, 0.3], [np.nan, 0.4]])]
    parts = over_folds([as_totals(one)[:, 0] for one in folds])
    assert parts[:, 0].tolist() == [0.8, 0.7]
    assert over_folds([as_totals(one)[:, 1] for one in folds])[:, 0] == pytest.approx([0.2, 0.3])
    assert np.isnan(over_folds([as_totals(folds[1])[:, 0]])).all()


def test_a_replicate_that_leaves_a_metric_undefined_stays_so() -> None:
    numbers = np.array([[0.8], [np.nan]])
    assert np.isnan(over_folds([as_totals(numbers)[:, 0]])[1, 0])


def support(behind: list[list[float]], sizes: list[float] | None = None) -> Support:
    array = np.array(behind, dtype=float)
    return Support(range(len(array)), ("organ", "lesion"), array, np.array(sizes or [7.0] * len(array)))


@pytest.mark.parametrize(
    ("behind", "words"),
    [
        ([[7, 3]], "one fold"),
        ([[7, 3], [7, 1]], "mean over 2 folds"),
        ([[0, 0], [7, 1], [7, 2]], "mean over 2 folds of 3 (fold 0 has no test case for it)"),
        ([[0, 0], [7, 1], [0, 0]], "one fold of 3 (folds 0, 2 have no test case for it)"),
        (
            [[7, 3], [7, 0]],
            "mean over 2 folds, each structure over the folds whose test cases show it: organ 2, lesion 1",
        ),
        (
            [[7, 0], [0, 4]],
            "mean over 2 folds, each structure over the folds whose test cases show it: organ 1, lesion 1",
        ),
        (
            [[7, 0], [7, 0]],
            "mean over 2 folds, each structure over the folds whose test cases show it: organ 2, lesion 0 "
            "(one that no fold shows is left out)",
        ),
    ],
)
def test_the_words_name_who_has_no_say(behind, words) -> None:
    found = support(behind)
    assert found.words() == words
    assert found.uneven == (0 in np.ravel(behind))


def test_degrees_of_freedom_are_of_patients_within_folds() -> None:
    assert support([[7, 7]] * 5).degrees_of_freedom(np.array([1.0, 0.0])) == pytest.approx(30)
    # A lesion of one in seven takes next to nothing from each fold, and one degree for its mean.
    assert support([[7, 1]] * 5).degrees_of_freedom(np.array([0.0, 1.0])) == pytest.approx(4)
    known = Support([0, 1], [""], np.array([[np.inf], [0.0]]), np.array([9.0, 9.0]))
    assert np.isinf(known.degrees_of_freedom(np.array([1.0])))
    assert known.too_few() == ""


def test_a_structure_of_two_patients_is_too_few() -> None:
    assert support([[7, 1], [7, 1]]).too_few() == "too few patients for an interval: lesion 2, where 3 are needed"
    assert support([[7, 1], [7, 2]]).too_few() == ""
    assert support([[7, 0], [7, 0]]).too_few() == ""
