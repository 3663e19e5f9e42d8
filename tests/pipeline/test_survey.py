"""Every image looked at once: the facts against the files, what is remembered, and what is faulty."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest

from medgcsam.pipeline import survey as module
from medgcsam.pipeline.survey import SAMPLES, survey
from tests.pipeline.segmentation_phantoms import STRUCTURES, config, write_cohort, write_volume


def look(images, masks, cache, **options):
    return survey(images, masks, options.pop("config", config()), structures=STRUCTURES, cache=cache, **options)


def test_the_facts_are_those_of_the_files(tmp_path):
    images, masks = write_cohort(tmp_path / "set", 3)
    for image, mask, seen in zip(images, masks, look(images, masks, tmp_path / "cache"), strict=True):
        values, label = (np.asarray(nibabel.load(name).dataobj) for name in (image, mask))
        assert (seen.shape, seen.spacing, seen.unit, seen.fault) == ((20, 24, 12), (1.0, 1.0, 2.0), "raw", None)
        assert seen.voxels == ((label == 1).sum(), (label == 2).sum())
        assert (seen.low, seen.high) == (values.min(), values.max())
        assert seen.foreground.shape == (1, min(SAMPLES, (label > 0).sum()))
        assert set(seen.foreground[0]) <= set(values[label > 0])
        np.testing.assert_allclose(seen.foreground.mean(), values[label > 0].mean(), rtol=0.05)


def test_each_channel_has_values_of_its_own(tmp_path):
    (image,), (mask,) = write_cohort(tmp_path / "set", 1)
    file, label = nibabel.load(image), np.asarray(nibabel.load(mask).dataobj)
    values = np.asarray(file.dataobj, np.float32)
    nibabel.save(nibabel.Nifti1Image(np.stack([values, 7 - values], -1), file.affine), image)
    for _ in range(2):  # as looked at, and as remembered
        (seen,) = look([image], [mask], tmp_path / "cache")
        assert seen.foreground.shape == (2, min(SAMPLES, (label > 0).sum()))
        np.testing.assert_allclose(seen.foreground[1], 7 - seen.foreground[0], rtol=1e-5)


def test_axes_are_canonical_and_a_single_slice_is_known_as_a_picture_too(tmp_path):
    affine = np.array([[0, 0, -3.0, 0], [2.0, 0, 0, 0], [0, -1.0, 0, 0], [0, 0, 0, 1]])
    for name, slices in (("block", 5), ("slice", 1)):
        array = np.arange(6 * 7 * slices, dtype=np.float32).reshape(6, 7, slices)
        nibabel.save(nibabel.Nifti1Image(array, affine), tmp_path / f"{name}.nii")
        nibabel.save(nibabel.Nifti1Image((array > 3).astype(np.uint8), affine), tmp_path / f"{name}_mask.nii")
    names = [str(tmp_path / name) for name in ("block.nii", "slice.nii")]
    block, one = look(names, [name.replace(".nii", "_mask.nii") for name in names], tmp_path / "cache")
    assert block.layout(3) == ((5, 6, 7), (3.0, 2.0, 1.0))
    assert block.layout(2) == (None, None)
    assert one.layout(3) == ((1, 6, 7), (3.0, 2.0, 1.0))
    assert one.layout(2) == ((7, 6), (1.0, 2.0))


def test_what_was_seen_is_not_read_again_until_a_file_changes(tmp_path, monkeypatch):
    images, masks = write_cohort(tmp_path / "set", 3)
    read, real = [], module.read_pair
    monkeypatch.setattr(
        module, "read_pair", lambda image, *rest, **options: read.append(image) or real(image, *rest, **options)
    )
    first = look(images, masks, tmp_path / "cache")
    assert read == images
    again = look(images[::-1], masks[::-1], tmp_path / "cache")[::-1]
    assert read == images
    assert again == first
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a.foreground, b.foreground)
    mask = nibabel.load(masks[1])
    nibabel.save(nibabel.Nifti1Image((np.asarray(mask.dataobj) > 0).astype(np.uint8), mask.affine), masks[1])
    changed = look(images, masks, tmp_path / "cache")
    assert read == [*images, images[1]]
    assert changed[1].voxels == (sum(first[1].voxels), 0)
    look(images, masks, tmp_path / "cache", config=config(image={"pet": "stored"}))
    assert len(read) == 7


def test_a_memory_cut_short_is_made_again(tmp_path):
    images, masks = write_cohort(tmp_path / "set", 1)
    first = look(images, masks, tmp_path / "cache")
    (kept,) = (tmp_path / "cache" / "surveys").rglob("*.npz")
    kept.write_bytes(kept.read_bytes()[:100])
    assert look(images, masks, tmp_path / "cache") == first


def test_faults_are_told_and_looked_at_again(tmp_path):
    images, masks = write_cohort(tmp_path / "set", 4)
    write_volume(tmp_path / "set", "other", shape=(8, 8, 8))
    masks[1] = str(tmp_path / "set" / "missing.nii.gz")
    wrong = nibabel.load(masks[2])
    nibabel.save(nibabel.Nifti1Image(np.asarray(wrong.dataobj) * 3, wrong.affine), masks[2])
    (tmp_path / "set" / "p3.nii.gz").write_bytes(b"no image")
    seen = look(images, masks, tmp_path / "cache")
    assert seen[0].fault is None
    assert "missing.nii.gz" in seen[1].fault
    assert seen[2].fault is None or "p2_mask" in seen[2].fault
    assert "p3.nii.gz" in seen[3].fault
    write_volume(tmp_path / "set", "p3", seed=3)
    assert look(images, masks, tmp_path / "cache")[3].fault is None


def test_real_masks_of_pictures(shared_data, tmp_path):
    folder = shared_data / "breast_ultrasound_masks" / "benign"
    images = [str(folder / "benign (1).png"), str(folder / "benign (4).png")]
    masks = [
        str(folder / "benign (1)_mask.png"),
        "|".join(str(folder / f"benign (4)_mask{end}.png") for end in ("", "_1")),
    ]
    good, bad = survey(images, masks, config(), structures={"lesion": 1}, cache=tmp_path)
    assert (good.shape, good.picture, good.spacing, good.unit) == ((416, 416), (416, 416), None, "display")
    assert good.voxels[0] == pytest.approx(0.00569 * 416 * 416, rel=0.01)  # fg_fraction in labels.csv
    assert "465x555 for an image of 416x416" in bad.fault
