"""Series of real scanners: equal to their NIfTI, the same in every encoding, and refused for their own reason."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest

from medgcsam.errors import DataError
from medgcsam.imaging import Image, read_image, source_digest
from medgcsam.imaging.dicom.series import _look as look
from medgcsam.imaging.dicom.series import choose_series
from medgcsam.imaging.sources import folder_items

SARCOMA = [f"STS_{n:03d}/{kind}" for n in (1, 2, 4, 6) for kind in ("CT", "PET", "MR_T1")]
ENCODINGS = ("compressed", "compressed_jpeg", "compressed_jpegls", "compressed_j2k", "compressed_rle")
REASONS = {
    "gantrytilting/001": "gantry tilt, its slices slip sideways by 14.0 degrees",
    "notavolume/001": "duplicate positions: all 4 slices lie at one position",
    "slicecount/001": "too few slices",
    "sliceincrement/001": "one slice missing, a gap of 10 mm between slices 5 mm apart",
    "sliceincrement/002": "one slice missing, a gap of 1.499 mm .* gantry tilt",
    "sliceorientation/001": "mixed orientation .2 of 4",
}


def folder_of(root: Path, *parts: str) -> Path:
    folder = root.joinpath(*parts)
    if not folder.is_dir():
        pytest.skip(f"no {'/'.join(parts)} among the data sets")
    return folder


def oriented_as(image: Image, affine: np.ndarray) -> np.ndarray:
    """The array (channels, i, j, k) with its axes swapped and flipped onto another affine of the same grid."""
    to_other = np.linalg.inv(affine) @ image.affine
    assert np.abs(to_other - np.rint(to_other)).max() < 1e-3
    axes = [int(np.abs(to_other[:3, n]).argmax()) for n in range(3)]
    array = np.flip(image.array, [n + 1 for n in range(3) if to_other[axes[n], n] < 0])
    return array.transpose(0, *(axes.index(n) + 1 for n in range(3)))


@pytest.mark.parametrize("name", SARCOMA)
def test_a_series_equals_its_nifti(shared_data, name):
    folder = folder_of(shared_data, "sarcoma_dicom", name, "image")
    image = read_image(folder)
    files = sorted(folder.iterdir())
    assert image.unit == {"CT": "HU", "PET": "SUV", "MR_T1": "raw"}[name.partition("/")[2]]
    assert image.array.dtype == np.float32
    assert image.source["slices"] == len(files)
    assert sorted(image.reference.files) == [str(file) for file in files]
    if not name.endswith("CT"):
        reference = nibabel.load(folder_of(shared_data, "sarcoma_nifti") / f"{name}_image.nii.gz")
        expected = np.asarray(reference.dataobj)
        if name.endswith("MR_T1"):
            assert np.array_equal(image.array[0], expected)
        else:
            assert np.abs(image.array[0] - expected).max() <= 3e-6
            assert image.source["suv"] == "stored"
        assert np.abs(image.affine - reference.affine).max() < 1e-4
    for k in (0, len(files) // 2):  # and pixel by pixel, as pydicom has it
        ds = pydicom.dcmread(image.reference.files[k])
        values = ds.pixel_array * float(ds.get("RescaleSlope", 1)) + float(ds.get("RescaleIntercept", 0))
        assert np.array_equal(image.array[0, ..., k], values.T.astype(np.float32))
        assert ds.SOPInstanceUID == image.reference.sop_instance_uids[k]
        corner = image.affine @ [0, 0, k, 1]
        assert np.allclose(corner[:3] * [-1, -1, 1], np.array(ds.ImagePositionPatient, float), atol=1e-3)


def test_nothing_that_identifies_is_in_the_source(shared_data):
    folder = folder_of(shared_data, "sarcoma_dicom", "STS_001", "PET", "image")
    image = read_image(folder)
    ds = pydicom.dcmread(image.reference.files[0])
    said = repr(image.source) + repr(image)
    for keyword in ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID",
                    "StudyDate", "SeriesDate"):  # fmt: skip
        assert str(ds.get(keyword)) not in said


@pytest.mark.parametrize("name", ENCODINGS)
def test_one_volume_in_every_lossless_encoding(shared_data, name):
    folder = folder_of(shared_data, "dicom_series", "generic", name, "001")
    image = read_image(folder)
    reference = nibabel.load(f"{folder}_ground_truth.nii.gz")
    assert np.array_equal(oriented_as(image, reference.affine)[0], np.asarray(reference.dataobj))
    assert image.array.std() > 1


def test_a_series_in_colour_equals_its_nifti(shared_data):
    folder = folder_of(shared_data, "dicom_series", "generic", "rgb", "001")
    image = read_image(folder)
    reference = nibabel.load(f"{folder}_ground_truth.nii.gz")
    stored = np.asarray(reference.dataobj)
    expected = np.stack([stored[colour] for colour in "RGB"]) if stored.dtype.names else np.moveaxis(stored, -1, 0)[:3]
    assert image.unit == "display"
    assert np.array_equal(np.rint(oriented_as(image, reference.affine) * 255), expected)


@pytest.mark.parametrize("name", ["ge/anatomical/001", "ge/anatomical/001_implicit", "ge/anatomical/001_single_slice"])
def test_other_vendors_equal_their_nifti(shared_data, name):
    folder = folder_of(shared_data, "dicom_series", name)
    image, reference = read_image(folder), nibabel.load(f"{folder}_ground_truth.nii.gz")
    assert np.array_equal(oriented_as(image, reference.affine)[0], np.asarray(reference.dataobj))


@pytest.mark.parametrize("name", REASONS)
def test_every_failing_series_is_refused_with_its_own_reason(shared_data, name):
    folder = folder_of(shared_data, "dicom_series", "failing", name)
    with pytest.raises(DataError, match=REASONS[name]) as caught:
        read_image(folder)
    assert str(caught.value).startswith(str(folder))
    assert str(caught.value).endswith(".")


def test_a_missing_slice_is_filled_when_resampling_is_asked_for_and_all_others_stay(shared_data):
    folder = folder_of(shared_data, "dicom_series", "failing", "sliceincrement", "001")
    image = read_image(folder, irregular="resample")
    assert image.array.shape == (1, 512, 512, 5)
    assert image.source["geometry"].startswith("resampled: one slice missing")
    for k, file in zip((0, 1, 2, 4), image.reference.files, strict=True):
        ds = pydicom.dcmread(file)
        values = ds.pixel_array * float(ds.RescaleSlope) + float(ds.RescaleIntercept)
        assert np.array_equal(image.array[0, ..., k], values.T.astype(np.float32))


def test_a_tilted_series_keeps_its_head_in_place_when_resampled(shared_data):
    folder = folder_of(shared_data, "dicom_series", "failing", "gantrytilting", "001")
    image = read_image(folder, irregular="resample")
    k = image.array.shape[3] - 1
    ds = pydicom.dcmread(image.reference.files[k])
    values = (ds.pixel_array * float(ds.RescaleSlope) + float(ds.RescaleIntercept)).T
    # a place in the patient by the file's own geometry, and by the affine, must show the same value
    generator = np.random.default_rng(0)
    for column, row in generator.integers(60, 450, (50, 2)):
        place = np.array(ds.ImagePositionPatient, float)
        place += float(ds.PixelSpacing[1]) * column * np.array(ds.ImageOrientationPatient[:3], float)
        place += float(ds.PixelSpacing[0]) * (row + 0.5) * np.array(ds.ImageOrientationPatient[3:], float)
        index = np.linalg.solve(image.affine, [*place * [-1, -1, 1], 1])[:3]
        assert abs(index[2] - k) < 1e-3
        i, j = round(index[0]), int(np.floor(index[1]))
        near = image.array[0, i, j : j + 2, k]
        wanted = values[column, row - 1 : row + 3]
        assert wanted.min() - 1e-3 <= np.interp(index[1], [j, j + 1], near) <= wanted.max() + 1e-3


def test_a_folder_of_two_series_names_them_and_one_can_be_chosen(shared_data, tmp_path):
    folders = [folder_of(shared_data, "sarcoma_dicom", "STS_002", kind, "image") for kind in ("CT", "PET")]
    for folder in folders:
        shutil.copytree(folder, tmp_path / "both" / folder.parent.name)
    (tmp_path / "both" / "readme.txt").write_text("not a DICOM file")
    with pytest.raises(DataError, match=r"holds 2 image series .CT .*: 48 files; PT .*: 48 files") as caught:
        read_image(tmp_path / "both")
    assert "#series=UID" in str(caught.value)
    for folder in folders:
        alone = read_image(folder)
        chosen = f"{tmp_path / 'both'}#series={alone.reference.series_uid}"
        image = read_image(chosen)
        assert np.array_equal(image.array, alone.array)
        assert source_digest(chosen) == source_digest(folder)
    with pytest.raises(DataError, match=r"no image series 1\.2\.9"):
        read_image(f"{tmp_path / 'both'}#series=1.2.9")


def test_the_files_of_other_series_are_looked_at_once_and_again_when_they_change(write_series, tmp_path, monkeypatch):
    volume = np.ones((3, 4, 5), np.int16)
    first = write_series(volume, folder="all/a")
    second = write_series(volume + 1, folder="all/b", SeriesInstanceUID="1.2.3.9",
                          SOPInstanceUID=["1.9.1", "1.9.2", "1.9.3"])  # fmt: skip
    looked = []
    monkeypatch.setattr(
        "medgcsam.imaging.dicom.series._look", lambda item, **options: looked.append(item.name) or look(item, **options)
    )
    for _ in range(2):
        looked.clear()
        assert (read_image(f"{tmp_path / 'all'}#series=1.2.3.4").array == -1023).all()
        assert (read_image(f"{tmp_path / 'all'}#series=1.2.3.9").array == -1022).all()
    assert sorted(looked) == sorted(map(str, first + second))
    for k, path in enumerate(second):  # copied over by slices of the first series: a fourth, fifth and sixth slice
        ds = pydicom.dcmread(first[k])
        ds.ImagePositionPatient, ds.SOPInstanceUID = [10, 20, 9.0 + 3 * k], f"1.2.3.4.{k + 4}"
        ds.save_as(path)
    assert read_image(f"{tmp_path / 'all'}#series=1.2.3.4").array.shape == (1, 5, 4, 6)


def test_contours_and_others_beside_a_series_are_passed_over_and_counted(shared_data, tmp_path):
    folder = folder_of(shared_data, "sarcoma_dicom", "STS_002", "MR_T1")
    shutil.copytree(folder, tmp_path / "all")
    image = read_image(tmp_path / "all")
    assert np.array_equal(image.array, read_image(folder / "image").array)
    assert image.source["other_files"] == 1


def test_the_digest_is_that_of_the_files_of_the_series_whatever_their_names(shared_data, tmp_path):
    folder = folder_of(shared_data, "sarcoma_dicom", "STS_002", "PET", "image")
    for n, file in enumerate(sorted(folder.iterdir(), reverse=True)):
        shutil.copyfile(file, tmp_path / f"{n}")
    digest = source_digest(folder)
    assert source_digest(tmp_path) == digest
    assert source_digest(sorted(tmp_path.iterdir())) == digest
    os.remove(tmp_path / "0")
    assert source_digest(tmp_path) != digest


def test_more_than_is_held_in_memory_is_read_again(shared_data, monkeypatch):
    folder = folder_of(shared_data, "sarcoma_dicom", "STS_002", "CT", "image")
    expected = read_image(folder)
    monkeypatch.setattr("medgcsam.imaging.dicom.series.HELD_BYTES", 200_000)
    series = choose_series(folder_items(folder), str(folder))
    assert sum(len(one.header.data) for one in series.slices) < 48 * 20_000 + 300_000
    again = read_image(folder)
    assert np.array_equal(again.array, expected.array)
