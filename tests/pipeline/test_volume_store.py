"""The store of volumes: against direct preparation, interrupted, damaged, and on a full disk."""

from __future__ import annotations

import errno
import os

import numpy as np
import pytest

from medgcsam.errors import DataError, MachineError
from medgcsam.imaging import read_image, read_label
from medgcsam.pipeline import volume_store, volume_writer
from medgcsam.pipeline.grids import back_to_grid
from medgcsam.pipeline.plan import make_plan, resolved
from medgcsam.pipeline.survey import survey
from medgcsam.pipeline.volume_store import build_volume_store, open_volume_store, prepare_volume
from tests.pipeline import segmentation_phantoms as phantoms
from tests.pipeline.segmentation_phantoms import STRUCTURES


def settings(**sections):
    """A resolved configuration: other spacings than the files have."""
    image = {"dimensions": 3, "spacing": (1.0, 1.2, 1.5), "intensity": "zscore"} | sections.pop("image", {})
    return phantoms.config(image=image, **sections)


def build(images, masks, cache, config=None, **options):
    return build_volume_store(images, masks, config or settings(), structures=STRUCTURES, cache=cache, **options)


@pytest.mark.parametrize("overlapping", [False, True])
def test_rows_are_what_direct_preparation_gives(tmp_path, overlapping):
    config = settings(data={"overlapping": overlapping})
    images, masks = phantoms.write_cohort(tmp_path / "set", 2)
    phantoms.write_volume(tmp_path / "set", "large", shape=(30, 17, 9), spacing=(0.8, 1.5, 3.0), flip=False)
    images.append(str(tmp_path / "set" / "large.nii.gz"))
    masks.append(str(tmp_path / "set" / "large_mask.nii.gz"))
    store = build(images, masks, tmp_path / "cache", config)
    assert (len(store), store.intensity, store.structures) == (3, "zscore", 2)
    for row, (image, mask) in enumerate(zip(images, masks, strict=True)):
        read = read_image(image)
        direct, grid = prepare_volume(read, config.image)
        assert store.grid(row) == grid
        np.testing.assert_array_equal(store.image(row), direct)
        assert store.image(row).dtype == np.float16
        assert not store.image(row).flags.writeable
        label = store.label(row)
        assert label.shape == (2 if overlapping else 1, *grid.size)
        for number, found in enumerate(store.foreground(row), 1):
            here = label[number - 1] if overlapping else label[0] == number
            assert found.dtype == np.int32
            assert len(found) == min(2000, np.count_nonzero(here))
            assert here[tuple(found.T)].all()
        channels = np.asarray(label) if overlapping else np.eye(3)[label[0]].transpose(3, 0, 1, 2)
        back = back_to_grid(channels.astype(np.float16), grid, overlapping=overlapping)
        truth = read_label(mask, read, names=STRUCTURES, overlapping=overlapping).array
        inside = 2 * ((back > 0) & (truth > 0)).sum() / ((back > 0).sum() + (truth > 0).sum())
        assert inside > 0.93


def test_a_finished_store_is_opened_and_named_by_what_made_it(tmp_path, monkeypatch):
    images, masks = phantoms.write_cohort(tmp_path / "set", 2)
    store = build(images, masks, tmp_path)
    monkeypatch.setattr(volume_store, "_build", None)
    told = []
    again = build(images, masks, tmp_path, progress=lambda *numbers: told.append(numbers))
    assert (again.key, told) == (store.key, [(2, 2)])
    assert again.images_sha256 == store.images_sha256
    monkeypatch.undo()
    others = [
        settings(image={"spacing": (1.0, 1.0, 1.0)}), settings(image={"intensity": "percentile"}),
        settings(data={"overlapping": True}),
        settings(image={"intensity": "foreground", "clip": (0, 1), "mean": 0.0, "std": 1.0}),
        settings(image={"intensity": "foreground", "clip": (0, 1), "mean": 0.0, "std": 2.0}),
    ]  # fmt: skip
    keys = {build(images, masks, tmp_path, other).key for other in others}
    keys |= {build(images[::-1], masks[::-1], tmp_path).key, store.key}
    assert len(keys) == 7
    unrelated = settings(training={"epochs": 3}, patches={"per_image": 7}, image={"size": 64})
    assert build(images, masks, tmp_path, unrelated).key == store.key


def test_a_worker_writes_the_same_bytes(tmp_path):
    images, masks = phantoms.write_cohort(tmp_path / "set", 4)
    alone = build(images, masks, tmp_path / "a")
    helped = build(images, masks, tmp_path / "b", workers=1)
    for name in ("images.bin", "labels.bin", "foreground.bin", "volumes.json"):
        assert (alone.folder / name).read_bytes() == (helped.folder / name).read_bytes(), name


