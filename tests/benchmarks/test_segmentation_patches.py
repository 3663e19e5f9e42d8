"""Every competitor in the benchmark of patches does the work."""

from __future__ import annotations

import importlib
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


@pytest.mark.parametrize("shape", [(24, 24, 24), (40, 40)])
def test_every_competitor_gives_each_image_twice(script, tmp_path: Path, shape) -> None:
    store, patch = script.make_store(tmp_path, 3, shape), tuple(n // 2 for n in shape)
    assert 0.005 < np.mean(store.labels) < 0.02
    assert script.ours(store, patch, 2, threads=1)() == 6
    for tuned in (False, True):
        assert script.peer(store, patch, 2, threads=1, tuned=tuned, workers=0)() == 6
