"""A segmentation's numbers again from cases.csv, what cannot be asked of it, and how the result is said."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from medgcsam.errors import ConfigError
from medgcsam.journal import Journal
from medgcsam.recipes.evaluate import evaluate_again
from medgcsam.recipes.external import evaluate_external
from medgcsam.recipes.summary import say_summary
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
    write_table(run.cases, table[(table["status"] != "missed") | (table["partition"] != "test")])
    after = evaluate_again(run.path, [], journal=Journal(quiet=True))["metrics"]
    assert after["partitions"]["test"]["dice"]["value"] == pytest.approx(0.5)
    assert after["partitions"]["test"]["missed"]["value"] == 0
    assert after["baseline"] == before["baseline"]
    for key in ("selection", "cost", "components", "duplicates", "title"):
        assert after[key] == before[key]


def test_another_level_narrows_the_interval_and_is_said_in_the_page(run: RunFolder):
    wide = read_json(run.metrics)["partitions"]["test"]["dice"]
    quiet = Journal(quiet=True)
    narrow = evaluate_again(run.path, ["evaluation.confidence=0.5"], journal=quiet)["metrics"]["partitions"]["test"]
    assert wide["low"] < narrow["dice"]["low"] < narrow["dice"]["high"] < wide["high"]
    assert "50% interval" in run.report.read_text("utf-8")
    evaluate_again(run.path, [], journal=quiet)
    assert "50% interval" not in run.report.read_text("utf-8")


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
    for name in ("dice", "nsd", "hd95_mm", "volume_error_ml", "dice_organ", "dice_lesion"):
        for entry in (test[name], baseline[name]):
            assert f"{entry['value']:.3f} [{entry['low']:.3f}, {entry['high']:.3f}]" in lines[name]
    for name in ("missed", "false_positive", "missed_lesion"):
        assert lines[name].split()[1:] == [str(test[name]["value"]), str(baseline[name]["value"])]
    assert "threshold baseline" in "\n".join(said(run))
    assert f"internal testing: {test['dice']['n_patients']} patients" in "\n".join(said(run))
    assert lines["tolerance"] == "tolerance      2 mm (of nsd)"
    columns = {line.index("0.") for name, line in lines.items() if name.startswith("dice")}
    assert len(columns) == 1


def test_the_summary_of_a_run_without_baseline_or_known_patients(run: RunFolder):
    metrics = read_json(run.metrics)
    del metrics["baseline"]
    write_json(run.metrics, metrics | {"patients": "unknown", "synthetic": True})
    text = "\n".join(said(run))
    assert "baseline" not in text
    assert "Patients are unknown" in text
    assert "SYNTHETIC DATA" in text