def test_an_interrupted_build_goes_on(tmp_path, monkeypatch):
    images, masks = phantoms.write_cohort(tmp_path / "set", 4)
    whole = build(images, masks, tmp_path / "whole")
    real, done = volume_store.prepare_pair, []

    def stops(job):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(job.row)
        return real(job)

    monkeypatch.setattr(volume_store, "prepare_pair", stops)
    with pytest.raises(KeyboardInterrupt):
        build(images, masks, tmp_path / "cache")
    (partial,) = (tmp_path / "cache" / "stores").glob("*.partial")
    with open(partial / "done.jsonl", "a") as journal:
        journal.write('{"row": 3, "cut')  # as if killed in the middle of a line
    with open(partial / "foreground.bin", "ab") as places:
        places.write(b"rubbish")
    later = []
    monkeypatch.setattr(volume_store, "prepare_pair", lambda job: later.append(job.row) or real(job))
    store = build(images, masks, tmp_path / "cache")
    assert (done, later) == ([0, 1], [2, 3])
    for name in ("images.bin", "labels.bin", "foreground.bin", "volumes.json"):
        assert (store.folder / name).read_bytes() == (whole.folder / name).read_bytes(), name
    assert [path.suffix for path in store.folder.parent.iterdir()] in ([".lock", ""], ["", ".lock"])


@pytest.mark.parametrize("name", ["images.bin", "labels.bin", "foreground.bin", "volumes.json"])
def test_a_damaged_store_is_built_anew(tmp_path, name):
    images, masks = phantoms.write_cohort(tmp_path / "set", 1)
    store = build(images, masks, tmp_path)
    before = (store.folder / name).read_bytes()
    (store.folder / name).write_bytes(before[: len(before) // 2])
    assert open_volume_store(store.folder) is None
    build(images, masks, tmp_path)
    assert (store.folder / name).read_bytes() == before


def test_a_full_disk_is_said_before_anything_is_decoded(tmp_path, monkeypatch):
    images, masks = phantoms.write_cohort(tmp_path / "set", 1)

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    monkeypatch.setattr(volume_store, "prepare_pair", None)
    with pytest.raises(MachineError, match="full"):
        build(images, masks, tmp_path / "cache")
    assert not list((tmp_path / "cache" / "stores").glob("*.partial"))
    monkeypatch.undo()
    monkeypatch.setattr(volume_writer, "_write", full)  # or while it is written
    with pytest.raises(MachineError, match="full"):
        build(images, masks, tmp_path / "cache")
    monkeypatch.undo()
    assert len(build(images, masks, tmp_path / "cache")) == 1


def test_all_that_cannot_be_used_is_named_at_once(tmp_path):
    images, masks = phantoms.write_cohort(tmp_path / "set", 4)
    masks[1] = str(tmp_path / "set" / "nowhere.nii.gz")
    (tmp_path / "set" / "p2.nii.gz").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"2 of 4 images or masks cannot be used \(.*nowhere.*p2.nii.gz"):
        build(images, masks, tmp_path)
    with pytest.raises(DataError, match=r"2 of 2 .* is a volume of several slices, where image.dimensions is 2"):
        build(images[:1] + images[3:], masks[:1] + masks[3:], tmp_path, settings(image={"dimensions": 2}))
    with pytest.raises(DataError, match="no images"):
        build([], [], tmp_path)


def test_an_image_without_any_structure_has_a_row_too(tmp_path):
    import nibabel

    (image,), (mask,) = phantoms.write_cohort(tmp_path / "set", 1)
    read = nibabel.load(mask)
    nibabel.save(nibabel.Nifti1Image(np.zeros(read.shape, np.uint8), read.affine), mask)
    store = build([image], [mask], tmp_path)
    assert not store.label(0).any()
    assert [found.shape for found in store.foreground(0)] == [(0, 3), (0, 3)]


def test_real_pet_as_nifti_and_as_dicom_with_contours_agree(shared_data, tmp_path):
    config = phantoms.config(data={"structures": {"tumour": ["1"]}}, image={"intensity": "zscore"})
    pairs = {}
    for patient in ("STS_001", "STS_002"):
        nifti, dicom = shared_data / "sarcoma_nifti" / patient, shared_data / "sarcoma_dicom" / patient / "PET"
        series = next(path for path in dicom.iterdir() if path.is_dir() and path.name != "mask")
        pairs[patient] = [
            (str(nifti / "PET_image.nii.gz"), str(nifti / "PET_mask.nii.gz"), {"1": 1}),
            (str(series), str(dicom / "mask" / "RS.dcm"), {"GTV*": 1}),
        ]
    stores = []
    for kind in range(2):
        images, masks, names = zip(*(pairs[patient][kind] for patient in pairs), strict=True)
        surveyed = survey(images, masks, config, structures=names[0], cache=tmp_path)
        assert [seen.fault for seen in surveyed] == [None, None]
        fixed = resolved(config, make_plan(config, surveyed, device_memory_gb=None))
        stores.append(build_volume_store(images, masks, fixed, structures=names[0], cache=tmp_path))
    for row in range(2):
        np.testing.assert_array_equal(stores[0].label(row), stores[1].label(row))
        np.testing.assert_allclose(stores[0].image(row), stores[1].image(row), atol=0.01)
        assert stores[0].label(row).any()
