"""The benchmark of patches runs with its smallest settings, and every competitor does the work."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch


@pytest.fixture
def script(repository: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(repository / "benchmarks"))
    threads = torch.get_num_threads()
    module = importlib.import_module("segmentation_patches")
    yield module
    torch.set_num_threads(threads)
    module.set_track_meta(True)


def test_it_writes_what_it_says(script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    output = tmp_path / "found.json"
    smallest = [
        "--images",
        "2",
        "--rounds",
        "2",
        "--workers",
        "0",
        "--threads",
        "1",
        "--volume",
        "24",
        "--picture",
        "32",
    ]
    monkeypatch.setattr(sys, "argv", ["segmentation_patches.py", *smallest, "--output", str(output)])
    script.main()
    page = output.with_suffix(".md").read_text("utf-8")
    assert page in capsys.readouterr().out
    assert str(tmp_path) not in page
    for found in json.loads(output.read_text("utf-8"))["results"]:
        rates = {name: rate["median"] for name, rate in found["patches_per_second"].items()}
        fastest = max(rate for name, rate in rates.items() if "MONAI" in name)
        assert rates[found["peer"]] == fastest
        assert found["ratio"]["value"] == pytest.approx(rates[found["ours"]] / fastest, rel=0.01)


@pytest.mark.parametrize("shape", [(24, 24, 24), (40, 40)])
def test_every_competitor_gives_each_image_twice(script, tmp_path: Path, shape) -> None:
    store, patch = script.make_store(tmp_path, 3, shape), tuple(n // 2 for n in shape)
    assert 0.005 < np.mean(store.labels) < 0.02
    assert script.ours(store, patch, 2, threads=1)() == 6
    for tuned in (False, True):
        assert script.peer(store, patch, 2, threads=1, tuned=tuned, workers=0)() == 6
