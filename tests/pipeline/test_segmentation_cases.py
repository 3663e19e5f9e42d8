"""A segmentation made ready: what is left out and counted, and plans that see the training patients alone."""

from __future__ import annotations

import csv
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image as Picture

from medgcsam.config import Config, dump
from medgcsam.errors import ConfigError, DataError
from medgcsam.journal import Journal
from medgcsam.pipeline.segmentation_cases import prepare_segmentation
from tests.pipeline import segmentation_phantoms as phantoms


def prepare(config, tmp_path, **options):
    return prepare_segmentation(
        config, output=tmp_path / "runs", cache=tmp_path / "cache", journal=Journal(quiet=True), **options
    )


def cohort(tmp_path, patients=8, **options):
    phantoms.write_cohort(tmp_path / "set", patients, **options)
    return tmp_path / "set" / "manifest.csv"


def settings(manifest, **sections):
    data = {"manifest": str(manifest)} | sections.pop("data", {})
    split = {"folds": 3} | sections.pop("split", {})
    return phantoms.config(data=data, split=split, **sections)


def rewrite(manifest, change):
    with open(manifest, newline="") as file:
        rows = list(csv.reader(file))
    with open(manifest, "w", newline="") as file:
        csv.writer(file).writerows(change(rows))


def test_everything_is_aligned_and_resolved(tmp_path):
    cases = prepare(settings(cohort(tmp_path)), tmp_path)
    assert cases.structures == ("organ", "lesion")
    assert len(cases.store) == len(cases.table) == len(cases.surveyed) == 8
    rows = [cases.rows(name) for name in ("train", "validation", "test")]
    assert sorted(np.concatenate(rows)) == list(range(8))
    assert all(len(part) for part in rows)
    assert "auto" not in [
        value for name in ("image", "patches") for value in vars(getattr(cases.config, name)).values()
    ]
    assert cases.plan.values.keys() == cases.plan.reasons.keys()
    assert "spacing" in dump(cases.config)
    assert cases.store.digests["pixels"].tolist() == [seen.digest for seen in cases.surveyed]
    assert len(set(cases.names("case", cases.rows("test")))) == len(rows[2])
    assert not any("patient" in name for name in cases.names("patient", cases.rows("train")))
    assert len(cases.fingerprints("train", "test")) == len(rows[0]) + len(rows[2])
    seconds = prepare(settings(cohort(tmp_path)), tmp_path)
    assert (seconds.store.key, seconds.plan) == (cases.store.key, cases.plan)


def test_the_plan_sees_training_patients_alone(tmp_path):
    manifest = cohort(tmp_path)
    config = settings(manifest, image={"intensity": "foreground"})
    first = prepare(config, tmp_path)
    for partition in ("validation", "test"):
        for row in first.rows(partition):  # larger, with other spacing and other values
            name = Path(first.table["image"][row]).name.removesuffix(".nii.gz")
            phantoms.write_volume(tmp_path / "set", name, shape=(30, 30, 30), spacing=(3.0, 3.0, 3.0), seed=90 + row)
    second = prepare(config, tmp_path)
    assert list(second.split.partition) == list(first.split.partition)
    assert second.plan == first.plan
    assert second.store.key != first.store.key
    row = first.rows("train")[0]
    name = Path(first.table["image"][row]).name.removesuffix(".nii.gz")
    phantoms.write_volume(tmp_path / "set", name, shape=(30, 30, 30), spacing=(3.0, 3.0, 3.0), seed=77)
    third = prepare(config, tmp_path)
    assert third.plan.values["image.mean"] != first.plan.values["image.mean"]


