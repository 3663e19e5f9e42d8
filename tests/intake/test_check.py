"""A check lists every fault of a data set at once."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture

from medgcsam.config import DataConfig
from medgcsam.imaging import Image
from medgcsam.intake import check_dataset, fingerprints, open_dataset


def save(path: Path, seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (32, 32), dtype=np.uint8)
    Picture.fromarray(pixels).save(path)
    return path.read_bytes()


def opened(folder: Path, *rows: str):
    (folder / "m.csv").write_text("\n".join(["image,patient_id,label,partition", *rows]))
    data = DataConfig(manifest="m.csv", classes=["well", "ill"])
    return open_dataset(data, base=folder, cache=folder, strict=False)


def test_a_sound_set_has_no_fault(tmp_path):
    for number in range(4):
        save(tmp_path / f"{number}.png", number)
    rows = ["0.png,1,well,train", "1.png,1,ill,train", "2.png,2,ill,test", "3.png,3,well,"]
    assert check_dataset(opened(tmp_path, *rows)) == []


def test_every_fault_at_once(tmp_path):
    content = save(tmp_path / "a.png", 0)
    (tmp_path / "twin.png").write_bytes(content)
    (tmp_path / "short.png").write_bytes(content[: len(content) // 2])
    Picture.fromarray(np.zeros((32, 32), np.uint8)).save(tmp_path / "black.png")
    for number in range(3):
        save(tmp_path / f"{number}.png", 10 + number)
    faults = check_dataset(
        opened(
            tmp_path,
            "a.png,1,well,train",  # 2
            "twin.png,2,ill,train",  # 3
            "short.png,3,well,train",  # 4
            "black.png,4,well,train",  # 5
            "absent.png,5,well,train",  # 6
            "0.png,6,sick,train",  # 7
            "1.png,7,ill,train",  # 8
            "2.png,7,ill,test",  # 9
            "1.png,,ill,somewhere",  # 10
            ",9,ill,test",  # 11
            "1.png,ill",  # 12
        )
    )
    assert [(fault.row, fault.kind) for fault in faults] == [
        (2, "conflicting_labels"), (2, "identical_images"), (4, "unreadable"), (5, "constant"), (6, "missing"),
        (7, "label"), (8, "patient_in_two_partitions"), (10, "listed_twice"), (10, "partition"), (10, "patient"),
        (11, "image"), (12, "fields"),
    ]  # fmt: skip
    sentences = {fault.kind: fault.sentence for fault in faults}
    assert "a.png, twin.png (lines 2, 3)" in sentences["identical_images"]
    assert "ill and well" in sentences["conflicting_labels"]
    assert sentences["missing"] == "line 6: absent.png does not exist"
    assert str(tmp_path) not in sentences["unreadable"]
    assert "patient 7" in sentences["patient_in_two_partitions"]


def test_identical_images_of_one_patient_with_one_label_are_no_fault(tmp_path):
    (tmp_path / "b.png").write_bytes(save(tmp_path / "a.png", 0))
    assert check_dataset(opened(tmp_path, "a.png,1,well,", "b.png,1,well,")) == []
    kinds = [fault.kind for fault in check_dataset(opened(tmp_path, "a.png,1,well,", "b.png,1,ill,"))]
    assert kinds == ["conflicting_labels"]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_pixels_that_are_no_numbers(tmp_path, monkeypatch, value):
    """Should a reader let such pixels pass, the check does not."""
    save(tmp_path / "a.png", 0)
    array = np.array([[[0, value]]], np.float32)
    monkeypatch.setattr(fingerprints, "read_image", lambda path: Image(array=array, unit="raw"))
    assert [fault.kind for fault in check_dataset(opened(tmp_path, "a.png,1,well,"))] == ["not_finite"]


def test_breastmnist_holds_one_image_twice_with_conflicting_labels(shared_data, tmp_path):
    data = DataConfig(manifest="breastmnist.yaml")
    dataset = open_dataset(data, base=tmp_path, cache=tmp_path, task="classification", strict=False)
    faults = check_dataset(dataset)
    assert Counter(fault.kind for fault in faults) == {"identical_images": 1, "conflicting_labels": 1}
    assert "breastmnist.npz#train/115, breastmnist.npz#test/76" in faults[0].sentence
