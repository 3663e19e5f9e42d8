"""`check` of a segmentation lists each image that its training would refuse, once."""

from __future__ import annotations

import csv

import nibabel
import numpy as np
import pytest
from PIL import Image as Picture

from medgcsam.errors import DataError
from medgcsam.journal import Journal
from medgcsam.pipeline.segmentation_cases import prepare_segmentation
from medgcsam.recipes.check import check_data
from tests.pipeline import segmentation_phantoms as phantoms


@pytest.fixture
def config(tmp_path):
    phantoms.write_cohort(tmp_path / "set", 8, shape=(20, 24, 18))
    output = {"folder": str(tmp_path / "runs")}
    return phantoms.config(data={"manifest": str(tmp_path / "set" / "manifest.csv")}, split={"folds": 3}, output=output)


def check(config):
    return check_data(config, journal=Journal(quiet=True))


def listed(result):
    return {(fault["row"], fault["kind"]) for fault in result["faults"]}


def rows_of(config, change):
    with open(config.data.manifest, newline="") as file:
        rows = list(csv.reader(file))
    with open(config.data.manifest, "w", newline="") as file:
        csv.writer(file).writerows(change(rows))


def test_a_sound_set_has_no_fault_and_the_survey_is_kept_for_training(config, tmp_path, monkeypatch):
    monkeypatch.setenv("MEDGCSAM_CACHE", str(tmp_path / "cache"))
    result = check(config)
    assert (result["faults"], result["failing"]) == ([], 0)
    kept = {path.name for path in (tmp_path / "cache" / "surveys").rglob("*.npz")}
    assert len(kept) == 8
    prepare_segmentation(config, output=tmp_path / "runs", cache=tmp_path / "cache", journal=Journal(quiet=True))
    assert {path.name for path in (tmp_path / "cache" / "surveys").rglob("*.npz")} == kept


def test_what_training_refuses_is_listed(config, tmp_path):
    folder = tmp_path / "set"
    read = nibabel.load(folder / "p0.nii.gz")
    four = np.stack([np.asarray(read.dataobj)] * 2, -1)
    nibabel.save(nibabel.Nifti1Image(four, read.affine), folder / "p0.nii.gz")
    Picture.fromarray(255 * np.eye(30, dtype=np.uint8)).save(folder / "flat.png")
    (folder / "p3_mask.nii.gz").write_bytes(b"no mask")
    rows_of(config, lambda rows: [["flat.png", row[1], "flat.png"] if row[0] == "p1.nii.gz" else row for row in rows])
    result = check(config)
    assert listed(result) == {(2, "channels"), (3, "dimensions"), (5, "mask_unreadable")}
    said = {fault["row"]: fault["sentence"] for fault in result["faults"]}
    assert said[2].startswith("line 2: p0.nii.gz has 2 channels or frames, where image.channels is 1")
    assert said[3] == "line 3: flat.png is a picture, where most images are volumes of several slices"
    with pytest.raises(DataError, match=r"3 of 8 images"):
        prepare_segmentation(config, output=tmp_path / "runs", cache=tmp_path / "cache", journal=Journal(quiet=True))


def test_masks_of_one_image_that_overlap_are_listed(config, tmp_path):
    for path in (tmp_path / "set").glob("p?_mask.nii.gz"):
        read = nibabel.load(path)
        whole = (np.asarray(read.dataobj) > 0).astype(np.uint8)
        for name in ("organ", "lesion"):
            nibabel.save(nibabel.Nifti1Image(whole, read.affine), path.with_name(path.name.replace("mask", name)))
    masks = "{0}_organ.nii.gz|{0}_lesion.nii.gz"
    rows_of(config, lambda rows: [rows[0], *([*row[:2], masks.format(row[0].split(".")[0])] for row in rows[1:])])
    names = {"organ": ("*organ",), "lesion": ("*lesion",)}
    named = config.model_copy(update={"data": config.data.model_copy(update={"structures": names})})
    result = check(named)
    assert result["kinds"] == {"mask_overlap": 8}
    assert result["faults"][0]["sentence"].startswith("line 2: p0.nii.gz cannot be used: p0_")
    both = config.model_copy(update={"data": named.data.model_copy(update={"overlapping": True})})
    assert check(both)["faults"] == []


def test_masks_are_the_reference_not_labels(config):
    (note,) = [note for note in check(config)["notes"] if "mask" in note]
    assert note == "masks are the reference: 8 of 8 rows have one"
    rows_of(config, lambda rows: [row if row[0] != "p2.nii.gz" else [*row[:2], ""] for row in rows])
    notes = check(config)["notes"]
    assert notes[0] == "masks are the reference: 7 of 8 rows have one; the others are left out of training"
    assert not any("label" in note for note in notes)
    rows_of(config, lambda rows: [row[:2] for row in rows])
    assert "no row of the manifest has a mask" in check(config)["notes"][0]


def test_structures_without_names_are_said(config):
    unnamed = config.model_copy(update={"data": config.data.model_copy(update={"structures": None})})
    result = check(unnamed)
    assert result["faults"] == []
    assert any("is not looked for: data.structures" in note for note in result["notes"])