def test_rows_without_a_mask_are_left_out_and_counted(tmp_path):
    manifest = cohort(tmp_path)
    rewrite(manifest, lambda rows: [row if row[1] != "patient 2" else [*row[:2], ""] for row in rows])
    cases = prepare(settings(manifest), tmp_path)
    assert len(cases.table) == 7
    assert cases.dataset.excluded == {"no mask": 1}
    assert cases.split.document["excluded"] == {"no mask": 1}
    rewrite(manifest, lambda rows: [rows[0], *([*row[:2], ""] for row in rows[1:])])
    with pytest.raises(DataError, match="no row has a mask"):
        prepare(settings(manifest), tmp_path)
    rewrite(manifest, lambda rows: [row[:2] + ["x"] for row in [["image", "patient_id"], *rows[1:]]])
    with pytest.raises(DataError, match="needs a column 'mask'"):
        prepare(settings(manifest), tmp_path)


def test_faulty_masks_are_named_together_or_left_out_and_counted(tmp_path):
    manifest = cohort(tmp_path)
    (tmp_path / "set" / "p1_mask.nii.gz").unlink()
    (tmp_path / "set" / "p5_mask.nii.gz").write_bytes(b"no mask")
    with pytest.raises(DataError, match=r"2 of 8 images or masks .*p1_mask.*p5_mask"):
        prepare(settings(manifest), tmp_path)
    cases = prepare(settings(manifest, data={"faulty_masks": "exclude"}), tmp_path)
    assert len(cases.store) == len(cases.split.partition) == 6
    assert cases.dataset.excluded == {"image or mask that cannot be used": 2}
    assert not {"patient 1", "patient 5"} & set(cases.table["patient_id"])


def edit(path, change):
    """Write a volume again with other values, on the same grid."""
    read = nibabel.load(path)
    nibabel.save(nibabel.Nifti1Image(change(np.asarray(read.dataobj)), read.affine), path)


@pytest.mark.parametrize("partition", ["train", "test"])
def test_images_that_do_not_fit_are_named_together_or_left_out_and_counted(tmp_path, partition):
    manifest = cohort(tmp_path)
    before = prepare(settings(manifest), tmp_path)
    numbers = before.rows(partition)[:2]
    four, flat = (str(before.table["patient_id"].iat[row]) for row in numbers)
    edit(tmp_path / "set" / f"p{four.split()[1]}.nii.gz", lambda values: np.stack([values, values], -1))
    Picture.fromarray(np.eye(30, dtype=np.uint8)).save(tmp_path / "set" / "flat.png")
    rewrite(manifest, lambda rows: [["flat.png", row[1], "flat.png"] if row[1] == flat else row for row in rows])
    absent = next(name for name in before.table["patient_id"] if name not in (four, flat))
    (tmp_path / "set" / f"p{absent.split()[1]}_mask.nii.gz").unlink()
    with pytest.raises(DataError, match=r"3 of 8 images or masks.*set data\.faulty_masks: exclude") as error:
        prepare(settings(manifest), tmp_path)
    assert "has 2 channels or frames, where image.channels is 1" in str(error.value)
    assert "flat.png is a picture, where most training images are volumes of several slices" in str(error.value)
    cases = prepare(settings(manifest, data={"faulty_masks": "exclude"}), tmp_path)
    assert len(cases.store) == len(cases.surveyed) == len(cases.split.partition) == 5
    assert not {four, flat, absent} & set(cases.table["patient_id"])
    assert cases.dataset.excluded == cases.split.document["excluded"]
    assert cases.dataset.excluded == {
        "image or mask that cannot be used": 1,
        "channels that the job does not take": 1,
        "a picture among volumes, or a volume among pictures": 1,
    }


def test_nothing_is_left_to_exclude_where_no_image_fits(tmp_path):
    manifest = cohort(tmp_path)
    for path in (tmp_path / "set").glob("p?.nii.gz"):
        edit(path, lambda values: np.stack([values, values], -1))
    with pytest.raises(DataError, match=r"8 of 8 .*\[the same of 7 more: .*p1.nii.gz, .*and 4 more\]") as error:
        prepare(settings(manifest, data={"faulty_masks": "exclude"}), tmp_path)
    assert str(error.value).count("has 2 channels or frames") == 1
    assert "faulty_masks" not in str(error.value)


