"""The page on a segmentation: every number is one of metrics.json or cases.csv, and what no file says is not said."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from medgcsam.report import write_report
from medgcsam.run_folder import (
    RunFolder,
    read_json,
    read_json_lines,
    read_table,
    write_json,
    write_json_lines,
    write_table,
)
from tests.report.segmentation_runs import PLAN, STRUCTURES, build_segmentation_run

HOSTILE = '"><img src=x onerror=alert($\\frac$)></style><script>alert(2)</script>{{ 7*7 }}&amp;'


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run with two structures; tests must not change it but for its report."""
    return RunFolder(build_segmentation_run(tmp_path_factory.mktemp("outlines") / "run"))


@pytest.fixture(scope="module")
def page(run: RunFolder, read_page):
    return read_page(write_report(run.path))


@pytest.fixture
def copied(run: RunFolder, tmp_path: Path) -> RunFolder:
    """The same run, for a test that changes it."""
    return RunFolder(Path(shutil.copytree(run.path, tmp_path / "run")))


def test_the_headline_is_mean_dice_with_interval_and_sizes(run: RunFolder, page):
    summary, dice = page.by_id("summary").text, read_json(run.metrics)["partitions"]["test"]["dice"]
    assert f"{dice['value']:.3f} 95% interval {dice['low']:.3f} to {dice['high']:.3f}" in summary
    basis = f"over {dice['n_patients']} patients, {dice['n_images']} images whose reference shows any of them"
    assert basis in summary
    assert dice["method"] in summary
    assert "Dice, mean over 2 structures" in summary
    facts = _facts(page)
    test = read_table(run.cases).query("partition == 'test'")
    assert facts["Tested on"] == f"{test['patient'].nunique()} patients, {test['case'].nunique()} images"
    assert facts["Tolerance of surface Dice"] == "2 mm"
    assert facts["Parts kept"] == "the largest part alone of organ; all parts of the others"


def test_too_few_patients_for_an_interval_are_said_in_its_place(copied: RunFolder, read_page):
    metrics = read_json(copied.metrics)
    reason = "too few patients for an interval: lesion 2, where 3 are needed"
    metrics["partitions"]["test"]["dice"] |= {"low": None, "high": None, "reason": reason}
    write_json(copied.metrics, metrics)
    summary = read_page(write_report(copied.path)).by_id("summary").text
    assert f"{metrics['partitions']['test']['dice']['value']:.3f} {reason}" in summary
    assert "95% interval" not in summary


def test_every_number_of_metrics_json_is_in_the_page_in_full(run: RunFolder, page):
    shown = {float(tag.attributes["value"]) for tag in page.by_id("performance").all("data")}
    metrics = read_json(run.metrics)
    for partition in ("test", "validation"):
        for name, entry in metrics["partitions"][partition].items():
            if partition == "validation" and isinstance(entry["value"], int):
                continue  # counts of validation are not shown
            numbers = {entry.get(key) for key in ("value", "low", "high", "median", "q1", "q3", "worst5")} - {None}
            assert numbers <= shown, (partition, name)
    for name in ("dice", "nsd", "hd95_mm", "asd_mm", "missed", "dice_lesion", "hd95_mm_organ"):
        assert metrics["baseline"]["partitions"]["test"][name]["value"] in shown, name


def test_tagged_numbers_are_printed_to_three_decimals_or_as_a_count(page):
    tags = page.all("data")
    assert len(tags) > 150
    for tag in tags:
        value = float(tag.attributes["value"])
        if re.fullmatch(r"-?\d+", tag.attributes["value"]):
            assert tag.text == f"{int(value):,}"
        else:
            assert abs(float(tag.text) - value) <= 0.0005 + 1e-9


