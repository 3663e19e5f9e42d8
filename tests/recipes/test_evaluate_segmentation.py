"""A segmentation's numbers again from cases.csv, what cannot be asked of it, and how the result is said."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest

from medgcsam.errors import ConfigError, DataError
from medgcsam.journal import Journal
from medgcsam.recipes.evaluate import evaluate_again
from medgcsam.recipes.external import evaluate_external
from medgcsam.recipes.summary import decimal, say_summary
from medgcsam.report import write_report
from medgcsam.run_folder import RunFolder, read_json, read_table, write_json, write_table
from tests.report.segmentation_runs import build_segmentation_run


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(build_segmentation_run(tmp_path / "run"))


def said(run: RunFolder) -> list[str]:
    stream = io.StringIO()
    say_summary(run, Journal(stream=stream))
    return stream.getvalue().splitlines()


def test_the_same_cases_give_the_same_numbers_and_a_page(run: RunFolder):
    before = read_json(run.metrics)
    result = evaluate_again(run.path, [], journal=Journal(quiet=True))
    assert result["metrics"] == read_json(run.metrics) == before
    assert run.report.is_file()


def test_other_cases_give_other_numbers_and_the_rest_stays(run: RunFolder):
    before, table = read_json(run.metrics), read_table(run.cases)
    found = (table["status"] == "ok") & (table["partition"] == "test")
    table.loc[found, "dice"] = "0.5"
    missed = (table["status"] == "missed") & (table["partition"] == "test")
    table.loc[missed, ["status", "dice"]] = "ok", "0.5"
    write_table(run.cases, table)
    after = evaluate_again(run.path, [], journal=Journal(quiet=True))["metrics"]
    assert after["partitions"]["test"]["dice"]["value"] == pytest.approx(0.5)
    assert after["partitions"]["test"]["missed"]["value"] == 0
    assert after["baseline"] == before["baseline"]
    for key in ("selection", "cost", "components", "duplicates", "title"):
        assert after[key] == before[key]


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("cases", lambda table: table[table["structure"] != "lesion"], r"cases\.csv: \d+ cases have no line"),
        ("cases", lambda table: table.drop(index=0), r"cases\.csv: a case has no line .* none for organ"),
        ("cases", lambda table: table.iloc[:2], r"baseline\.csv.*cases\.csv.*missing|cases\.csv: .* are missing"),
        ("baseline", lambda table: table.iloc[:-2], r"baseline\.csv: 1 of the cases of cases\.csv are missing"),
        ("baseline", lambda table: table.drop(index=3), r"baseline\.csv: a case has no line"),
        ("both", lambda table: table[table["patient"] != table["patient"].iloc[-1]], "29 test patients.* 30 .*missing"),
        ("both", lambda table: table[table["case"] != _second_image(table)], r"test cases, where split\.json counts"),
    ],
)
def test_tables_that_are_not_whole_are_refused_and_nothing_is_written(run: RunFolder, file: str, change, message: str):
    write_report(run.path)
    for name in ("cases", "baseline") if file == "both" else (file,):
        path = getattr(run, name)
        write_table(path, change(read_table(path)))
    before = [path.read_bytes() for path in (run.metrics, run.report)]
    with pytest.raises(DataError, match=message):
        evaluate_again(run.path, [], journal=Journal(quiet=True))
    assert [path.read_bytes() for path in (run.metrics, run.report)] == before


def _second_image(table) -> str:
    """A test case of a patient who has two."""
    own = table[table["partition"] == "test"].drop_duplicates("case")
    return own.loc[own.duplicated("patient"), "case"].iloc[0]


def test_another_level_narrows_the_interval_and_is_said_in_the_page(run: RunFolder):
    wide = read_json(run.metrics)["partitions"]["test"]["dice"]
    quiet = Journal(quiet=True)
    narrow = evaluate_again(run.path, ["evaluation.confidence=0.5"], journal=quiet)["metrics"]["partitions"]["test"]
    assert wide["low"] < narrow["dice"]["low"] < narrow["dice"]["high"] < wide["high"]
    assert "50% interval" in run.report.read_text("utf-8")
    evaluate_again(run.path, [], journal=quiet)
    assert "50% interval" not in run.report.read_text("utf-8")


def test_facts_of_the_report_reach_the_page_and_config_yaml_stays(run: RunFolder):
    trained, quiet = run.config.read_bytes(), Journal(quiet=True)
    told = ["report.title=Livers of 2026", "report.contact=Jo Doe <jo@example.org>", "report.intended_use=null"]
    metrics = evaluate_again(run.path, told, journal=quiet)["metrics"]
    page = run.report.read_text("utf-8")
    assert "Livers of 2026" in page
    assert "Jo Doe &lt;jo@example.org&gt;" in page
    assert "Measuring in a study" not in page, "a fact that was taken back"
    assert metrics["report"] == {"title": "Livers of 2026", "contact": "Jo Doe <jo@example.org>", "intended_use": None}
    write_report(run.path)
    assert run.report.read_text("utf-8") == page, "medgcsam report writes the same page"
    assert run.config.read_bytes() == trained
    evaluate_again(run.path, [], journal=quiet)
    assert "report" not in read_json(run.metrics)
    assert "Measuring in a study" in run.report.read_text("utf-8")


def test_facts_of_the_data_cannot_change_on_a_trained_run(run: RunFolder):
    with pytest.raises(ConfigError, match=r"--set data\.notes=x: on a trained run only evaluation and report"):
        evaluate_again(run.path, ["data.notes=x"], journal=Journal(quiet=True))
    with pytest.raises(ConfigError, match=r"report\.titel.*title"):
        evaluate_again(run.path, ["report.titel=x"], journal=Journal(quiet=True))


@pytest.mark.parametrize("tolerance", ["3", "{lesion: 1.0}"])
def test_the_tolerance_of_surfaces_cannot_change_any_more(run: RunFolder, tolerance: str):
    before = run.metrics.read_bytes()
    with pytest.raises(ConfigError, match=r"evaluation\.nsd_tolerance: .*measured with 2\.0.*--restart"):
        evaluate_again(run.path, [f"evaluation.nsd_tolerance={tolerance}"], journal=Journal(quiet=True))
    assert run.metrics.read_bytes() == before
    evaluate_again(run.path, ["evaluation.nsd_tolerance=2.0"], journal=Journal(quiet=True))


def test_external_testing_is_refused_and_names_predict(run: RunFolder):
    with pytest.raises(ConfigError, match=r"medgcsam predict \S+ INPUT"):
        evaluate_external(run.path, "other.csv", [], name=None, journal=Journal(quiet=True))
    assert not (run.path / "external").exists()


def test_the_summary_sets_each_measure_beside_the_baseline(run: RunFolder):
    metrics = read_json(run.metrics)
    test, baseline = (one["partitions"]["test"] for one in (metrics, metrics["baseline"]))
    lines = {line.split()[0]: line for line in said(run) if line}
    decimals = {"hd95_mm": 1, "volume_error_ml": 2}
    for name in ("dice", "nsd", "hd95_mm", "volume_error_ml", "dice_organ", "dice_lesion"):
        for entry in (test[name], baseline[name]):
            value, low, high = (f"{entry[key]:.{decimals.get(name, 3)}f}" for key in ("value", "low", "high"))
            assert f"{value} [{low}, {high}]" in lines[name]
    for name in ("missed", "false_positive", "missed_lesion"):
        assert lines[name].split()[1:] == [str(one) for one in (
            test[name]["value"], baseline[name]["value"], test[name]["n_patients"]
        )]  # fmt: skip
    assert "threshold baseline" in "\n".join(said(run))
    tested = read_table(run.cases).query("partition == 'test'")
    assert f"internal testing: {tested['patient'].nunique()} patients, {tested['case'].nunique()} images, organ, " in (
        "\n".join(said(run))
    )
    assert lines["tolerance"] == "tolerance      2 mm (of nsd)"
    columns = {line.index("0.") for name, line in lines.items() if name.startswith("dice")}
    assert len(columns) == 1


def test_patients_with_empty_references_count_as_tested_and_both_units_are_said(run: RunFolder):
    table = read_table(run.cases)
    test = table[table["partition"] == "test"]
    shown = test[(test["structure"] == "lesion") & test["status"].isin(["ok", "missed"])]
    images, patients = len(shown), shown["patient"].nunique()
    pixels = table["patient"].isin(shown["patient"].unique()[:4])
    table.loc[pixels, ["unit", "size_unit"]] = "px", "voxels"
    table = table[table["structure"] == "lesion"]
    for path, content in ((run.cases, table), (run.baseline, table)):
        write_table(path, content)
    write_json(run.metrics, read_json(run.metrics) | {"structures": ["lesion"]})
    evaluate_again(run.path, [], journal=Journal(quiet=True))
    lines = {line.split()[0]: line for line in said(run) if line}
    assert f"{test['patient'].nunique()} patients, {test['case'].nunique()} images, lesion" in lines["internal"]
    assert patients < test["patient"].nunique()
    assert lines["dice"].split()[-1] == str(patients)
    assert (lines["hd95_mm"].split()[-1], lines["hd95_px"].split()[-1]) == (str(patients - 4), "4")
    tolerance = f"2 mm ({patients - 4} patients); as many pixels where the spacing is unknown (4 patients)"
    assert tolerance in lines["tolerance"]
    page = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", run.report.read_text("utf-8")))
    assert tolerance in page
    assert f"over {patients} patients, {images} images whose reference shows lesion" in page
    assert f"Tested on{test['patient'].nunique()} patients, {test['case'].nunique()} images" in page
    assert page.count("HD95 (mm)") >= 2 <= page.count("HD95 (pixels)")
    for name in ("hd95_mm", "hd95_px", "volume_error_ml", "volume_error_px"):
        assert f'value="{read_json(run.metrics)["partitions"]["test"][name]["value"]!r}"' in run.report.read_text()


def test_long_numbers_and_names_keep_their_columns_apart(run: RunFolder):
    metrics = read_json(run.metrics)
    long = {"value": 123456.789, "low": -98765.432, "high": 1224068.12}
    for test in (metrics["partitions"]["test"], metrics["baseline"]["partitions"]["test"]):
        for name in ("hd95_mm", "asd_mm", "volume_error_ml"):
            test[name] |= long
        test["dice_a_structure_with_a_long_name"] = test["dice_organ"]
    write_json(run.metrics, metrics | {"structures": [*metrics["structures"], "a_structure_with_a_long_name"]})
    text = said(run)
    first = next(number for number, line in enumerate(text) if "threshold baseline" in line)
    lines = [line for line in text[first:] if not line.startswith(("tolerance", "report"))]
    baseline = lines[0].index("threshold baseline")
    network = lines[0].index("network")
    for line in lines[1:]:
        assert line[network - 2 : network] == line[baseline - 2 : baseline] == "  ", line
        assert " " not in {line[network], line[baseline]}, line
    assert any("123456.8 [-98765.4, 1224068.1]     123456.8 [-98765.4, 1224068.1]" in line for line in lines)
    assert any("123456.79 [-98765.43, 1224068.12]  123456.79 [-98765.43, 1224068.12]" in line for line in lines)
    assert any(line.startswith("dice_a_structure_with_a_long_name  ") for line in lines)


def test_a_negative_error_of_nothing_has_no_sign():
    assert decimal(-0.001, "volume_error_ml") == "0.00"
    assert decimal(-0.006, "volume_error_ml") == "-0.01"


def test_the_summary_of_a_run_without_baseline_or_known_patients(run: RunFolder):
    metrics = read_json(run.metrics)
    del metrics["baseline"]
    write_json(run.metrics, metrics | {"patients": "unknown", "synthetic": True})
    text = "\n".join(said(run))
    assert "baseline" not in text
    assert "Patients are unknown" in text
    assert "SYNTHETIC DATA" in text
