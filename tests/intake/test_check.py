"""A check lists every fault of a data set at once."""

from __future__ import annotations

from collections import Counter
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image as Picture
from scipy.ndimage import gaussian_filter

from medgcsam.config import DataConfig
from medgcsam.errors import DataError
from medgcsam.imaging import Image
from medgcsam.intake import check_dataset, examine, open_dataset
from medgcsam.intake.examine import Reading


def pixels(seed: int, shape: tuple[int, int] = (64, 64)) -> np.ndarray:
    """A smooth random picture."""
    noise = np.random.default_rng(seed).normal(0, 1, shape)
    return (128 + 250 * gaussian_filter(noise, 2)).clip(0, 255).astype(np.uint8)


def save(path: Path, seed: int, **options) -> bytes:
    Picture.fromarray(pixels(seed)).save(path, **options)
    return path.read_bytes()


def opened(folder: Path, *rows: str, header: str = "image,patient_id,label,partition"):
    (folder / "m.csv").write_text("\n".join([header, *rows]))
    data = DataConfig(manifest="m.csv", classes=["well", "ill"])
    return open_dataset(data, base=folder, cache=folder, strict=False)


def kinds(dataset, **options) -> list[tuple[int, str]]:
    return [(fault.row, fault.kind) for fault in check_dataset(dataset, **options).faults]


def test_a_sound_set_has_no_fault(tmp_path):
    for number in range(4):
        save(tmp_path / f"{number}.png", number)
    rows = ["0.png,1,well,train", "1.png,1,ill,train", "2.png,2,ill,test", "3.png,3,well,"]
    checked = check_dataset(opened(tmp_path, *rows))
    assert (checked.faults, checked.copies, checked.known) == ((), (), 0)


