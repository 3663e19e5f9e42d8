"""A check of masks: beside their images, on their grid, of the structures that were named."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import nibabel
import numpy as np
import pandas as pd
from PIL import Image as Picture
from scipy.ndimage import gaussian_filter

from medgcsam.config import DataConfig
from medgcsam.errors import DataError
from medgcsam.imaging import Image
from medgcsam.intake import check_dataset, examine, open_dataset
from medgcsam.intake.examine import Reading


def pixels(seed: int) -> np.ndarray:
    """A smooth random picture."""
    noise = np.random.default_rng(seed).normal(0, 1, (64, 64))
    return (128 + 250 * gaussian_filter(noise, 2)).clip(0, 255).astype(np.uint8)


def kinds(dataset, **options) -> list[tuple[int, str]]:
    return [(fault.row, fault.kind) for fault in check_dataset(dataset, **options).faults]


def masked(folder: Path, **masks: np.ndarray | None) -> pd.DataFrame:
    """A table of pictures with these masks; None is a mask that is not there."""
    rows = []
    for number, (name, mask) in enumerate(masks.items()):
        Picture.fromarray(pixels(number)).save(folder / f"{name}.png")
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
    dataset = SimpleNamespace(table=table, faults=(), patients="known", root=tmp_path)
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
    sentences = {fault.image: fault.sentence for fault in check_dataset(dataset).faults}
    assert sentences["absent"].endswith(
        "the mask absent_mask.png, which does not exist: put it there, or exclude the row"
    )
    assert "an empty mask, empty_mask.png: look at it" in sentences["empty"]
    assert "mask_values" not in dict(kinds(dataset)).values()


def test_empty_masks_of_normal_images_are_no_fault(tmp_path):
    good = np.eye(64)
    table = masked(tmp_path, a=good, b=good * 0, c=good * 0, d=good * 0)
    table["label"] = ["ill", "ill", "normal", "normal"]
    dataset = SimpleNamespace(table=table, faults=(), patients="known", root=tmp_path)
    assert kinds(dataset) == [(3, "mask_empty")]


def test_several_masks_of_one_image(tmp_path):
    good = np.eye(64)
    table = masked(tmp_path, a=good, b=good * 2)
    table.loc[0, "mask"] = "|".join(table["mask"])
    dataset = SimpleNamespace(table=table, faults=(), patients="known", root=tmp_path)
    reading = Reading(names={"organ": 1})
    assert kinds(dataset, reading=reading) == [(2, "mask_values"), (3, "mask_values")]
    assert "has the mask b_mask.png, which " in check_dataset(dataset, reading=reading).faults[0].sentence


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
    dataset = SimpleNamespace(table=table.reset_index(drop=True), faults=(), patients="known", root=tmp_path)
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


def test_masks_of_several_files_are_checked_together(tmp_path):
    mask = np.eye(64)
    table = masked(tmp_path, p0_kidney=mask, p0_tumour=mask.T * (1 - mask), p1=mask).iloc[:1]
    table.loc[0, "mask"] += f"|{tmp_path / 'p0_tumour_mask.png'}"
    row = tuple(table.loc[0, ["image", "mask"]])
    assert examine.examine(row, Reading(names={"*tumour*": 1})).mask == (0,)
    assert examine.examine(row, Reading(names={"*kidney*": 1, "*tumour*": 2})).mask == (0, 1)
    (fault,) = examine.examine(row, Reading(names={"lesion": 1})).faults
    assert (fault.kind, fault.mask) == ("mask_values", 0)
    assert "is one of several masks" in fault.sentence


def test_nested_structures_are_a_fault_only_where_both_are_named(monkeypatch, tmp_path):
    def read(mask, like, *, names, irregular, orientation, overlapping=False):
        if not overlapping and (names is None or len(names) > 1):
            raise DataError(
                f"{mask} has structures that overlap: 'PTV' overlap another structure in 9 voxels; name ..."
            )
        return Image(array=np.ones((2 if overlapping else 1, 64, 64), np.int16), unit="label")

    monkeypatch.setattr(examine, "read_label", read)
    table = masked(tmp_path, a=np.eye(64))
    dataset = SimpleNamespace(table=table, faults=(), patients="known", root=tmp_path)
    assert kinds(dataset) == []
    assert kinds(dataset, reading=Reading(names={"GTV": 1})) == []
    assert kinds(dataset, reading=Reading(names={"GTV": 1, "PTV": 2})) == [(2, "mask_overlap")]


def test_a_mask_that_breaks_its_reader_is_a_fault_of_the_mask(monkeypatch, tmp_path):
    def read(mask, like, **options):
        raise RecursionError("deep")

    monkeypatch.setattr(examine, "read_label", read)
    seen = examine.examine((str(masked(tmp_path, a=np.eye(64))["image"][0]), str(tmp_path / "a_mask.png")))
    assert seen.faults == (examine.Found("mask_unreadable", "cannot be read (RecursionError)", 0),)
    assert seen.shape == (1, 64, 64), "the image itself is sound"


def test_conflicting_orientations_are_faults_until_one_is_named(tmp_path):
    voxels = np.random.default_rng(0).normal(size=(32, 32, 4)).astype(np.float32)
    for name, array in (("image", voxels), ("mask", (voxels > 1).astype(np.uint8))):
        volume = nibabel.Nifti1Image(array, None)
        volume.set_sform(np.diag([2.0, 2.0, 2.0, 1.0]), 1)
        volume.set_qform(np.diag([1.0, 1.0, 1.0, 1.0]), 1)
        nibabel.save(volume, tmp_path / f"{name}.nii")
    plain = nibabel.Nifti1Image(voxels, np.diag([2.0, 2.0, 2.0, 1.0]))
    nibabel.save(plain, tmp_path / "plain.nii")

    def faults(image, **options):
        row = (str(tmp_path / image), str(tmp_path / "mask.nii"))
        return [found.kind for found in examine.examine(row, Reading(**options)).faults]

    assert faults("image.nii") == ["unreadable"]
    assert faults("image.nii", orientation="qform") == []
    assert faults("plain.nii") == ["mask_unreadable"]
    assert faults("plain.nii", orientation="sform") == []