def test_a_row_has_its_own_numbers(run: RunFolder, page):
    entry = read_json(run.metrics)["partitions"]["test"]["hd95_mm_lesion"]
    cells = _rows(_table(page, "lesion."))["HD95 (mm)"]
    assert cells[0] == f"{entry['value']:.3f} {entry['low']:.3f} to {entry['high']:.3f}"
    assert cells[1] == f"{entry['median']:.3f}"
    assert cells[2] == f"{entry['q1']:.3f} to {entry['q3']:.3f}"
    assert cells[3] == f"{entry['worst5']:.3f}"
    assert cells[4:6] == [str(entry["n_patients"]), str(entry["n_images"])]
    methods = [one.text for one in page.by_id("performance").all("ol")[-1].all("li")]
    assert methods["abcdefghijklmnopqrstuvwxyz".index(cells[6])] == entry["method"]


def test_missed_and_invented_structures_are_those_of_cases_csv(run: RunFolder, page):
    table = read_table(run.cases)
    own = table[(table["partition"] == "test") & (table["structure"] == "lesion")]
    counts = own["status"].value_counts()
    shown, empty = counts["ok"] + counts["missed"], counts["false_positive"] + counts["both_empty"]
    cells = _rows(_table(page, "Structures missed"))["lesion"]
    assert cells[:3] == [
        f"{counts['missed']} of {shown}", f"{counts['false_positive']} of {empty}", f"{counts['both_empty']} of {empty}"
    ]  # fmt: skip
    errors = [one.text for one in page.by_id("summary").all("li")]
    assert f"lesion missed: {counts['missed']} of {shown} images" in errors
    assert f"lesion found where there is none: {counts['false_positive']} of {empty} images" in errors


def test_the_worst_and_the_median_cases_are_named_by_their_hashes(run: RunFolder, page):
    table = read_table(run.cases)
    own = table[(table["partition"] == "test") & (table["structure"] == "organ")]
    order = own.assign(dice=own["dice"].astype(float)).sort_values("dice")
    middle = len(order) // 2
    lines = _table(page, "organ: the worst").all("tbody")[0].all("tr")
    assert [line.all("th")[0].text for line in lines[:5]] == list(order["case"][:5])
    assert [line.all("td")[0].text for line in lines[:5]] == list(order["patient"][:5])
    assert [line.all("td")[1].text for line in lines] == ["worst"] * 5 + ["median"] * 3
    assert {order["case"].iloc[middle - 1], order["case"].iloc[middle]} <= {line.all("th")[0].text for line in lines}
    invented = table[(table["partition"] == "test") & (table["status"] == "false_positive")]
    listed = _rows(_table(page, "False positives: "))
    assert set(listed) == set(invented["case"])
    assert {cells[2] for cells in listed.values()} == {f"{float(size):.3f}" for size in invented["predicted_size"]}


def test_the_figures_speak_the_numbers_of_the_files(run: RunFolder, page):
    labels = [one.attributes["aria-label"] for one in page.by_id("each").all("svg")]
    assert len(labels) == 4
    table = read_table(run.cases)
    own = table[(table["partition"] == "test") & (table["structure"] == "lesion")]
    own = own[own["status"].isin(["ok", "missed"])]
    for column, label in (("dice", labels[0]), ("hd95", labels[1])):
        missed = (own["status"] == "missed").sum()
        words = f"lesion: {len(own)} cases, {missed} missed, median {own[column].astype(float).median():.3f}"
        assert words in label
    error = read_json(run.metrics)["partitions"]["test"]["volume_error_ml_lesion"]
    assert f"mean difference {error['value']:.3f}" in labels[3]
    assert f"in {error['n_patients']} patients" in labels[3]
    agreement = read_json(run.metrics)["agreement"]["test"]["lesion"]["ml"]
    assert agreement["bias"] == pytest.approx(error["value"])
    assert f"limits of agreement {agreement['low']:.3f} to {agreement['high']:.3f} ml" in labels[3]
    assert (agreement["n_patients"], agreement["n_images"]) == (error["n_patients"], error["n_images"])


