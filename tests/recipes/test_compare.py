"""One tiny real study, from pictures on disk to comparison.json and the table on the terminal."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from medgcsam.cli import app
from medgcsam.config import Config, load
from medgcsam.errors import ConfigError, MachineError, PartialFailure
from medgcsam.journal import Journal
from medgcsam.recipes.compare import compare_settings
from medgcsam.run_folder import read_json, read_json_lines
from medgcsam.study import execute, plan_runs
from tests.training.segmentation_cohorts import draw_discs, segmentation_config

SETTINGS = {"adam": {"name": "adamw"}, "gcsam": {}}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """32 patients with one small picture each; "bright" ones have a somewhat brighter centre."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    lines = ["image,patient_id,label"]
    for number in range(32):
        pixels = rng.normal(90, 25, (20, 20))
        pixels[6:14, 6:14] += 25 * (number % 2)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{number}.png")
        lines.append(f"{number}.png,P{number},{('dark', 'bright')[number % 2]}")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def path(pictures: Path, tmp_path: Path) -> Path:
    content = {
        "name": "tiny",
        "data": {"manifest": str(pictures / "manifest.csv"), "classes": ["dark", "bright"]},
        "split": {"folds": 4},
        "image": {"size": 16},
        "network": {"name": "small", "width": 4},
        "training": {"epochs": 1, "batch_size": 8, "device": "cpu", "threads": 1, "select": "loss"},
        "evaluation": {"replicates": 100},
        "pipeline": {"workers": 0},
        "compare": {"optimizers": SETTINGS, "seeds": [0, 1]},
        "output": {"folder": str(tmp_path / "runs")},
    }
    target = tmp_path / "tiny.yaml"
    target.write_text(yaml.safe_dump(content))
    return target


def study(config: Config, **options: bool) -> tuple[dict, str, PartialFailure | None]:
    stream = io.StringIO()
    options = {"restart": False, "smoke": False} | options
    result, failure = compare_settings(config, journal=Journal(stream=stream), **options)
    return result, stream.getvalue(), failure


def test_a_study_from_pictures_to_the_table_and_again(path, tmp_path) -> None:
    result, text, failure = study(load(path))
    assert failure is None
    document = read_json(tmp_path / "runs" / "tiny" / "comparison.json")
    assert document == result["result"]
    assert set(document["settings"]) == {"adam", "gcsam", "baseline"}
    pair = document["pairs"][0]
    assert (pair["a"], pair["b"], pair["family"]) == ("gcsam", "adam", "primary")
    assert pair["cost"]["gradient_evaluations"] == pytest.approx(2.0)
    assert "at equal epochs, with 2.00 times the gradient evaluations" in pair["text"]
    assert pair["text"] in text
    assert "sanity baseline: logistic regression" in text
    table = (tmp_path / "runs" / "tiny" / "runs.csv").read_text().splitlines()
    assert len(table) == 5
    runs = [run.folder for run in plan_runs(load(path))]
    assert all(run.finished() and run.report.is_file() for run in runs)
    assert len({run.split.read_bytes() for run in runs}) == 1
    assert runs[0].log.read_text().count("tiny: ") == 1

    before = {run.metrics: run.metrics.stat().st_mtime_ns for run in runs}
    again, text, _ = study(load(path))
    assert text.count("is finished already") == 4
    assert again["result"] == result["result"]
    assert {run.metrics: run.metrics.stat().st_mtime_ns for run in runs} == before

    with pytest.raises(ConfigError, match=r"optimizer\.lr"):
        study(load(path, ["optimizer.lr=0.1"]))


def test_smoke_is_every_setting_once_under_another_name(path, tmp_path) -> None:
    answer = CliRunner().invoke(app, ["compare", "--config", str(path), "--smoke", "--json"])
    assert answer.exit_code == 0, answer.output
    result = json.loads(answer.stdout)
    assert Path(result["study"]) == tmp_path / "runs" / "tiny-smoke"
    assert Path(result["comparison"]).is_file()
    assert result["result"]["seeds"] == [0]
    assert not (tmp_path / "runs" / "tiny").exists()
    for setting in SETTINGS:
        history = tmp_path / "runs" / "tiny-smoke" / setting / "seed-0" / "fold-0" / "history.jsonl"
        assert len(read_json_lines(history)) == 1


def test_a_segmentation_is_compared_by_dice_and_with_its_threshold(tmp_path) -> None:
    settings = {"optimizers": SETTINGS, "seeds": [0]}
    config = segmentation_config(draw_discs(tmp_path), tmp_path, training={"epochs": 1}, compare=settings)
    result, text, failure = study(config)
    assert failure is None
    document = read_json(tmp_path / "runs" / "discs" / "comparison.json")
    assert document == result["result"]
    pairs = [(p["a"], p["b"]) for p in document["pairs"] if p["metric"] == document["primary_metric"] == "dice"]
    assert pairs == [("gcsam", "adam"), ("adam", "baseline"), ("gcsam", "baseline")]
    for run in (run.folder for run in plan_runs(config)):
        setting, metrics = document["settings"][run.path.parts[-3]], read_json(run.metrics)
        for metric in ("dice", "nsd", "hd95_px"):
            assert setting[metric]["value"] == pytest.approx(metrics["partitions"]["test"][metric]["value"])
        beside = metrics["baseline"]["partitions"]["test"]["dice"]["value"]
        assert document["settings"]["baseline"]["dice"]["value"] == pytest.approx(beside)
        assert run.report.is_file()
    assert "sanity baseline: best fixed threshold of the training patients: disc" in text
    assert "difference in Dice" in text


def test_a_failed_run_is_named_and_the_rest_compared(path, monkeypatch) -> None:
    real = execute.train

    def train(config, **options):
        if (config.setting, config.training.seed) == ("gcsam", 1):
            raise MachineError("out of memory.")
        return real(config, **options)

    monkeypatch.setattr(execute, "train", train)
    result, text, failure = study(load(path))
    assert failure.exit_code == 5
    assert "gcsam, seed 1, fold 0" in str(failure)
    assert "failed: gcsam, seed 1, fold 0: out of memory." in text
    assert len(result["result"]["settings"]["adam"]["runs"]) == 2
    assert len(result["result"]["settings"]["gcsam"]["runs"]) == 1


def test_help_has_an_example() -> None:
    answer = CliRunner().invoke(app, ["compare", "--help"])
    assert answer.exit_code == 0
    assert "medgcsam compare --config chest_xray.yaml" in answer.stdout
