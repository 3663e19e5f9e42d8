"""Importers turn archives into the same manifest every time, and refuse what is no such archive."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medgcsam.cohort import read_manifest
from medgcsam.errors import DataError
from medgcsam.imaging import read_image
from medgcsam.intake.description import Description
from medgcsam.intake.importers import IMPORTERS


def described(**changes) -> Description:
    content = {"title": "t", "licence": "l", "citation": "c", "source": "s", "importer": "medmnist", "folder": "f"}
    return Description(**content, **changes)


def save(path: Path, labels: np.ndarray) -> None:
    arrays = {}
    for name in ("train", "val", "test"):
        arrays[f"{name}_labels"] = labels
        arrays[f"{name}_images"] = np.arange(len(labels) * 16, dtype=np.uint8).reshape(-1, 4, 4)
    np.savez(path, **arrays)


def test_medmnist_becomes_a_manifest_whose_images_can_be_read(tmp_path):
    save(tmp_path / "x.npz", np.array([[0], [2]]))
    manifest, root = IMPORTERS["medmnist"](described(file="x.npz"), tmp_path, tmp_path / "cache", None)
    table = read_manifest(manifest, root=root, patients="unknown")
    assert list(table["label"]) == ["0", "2"] * 3
    assert list(table["partition"]) == ["train"] * 2 + ["validation"] * 2 + ["test"] * 2
    image = read_image(table["image"][5])
    np.testing.assert_allclose(image.array[0] * 255, np.arange(16, 32).reshape(4, 4), atol=1e-4)
    first = manifest.read_bytes()
    IMPORTERS["medmnist"](described(file="x.npz"), tmp_path, tmp_path / "cache", None)
    assert manifest.read_bytes() == first
    assert str(tmp_path).encode() not in first, "the manifest is the same wherever the archive lies"


def test_medmnist_with_several_labels(tmp_path):
    save(tmp_path / "x.npz", np.array([[0, 1, 1], [0, 0, 0]]))
    manifest, root = IMPORTERS["medmnist"](described(file="x.npz"), tmp_path, tmp_path, None)
    assert list(read_manifest(manifest, root=root, patients="unknown")["label"])[:2] == ["1|2", "none"]


@pytest.mark.parametrize("fault", ["text", "truncated", "other arrays", "flat labels", "objects"])
def test_what_is_no_medmnist_archive_is_refused(tmp_path, fault):
    path = tmp_path / "x.npz"
    save(path, np.array([[0], [2]]))
    if fault == "text":
        path.write_text("hello")
    elif fault == "truncated":
        path.write_bytes(path.read_bytes()[:300])
    elif fault == "other arrays":
        np.savez(path, a=np.zeros(3))
    elif fault == "flat labels":
        save(path, np.array([0, 2]))
    else:
        save(path, np.array([[{}], [2]], dtype=object))
    with pytest.raises(DataError, match=r"x\.npz"):
        IMPORTERS["medmnist"](described(file="x.npz"), tmp_path, tmp_path, None)


def test_a_table_is_its_own_manifest(tmp_path):
    (tmp_path / "labels.csv").write_text("image,label\n")
    manifest, root = IMPORTERS["table"](described(file="labels.csv", images="pictures"), tmp_path, tmp_path, None)
    assert (manifest, root) == (tmp_path / "labels.csv", tmp_path / "pictures")
