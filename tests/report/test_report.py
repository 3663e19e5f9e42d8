"""The page as a whole: self-contained, repeatable, safe, readable by a screen reader, honest about what is missing."""

from __future__ import annotations

import itertools
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from medgcsam.errors import DataError
from medgcsam.report import write_report
from medgcsam.run_folder import RunFolder, read_json, read_table, write_json, write_table

LOADING = {"src", "href", "srcset", "action", "data", "poster", "background", "formaction", "ping", "xlink:href"}
HOSTILE = '"><img src=x onerror=alert(1)></style><script>alert(2)</script>{{ 7*7 }}&amp;'


def test_the_page_loads_nothing_and_runs_nothing(any_run: Path, any_page):
    page = any_page
    assert (any_run / "report.html").stat().st_size < 1_000_000
    assert not page.all("script", "link", "iframe", "object", "embed", "img", "form", "base", "video", "audio")
    for element in page.all():
        for name, value in element.attributes.items():
            assert name not in LOADING or value.startswith("#"), (element.tag, name, value)
            assert not name.startswith("on"), (element.tag, name)
            assert not re.search(r"url\((?!#)", value), (element.tag, name, value)
    style = page.all("style")
    assert len(style) == 1
    assert not re.search(r"@import|url\(|https?:", style[0].raw)
    policy = next(one for one in page.all("meta") if one.attributes.get("http-equiv") == "Content-Security-Policy")
    assert policy.attributes["content"].startswith("default-src 'none'")


def test_the_same_run_gives_the_same_bytes_wherever_it_lies(any_run: Path, any_page, tmp_path: Path):
    elsewhere = Path(shutil.copytree(any_run, tmp_path / "moved"))
    before = (elsewhere / "report.html").read_bytes()
    assert write_report(elsewhere) == elsewhere / "report.html"
    assert (elsewhere / "report.html").read_bytes() == before


def test_headings_tables_and_figures_speak_to_a_screen_reader(any_page):
    page = any_page
    levels = [int(one.tag[1]) for one in page.all("h1", "h2", "h3", "h4")]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    ids = [one.attributes["id"] for one in page.all() if "id" in one.attributes]
    assert len(ids) == len(set(ids))
    assert {one.attributes["href"][1:] for one in page.all("a")} <= set(ids)
    for section in page.all("section"):
        assert page.by_id(section.attributes["aria-labelledby"]).tag == "h2"
    assert page.all("table")
    for table in page.all("table"):
        assert table.all("caption")[0].text
        assert {one.attributes.get("scope") for one in table.all("thead")[0].all("th")} == {"col"}
        assert {one.attributes.get("scope") for one in table.all("tbody")[0].all("th")} == {"row"}
        assert len({len(line.all("th", "td")) for line in table.all("tr")}) == 1
    assert page.all("figure")
    for figure in page.all("figure"):
        picture = figure.all("svg")[0]
        assert picture.attributes["role"] == "img"
        assert len(picture.attributes["aria-label"]) > 20
        assert figure.all("figcaption")[0].text
    assert page.all("html")[0].attributes["lang"] == "en"
    assert page.all("main")


@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_hostile_names_stay_text(make_run, read_page, tmp_path: Path, task: str):
    """Every string of the data, the config and the description goes through the page as text."""
    classes = ["<b>fine</b>", HOSTILE] + (["third'\"`"] if task == "multiclass" else [])
    run = RunFolder(make_run(tmp_path / "run", task, classes=classes, title=HOSTILE, notes=HOSTILE))
    provenance = read_json(run.provenance)
    provenance["data"] |= {"source": "javascript:alert(3)", "citation": HOSTILE, "licence": HOSTILE}
    write_json(run.provenance, provenance | {"device": HOSTILE, "setting": HOSTILE})
    split = read_json(run.split)
    write_json(run.split, split | {"excluded": {HOSTILE: 3}})
    run.config.write_text(run.config.read_text("utf-8").replace("Second reader in a study", "'<svg/onload=alert(4)>'"))
    page = read_page(write_report(run.path))
    assert page.all("h1")[0].text == HOSTILE
    assert not page.all("script", "img", "b")
    assert len(page.all("style")) == 1
    assert not [one for one in page.all() if any(name.startswith("on") for name in one.attributes)]
    assert not [one for one in page.all("a") if not one.attributes["href"].startswith("#")]
    labels = [one.attributes["aria-label"] for one in page.all("svg")]
    assert any(HOSTILE in label for label in labels)
    assert "<svg/onload=alert(4)>" in page.by_id("summary").text


