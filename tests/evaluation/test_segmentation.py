"""One case and structure: the rule of empty masks to the letter, sizes, parts, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from medgcsam.errors import DataError
from medgcsam.evaluation.segmentation import case_metrics


def masks(shape: tuple[int, ...], *boxes: tuple[slice, ...] | None) -> list[np.ndarray]:
    """One mask for each box; None is empty."""
    found = []
    for box in boxes:
        found.append(np.zeros(shape, dtype=bool))
        if box is not None:
            found[-1][box] = True
    return found


BOX, MOVED = np.s_[2:6, 3:7, 1:3], np.s_[3:7, 3:7, 1:3]
SPACING = (0.5, 2.0, 3.0)


def test_overlap_and_sizes_by_hand() -> None:
    found = case_metrics(*masks((10, 12, 5), BOX, MOVED), spacing=SPACING, tolerance=0.5)
    assert found["status"] == "ok"
    assert found["dice"] == pytest.approx(2 * 24 / (32 + 32))
    assert found["reference_size"] == pytest.approx(32 * 3 / 1000)
    assert (found["size_error"], found["unit"], found["size_unit"]) == (0, "mm", "ml")
    # Nothing is further away than the one voxel of 0.5 mm by which it was moved.
    assert (found["hd95"], found["nsd"]) == (0.5, 1)
    assert 0 < found["asd"] < 0.5


def test_a_missed_structure_is_as_far_away_as_the_image_is_large() -> None:
    found = case_metrics(*masks((10, 12, 5), BOX, None), spacing=SPACING, tolerance=2)
    diagonal = np.sqrt(5.0**2 + 24.0**2 + 15.0**2)
    assert found["status"] == "missed"
    assert (found["dice"], found["nsd"]) == (0, 0)
    assert (found["hd95"], found["asd"]) == (pytest.approx(diagonal), pytest.approx(diagonal))
    assert found["size_error"] == pytest.approx(-0.096)
    assert (found["lesions_reference"], found["lesions_found"], found["lesions_false"]) == (1, 0, 0)


def test_a_false_positive_has_its_size_and_no_distance() -> None:
    found = case_metrics(*masks((10, 12, 5), None, BOX), spacing=SPACING, tolerance=2)
    assert found["status"] == "false_positive"
    assert found["dice"] == 0
    assert np.isnan([found["nsd"], found["hd95"], found["asd"]]).all()
    assert (found["predicted_size"], found["size_error"]) == (pytest.approx(0.096), pytest.approx(0.096))
    assert (found["lesions_reference"], found["lesions_found"], found["lesions_false"]) == (0, 0, 1)


def test_both_empty_has_no_dice() -> None:
    found = case_metrics(*masks((10, 12, 5), None, None), spacing=SPACING, tolerance=2)
    assert found["status"] == "both_empty"
    assert np.isnan([found["dice"], found["nsd"], found["hd95"], found["asd"]]).all()
    assert (found["reference_size"], found["predicted_size"], found["size_error"]) == (0, 0, 0)


@pytest.mark.parametrize(
    ("shape", "spacing", "unit", "expected"),
    [
        ((6, 8), (0.5, 0.4), None, ("mm", "mm2", 4 * 0.2)),
        ((6, 8), None, None, ("px", "px", 4)),
        ((6, 8), (1.0, 2.0), "px", ("px", "px", 4)),
        ((6, 8, 4), None, None, ("px", "voxels", 16)),
        ((6, 8, 4), (1.0, 1.0, 2.5), None, ("mm", "ml", 16 * 2.5 / 1000)),
    ],
)
def test_units(shape, spacing, unit, expected) -> None:
    pair = masks(shape, np.s_[1:3, 1:3], np.s_[1:3, 1:3])
    found = case_metrics(*pair, spacing=spacing, tolerance=1, unit=unit)
    assert (found["unit"], found["size_unit"]) == expected[:2]
    assert found["reference_size"] == pytest.approx(expected[2])
    assert (found["dice"], found["nsd"], found["hd95"], found["asd"]) == (1, 1, 0, 0)


def test_parts_touch_at_corners_and_one_voxel_finds_them() -> None:
    reference, predicted = np.zeros((2, 9, 9, 3), dtype=bool)
    reference[1, 1, 0] = reference[2, 2, 1] = True  # one part, across a corner
    reference[6:8, 6:8, 1] = True  # a second one, missed
    predicted[2, 2, 1:] = True
    predicted[0, 8, 0] = predicted[4, 4, 2] = True  # two that are nowhere
    found = case_metrics(reference, predicted, spacing=(1, 1, 1), tolerance=1)
    assert (found["lesions_reference"], found["lesions_found"], found["lesions_false"]) == (2, 1, 2)


def test_two_parts_joined_by_one_prediction_are_both_found() -> None:
    pair = masks((3, 12), np.s_[1, 1:3], np.s_[1, 1:11])
    pair[0][1, 8:10] = True
    found = case_metrics(*pair, spacing=None, tolerance=1)
    assert (found["lesions_reference"], found["lesions_found"], found["lesions_false"]) == (2, 2, 0)


def test_a_volume_of_one_slice_is_measured_as_a_picture() -> None:
    pair = masks((20, 30), np.s_[3:12, 4:15], np.s_[5:13, 4:18])
    flat = case_metrics(*pair, spacing=(0.7, 0.9), tolerance=1)
    slice_ = case_metrics(*(mask[..., None] for mask in pair), spacing=(0.7, 0.9, 5.0), tolerance=1)
    for name in ("dice", "nsd", "hd95", "asd", "lesions_found"):
        assert slice_[name] == pytest.approx(flat[name])
    assert (slice_["size_unit"], slice_["reference_size"]) == ("ml", pytest.approx(flat["reference_size"] * 5 / 1000))


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 7, 1), (1, 1), (1, 5)])
def test_the_smallest_grids(shape: tuple[int, ...]) -> None:
    pair = masks(shape, np.s_[:], np.s_[:])
    found = case_metrics(*pair, spacing=(2.0,) * len(shape), tolerance=1)
    assert (found["dice"], found["nsd"], found["hd95"]) == (1, 1, 0)
    assert case_metrics(pair[0], ~pair[0], spacing=(2.0,) * len(shape), tolerance=1)["status"] == "missed"


def test_masks_may_be_numbers_and_views() -> None:
    pair = masks((10, 12, 5), BOX, MOVED)
    expected = case_metrics(*pair, spacing=SPACING, tolerance=0.5)
    as_numbers = [np.asfortranarray(mask.astype(np.uint8) * 3)[::-1] for mask in pair]
    assert case_metrics(*as_numbers, spacing=SPACING, tolerance=0.5) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"predicted": np.zeros((3, 4), bool)}, "on one grid"),
        ({"spacing": (1.0, 1.0)}, "3 numbers above 0"),
        ({"spacing": (1.0, 0.0, 1.0)}, "3 numbers above 0"),
        ({"spacing": (1.0, np.nan, 1.0)}, "3 numbers above 0"),
        ({"tolerance": -1.0}, "at least 0"),
        ({"unit": "cm"}, "mm or px"),
    ],
)
def test_what_cannot_be_measured_is_refused(change, message) -> None:
    reference, predicted = masks((10, 12, 5), BOX, MOVED)
    given = {"reference": reference, "predicted": predicted, "spacing": SPACING, "tolerance": 1.0} | change
    with pytest.raises(DataError, match=message):
        case_metrics(**given)
