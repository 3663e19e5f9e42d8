"""The benchmark of surface metrics runs in a small volume, compares the numbers and writes what it says."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("surface_distance")


@pytest.mark.filterwarnings("ignore")
def test_it_runs_and_says_what_it_measured(repository: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.syspath_prepend(str(repository / "benchmarks"))
    output, threads = tmp_path / "metrics.json", torch.get_num_threads()
    arguments = ["--shape", "40", "44", "36", "--structures", "lesion", "--rounds", "2", "--output", str(output)]
    monkeypatch.setattr(sys, "argv", ["segmentation_metrics.py", *arguments])
    importlib.import_module("segmentation_metrics").main()
    torch.set_num_threads(threads)
    page = output.with_suffix(".md").read_text("utf-8")
    assert page in capsys.readouterr().out
    assert str(tmp_path) not in page
    lesion = json.loads(output.read_text("utf-8"))["results"]["lesion"]
    assert set(lesion["tasks"]) == {"HD95 and NSD", "HD95", "NSD"}
    assert lesion["numbers"]["medgcsam"]["HD95"] == pytest.approx(lesion["numbers"]["surface-distance"]["HD95"])
    assert min(times["median"] for task in lesion["tasks"].values() for times in task["milliseconds"].values()) > 0