def test_synthetic_data_say_so_in_large_letters_in_title_foot_and_print(
    make_run, read_page, binary_run, tmp_path: Path
):
    page = read_page(write_report(make_run(tmp_path / "run", synthetic=True)))
    banner = next(one for one in page.all("div") if one.attributes.get("class") == "synthetic")
    assert banner.text.startswith("SYNTHETIC DATA")
    assert page.all("title")[0].text.startswith("SYNTHETIC DATA")
    assert "SYNTHETIC DATA" in page.all("footer")[0].text
    assert "SYNTHETIC DATA" in page.all("style")[0].raw
    assert "SYNTHETIC DATA" not in write_report(binary_run).read_text("utf-8")


def test_unknown_patients_and_notes_stand_on_page_one(make_run, read_page, tmp_path: Path):
    note = "Cases were picked by class; predictive values mean nothing."
    page = read_page(write_report(make_run(tmp_path / "run", patients="unknown", notes=note)))
    summary = page.by_id("summary").text
    assert "Patients are unknown." in summary
    assert note in summary
    assert "All images of a patient are in one partition" not in page.text
    assert "For research use only." in summary


def test_an_external_test_says_so(make_run, read_page, tmp_path: Path):
    run = RunFolder(make_run(tmp_path / "run"))
    other = run.external("elsewhere")
    metrics = read_json(run.metrics)
    kept = {name: metrics[name] for name in ("schema", "task", "classes", "positive", "patients", "operating_point")}
    tests = {"partitions": {"test": metrics["partitions"]["test"]}, "trained_on": metrics["title"]}
    write_json(
        other.metrics, kept | tests | {"synthetic": False, "testing": "external", "title": "Other site", "notes": ""}
    )
    table = read_table(run.predictions)
    write_table(other.predictions, table[table["partition"] == "test"])
    page = read_page(write_report(other.path))
    top = page.all("header")[0].text
    assert "external testing" in top
    assert "internal testing" not in page.text
    assert "Other site" in top
    assert "trained on Simulated scores" in top
    assert "internal testing" in read_page(write_report(run.path)).all("header")[0].text


@pytest.mark.parametrize("absent", ["history.jsonl", "split.json", "predictions.csv", "provenance.json", "config.yaml"])
def test_an_absent_file_is_said_and_stops_nothing(make_run, read_page, tmp_path: Path, absent: str):
    run = make_run(tmp_path / "run")
    (run / absent).unlink()
    page = read_page(write_report(run))
    said = {
        "history.jsonl": "holds no history.jsonl",
        "split.json": "holds no split.json",
        "predictions.csv": "no predictions of labelled test images",
        "provenance.json": "not recorded",
        "config.yaml": "holds no config.yaml",
    }
    assert said[absent] in page.text
    assert "0." in page.by_id("performance").text


def test_a_run_without_a_baseline_shows_none(make_run, read_page, tmp_path: Path):
    page = read_page(write_report(make_run(tmp_path / "run", baseline={})))
    assert "aseline" not in page.by_id("performance").text


def test_a_network_that_loses_to_the_baseline_is_told_so(make_run, read_page, tmp_path: Path):
    run = RunFolder(make_run(tmp_path / "run"))
    assert "does not beat the sanity baseline" not in read_page(write_report(run.path)).text
    metrics = read_json(run.metrics)
    metrics["baseline"]["partitions"]["test"] = metrics["partitions"]["test"]
    write_json(run.metrics, metrics)
    assert "does not beat the sanity baseline" in read_page(write_report(run.path)).text


def test_what_nobody_provided_is_listed_and_never_invented(binary_page):
    page = binary_page
    assert "Second reader in a study" in page.by_id("summary").text
    listed = [one.text for one in page.by_id("provenance").all("li")]
    assert len(listed) == 6
    assert not any("Intended use" in line for line in listed)
    assert page.text.count("not provided") >= 6


def test_no_folder_of_the_machine_reaches_the_page(binary_run: Path):
    text = write_report(binary_run).read_text("utf-8")
    assert "Jane Doe" not in text
    assert str(binary_run) not in text
    assert "…/manifest.csv" in text


def test_predictions_without_a_class_column_are_an_error(make_run, tmp_path: Path):
    run = RunFolder(make_run(tmp_path / "run"))
    write_table(run.predictions, read_table(run.predictions).drop(columns="p_Pneumonia"))
    with pytest.raises(DataError, match="p_Pneumonia"):
        write_report(run.path)


def test_a_test_partition_of_one_kind_has_no_curve_and_says_so(make_run, read_page, tmp_path: Path):
    run = RunFolder(make_run(tmp_path / "run"))
    table = read_table(run.predictions)
    write_table(run.predictions, table[(table["partition"] != "test") | (table["label"] == "Pneumonia")])
    page = read_page(write_report(run.path))
    assert "no curve" in page.by_id("curves").text
    assert not page.by_id("curves").all("svg")


def test_reporting_needs_neither_torch_nor_monai(binary_run: Path):
    code = (
        "import sys; from pathlib import Path; from medgcsam.report import write_report;"
        "write_report(Path(sys.argv[1]));"
        "print(sorted({'torch', 'monai', 'matplotlib.pyplot'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(binary_run)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
