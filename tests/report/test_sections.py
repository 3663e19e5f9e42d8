"""Every number in the page is one of metrics.json or predictions.csv, to the printed digit."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix

from medgcsam.report import write_report
from medgcsam.report.facts import load_facts
from medgcsam.report.performance import Methods, by_class, entries
from medgcsam.report.training import ascent_start
from medgcsam.run_folder import RunFolder, read_json, read_table, write_json, write_json_lines


def test_every_tagged_number_is_printed_to_three_decimals_or_as_a_count(any_page):
    tags = any_page.all("data")
    assert len(tags) > 60
    for tag in tags:
        value = float(tag.attributes["value"])
        if re.fullmatch(r"-?\d+", tag.attributes["value"]):
            assert tag.text == f"{int(value):,}"
        else:
            assert abs(float(tag.text) - value) <= 0.0005 + 1e-9
            assert len(tag.text.split(".")[1]) == 3


def test_every_number_of_the_test_partition_is_in_the_page_in_full(any_run: Path, any_page):
    page = any_page.by_id("performance")
    shown = {float(tag.attributes["value"]) for tag in page.all("data")}
    for partition in ("test", "validation"):
        whole, of_class = by_class(entries(read_json(any_run / "metrics.json"), partition), _classes(any_run))
        metrics = [*whole.values()] + [one for found in of_class.values() for one in found.values()]
        for metric in metrics if partition == "test" else whole.values():
            numbers = {metric[key] for key in ("value", "low", "high", "n_events")} - {None}
            assert numbers <= shown, metric


def test_each_row_has_its_own_numbers(binary_run: Path, binary_page):
    page = binary_page.by_id("performance")
    test = read_json(binary_run / "metrics.json")["partitions"]["test"]
    table = next(one for one in page.all("table") if "Test partition" in one.all("caption")[0].text)
    rows = {line.all("th")[0].text: [cell.text for cell in line.all("td")] for line in table.all("tbody")[0].all("tr")}
    assert len(rows) == len(test)
    for name, key in {"Sensitivity": "sensitivity", "Positive predictive value": "ppv", "Brier score": "brier"}.items():
        metric = test[key]
        interval = f"{metric['low']:.3f} to {metric['high']:.3f}"
        sizes = [str(metric[size]) for size in ("n_patients", "n_images", "n_events")]
        assert rows[name][:5] == [f"{metric['value']:.3f}", interval, *sizes]
    letter = rows["Expected calibration error"][-1]
    methods = [one.text for one in page.all("ol")[0].all("li")]
    assert test["ece"]["method"] in methods["abcdefghijklmnopqrstuvwxyz".index(letter)]
    assert rows["Expected calibration error"][1] == "–"


def test_the_headline_is_the_auroc_with_interval_and_sizes(any_run: Path, any_page):
    summary = any_page.by_id("summary").text
    auroc = read_json(any_run / "metrics.json")["partitions"]["test"]["auroc"]
    assert f"{auroc['value']:.3f} 95% interval {auroc['low']:.3f} to {auroc['high']:.3f}" in summary
    assert f"{auroc['n_patients']} patients, {auroc['n_images']} images, {auroc['n_events']} events" in summary
    assert auroc["method"] in summary


def test_the_two_by_two_table_counts_what_the_predictions_say(binary_run: Path, binary_page):
    point = read_json(binary_run / "metrics.json")["operating_point"]["threshold"]
    table = read_table(binary_run / "predictions.csv")
    table = table[table["partition"] == "test"]
    expected = confusion_matrix(table["label"] == "Pneumonia", table["p_Pneumonia"] >= point, labels=[True, False])
    assert np.array_equal(_counts(binary_page), expected)


def test_sensitivity_of_the_table_is_sensitivity_of_metrics_json(binary_run: Path, binary_page):
    (hits, misses), (alarms, passed) = _counts(binary_page)
    test = read_json(binary_run / "metrics.json")["partitions"]["test"]
    assert hits / (hits + misses) == pytest.approx(test["sensitivity"]["value"], abs=1e-12)
    assert passed / (passed + alarms) == pytest.approx(test["specificity"]["value"], abs=1e-12)


def test_the_positive_class_may_be_the_first(make_run, read_page, tmp_path: Path):
    """Swapping the names of the classes and the positive one leaves the table as it was."""
    before = _counts(read_page(write_report(make_run(tmp_path / "a"))))
    run = RunFolder(make_run(tmp_path / "b"))
    metrics = read_json(run.metrics)
    write_json(run.metrics, metrics | {"classes": metrics["classes"][::-1], "positive": "Pneumonia"})
    assert np.array_equal(_counts(read_page(write_report(run.path))), before)


def test_the_multiclass_matrix_is_that_of_the_largest_probability(make_run, read_page, tmp_path: Path):
    run = make_run(tmp_path / "run", "multiclass")
    classes = read_json(run / "metrics.json")["classes"]
    table = read_table(run / "predictions.csv")
    table = table[table["partition"] == "test"]
    called = table[[f"p_{name}" for name in classes]].idxmax(axis=1).str.removeprefix("p_")
    expected = confusion_matrix(table["label"], called, labels=classes)
    page = read_page(write_report(run))
    assert np.array_equal(_counts(page), expected)
    errors = [int(one.all("data")[0].attributes["value"]) for one in page.by_id("summary").all("li")]
    assert errors == sorted(expected[~np.eye(3, dtype=bool)], reverse=True)[:3]


def test_the_figures_speak_the_numbers_of_metrics_json(binary_run: Path, binary_page):
    page, test = binary_page, read_json(binary_run / "metrics.json")["partitions"]["test"]
    roc, curve = (one.attributes["aria-label"] for one in page.by_id("curves").all("svg"))
    assert f"AUROC {test['auroc']['value']:.3f}" in roc
    assert f"sensitivity is {test['sensitivity']['value']:.3f}" in roc
    assert f"specificity {test['specificity']['value']:.3f}" in roc
    assert f"AUPRC {test['auprc']['value']:.3f}" in curve
    assert f"precision {test['ppv']['value']:.3f}" in curve


def test_calibration_before_and_after_stand_side_by_side(binary_run: Path, binary_page):
    calibration = read_json(binary_run / "metrics.json")["calibration"]
    section = binary_page.by_id("calibration")
    assert f"temperature {calibration['temperature']:.3f}" in section.text
    rows = [[cell.text for cell in line.all("td")] for line in section.all("tbody")[0].all("tr")]
    keys = ("calibration_slope", "calibration_intercept", "brier", "log_loss", "ece")
    assert rows == [[f"{calibration[when][key]:.3f}" for when in ("test_before", "test_after")] for key in keys]


def test_training_says_where_the_ascent_begins_and_what_it_cost(binary_page):
    section = binary_page.by_id("training")
    assert "from epoch 8" in section.text
    assert "gcsam over adamw" in section.text
    assert "680" in section.text
    assert "10, by validation AUROC" in section.text
    assert len(section.all("svg")) == 2
    assert len(section.all("tbody")[0].all("tr")) == 12


@pytest.mark.parametrize(
    ("passes", "expected"), [([1, 1, 1], None), ([2, 2, 2], 1), ([1, 1.25, 2], 2), ([None, 1], None)]
)
def test_the_ascent_starts_in_the_first_epoch_with_more_than_one_pass(passes: list, expected: int | None):
    lines = [{"epoch": epoch, "passes_per_step": value} for epoch, value in enumerate(passes, start=1)]
    assert ascent_start(lines) == expected


def test_a_history_with_gaps_is_drawn(make_run, read_page, tmp_path: Path):
    run = RunFolder(make_run(tmp_path / "run"))
    write_json_lines(run.history, [{"epoch": 1, "train_loss": 0.5, "validation_loss": None, "validation_auroc": None}])
    section = read_page(write_report(run.path)).by_id("training")
    assert "not estimable" in section.text
    assert len(section.all("svg")) == 2


def test_the_split_table_has_the_counts_of_split_json(any_run: Path, any_page):
    counts = read_json(any_run / "split.json")["counts"]
    table = any_page.by_id("cases").all("table")[0]
    rows = [[int(tag.attributes["value"]) for tag in line.all("data")] for line in table.all("tbody")[0].all("tr")]
    assert rows == [[part["patients"], part["images"], *part["labels"].values()] for part in counts.values()]


def test_stratified_is_said_only_where_the_split_was(make_run, read_page, binary_page, tmp_path: Path):
    assert "stratified by label" in binary_page.by_id("cases").text
    run = RunFolder(make_run(tmp_path / "run"))
    run.config.write_text(run.config.read_text("utf-8").replace("stratify: true", "stratify: false"), "utf-8")
    assert "stratified" not in read_page(write_report(run.path)).by_id("cases").text


def test_a_class_name_that_ends_like_another_metric_is_kept_apart():
    keys = ["auroc", "auroc_patient", "auroc_lung", "auroc_left_lung", "balanced_accuracy", "balanced_accuracy_lung"]
    whole, of_class = by_class({key: {"value": 0.5} for key in keys}, ["lung", "left_lung", "patient"])
    assert set(whole) == {"auroc", "balanced_accuracy"}
    assert {name: set(found) for name, found in of_class.items()} == {
        "lung": {"auroc", "balanced_accuracy"},
        "left_lung": {"auroc"},
        "patient": {"auroc"},
    }


def test_methods_get_one_letter_each_in_order():
    methods = Methods()
    assert [methods.letter({"method": text}) for text in ("x", "y", "x")] == ["a", "b", "a"]
    assert methods.letter({"method": "x", "reason": "no case"}) == "c"
    assert methods.texts == ["x", "y", "x; no case"]
    letters = [methods.letter({"method": str(number)}) for number in range(30)]
    assert len(set(letters)) == 30


def _classes(run: Path) -> list[str]:
    metrics = load_facts(run).metrics
    return metrics["classes"] if metrics["task"] != "binary" else []


def _counts(page) -> np.ndarray:
    """Square of counts in the matrix of decisions, without its totals."""
    lines = page.by_id("decisions").all("tbody")[0].all("tr")
    return np.array([[int(tag.attributes["value"]) for tag in line.all("data")][:-1] for line in lines])


def test_an_ascent_without_a_pass_of_its_own_shows_by_its_count() -> None:
    lines = [{"epoch": n, "passes_per_step": 1.0, "ascents": 4 if n > 2 else 0} for n in range(1, 5)]
    assert ascent_start(lines) == 3
