"""Mosaics against nibabel's own splitting, on the real ones that nibabel carries."""

from __future__ import annotations

import gzip
import io
import warnings
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from medgcsam.errors import DataError
from medgcsam.imaging import read_image
from medgcsam.imaging.dicom.mosaic import is_mosaic, split_mosaic
from medgcsam.imaging.geometry import stack_planes

FOLDER = Path(nibabel.__file__).parent / "nicom" / "tests" / "data"
RAS_FROM_LPS = np.diag([-1, -1, 1, 1])


@pytest.fixture
def mosaic() -> Dataset:
    file = FOLDER / "siemens_dwi_1000.dcm.gz"
    if not file.exists():
        pytest.skip("nibabel was installed without its test data")
    return pydicom.dcmread(io.BytesIO(gzip.decompress(file.read_bytes())))


def test_tiles_and_affine_are_those_of_nibabel(mosaic):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nibabel calls its DICOM readers experimental
        from nibabel.nicom.dicomwrappers import wrapper_from_data

        reference = wrapper_from_data(mosaic)
    assert is_mosaic(mosaic)
    tiles, planes = split_mosaic(mosaic.pixel_array, mosaic, "x")
    expected = reference.get_unscaled_data()  # (row, column, slice)
    np.testing.assert_array_equal(tiles, expected.transpose(2, 0, 1))
    stack = stack_planes(planes, "x")
    # a voxel of ours (column, row, k) is nibabel's (row, column, order[k])
    for column, row, k in [(0, 0, 0), (5, 3, 0), (127, 100, 47), (64, 1, 20)]:
        theirs = RAS_FROM_LPS @ reference.affine @ [row, column, stack.order[k], 1]
        np.testing.assert_allclose(stack.affine @ [column, row, k, 1], theirs, atol=1e-3)


def test_slices_against_the_normal_are_still_placed_right(mosaic):
    forward = split_mosaic(mosaic.pixel_array, mosaic, "x")[1]
    header = mosaic[0x0029, 0x1010]
    header.value = _negated(header.value)
    backward = split_mosaic(mosaic.pixel_array, mosaic, "x")[1]
    np.testing.assert_allclose(
        backward[7].position - backward[0].position, forward[0].position - forward[7].position, atol=1e-6
    )


def _negated(header: bytes) -> bytes:
    """The CSA header with SliceNormalVector reversed; its numbers are text of a fixed length."""
    from nibabel.nicom.csareader import read

    data = bytearray(header)
    start = data.index(b"SliceNormalVector")
    for value in read(header)["tags"]["SliceNormalVector"]["items"]:
        text = f"{value:.8f}".encode()
        at = data.index(text, start)
        data[at : at + len(text)] = f"{-value:.8f}".encode()[: len(text)].ljust(len(text), b" ")
        start = at + len(text)
    return bytes(data)


def _without_header(ds: Dataset) -> None:
    del ds[0x0029, 0x1010]


def _cut_header(ds: Dataset) -> None:
    ds[0x0029, 0x1010].value = ds[0x0029, 0x1010].value[:900]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_without_header, "CSA header .* was removed"),
        (_cut_header, "damaged CSA header"),
        (lambda ds: delattr(ds, "SpacingBetweenSlices"), "without SpacingBetweenSlices"),
        (lambda ds: delattr(ds, "ImagePositionPatient"), "without position"),
        (lambda ds: setattr(ds, "ImageOrientationPatient", [1, 0, 0, 0, 0, -1]), "not perpendicular"),
    ],
)
def test_what_cannot_be_taken_apart_is_refused_by_name(mosaic, change, message):
    stored = mosaic.pixel_array
    change(mosaic)
    with pytest.raises(DataError, match=message) as caught:
        split_mosaic(stored, mosaic, "scan.dcm")
    assert "Siemens mosaic" in str(caught.value)


def test_a_mosaic_is_read_as_the_volume_that_it_holds(mosaic, tmp_path):
    mosaic.save_as(tmp_path / "mosaic.dcm")
    image = read_image(tmp_path / "mosaic.dcm")
    tiles, planes = split_mosaic(mosaic.pixel_array, mosaic, "x")
    stack = stack_planes(planes, "x")
    np.testing.assert_array_equal(image.array[0], tiles[stack.order].transpose(2, 1, 0))
    np.testing.assert_allclose(image.affine, stack.affine)
    assert image.reference.frame_numbers is None


def test_pixels_that_do_not_divide_into_tiles_are_refused(mosaic):
    with pytest.raises(DataError, match="48 slices in 895x896"):
        split_mosaic(mosaic.pixel_array[1:], mosaic, "x")


def test_ordinary_images_are_no_mosaics():
    ds = Dataset()
    assert not is_mosaic(ds)
    ds.ImageType = "MOSAIC"
    assert is_mosaic(ds)
    ds.ImageType = ["ORIGINAL", "PRIMARY", "M"]
    assert not is_mosaic(ds)
