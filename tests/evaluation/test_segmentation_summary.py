"""From lines to metrics: the patient counts once, the mean over structures, empty cases, intervals."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special, stats

from medgcsam.evaluation.intervals import wilson
from medgcsam.evaluation.one_class import Settings
from medgcsam.evaluation.segmentation import NUMBERS
from medgcsam.evaluation.segmentation_summary import Lines, segmentation_metrics

SETTINGS = Settings(replicates=400, seed=0)


def lines(rows: list[tuple], unit: str = "mm", size_unit: str = "ml") -> Lines:
    """From (patient, image, structure, status, dice); the other numbers follow from Dice."""
    patients, images, structures, status, dice = zip(*rows, strict=True)
    dice = np.array(dice, dtype=float)
    empty = np.isin(status, ("false_positive", "both_empty"))
    numbers = {name: np.where(empty, np.nan, 10 * (1 - dice)) for name in NUMBERS}
    numbers |= {"dice": dice, "nsd": np.where(empty, np.nan, dice)}
    numbers |= {"lesions_reference": np.where(empty, 0, 2), "lesions_found": np.where(empty | (dice == 0), 0, 1)}
    numbers |= {"lesions_false": np.array(status) == "false_positive", "size_error": 5 * (dice - 0.5)}
    n = len(rows)
    return Lines(
        np.array(structures), np.array(patients), np.array(images), np.array(status),
        {name: np.asarray(values, dtype=float) for name, values in numbers.items()},
        np.full(n, unit), np.full(n, size_unit),
    )  # fmt: skip


THREE = [
    # Patient 0 with two images of structure 0, patient 1 with one, patient 2 shows structure 1 alone.
    (0, 0, 0, "ok", 0.8), (0, 1, 0, "ok", 0.4), (1, 2, 0, "ok", 0.9), (2, 3, 0, "false_positive", 0.0),
    (0, 0, 1, "missed", 0.0), (0, 1, 1, "both_empty", np.nan), (1, 2, 1, "both_empty", np.nan), (2, 3, 1, "ok", 0.6),
]  # fmt: skip


def test_dice_is_the_mean_over_structures_of_means_over_patients() -> None:
    found = segmentation_metrics(lines(THREE), ["tumour", "node"], SETTINGS)
    tumour, node = (0.6 + 0.9) / 2, (0.0 + 0.6) / 2
    assert found["dice_tumour"]["value"] == pytest.approx(tumour)
    assert found["dice_node"]["value"] == pytest.approx(node)
    assert found["dice"]["value"] == pytest.approx((tumour + node) / 2)
    assert found["dice_with_empty_tumour"]["value"] == pytest.approx((0.6 + 0.9 + 0.0) / 3)
    # Both empty is in neither mean.
    assert found["dice_with_empty_node"]["value"] == pytest.approx(node)
    assert found["nsd"]["value"] == pytest.approx((tumour + node) / 2)
    assert found["hd95_mm_tumour"]["value"] == pytest.approx((4 + 1) / 2)
    assert found["volume_error_ml_tumour"]["value"] == pytest.approx(((1.5 - 0.5) / 2 + 2) / 2)
    assert found["volume_error_absolute_ml_tumour"]["value"] == pytest.approx(((1.5 + 0.5) / 2 + 2) / 2)
    assert found["lesion_sensitivity_node"]["value"] == pytest.approx((0 + 0.5) / 2)


def test_counts_are_per_structure_and_say_out_of_how_many() -> None:
    found = segmentation_metrics(lines(THREE), ["tumour", "node"], SETTINGS)
    assert [found[f"missed{of}"]["value"] for of in ("", "_tumour", "_node")] == [1, 0, 1]
    assert [found[f"false_positive{of}"]["value"] for of in ("", "_tumour", "_node")] == [1, 1, 0]
    assert [found[f"both_empty{of}"]["value"] for of in ("", "_tumour", "_node")] == [2, 0, 2]
    assert (found["missed_node"]["n_patients"], found["missed_node"]["n_images"]) == (2, 2)
    assert (found["dice_tumour"]["n_patients"], found["dice_tumour"]["n_images"]) == (2, 3)
    assert (found["dice"]["n_patients"], found["dice"]["n_images"]) == (3, 4)
    assert (found["lesions_reference_tumour"]["value"], found["lesions_found_tumour"]["value"]) == (6, 3)
    assert found["lesions_false"]["value"] == 1
    assert found["missed"]["low"] is None
    assert found["missed"]["reason"]


def cohort(n: int = 40, seed: int = 0) -> list[tuple]:
    generator = np.random.default_rng(seed)
    return [(k, k, 0, "ok", value) for k, value in enumerate(generator.beta(6, 2, n))]


def test_the_interval_is_near_that_of_an_independent_bca_bootstrap() -> None:
    rows = cohort()
    found = segmentation_metrics(lines(rows), ["lesion"], SETTINGS)["dice"]
    values = np.array([row[-1] for row in rows])
    expected = stats.bootstrap((values,), np.mean, n_resamples=20000, method="BCa", rng=1).confidence_interval
    width = expected.high - expected.low
    assert found["low"] == pytest.approx(expected.low, abs=0.05 * width)
    assert found["high"] == pytest.approx(expected.high, abs=0.05 * width)
    assert found["method"].endswith("Student's t over patients on the logit scale, 39.0 degrees of freedom")


def test_more_images_of_a_patient_change_nothing() -> None:
    rows = cohort(25)
    again = rows + [(0, 100 + k, *rows[0][2:]) for k in range(30)]
    once, often = (segmentation_metrics(lines(one), ["lesion"], SETTINGS) for one in (rows, again))
    for name in ("dice", "hd95_mm", "volume_error_ml", "dice_lesion"):
        for key in ("value", "low", "high", "median", "q1", "q3", "worst5", "n_patients"):
            assert often[name][key] == pytest.approx(once[name][key])
    assert often["dice"]["n_images"] == once["dice"]["n_images"] + 30


def test_missing_more_makes_every_mean_worse() -> None:
    rows = cohort(20)
    before = segmentation_metrics(lines(rows), ["lesion"], SETTINGS)
    for k in range(3):
        rows[k] = (*rows[k][:3], "missed", 0.0)
        after = segmentation_metrics(lines(rows), ["lesion"], SETTINGS)
        assert after["dice"]["value"] < before["dice"]["value"]
        assert after["nsd"]["value"] < before["nsd"]["value"]
        assert after["hd95_mm"]["value"] > before["hd95_mm"]["value"]
        before = after


def test_spread_is_over_patients_with_the_worst_at_the_right_end() -> None:
    rows = [(k, k, 0, "ok", k / 100) for k in range(1, 101)]
    rows[0] = (0, *rows[0][1:])
    found = segmentation_metrics(lines(rows), ["lesion"], SETTINGS)
    dice = np.array([row[-1] for row in rows])
    assert found["dice"]["worst5"] == pytest.approx(np.quantile(dice, 0.05))
    assert found["hd95_mm"]["worst5"] == pytest.approx(np.quantile(10 * (1 - dice), 0.95))
    assert found["volume_error_ml"]["worst5"] is None
    assert (found["dice"]["q1"], found["dice"]["median"]) == (
        pytest.approx(np.quantile(dice, 0.25)), pytest.approx(np.quantile(dice, 0.5)),
    )  # fmt: skip


def test_rates_at_the_boundary_have_wilson_limits() -> None:
    found = segmentation_metrics(lines(cohort(30)), ["lesion"], SETTINGS)["missed_rate"]
    low, high, _ = wilson(0.0, 30)
    assert (found["value"], found["low"], found["high"]) == (0, low, pytest.approx(high))


def test_a_structure_that_no_case_shows_has_no_value_and_is_out_of_the_mean() -> None:
    rows = cohort(12) + [(k, k, 1, "both_empty", np.nan) for k in range(12)]
    found = segmentation_metrics(lines(rows), ["lesion", "ghost"], SETTINGS)
    assert found["dice_ghost"]["value"] is None
    assert found["dice_ghost"]["reason"]
    assert found["dice"]["value"] == pytest.approx(found["dice_lesion"]["value"])
    assert "no value for ghost" in found["dice"]["method"]
    assert found["both_empty_ghost"]["value"] == 12
    assert found["false_positive_rate_ghost"]["value"] == 0


def rare(shown: int) -> list[tuple]:
    """60 patients with a lesion, of whom a few show another structure."""
    return cohort(60) + [
        (k, k, 1, "ok" if k < shown else "both_empty", 0.3 + k / 10 if k < shown else np.nan) for k in range(60)
    ]


def test_a_structure_of_three_patients_has_an_interval_and_of_two_it_says_why_not() -> None:
    found = segmentation_metrics(lines(rare(3)), ["lesion", "rare"], SETTINGS)
    for name in ("dice_rare", "dice"):
        assert found[name]["low"] < found[name]["value"] < found[name]["high"]
    found = segmentation_metrics(lines(rare(2)), ["lesion", "rare"], SETTINGS)
    for name in ("dice_rare", "dice"):
        assert (found[name]["low"], found[name]["high"]) == (None, None)
        assert found[name]["value"] is not None
        assert found[name]["reason"] == "too few patients for an interval: rare 2, where 3 are needed"
    assert found["dice_lesion"]["low"] is not None


def test_another_structure_does_not_change_the_interval_of_the_first() -> None:
    alone = segmentation_metrics(lines(cohort(60)), ["lesion"], SETTINGS)
    beside = segmentation_metrics(lines(rare(20)), ["lesion", "rare"], SETTINGS)
    for measure in ("dice", "nsd", "hd95_mm", "volume_error_ml", "missed_rate"):
        assert beside[f"{measure}_lesion"] == alone[f"{measure}_lesion"]


def test_intervals_of_several_structures_cover_with_few_patients() -> None:
    """8 patients, four structures of which each shows some; drawn within what they show, 95% intervals held 74%."""
    truth = special.expit(1 + 1.118 * special.ndtri((np.arange(100_000) + 0.5) / 100_000)).mean()
    structures, hits = ["a", "b", "c", "d"], []
    for seed in range(250):
        rng = np.random.default_rng(seed)
        dice, shown = special.expit(1 + rng.normal(0, 1.118, (8, 4))), rng.random((8, 4)) < 0.6
        rows = [
            (k, k, s, "ok", dice[k, s]) if shown[k, s] else (k, k, s, "both_empty", np.nan)
            for k in range(8)
            for s in range(4)
        ]
        found = segmentation_metrics(lines(rows), structures, SETTINGS)["dice"]
        if found["low"] is not None:
            hits.append(found["low"] <= truth <= found["high"])
    assert len(hits) > 180
    assert 0.91 < np.mean(hits) < 0.98


def test_units_are_kept_apart() -> None:
    others = [(k + 10, k + 10, *row[2:]) for k, row in enumerate(cohort(10, 1))]
    both = lines(cohort(10), "mm", "mm2"), lines(others, "px", "px")

    def joined(name: str) -> np.ndarray:
        return np.concatenate([getattr(one, name) for one in both])

    numbers = {name: np.concatenate([one.numbers[name] for one in both]) for name in NUMBERS}
    parts = {name: joined(name) for name in ("structures", "patients", "images", "status", "units", "size_units")}
    found = segmentation_metrics(Lines(numbers=numbers, **parts), ["lesion"], SETTINGS)
    assert (found["dice"]["n_patients"], found["hd95_mm"]["n_patients"], found["hd95_px"]["n_patients"]) == (20, 10, 10)
    assert found["area_error_mm2"]["n_patients"] == found["area_error_absolute_px"]["n_patients"] == 10


def test_one_patient_has_a_value_and_no_interval() -> None:
    found = segmentation_metrics(lines(cohort(1)), ["lesion"], SETTINGS)
    assert found["dice"]["value"] is not None
    assert found["dice"]["low"] is None
    assert found["dice"]["reason"]