def test_every_number_of_the_page_stands_in_full_in_a_file_that_the_page_names(run: RunFolder, page):
    held, last = set(), page.all("footer")[0].text
    files = re.findall(r"\w+\.(?:jsonl?|csv)\b", last)
    assert {"metrics.json", "cases.csv", "components.json", "history.jsonl", "split.json"} <= set(files)
    for name in files:
        if (run.path / name).is_file():
            numbers = re.findall(r"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?", (run.path / name).read_text("utf-8"))
            held |= {float(number) for number in numbers}
    counted = page.by_id("summary").all("ol")[0].all("data")  # of the cases of cases.csv with each status
    shown = {float(tag.attributes["value"]) for tag in page.all("data")} - {
        float(tag.attributes["value"]) for tag in counted
    }
    assert len(shown) > 100
    assert not sorted(shown - held)


def test_the_mean_over_structures_has_no_median(page):
    heads = [one.text for one in _table(page, "Mean over structures.").all("thead")[0].all("th")]
    assert heads == ["Measure", "Mean", "Patients", "Images", "Method"]
    heads = [one.text for one in _table(page, "lesion.").all("thead")[0].all("th")]
    assert heads == ["Measure", "Mean", "Median", "Quartiles", "Worst 5%", "Patients", "Images", "Method"]


def test_a_level_between_whole_percents_is_written_out(copied: RunFolder, read_page):
    write_json(copied.metrics, read_json(copied.metrics) | {"confidence": 0.975})
    text = read_page(write_report(copied.path)).text
    assert "97.5% interval" in text
    assert "98%" not in text


def test_the_plan_stands_with_its_reasons(run: RunFolder, page):
    rows = _rows(_table(page, "Planned numbers"))
    assert {name: cells[2] for name, cells in rows.items()} == {name: one["reason"] for name, one in PLAN.items()}
    assert rows["image.spacing"][:2] == ["1.5, 1.5, 3", "auto"]
    rows = _rows(_table(page, "All parts or the largest"))
    assert rows["organ"] == ["the largest part alone", "0.710", "0.740", "12"]
    assert rows["lesion"][0] == "all parts"


def test_preparation_and_learning_are_those_of_a_segmentation(page):
    reference = page.by_id("reference").text
    assert "resampled to 1.5 × 1.5 × 3 mm (right-left × front-back × head-feet)" in reference
    assert "64 × 64 × 32 voxels" in reference
    assert "cut to -120.5 to 240, then minus 61.25, divided by 33.5; from the voxels inside the structures" in reference
    training = page.by_id("training")
    assert "3, by validation Dice" in training.text
    assert "AUROC" not in page.text
    assert "Validation Dice over 4 epochs; 0.825 in the last." in training.all("svg")[1].attributes["aria-label"]


def test_the_page_loads_nothing_names_nobody_and_repeats(run: RunFolder, page, tmp_path: Path):
    text = run.report.read_text("utf-8")
    assert "Jane Doe" not in text
    assert str(run.path) not in text
    assert not page.all("script", "link", "iframe", "object", "embed", "img", "form", "base")
    assert not re.search(r"url\((?!#)|@import|https?:", text)
    ids = [one.attributes["id"] for one in page.all() if "id" in one.attributes]
    assert len(ids) == len(set(ids))
    moved = Path(shutil.copytree(run.path, tmp_path / "moved"))
    assert write_report(moved).read_text("utf-8") == text


@pytest.mark.parametrize(
    ("absent", "said"),
    [
        ("cases.csv", "holds no cases.csv with test cases"),
        ("plan.json", "holds no plan.json"),
        ("history.jsonl", "holds no history.jsonl"),
        ("split.json", "holds no split.json"),
        ("config.yaml", "holds no config.yaml"),
        ("provenance.json", "not recorded"),
    ],
)
def test_an_absent_file_is_said_and_stops_nothing(copied: RunFolder, read_page, absent: str, said: str):
    (copied.path / absent).unlink()
    page = read_page(write_report(copied.path))
    assert said in page.text
    assert "0." in page.by_id("performance").text


def test_without_a_record_of_parts_none_is_claimed(copied: RunFolder, read_page):
    copied.components.unlink()
    metrics = read_json(copied.metrics)
    del metrics["components"]
    write_json(copied.metrics, metrics)
    page = read_page(write_report(copied.path))
    assert "holds no components.json" in page.by_id("plan").text
    assert _facts(page)["Parts kept"] == "not recorded"