def test_every_fault_at_once(tmp_path):
    content = save(tmp_path / "a.png", 0)
    (tmp_path / "twin.png").write_bytes(content)
    (tmp_path / "short.png").write_bytes(content[: len(content) // 2])
    Picture.fromarray(np.zeros((32, 32), np.uint8)).save(tmp_path / "black.png")
    Picture.fromarray(pixels(5)[:9]).save(tmp_path / "thin.png")
    for number in range(3):
        save(tmp_path / f"{number}.png", 10 + number)
    dataset = opened(
        tmp_path,
        "a.png,1,well,train",  # 2
        "twin.png,2,ill,train",  # 3
        "short.png,3,well,train",  # 4
        "black.png,4,well,train",  # 5
        "absent.png,5,well,train",  # 6
        "0.png,6,sick,train",  # 7
        "1.png,7,ill,train",  # 8
        "2.png,7,ill,test",  # 9
        "1.png,,well,somewhere",  # 10
        ",9,ill,test",  # 11
        "1.png,ill",  # 12
        "thin.png,10,ill,test",  # 13
    )
    assert kinds(dataset) == [
        (2, "conflicting_labels"), (2, "identical_images"), (4, "unreadable"), (5, "constant"), (6, "missing"),
        (7, "label"), (8, "conflicting_labels"), (8, "patient_in_two_partitions"), (10, "listed_twice"),
        (10, "partition"), (10, "patient"), (11, "image"), (12, "fields"), (13, "too_small"),
    ]  # fmt: skip
    faults = check_dataset(dataset).faults
    sentences = {(fault.row, fault.kind): fault.sentence for fault in faults}
    assert "a.png, twin.png (lines 2, 3)" in sentences[2, "identical_images"]
    assert "ill and well" in sentences[2, "conflicting_labels"]
    assert sentences[6, "missing"] == "line 6: absent.png does not exist"
    assert str(tmp_path) not in sentences[4, "unreadable"]
    assert "patient 7" in sentences[8, "patient_in_two_partitions"]
    assert "1.png is listed with the labels ill and well (lines 8, 10)" in sentences[8, "conflicting_labels"]


def test_identical_images_of_one_patient_with_one_label_are_no_fault(tmp_path):
    (tmp_path / "b.png").write_bytes(save(tmp_path / "a.png", 0))
    assert kinds(opened(tmp_path, "a.png,1,well,", "b.png,1,well,")) == []
    assert kinds(opened(tmp_path, "a.png,1,well,", "b.png,1,ill,")) == [(2, "conflicting_labels")]


def test_equal_pixels_in_different_files_are_identical(tmp_path):
    save(tmp_path / "a.png", 0)
    save(tmp_path / "b.png", 0, compress_level=0)
    Picture.fromarray(pixels(0)).save(tmp_path / "c.tiff")
    changed = pixels(0)
    changed[30, 30] ^= 1
    Picture.fromarray(changed).save(tmp_path / "d.png")
    checked = check_dataset(opened(tmp_path, "a.png,1,well,", "b.png,2,well,", "c.tiff,3,well,", "d.png,4,well,"))
    identical = [fault for fault in checked.faults if fault.kind == "identical_images"]
    assert [fault.sentence.rpartition(": ")[2] for fault in identical] == ["a.png, b.png, c.tiff (lines 2, 3, 4)"]
    assert {copies.second for copies in checked.copies} == {"d.png"}


def test_near_duplicates_across_patients_are_told_with_their_similarity(tmp_path):
    save(tmp_path / "a.png", 0)
    save(tmp_path / "b.png", 1)
    stream = BytesIO()
    Picture.fromarray(pixels(0)).resize((90, 80), Picture.Resampling.BICUBIC).save(stream, "JPEG", quality=80)
    (tmp_path / "copy.jpg").write_bytes(stream.getvalue())
    dataset = opened(tmp_path, "a.png,1,well,", "b.png,2,well,", "copy.jpg,3,ill,")
    checked = check_dataset(dataset)
    (fault,) = checked.faults
    (copies,) = checked.copies
    assert (fault.kind, fault.row) == ("near_duplicates", 2)
    assert (copies.first, copies.second, copies.lines) == ("a.png", "copy.jpg", (2, 4))
    assert 0.9 < copies.similarity <= 1
    assert "well and ill" in fault.sentence
    assert kinds(opened(tmp_path, "a.png,1,well,", "b.png,2,well,", "copy.jpg,1,ill,")) == []


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_pixels_that_are_no_numbers(tmp_path, monkeypatch, value):
    """Should a reader let such pixels pass, the check does not."""
    Picture.fromarray(pixels(0)).save(tmp_path / "a.tiff")
    array = np.array([[[0, value]]], np.float32)
    monkeypatch.setattr(examine, "read_image", lambda path, **options: Image(array=array, unit="raw"))
    assert kinds(opened(tmp_path, "a.tiff,1,well,")) == [(2, "not_finite")]


def test_pixels_that_a_reader_refuses_as_no_numbers(tmp_path):
    Picture.fromarray(np.array([[0.0, np.nan]], np.float32)).save(tmp_path / "a.tiff")
    assert kinds(opened(tmp_path, "a.tiff,1,well,")) == [(2, "not_finite")]


def test_patients_that_share_a_study(tmp_path):
    for number in range(4):
        save(tmp_path / f"{number}.png", number)
    rows = ["0.png,1,well,s1", "1.png,2,well,s1", "2.png,3,well,s2", "3.png,3,ill,s2"]
    (fault,) = check_dataset(opened(tmp_path, *rows, header="image,patient_id,label,study")).faults
    assert (fault.kind, fault.row) == ("shared_study", 2)
    assert "patients 1, 2 share one study (lines 2, 3)" in fault.sentence


def test_patients_that_share_a_study_by_their_dicom_files(tmp_path, monkeypatch):
    """Also where the manifest has no column of studies; the uid itself is not told."""
    studies = {"0": "1.2.3", "1": "1.2.3", "2": "4.5.6"}

    def read(path, **options):
        name = Path(path).stem
        image = SimpleNamespace(**vars(Image(array=pixels(int(name))[None].astype(np.float32), unit="raw")))
        image.reference = SimpleNamespace(study_uid=studies[name])
        return image

    for name in studies:
        (tmp_path / f"{name}.dcm").write_bytes(b"x")
    monkeypatch.setattr(examine, "read_image", read)
    (fault,) = check_dataset(opened(tmp_path, "0.dcm,1,well,", "1.dcm,2,well,", "2.dcm,3,ill,")).faults
    assert fault.kind == "shared_study"
    assert "1.2.3" not in fault.sentence


def test_an_odd_size_and_an_inverted_image_among_many(tmp_path):
    shared = 60 * np.cos(np.linspace(0, 6, 64))[:, None]
    rows = []
    for number in range(40):
        picture = (pixels(number) * 0.4 + 77 + shared).clip(0, 255).astype(np.uint8)
        picture = 255 - picture if number == 7 else picture
        picture = picture[:, :50] if number == 9 else picture
        Picture.fromarray(picture).save(tmp_path / f"{number}.png")
        rows.append(f"{number}.png,{number},well,")
    checked = check_dataset(opened(tmp_path, *rows))
    assert [(fault.row, fault.kind) for fault in checked.faults] == [(9, "inverted_contrast"), (11, "odd_size")]
    assert "64x50 where nearly all others are 64x64" in checked.faults[1].sentence


def masked(folder: Path, **masks: np.ndarray | None) -> pd.DataFrame:
    """A table of pictures with these masks; None is a mask that is not there."""
    rows = []
    for number, (name, mask) in enumerate(masks.items()):
        save(folder / f"{name}.png", number)
        if mask is not None:
            Picture.fromarray(mask.astype(np.uint8)).save(folder / f"{name}_mask.png")
        rows.append((str(folder / f"{name}.png"), name, str(number + 2), name, "", str(folder / f"{name}_mask.png")))
    return pd.DataFrame(rows, columns=["image", "case", "line", "patient_id", "label", "mask"])


def test_masks(tmp_path):
    good = np.zeros((64, 64))
    good[20:30, 20:30] = 1
    table = masked(
        tmp_path, good=good, empty=good * 0, small=good[:32], three=good * 3, absent=None, gray=pixels(3), two=good * 2
    )
    dataset = SimpleNamespace(table=table, faults=(), patients="known")
    found = [
        (fault.image, fault.kind)
        for fault in check_dataset(dataset, reading=Reading(names={"organ": 1, "lesion": 2})).faults
    ]
    assert found == [
        ("empty", "mask_empty"),
        ("small", "mask_off_grid"),
        ("three", "mask_values"),
        ("absent", "mask_missing"),
        ("gray", "mask_unreadable"),
    ]
    assert "mask_values" not in dict(kinds(dataset)).values()


def test_empty_masks_of_normal_images_are_no_fault(tmp_path):
    good = np.eye(64)
    table = masked(tmp_path, a=good, b=good * 0, c=good * 0, d=good * 0)
    table["label"] = ["ill", "ill", "normal", "normal"]
    dataset = SimpleNamespace(table=table, faults=(), patients="known")
    assert kinds(dataset) == [(3, "mask_empty")]


def test_several_masks_of_one_image(tmp_path):
    good = np.eye(64)
    table = masked(tmp_path, a=good, b=good * 2)
    table.loc[0, "mask"] = "|".join(table["mask"])
    dataset = SimpleNamespace(table=table, faults=(), patients="known")
    assert kinds(dataset, reading=Reading(names={"organ": 1})) == [(2, "mask_values"), (3, "mask_values")]


def test_a_repeated_check_finds_the_same_without_looking_again(tmp_path):
    save(tmp_path / "a.png", 0)
    (tmp_path / "b.png").write_bytes(save(tmp_path / "c.png", 1)[:700])
    dataset = opened(tmp_path, "a.png,1,well,", "b.png,2,well,", "c.png,3,ill,")
    first, second = (check_dataset(dataset, cache=tmp_path / "cache") for _ in range(2))
    assert (first.known, second.known) == (0, 3)
    assert first.faults == second.faults != ()


def test_breastmnist_holds_one_image_twice_with_conflicting_labels(shared_data, tmp_path):
    data = DataConfig(manifest="breastmnist.yaml")
    dataset = open_dataset(data, base=tmp_path, cache=tmp_path, task="classification", strict=False)
    wanted = {"identical_images": 1, "conflicting_labels": 1}
    faults = [fault for fault in check_dataset(dataset).faults if fault.kind in wanted]
    assert Counter(fault.kind for fault in faults) == wanted
    assert "breastmnist.npz#train/115, breastmnist.npz#test/76" in faults[0].sentence


def test_the_masks_of_busi(shared_data, tmp_path):
    """Its known fault, one mask whose size is not that of its image; the empty masks are those of normal images."""
    folder = shared_data / "breast_ultrasound_masks"
    listed = pd.read_csv(folder / "labels.csv", dtype=str, keep_default_na=False)
    wrong = listed["mask_size_mismatch"] != ""
    some = pd.concat([listed[wrong], listed[~wrong & (listed["label"] == "normal")][:4], listed[~wrong][:4]])
    places = some["file"].str.rpartition("/")[0]
    names = [text.split(";") for text in some["masks"]]
    masks = ["|".join(f"{folder}/{place}/{name}" for name in own) for place, own in zip(places, names, strict=True)]
    table = pd.DataFrame({"image": [f"{folder}/{name}" for name in some["file"]], "case": some["file"], "mask": masks})
    table = table.assign(line=[str(n + 2) for n in range(len(some))], patient_id=some["dup_group"], label=some["label"])
    dataset = SimpleNamespace(table=table.reset_index(drop=True), faults=(), patients="known")
    found = [(fault.kind, fault.image) for fault in check_dataset(dataset).faults if fault.kind.startswith("mask")]
    assert found == [("mask_off_grid", name) for name in listed["file"][wrong]]


def test_contours_are_classes_by_the_names_of_the_configuration(shared_data, tmp_path):
    (tmp_path / "m.csv").write_text(
        "image,patient_id,mask\n"
        + "".join(f"{p}/MR_T1/image,{p},{p}/MR_T1/mask/RS.dcm\n" for p in ("STS_001", "STS_002")),
        "utf-8",
    )

    def found(structures):
        data = DataConfig(
            manifest=str(tmp_path / "m.csv"), root=str(shared_data / "sarcoma_dicom"), structures=structures
        )
        dataset = open_dataset(data, base=tmp_path, cache=tmp_path, strict=False)
        checked = check_dataset(dataset, reading=Reading(names=dataset.structures), cache=tmp_path)
        return dataset.structures, [fault.kind for fault in checked.faults if fault.kind.startswith("mask")]

    assert found({"tumour": ("GTV*", "2"), "edema": ("Edema",)}) == ({"GTV*|2": 1, "Edema": 2}, [])
    assert found({"kidney": ("Kidney",)}) == ({"Kidney": 1}, ["mask_values"] * 2)
    assert found(None) == (None, [])


def test_nested_structures_are_a_fault_only_where_both_are_named(monkeypatch, tmp_path):
    def read(mask, like, *, names, irregular, overlapping=False):
        if not overlapping and (names is None or len(names) > 1):
            raise DataError(
                f"{mask} has structures that overlap: 'PTV' overlap another structure in 9 voxels; name ..."
            )
        return Image(array=np.ones((2 if overlapping else 1, 64, 64), np.int16), unit="label")

    monkeypatch.setattr(examine, "read_label", read)
    table = masked(tmp_path, a=np.eye(64))
    dataset = SimpleNamespace(table=table, faults=(), patients="known")
    assert kinds(dataset) == []
    assert kinds(dataset, reading=Reading(names={"GTV": 1})) == []
    assert kinds(dataset, reading=Reading(names={"GTV": 1, "PTV": 2})) == [(2, "mask_overlap")]
