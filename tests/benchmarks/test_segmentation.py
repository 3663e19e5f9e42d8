"""The benchmark of segmentation: what its entry makes of the parts, and all parts from one end to the other."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch


@pytest.fixture
def script(repository: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(repository / "benchmarks"))
    return importlib.import_module("segmentation")


@pytest.fixture
def run(script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """``run(*arguments)`` runs ``main`` and returns where a whole run is written by default, here in ``tmp_path``."""

    def make(*arguments: str) -> Path:
        monkeypatch.setattr(script, "RESULT", tmp_path / "results" / "segmentation.json")
        monkeypatch.setattr(sys, "argv", ["segmentation.py", *arguments])
        script.main()
        return script.RESULT

    return make


@dataclass(frozen=True)
class Settings:
    rounds: int = 7


@pytest.fixture
def made_up(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts that measure nothing: a figure on its target, one below, one without."""
    judged = {"on": (2.0, 2.0), "below": (1.99, 2.0), "without": (1.0, None)}

    def measure_all(settings: Settings) -> dict:
        torch.set_num_threads(3)
        return {"rounds": settings.rounds}

    for name in script.PARTS:
        part = SimpleNamespace(
            Settings=Settings,
            QUICK=Settings(rounds=1),
            measure_all=measure_all,
            figures=lambda found: [
                {"figure": words, "value": value, "low": 0.5, "high": 2.5, "target": target}
                for words, (value, target) in judged.items()
            ],
            section=lambda settings, found, name=name: [f"## {name}, {settings['rounds']} rounds", ""],
        )
        monkeypatch.setitem(sys.modules, f"segmentation_{name}", part)


@pytest.mark.usefixtures("made_up")
def test_one_run_writes_one_file_of_all_parts_with_their_targets(run, capsys) -> None:
    threads = torch.get_num_threads()
    result = run("--rounds", "5")
    assert torch.get_num_threads() == threads
    report, page = json.loads(result.read_text("utf-8")), result.with_suffix(".md").read_text("utf-8")
    assert page in capsys.readouterr().out
    assert list(report["parts"]) == ["patches", "inference", "metrics"]
    for part in report["parts"].values():
        assert (part["settings"], part["results"]) == ({"rounds": 5}, {"rounds": 5})
        assert [figure["met"] for figure in part["figures"]] == [True, False, None]
    assert "| inference | on | 2.00 | 0.50 to 2.50 | 2 or more | met |" in page
    assert "| metrics | below | 1.99 | 0.50 to 2.50 | 2 or more | **missed** |" in page
    assert "| patches | without | 1.00 | 0.50 to 2.50 |  |  |" in page
    assert page.index("## patches, 5") < page.index("## inference, 5") < page.index("## metrics, 5")
    facts = report["conditions"]
    assert {"load_average_at_start", "load_average_at_end", "cores", "omp_num_threads"} <= set(facts)
    assert facts["versions"]["torch"] == torch.__version__
    assert facts["versions"]["monai"] in page
    assert facts["command"] == "python benchmarks/segmentation.py --rounds 5"
    assert f"Made by `{facts['command']}`." in page


@pytest.mark.usefixtures("made_up")
@pytest.mark.parametrize("arguments", [["--quick"], ["metrics", "patches"]])
def test_what_is_no_whole_run_does_not_replace_its_result(run, tmp_path: Path, capsys, arguments: list[str]) -> None:
    assert not run(*arguments).exists()
    said = capsys.readouterr().out
    assert ("these numbers say nothing" in said) == ("missed" not in said) == (arguments == ["--quick"])
    assert ("## inference" in said) == (arguments == ["--quick"])
    run(*arguments, "--output", str(tmp_path / "own.json"))
    assert (tmp_path / "own.md").read_text("utf-8") == said.removesuffix("\n")


@pytest.mark.usefixtures("made_up")
def test_an_unknown_part_is_refused(run, capsys) -> None:
    with pytest.raises(SystemExit) as end:
        run("speed")
    assert end.value.code == 2
    assert "no such part: speed; there are patches, inference, metrics" in capsys.readouterr().err


def test_a_turn_does_not_begin_with_the_peak_of_who_starts_it(repository: Path) -> None:
    """ru_maxrss of a child is that of its parent where that was larger."""
    code = "import segmentation_inference as part; print(part.resident(most=True) - part.resident())"
    large = bytearray(b"1") * 900_000_000
    command = [sys.executable, "-c", code]
    found = subprocess.run(command, cwd=repository / "benchmarks", capture_output=True, text=True, check=True).stdout
    assert len(large) == 900_000_000
    assert 0 <= float(found) < 100


@pytest.mark.slow
def test_every_part_runs_and_finds_what_its_competitors_find(run, tmp_path: Path) -> None:
    pytest.importorskip("surface_distance")
    output = tmp_path / "found.json"
    run("--quick", "--output", str(output))
    assert str(tmp_path) not in output.with_suffix(".md").read_text("utf-8")
    parts = {name: part["results"] for name, part in json.loads(output.read_text("utf-8"))["parts"].items()}
    for found in parts["patches"]:
        rates = {name: rate["median"] for name, rate in found["patches_per_second"].items()}
        fastest = max(rate for name, rate in rates.items() if "MONAI" in name)
        assert rates[found["peer"]] == fastest
        assert found["ratio"]["value"] == pytest.approx(rates[found["ours"]] / fastest, rel=0.01)
    assert parts["inference"]["difference"] < 2e-3
    for lines in (parts["inference"]["with_network"], parts["inference"]["without_a_network"]):
        assert len(lines) == 4
        assert min(min(values) for line in lines.values() for values in line.values()) > 0
    lesion = parts["metrics"]["lesion"]
    assert set(lesion["tasks"]) == {"HD95 and NSD", "HD95", "NSD"}
    assert lesion["numbers"]["medgcsam"]["HD95"] == pytest.approx(lesion["numbers"]["surface-distance"]["HD95"])
    assert min(times["median"] for task in lesion["tasks"].values() for times in task["milliseconds"].values()) > 0
