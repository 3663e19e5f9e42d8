"""Class folders, datalists, decathlon tasks and nnU-Net sets become rows; what has no label or file is left out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from medgcsam.errors import ConfigError, DataError
from medgcsam.intake.description import Description, Selection
from medgcsam.intake.importers import COLLECTORS, Imported


def take(kind: str, folder: Path, file: str | None = None, **select) -> Imported:
    description = Description(
        title="t", licence="", citation="", source="", importer=kind, folder="x", file=file, select=Selection(**select)
    )
    return COLLECTORS[kind](description, folder, None)


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def cells(imported: Imported, *columns: str) -> list[tuple[str, ...]]:
    return [tuple(row[name] for name in columns) for row in imported.rows]


def test_folders_are_classes(tmp_path):
    touch(tmp_path, "ill/b.png", "ill/deep/c.jpg", "well/a.png", "readme.txt", "loose.png", ".hidden/x.png")
    imported = take("classes", tmp_path)
    assert cells(imported, "image", "label", "patient_id", "partition") == [
        ("ill/b.png", "ill", "", ""), ("ill/deep/c.jpg", "ill", "", ""), ("well/a.png", "well", "", "")
    ]  # fmt: skip
    assert imported.reasons() == {"no image by its name": 1, "in no folder of a class": 1}
    assert not imported.patients_known


def test_folders_of_partitions_above_and_patients_in_the_names(tmp_path):
    touch(tmp_path, "train/ill/p01_1.png", "val/ill/p02_1.png", "test/well/p03.png")
    imported = take("classes", tmp_path, patient_pattern=r"(p\d+)[_.]")
    assert cells(imported, "label", "partition", "patient_id") == [
        ("well", "test", "p03"), ("ill", "train", "p01"), ("ill", "validation", "p02")
    ]  # fmt: skip
    assert imported.patients_known


def test_masks_beside_the_images(tmp_path):
    names = [
        "b/b (1).png",
        "b/b (1)_mask.png",
        "b/b (1)_mask_1.png",
        "b/b (10).png",
        "b/b (10)_mask.png",
        "b/z_mask.png",
    ]
    touch(tmp_path, *names, "n/n (1).png")
    imported = take("classes", tmp_path, mask_suffix="_mask")
    assert cells(imported, "image", "mask") == [
        ("b/b (1).png", "b/b (1)_mask.png|b/b (1)_mask_1.png"),
        ("b/b (10).png", "b/b (10)_mask.png"),
        ("n/n (1).png", ""),
    ]
    assert imported.reasons() == {"mask without an image": 1}


def test_masks_that_are_taken_for_images_and_one_class_are_told(tmp_path):
    touch(tmp_path, "ill/a.png", "ill/a_mask.png", "ill/a_mask_1.png", "ill/b.png", "ill/mask.png")
    told = " ".join(take("classes", tmp_path).notes)
    assert "2 of the images are named like another one with _mask" in told
    assert "all images lie in one folder, ill" in told
    touch(tmp_path, "well/c.png")
    assert take("classes", tmp_path, mask_suffix="_mask").notes == []


def test_masks_in_another_folder(tmp_path):
    touch(tmp_path, "images/ill/a.jpg", "images/ill/b.jpg", "masks/ill/a.png", "masks/well/c.png")
    imported = take("classes", tmp_path / "images", labels=str(tmp_path / "masks"))
    assert cells(imported, "image", "mask") == [("ill/a.jpg", str(tmp_path / "masks/ill/a.png")), ("ill/b.jpg", "")]
    assert imported.reasons() == {"mask without an image": 1}


def test_a_folder_without_images(tmp_path):
    touch(tmp_path, "ill/a.txt")
    with pytest.raises(DataError, match="no image file"):
        take("classes", tmp_path)


def datalist(folder: Path, **content) -> None:
    (folder / "list.json").write_text(json.dumps(content))


def test_a_datalist_of_masks_and_of_labels(tmp_path):
    touch(tmp_path, "a.nii.gz", "b.nii.gz", "c.nii.gz", "d.nii.gz", "a_seg.nii.gz")
    datalist(
        tmp_path,
        training=[
            {"image": "./a.nii.gz", "label": "a_seg.nii.gz", "fold": 1, "subject_id": 7},
            {"image": "b.nii.gz", "label": 2},
            {"image": ["c.nii.gz"], "label": [0, 1, 1]},
            {"image": "gone.nii.gz", "label": 0},
        ],
        validation=[{"image": "d.nii.gz", "label": "well"}],
        test=["a.nii.gz"],
    )
    imported = take("datalist", tmp_path, "list.json")
    assert cells(imported, "image", "mask", "label", "partition", "patient_id") == [
        ("a.nii.gz", "a_seg.nii.gz", "", "train", "7"), ("b.nii.gz", "", "2", "train", ""),
        ("c.nii.gz", "", "1|2", "train", ""), ("d.nii.gz", "", "well", "validation", ""),
    ]  # fmt: skip
    assert imported.rows[0]["fold"] == "1"
    assert imported.reasons() == {"file missing": 1, "test image without a label": 1}


@pytest.mark.parametrize(
    ("content", "error", "said"),
    [
        ({}, DataError, "no datalist"),
        ({"training": [{"label": 1}]}, DataError, "names no image"),
        ({"training": [{"image": "../a.png", "label": 1}]}, DataError, "lies outside"),
        ({"training": [{"image": "/etc/a.png", "label": 1}]}, DataError, "lies outside"),
        ({"training": [{"image": ["a.png", "b.png"], "label": 1}]}, ConfigError, "2 files.*--channel 0 to 1"),
        ({"training": [{"image": "a.png", "label": 0.5}]}, DataError, "neither a path nor a class"),
        ({"training": [{"image": "a.png", "label": "x|y.png"}]}, DataError, "in its name"),
    ],
)
def test_faulty_datalists_are_refused(tmp_path, content, error, said):
    datalist(tmp_path, **content)
    with pytest.raises(error, match=said):
        take("datalist", tmp_path, "list.json")


def test_what_is_no_json_is_refused(tmp_path):
    (tmp_path / "list.json").write_text("[" * 100_000)
    with pytest.raises(DataError, match=r"list\.json: this is no readable JSON"):
        take("datalist", tmp_path, "list.json")


def test_a_decathlon_task(tmp_path):
    touch(tmp_path, "imagesTr/l_0.nii.gz", "labelsTr/l_0.nii.gz", "imagesTs/l_1.nii.gz")
    content = {
        "name": "Liver", "modality": {"0": "CT"}, "labels": {"0": "background", "2": "cancer", "1": "liver"},
        "training": [{"image": "./imagesTr/l_0.nii.gz", "label": "./labelsTr/l_0.nii.gz"}],
        "test": ["./imagesTs/l_1.nii.gz"],
    }  # fmt: skip
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    imported = take("msd", tmp_path)
    assert cells(imported, "image", "mask", "partition") == [("imagesTr/l_0.nii.gz", "labelsTr/l_0.nii.gz", "train")]
    assert imported.structures == {"liver": 1, "cancer": 2}
    assert imported.reasons() == {"test image without a label": 1}
    (tmp_path / "dataset.json").write_text(json.dumps(content | {"labels": {"x": "liver"}}))
    with pytest.raises(DataError, match="whole numbers"):
        take("msd", tmp_path)


@pytest.fixture
def nnunet(tmp_path: Path) -> Path:
    """Three labelled cases of two channels, one without a label, one test case with a label."""
    for case in ("a", "b", "c", "d"):
        touch(tmp_path, f"imagesTr/{case}_0000.nii.gz", f"imagesTr/{case}_0001.nii.gz")
    touch(tmp_path, *(f"labelsTr/{case}.nii.gz" for case in "abc"), "imagesTs/t_0001.nii.gz", "labelsTs/t.nii.gz")
    content = {
        "channel_names": {"0": "T2", "1": "ADC"}, "labels": {"background": 0, "whole": [1, 2], "core": 2},
        "file_ending": ".nii.gz", "numTraining": 3,
    }  # fmt: skip
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    folds = [{"train": ["a"], "val": ["b", "c"]}, {"train": ["b", "c"], "val": ["a"]}]
    (tmp_path / "splits_final.json").write_text(json.dumps(folds))
    return tmp_path


def test_an_nnunet_set(nnunet):
    with pytest.raises(ConfigError, match=r"0 \(T2\), 1 \(ADC\)"):
        take("nnunet", nnunet)
    imported = take("nnunet", nnunet, channel="ADC")
    assert cells(imported, "image", "mask", "partition") == [
        *((f"imagesTr/{case}_0001.nii.gz", f"labelsTr/{case}.nii.gz", "") for case in "abc"),
        ("imagesTs/t_0001.nii.gz", "labelsTs/t.nii.gz", "test"),
    ]
    assert [row.get("fold", "") for row in imported.rows] == ["1", "0", "0", ""]
    assert imported.structures == {"class 1": 1, "core": 2}
    assert any("'whole' joins the numbers [1, 2]" in note for note in imported.notes)
    assert imported.reasons() == {"training image without a label": 1}


def test_a_fold_of_nnunet_becomes_partitions(nnunet):
    imported = take("nnunet", nnunet, channel="0", fold=1)
    assert cells(imported, "image", "partition") == [
        ("imagesTr/a_0000.nii.gz", "validation"),
        ("imagesTr/b_0000.nii.gz", "train"),
        ("imagesTr/c_0000.nii.gz", "train"),
    ]
    with pytest.raises(DataError, match="no fold 2"):
        take("nnunet", nnunet, channel="0", fold=2)
    (nnunet / "splits_final.json").write_text(json.dumps([{"train": ["a"], "val": ["zz"]}]))
    with pytest.raises(DataError, match=r"not in the data set.*zz"):
        take("nnunet", nnunet, channel="0")
    (nnunet / "splits_final.json").unlink()
    with pytest.raises(DataError, match="there is no splits_final"):
        take("nnunet", nnunet, channel="0", fold=0)


def test_links_out_of_the_folder_are_not_taken_over_from_lists(nnunet, tmp_path_factory):
    other, own = tmp_path_factory.mktemp("other"), tmp_path_factory.mktemp("set")
    touch(other, "secret.png")
    touch(own, "a.png")
    (own / "b.png").symlink_to(other / "secret.png")
    datalist(own, training=[{"image": "a.png", "label": 1}, {"image": "b.png", "label": 1}])
    imported = take("datalist", own, "list.json")
    assert cells(imported, "image") == [("a.png",)]
    assert imported.reasons() == {"symbolic link out of the folder": 1}
    image = nnunet / str(take("nnunet", nnunet, channel="0").rows[0]["image"])
    image.unlink()
    image.symlink_to(other / "secret.png")
    assert take("nnunet", nnunet, channel="0").reasons()["symbolic link out of the folder"] == 1