def test_a_network_that_loses_to_the_threshold_is_told_so(copied: RunFolder, page, read_page):
    assert "does not beat" not in page.text
    metrics = read_json(copied.metrics)
    metrics["baseline"]["partitions"]["test"] = metrics["partitions"]["test"]
    write_json(copied.metrics, metrics)
    assert "does not beat the threshold baseline" in read_page(write_report(copied.path)).text


def test_names_of_structures_go_through_the_page_as_text(read_page, tmp_path: Path):
    page = read_page(write_report(build_segmentation_run(tmp_path / "run", (HOSTILE, "<b>fine</b>", "empty"))))
    assert not page.all("script", "img", "b")
    assert HOSTILE in page.by_id("performance").text
    assert not [one for one in page.all() if any(name.startswith("on") for name in one.attributes)]


def test_a_single_structure_is_said_once(read_page, tmp_path: Path):
    page = read_page(write_report(build_segmentation_run(tmp_path / "run", ("lesion",))))
    assert "Dice of lesion" in page.by_id("summary").text
    captions = [one.text for one in page.by_id("performance").all("caption")]
    assert sum("lesion." in text for text in captions) == 2  # test and validation
    assert not any("Mean over structures" in text for text in captions)


def test_epochs_without_a_dice_are_drawn(copied: RunFolder, read_page):
    lines = read_json_lines(copied.history)
    write_json_lines(copied.history, [line | {"validation_dice": None} for line in lines])
    section = read_page(write_report(copied.path)).by_id("training")
    assert "not estimable" in section.text
    assert len(section.all("svg")) == 2


def test_masks_are_mentioned_only_where_there_are_any(copied: RunFolder, page, read_page):
    assert "folder masks" not in page.text
    copied.masks.mkdir()
    (copied.masks / "0.nii.gz").write_bytes(b"")
    assert "folder masks" in read_page(write_report(copied.path)).text


def test_of_many_structures_the_first_have_figures_and_the_others_are_named(
    copied: RunFolder, read_page, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("medgcsam.report.case_by_case.MOST_STRUCTURES", 1)
    page = read_page(write_report(copied.path))
    assert "Without figures and lists here: lesion." in page.by_id("each").text
    assert len(page.by_id("each").all("svg")) == 3
    assert "lesion" in _rows(_table(page, "Test partition: each structure"))


def test_a_test_partition_without_any_structure_is_reported(copied: RunFolder, read_page):
    """Nothing to measure is no error: the page says that it cannot be estimated."""
    table = read_table(copied.cases)
    empty = table["partition"] == "test"
    table.loc[empty, ["dice", "nsd", "hd95", "asd"]] = ""
    table.loc[empty, "status"] = "both_empty"
    write_table(copied.cases, table)
    metrics = read_json(copied.metrics)
    for name, entry in metrics["partitions"]["test"].items():
        if name.startswith(("dice", "nsd", "hd95", "asd")):
            entry |= {"value": None, "low": None, "high": None, "reason": "there are no cases"}
    write_json(copied.metrics, metrics)
    page = read_page(write_report(copied.path))
    assert "not estimable" in page.by_id("summary").text
    assert "none could be counted" in page.by_id("summary").text
    assert not page.by_id("each").all("svg", "table")


def _facts(page) -> dict[str, str]:
    summary = page.by_id("summary")
    return dict(zip(*([one.text for one in summary.all(tag)] for tag in ("dt", "dd")), strict=True))


def _table(page, title: str):
    return next(one for one in page.all("table") if one.all("caption")[0].text.startswith(title))


def _rows(table) -> dict[str, list[str]]:
    lines = table.all("tbody")[0].all("tr")
    return {line.all("th")[0].text: [cell.text for cell in line.all("td")] for line in lines}


def test_the_structures_of_the_run_are_those_shown(page):
    assert list(_rows(_table(page, "Test partition: each structure")))[1:] == list(STRUCTURES)
