"""Lines of cases.csv as numbers: order, agreement of sizes, refusal of what is no number."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from medgcsam.errors import DataError
from medgcsam.report.measured import all_tested, by_structure, in_order, tolerance_words
from medgcsam.report.preparation import preparation
from medgcsam.report.segmentation_figures import MOST_POINTS, Strip, agreement_figure, case_figure, evenly
from medgcsam.report.segmented_cases import agreement, lines_of_test, worst_and_median
from tests.report.segmentation_runs import case_lines


@pytest.fixture
def table() -> pd.DataFrame:
    """Lines as ``read_table`` gives them: all text, empty where there is no number."""
    lines = case_lines(("organ", "lesion"), patients=20, skill=1, seed=5, partition="test")
    return lines.map(lambda value: "" if isinstance(value, float) and np.isnan(value) else str(value))


def facts(**given) -> SimpleNamespace:
    known = {"cases": None, "config": {}, "provenance": {}, "plan": None, "metrics": {"task": "segmentation"}}
    return SimpleNamespace(**known | given)


def test_empty_texts_become_nan_and_other_partitions_are_left_out(table: pd.DataFrame):
    table.loc[0, "partition"] = "validation"
    lines = lines_of_test(facts(cases=table))
    assert len(lines) == len(table) - 1
    assert lines["nsd"].isna().sum() == (table["nsd"][1:] == "").sum() > 0
    assert lines_of_test(facts(cases=table[table["partition"] == "validation"])) is None
    assert lines_of_test(facts(cases=None)) is None


@pytest.mark.parametrize("column", ["status", "hd95", "size_unit"])
def test_an_absent_column_is_named(table: pd.DataFrame, column: str):
    with pytest.raises(DataError, match=rf"cases\.csv.*'{column}'"):
        lines_of_test(facts(cases=table.drop(columns=column)))


def test_a_text_among_the_numbers_is_refused(table: pd.DataFrame):
    table.loc[3, "hd95"] = "far"
    with pytest.raises(DataError, match=r"cases\.csv: hd95 is not a number"):
        lines_of_test(facts(cases=table))


@pytest.mark.parametrize("number", [0, 1, 2, 4, 5, 6, 9, 30])
def test_no_case_is_listed_twice_and_none_is_invented(number: int):
    lines = case_lines(("organ",), patients=60, skill=1, seed=1, partition="test").head(number)
    found = worst_and_median(lines, "organ", worst=5, median=3)
    cases = [line["case"] for _, line in found]
    assert len(set(cases)) == len(cases) <= min(number, 8)
    assert [kind for kind, _ in found][:5] == ["worst"] * min(5, number)
    values = [line["dice"] for _, line in found]
    assert values == sorted(values)
    ordered = np.sort(lines["dice"])
    middle = [line["dice"] for kind, line in found if kind == "median"]
    assert all(abs(np.searchsorted(ordered, value) - (number - 1) / 2) <= 1.5 for value in middle)


def test_limits_of_agreement_are_those_of_bland_and_altman():
    """Two images of patient a count as their mean; a false positive says nothing of the agreement of sizes."""
    rows = [("a", 10, 12), ("a", 20, 20), ("b", 30, 27), ("c", 40, 45), ("d", 50, 50)]
    lines = pd.DataFrame(rows, columns=["patient", "reference_size", "predicted_size"])
    lines = lines.assign(structure="organ", status="ok", dice=0.8, hd95=1.0, case=[*"vwxyz"])
    false = lines.iloc[[0]].assign(status="false_positive", patient="e", reference_size=0, predicted_size=99)
    found = agreement(pd.concat([lines, false]), "organ")
    differences = np.array([1, -3, 5, 0])
    assert found.bias == pytest.approx(differences.mean())
    assert found.high - found.bias == pytest.approx(1.96 * differences.std(ddof=1))
    assert found.low + found.high == pytest.approx(2 * found.bias)
    assert found.mean == pytest.approx([15.5, 28.5, 42.5, 50])
    assert agreement(lines[lines["patient"] < "c"], "organ") is None


def test_a_structure_named_like_a_measure_is_kept_apart():
    keys = [
        "dice",
        "dice_with_empty",
        "dice_empty",
        "dice_with_empty_empty",
        "volume_error_ml",
        "volume_error_ml_empty",
    ]
    keys += ["volume_error_absolute_ml_empty", "hd95_mm", "hd95_px_empty", "missed_rate_empty", "something_new"]
    whole, each = by_structure({key: {"value": 0.5} for key in keys}, ["empty", "absent"])
    assert set(whole) == {"dice", "dice_with_empty", "volume_error_ml", "hd95_mm", "something_new"}
    assert {name: (one.measure, one.unit) for name, one in each["empty"].items()} == {
        "dice": ("dice", ""), "dice_with_empty": ("dice_with_empty", ""), "volume_error_ml": ("volume_error", "ml"),
        "volume_error_absolute_ml": ("volume_error_absolute", "ml"), "hd95_px": ("hd95", "px"),
        "missed_rate": ("missed_rate", ""),
    }  # fmt: skip
    assert "absent" not in each
    assert whole["volume_error_ml"].name == "Volume error (ml)"


def test_a_measure_in_two_units_is_two_entries_and_a_structure_may_be_called_like_a_unit():
    found = {key: {"value": 0.5} for key in ("hd95_px", "hd95_mm", "dice", "dice_mm", "hd95_mm_mm", "nsd")}
    whole, each = by_structure(found, ["mm"])
    assert in_order(("dice", "hd95"), whole, each["mm"]) == ["dice", "hd95_mm", "hd95_px"]
    assert set(each["mm"]) == {"dice", "hd95_mm"}
    assert [whole[name].name for name in ("hd95_mm", "hd95_px")] == ["HD95 (mm)", "HD95 (pixels)"]


@pytest.mark.parametrize(
    ("given", "unit", "expected"),
    [
        ({"organ": 2.0, "lesion": 2.0}, "mm", "2 mm"),
        ({"organ": 3.0, "lesion": 1.5}, "mm", "organ 3 mm, lesion 1.5 mm"),
        ({"organ": 2.0}, "px", "2 pixels"),
        (None, "mm", None),
    ],
)
def test_the_tolerance_is_said_with_its_unit(given, unit: str, expected: str | None):
    metrics = {"structures": ["organ"], "nsd_tolerance": given, "partitions": {"test": {f"hd95_{unit}": {"value": 1}}}}
    assert tolerance_words(metrics) == expected
    assert tolerance_words({"structures": ["organ"]}, 2.0) == "2 mm; as many pixels where the spacing is unknown"


@pytest.mark.parametrize(("pixels", "patients"), [(1, "1 patient"), (4, "4 patients"), (0, None)])
def test_the_tolerance_of_a_mixed_test_set_has_both_units_with_their_patients(pixels: int, patients: str | None):
    test = {"hd95_mm": {"value": 1, "n_patients": 3}, "hd95_px": {"value": 1, "n_patients": pixels}}
    metrics = {"structures": ["organ"], "nsd_tolerance": {"organ": 2.0}, "partitions": {"test": test}}
    both = f"2 mm (3 patients); as many pixels where the spacing is unknown ({patients})"
    assert tolerance_words(metrics) == (both if patients else "2 mm")


def test_those_with_empty_references_were_tested_too():
    test = {
        "dice": {"value": 0.9, "n_patients": 9, "n_images": 12},
        "lesions_false": {"value": 1, "n_patients": 10, "n_images": 13},
    }
    assert all_tested({"partitions": {"test": test}}) == (10, 13)
    assert all_tested({"partitions": {"test": {"dice": test["dice"]}}}) is None


def test_pictures_without_spacing_are_said_to_be_made_smaller():
    image = {"dimensions": 2, "size": [256, 320], "spacing": None, "intensity": "display", "channels": 1}
    words = dict(preparation(facts(config={"image": image, "patches": {"size": [128, 128]}})))
    assert "fit into 256 × 320 pixels" in words["Spacing"]
    assert words["Patch"] == "128 × 128 pixels (rows × columns)"
    assert words["Gray values"] == "as displayed (window or full range)"
    assert words["Structures"] is None


def test_gray_values_are_called_planned_only_where_the_plan_says_so():
    image = {"intensity": "foreground", "clip": [0.0, 20.0], "mean": 4.5, "std": 2.0}
    assert dict(preparation(facts(config={"image": image})))["Gray values"] == (
        "cut to 0 to 20, then minus 4.5, divided by 2"
    )
    unclipped = image | {"clip": None}
    assert dict(preparation(facts(config={"image": unclipped})))["Gray values"] == "not cut; minus 4.5, divided by 2"
    channels = image | {"clip": [[0.0, 20.0], [-100.0, 200.0]], "mean": [4.5, 40.0]}
    assert dict(preparation(facts(config={"image": channels})))["Gray values"] == (
        "channel 1: cut to 0 to 20, then minus 4.5, divided by 2; "
        "channel 2: cut to -100 to 200, then minus 40, divided by 2"
    )


def test_figures_repeat_byte_for_byte_and_have_a_bounded_size():
    rng = np.random.default_rng(0)
    strips = [
        Strip("organ", rng.random(20_000), rng.random(20_000) < 0.1),
        Strip("$x_$", np.array([0.5]), np.array([False])),
    ]
    for distances in (False, True):
        drawn = [case_figure(strips, xlabel="Dice", salt="one", distances=distances) for _ in range(2)]
        assert drawn[0] == drawn[1]
        assert len(drawn[0]) < 120_000
        assert "$x_$" in drawn[0]
    mean, difference = rng.random((2, 20_000))
    drawn = agreement_figure(mean, difference, bias=0.5, low=0.0, high=1.0, unit="ml", salt="two")
    assert len(drawn) < 120_000
    order = evenly(np.arange(20_000), MOST_POINTS)
    assert (order[0], order[-1], len(set(order))) == (0, 19_999, MOST_POINTS)
