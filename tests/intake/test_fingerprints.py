"""Fingerprints: equal pixels have equal digests, and a faulty image stops nobody."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image as Picture

from medgcsam.intake import fingerprint


@pytest.fixture
def images(tmp_path: Path) -> list[str]:
    """Two files of equal pixels, another, a truncated one, a constant one, and one that is not there."""
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (40, 50), dtype=np.uint8)
    Picture.fromarray(pixels).save(tmp_path / "a.png")
    Picture.fromarray(pixels).save(tmp_path / "b.png", compress_level=0)
    Picture.fromarray(pixels.T.copy()).save(tmp_path / "c.png")
    (tmp_path / "d.png").write_bytes((tmp_path / "a.png").read_bytes()[:900])
    Picture.fromarray(np.full((40, 50), 7, np.uint8)).save(tmp_path / "e.png")
    return [str(tmp_path / f"{name}.png") for name in "abcdef"]


def test_digests_and_faults(images):
    told = []
    prints = fingerprint(images, progress=lambda done, total: told.append((done, total)))
    assert list(prints["kind"]) == ["", "", "", "unreadable", "constant", "missing"]
    assert prints["pixels"][0] == prints["pixels"][1] != prints["pixels"][2]
    assert prints["source"][0] != prints["source"][1]
    assert prints["source"].iloc[:5].str.fullmatch("[0-9a-f]{64}").all()
    assert (prints["pixels"][3], prints["source"][5], prints["pixels"][5]) == ("", "", "")
    assert images[3] not in prints["fault"][3]
    assert told == [(number, 6) for number in range(1, 7)]
    assert all(pd.api.types.is_string_dtype(prints[name]) for name in prints)


def test_other_processes_give_the_same_in_the_same_order(images):
    pd.testing.assert_frame_equal(fingerprint(images, workers=2), fingerprint(images))


def test_no_images():
    assert list(fingerprint([]).columns) == ["source", "pixels", "kind", "fault"]


def test_entries_of_an_archive(tmp_path):
    pixels = np.random.default_rng(1).integers(0, 256, (3, 8, 8), dtype=np.uint8)
    pixels[2] = pixels[0]
    arrays = {f"{name}_images": pixels for name in ("train", "val", "test")}
    np.savez(
        tmp_path / "x.npz", **arrays, **{f"{name}_labels": np.zeros((3, 1), int) for name in ("train", "val", "test")}
    )
    prints = fingerprint([f"{tmp_path}/x.npz#{entry}" for entry in ("train/0", "train/1", "val/2", "test/9")])
    assert prints["source"][0] == prints["source"][2] != prints["source"][1]
    assert prints["pixels"][0] == prints["pixels"][2] != prints["pixels"][1]
    assert prints["kind"][3] == "unreadable"
    assert fingerprint([f"{tmp_path}/y.npz#train/0"])["kind"][0] == "missing"