def test_validation_patients_without_structures_are_refused_before_anything_is_prepared(tmp_path):
    manifest = cohort(tmp_path)
    before = prepare(settings(manifest), tmp_path)
    for row in before.rows("validation"):
        edit(Path(before.table["mask"].iat[row]), lambda values: values * 0)
    with pytest.raises(DataError, match=r"none of the 1 masks of validation patients .* set training\.select=loss"):
        prepare(settings(manifest), tmp_path)
    assert prepare(settings(manifest, training={"select": "loss"}), tmp_path).split.document == before.split.document


def test_the_network_is_looked_at_before_images_are_prepared(tmp_path, monkeypatch):
    asked = []

    def refuse(config, structures):
        asked.append((config.network.levels, structures))
        raise ConfigError("no such network")

    monkeypatch.setattr("medgcsam.pipeline.segmentation_cases.load_volumes", lambda *_, **__: pytest.fail("prepared"))
    with pytest.raises(ConfigError, match="no such network"):
        prepare(settings(cohort(tmp_path)), tmp_path, accept=refuse)
    ((levels, structures),) = asked
    assert levels != "auto"
    assert structures == ("organ", "lesion")


def test_identical_images_in_two_partitions_are_found_before_anything_is_prepared(tmp_path):
    manifest = cohort(tmp_path)
    for number in range(8):
        phantoms.write_volume(tmp_path / "set", f"p{number}", seed=0)
    with pytest.raises(DataError, match="identical"):
        prepare(settings(manifest), tmp_path)


def test_a_structure_that_no_training_mask_holds_is_refused(tmp_path):
    manifest = cohort(tmp_path)
    for path in (tmp_path / "set").glob("*_mask.nii.gz"):
        read = nibabel.load(path)
        nibabel.save(nibabel.Nifti1Image((np.asarray(read.dataobj) > 0).astype(np.uint8), read.affine), path)
    with pytest.raises(DataError, match="no mask of a training patient holds lesion"):
        prepare(settings(manifest), tmp_path)


def test_structures_need_names(tmp_path):
    with pytest.raises(ConfigError, match=r"data\.structures"):
        prepare(settings(cohort(tmp_path), data={"structures": None}), tmp_path)


def test_a_trial_keeps_few_patients(tmp_path):
    cases = prepare(settings(cohort(tmp_path, 20, shape=(10, 10, 8))), tmp_path, smoke=True)
    assert cases.table["patient_id"].nunique() == 12


def real(manifest, **sections):
    data = {"manifest": manifest} | sections.pop("data", {})
    return Config(name="trial", task="segmentation", data=data, **sections)


def test_real_ultrasound_masks(shared_data, tmp_path):
    config = {"image": {"size": 128}}
    with pytest.raises(DataError, match=r"1 of 149 .*465x555 for an image of 416x416"):
        prepare(real("breast_ultrasound_masks.yaml", **config), tmp_path)
    cases = prepare(real("breast_ultrasound_masks.yaml", data={"faulty_masks": "exclude"}, **config), tmp_path)
    assert len(cases.store) == 148
    assert sum(cases.dataset.excluded.values()) == 1
    assert (cases.config.image.dimensions, cases.config.image.intensity, cases.structures) == (
        2,
        "display",
        ("lesion",),
    )
    assert max(cases.store.shapes.max(0)) == 128
    normal = np.flatnonzero((cases.table["label"] == "normal").to_numpy())
    assert len(normal) == 50
    assert not any(cases.store.label(row).any() for row in normal)
    lesions = np.setdiff1d(np.arange(148), normal)
    assert all(cases.store.label(row).any() for row in lesions)
    assert cases.store.image(0).min() >= 0
    assert cases.store.image(0).max() <= 1


def test_real_pet_of_all_patients(shared_data, tmp_path):
    cases = prepare(real("sarcoma_pet.yaml"), tmp_path)
    assert cases.table["patient_id"].nunique() == len(cases.store) == 35
    assert cases.dataset.excluded == {"modality is MR_T1": 14}
    assert all(cases.store.label(row).any() for row in range(35))
    assert cases.store.label(0).max() == 1
