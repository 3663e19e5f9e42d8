"""The threshold baseline against exhaustive search, and on cases worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from medgcsam.training.threshold_baseline import (
    Threshold,
    threshold_label,
    threshold_table,
)


def case(values, reference, *, patient: str = "a", row: int = 0):
    return row, patient, np.asarray(values, np.float32)[None], np.asarray(reference)[None]


def dice(found: np.ndarray, reference: np.ndarray) -> float:
    return 2 * (found & reference).sum() / (found.sum() + reference.sum())


def exhaustive(cases) -> dict[tuple[str, float], float]:
    """Mean Dice over patients, of every rule that any value makes."""
    cases = [one for one in cases if (one[3][0] == 1).any()]
    patients = sorted({one[1] for one in cases})
    scores = {}
    for value in np.unique(np.concatenate([one[2].ravel() for one in cases])):
        for side in ("above", "below"):
            own = {patient: [] for patient in patients}
            for _, patient, values, reference in cases:
                found = values[0] >= value if side == "above" else values[0] < value
                own[patient].append(dice(found, reference[0] == 1))
            scores[side, float(value)] = float(np.mean([np.mean(part) for part in own.values()]))
    return scores


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("seed", range(5))
def test_no_value_is_better_than_the_one_found(seed, sign):
    rng = np.random.default_rng([seed, 7])
    cases = []
    for row in range(7):
        reference = rng.random((5, 6, 4)) < rng.uniform(0.05, 0.5) * (row != 3)
        values = rng.integers(0, 40, reference.shape) + 14 * sign * reference
        cases.append(case(values, reference.astype(np.int16), patient="abcdd"[row % 5], row=row))
    (found,) = threshold_table(cases, ["tumour"])
    scores = exhaustive(cases)
    assert found.dice == pytest.approx(max(scores.values()), abs=1e-12)
    assert scores[found.direction, found.value] == pytest.approx(found.dice, abs=1e-12)
    assert found.direction == ("above" if sign > 0 else "below")
    assert found.patients == len({one[1] for one in cases if one[3].any()})


def test_a_grid_of_quantiles_comes_close_where_all_values_differ():
    rng = np.random.default_rng(0)
    cases = []
    for row in range(3):
        reference = rng.random(900) < 0.1
        cases.append(case(rng.normal(2.0 * reference, 1), reference.astype(int), patient=str(row), row=row))
    (found,) = threshold_table(cases, ["tumour"], candidates=200)
    assert found.dice > max(exhaustive(cases).values()) - 0.005


def test_images_without_the_structure_say_nothing_and_patients_count_alike():
    empty = case([9.0] * 4, [0, 0, 0, 0], patient="healthy")
    one = case([0.0, 1.0, 2.0, 3.0], [0, 0, 1, 1], patient="one")
    assert threshold_table([empty, one], ["t"]) == [Threshold("t", 1, 2.0, "above", 1.0, 1)]
    # Three images of one patient want 3.0, one image of each of two others wants 2.0.
    many = [case([0.0, 1.0, 2.0, 3.0], [0, 0, 0, 1], patient="many", row=row) for row in range(3)]
    other = case([0.0, 1.0, 2.0, 3.0], [0, 0, 1, 1], patient="other")
    (found,) = threshold_table([*many, one, other], ["t"])
    assert found.value == 2.0
    assert found.dice == pytest.approx((2 / 3 + 1 + 1) / 3)
    assert found.patients == 3


def test_a_structure_that_nobody_has_is_never_found():
    (liver, lesion) = threshold_table([case([1.0, 2.0], [0, 1])], ["liver", "lesion"])
    assert liver.patients == 1
    assert (lesion.patients, lesion.value) == (0, math.inf)
    assert math.isnan(lesion.dice)
    assert "no training patient" in str(lesion)
    assert threshold_label(np.array([[1.0, 2.0, np.inf]]), [lesion]).max() == 0


def test_the_better_rule_takes_what_several_claim_and_overlapping_structures_have_channels():
    values = np.array([[0.0, 1.0, 2.0, 3.0, np.nan]])

    def rules(liver: float, lesion: float) -> list[Threshold]:
        return [Threshold("liver", 1, 1.0, "above", liver, 1), Threshold("lesion", 2, 2.0, "below", lesion, 1)]

    label = threshold_label(values, rules(0.5, 0.6))
    assert label.dtype == np.int16
    assert label.tolist() == [[2, 2, 1, 1, 0]]
    assert threshold_label(values, rules(0.6, 0.5)).tolist() == [[2, 1, 1, 1, 0]]
    assert threshold_label(values, rules(0.5, 0.5)).tolist() == [[2, 1, 1, 1, 0]]
    both = threshold_label(values, rules(0.5, 0.6), overlapping=True)
    assert both.dtype == np.uint8
    assert both.tolist() == [[0, 1, 1, 1, 0], [1, 1, 0, 0, 0]]


def test_overlapping_references_and_several_structures():
    values = np.arange(10, dtype=np.float16)[None]
    channels = np.stack([values[0] >= 4, values[0] < 2]).astype(np.uint8)
    found = threshold_table([(0, "a", values, channels)], ["organ", "edge"], overlapping=True)
    assert [(one.direction, one.value, one.dice) for one in found] == [("above", 4.0, 1.0), ("below", 2.0, 1.0)]
    assert np.array_equal(threshold_label(values, found, overlapping=True), channels)


def test_values_that_are_not_finite_belong_to_nothing():
    values = [np.nan, np.inf, -np.inf, 1.0, 2.0]
    (found,) = threshold_table([case(values, [0, 0, 0, 0, 1])], ["t"])
    assert (found.value, found.dice) == (2.0, 1.0)
    assert threshold_label(np.array([values]), [found]).tolist() == [[0, 0, 0, 0, 1]]


def test_predictions_come_one_by_one_and_training_is_gone_over_twice():
    drawn = []

    class Cases:
        def __iter__(self):
            for row in range(3):
                drawn.append(row)
                yield case([0.0, 1.0], [0, 1], patient=str(row), row=row)

    rules = threshold_table(Cases(), ["t"])
    assert drawn == [0, 1, 2] * 2
    for _, _, values, reference in Cases():
        assert np.array_equal(threshold_label(values, rules), reference)
    with pytest.raises(ValueError, match="twice"):
        threshold_table(iter([case([0.0, 1.0], [0, 1])]), ["t"])


def test_sarcoma_pet_is_best_cut_near_an_suv_of_2(shared_data):
    """The README of the set gives a mean Dice of 0.63 for a fixed SUV of 2."""
    from medgcsam.imaging import read_image, read_label

    folder, cases = shared_data / "sarcoma_nifti", []
    for row, path in enumerate(sorted(folder.glob("*/PET_image.nii.gz"))):
        image = read_image(path)
        mask = read_label(path.with_name("PET_mask.nii.gz"), like=image)
        cases.append((row, path.parent.name, image.array, mask.array))
    (found,) = threshold_table(cases, ["tumour"], candidates=500)
    at_two = np.mean([dice(values[0] >= 2, mask[0] == 1) for _, _, values, mask in cases])
    assert found.patients == 35
    assert found.direction == "above"
    assert at_two == pytest.approx(0.63, abs=0.01)
    assert at_two - 0.001 <= found.dice < 0.65
    again = np.mean([dice(threshold_label(values, [found])[0] == 1, mask[0] == 1) for _, _, values, mask in cases])
    assert again == pytest.approx(found.dice, abs=1e-9)
