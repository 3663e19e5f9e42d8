"""Patients: identifiers to numbers, and how many independent cases clustered images are worth."""

from __future__ import annotations

import numpy as np
import pytest

from medgcsam.errors import DataError
from medgcsam.evaluation import effective_n, patient_codes


def test_any_type_of_identifier():
    for patients in (["b", "a", "b"], [7, 3, 7], np.array(["b", "a", "b"], dtype=object)):
        codes, count = patient_codes(np.asarray(patients))
        assert codes.tolist() == [0, 1, 0]
        assert count == 2


@pytest.mark.parametrize("patients", [["a", "", "b"], np.array(["a", None], dtype=object), [1.0, np.nan]])
def test_a_missing_identifier_is_an_error(patients):
    with pytest.raises(DataError, match="no patient identifier"):
        patient_codes(np.asarray(patients))


def test_one_image_each_is_worth_the_number_of_images():
    successes = np.random.default_rng(0).random(50) < 0.7
    assert effective_n(successes, np.ones(50)) == 50
    assert effective_n(np.ones(50), np.ones(50)) == 50


def test_copies_of_images_are_worth_the_number_of_patients():
    successes = np.random.default_rng(0).random(50) < 0.7
    assert effective_n(4 * successes, np.full(50, 4)) == pytest.approx(50)
    assert effective_n(np.full(50, 4), np.full(50, 4)) == pytest.approx(50)


def test_independent_images_are_worth_nearly_their_number():
    successes = np.random.default_rng(0).binomial(4, 0.7, size=4000)
    assert effective_n(successes, np.full(4000, 4)) == pytest.approx(16_000, rel=0.05)


def test_other_names_for_the_same_patients_change_nothing():
    patients = np.random.default_rng(0).integers(0, 30, 100)
    names = np.random.default_rng(1).permutation(30)[patients].astype(str)
    assert np.array_equal(patient_codes(patients)[0], patient_codes(names)[0])
