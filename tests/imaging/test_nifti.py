from __future__ import annotations

import nibabel
import numpy as np
import pytest

from medgcsam.errors import DataError
from medgcsam.imaging import read_image

RNG = np.random.default_rng(4)
AFFINE = np.array([[-0.7, 0.1, 0, 5], [0.1, 0.6, 0.2, -7], [0, -0.1, 2.5, 9], [0, 0, 0, 1.0]])


def _save(tmp_path, values, affine=AFFINE, *, name="x.nii.gz", pair=nibabel.Nifti1Image, units="mm", slope=None):
    image = pair(values, affine)
    image.header.set_xyzt_units(units)
    if slope:
        image.header.set_slope_inter(*slope)
    nibabel.save(image, tmp_path / name)
    return tmp_path / name


@pytest.mark.parametrize("pair", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("name", ["x.nii", "x.nii.gz"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64])
def test_a_volume_is_as_nibabel_reads_it(tmp_path, pair, name, dtype):
    path = _save(tmp_path, (RNG.normal(size=(4, 5, 6)) * 20 + 90).astype(dtype), name=name, pair=pair)
    image, reference = read_image(path), nibabel.load(path)
    np.testing.assert_array_equal(image.array[0], reference.get_fdata().astype(np.float32))
    np.testing.assert_allclose(image.affine, reference.affine, rtol=1e-6)
    assert image.spacing == pytest.approx(reference.header.get_zooms())
    assert (image.unit, image.array.dtype) == ("raw", np.float32)


def test_slope_and_intercept_are_applied(tmp_path):
    stored = RNG.integers(0, 1000, (3, 4, 5)).astype(np.int16)
    image = nibabel.Nifti1Image(stored * 0.25 - 100, AFFINE)
    image.set_data_dtype(np.int16)
    nibabel.save(image, tmp_path / "x.nii")
    read = read_image(tmp_path / "x.nii")
    np.testing.assert_allclose(read.array[0], nibabel.load(tmp_path / "x.nii").get_fdata(), rtol=1e-6, atol=1e-4)
    np.testing.assert_allclose(read.array[0], stored * 0.25 - 100, atol=0.01)


def test_a_2d_file_is_a_picture_of_rows_and_columns_whose_affine_follows(tmp_path):
    values = RNG.normal(size=(7, 4)).astype(np.float32)  # seven columns, four rows
    image = read_image(_save(tmp_path, values))
    assert image.array.shape == (1, 4, 7)
    np.testing.assert_array_equal(image.array[0], values.T)
    row, column = 2, 5
    np.testing.assert_allclose(image.affine @ [row, column, 0, 1], AFFINE @ [column, row, 0, 1], rtol=1e-5)
    assert image.spacing == pytest.approx((np.linalg.norm(AFFINE[:, 1]), np.linalg.norm(AFFINE[:, 0])))


def test_time_becomes_channels(tmp_path):
    values = RNG.normal(size=(3, 4, 5, 2)).astype(np.float32)
    np.testing.assert_array_equal(read_image(_save(tmp_path, values)).array, np.moveaxis(values, -1, 0))


@pytest.mark.parametrize(("unit", "factor"), [("meter", 1000), ("micron", 0.001), ("mm", 1), ("unknown", 1)])
def test_geometry_is_in_millimetres(tmp_path, unit, factor):
    image = read_image(_save(tmp_path, np.zeros((2, 3, 4), np.uint8), units=unit))
    np.testing.assert_allclose(image.affine[:3], factor * AFFINE[:3], rtol=1e-5)
    assert image.spacing == pytest.approx(factor * np.linalg.norm(AFFINE[:3, :3], axis=0))


def test_without_sform_and_qform_there_is_spacing_but_no_affine(tmp_path):
    image = nibabel.Nifti1Image(np.zeros((2, 3, 4), np.uint8), None)
    image.header.set_zooms((2, 3, 4))
    nibabel.save(image, tmp_path / "x.nii")
    read = read_image(tmp_path / "x.nii")
    assert (read.affine, read.spacing) == (None, (2.0, 3.0, 4.0))


def _broken(tmp_path, patch):
    path = _save(tmp_path, np.ones((4, 5, 6), np.int16), name="x.nii")
    data = bytearray(path.read_bytes())
    patch(data)
    path.write_bytes(bytes(data))
    return path


@pytest.mark.parametrize(
    "patch",
    [
        lambda d: d.__setitem__(slice(40, 48), np.array([3, 32000, 32000, 32000], np.int16).tobytes()),
        lambda d: d.__setitem__(slice(42, 44), np.array([0], np.int16).tobytes()),
        lambda d: d.__setitem__(slice(108, 112), np.array([1e9], np.float32).tobytes()),
        lambda d: d.__setitem__(slice(280, 328), np.zeros(12, np.float32).tobytes()),
        lambda d: d.__setitem__(slice(70, 72), np.array([9999], np.int16).tobytes()),
        lambda d: d.__delitem__(slice(500, None)),
    ],
    ids=["absurd size", "empty axis", "offset", "singular affine", "unknown type", "truncated"],
)
def test_faulty_headers_are_one_sentence(tmp_path, patch):
    with pytest.raises(DataError, match=r"x\.nii"):
        read_image(_broken(tmp_path, patch))


def test_nan_complex_colour_and_five_axes_are_refused(tmp_path):
    values = np.ones((2, 3, 4), np.float32)
    values[1, 1, 1] = np.nan
    colour = np.zeros((2, 3, 4), np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))
    for bad in (values, np.ones((2, 3, 4), np.complex64), colour, np.ones((2, 3, 4, 2, 2), np.float32)):
        with pytest.raises(DataError, match=r"x\.nii"):
            read_image(_save(tmp_path, bad))


def test_every_cut_of_a_gzipped_volume_is_noticed(tmp_path):
    path = _save(tmp_path, RNG.integers(0, 99, (6, 6, 6)).astype(np.int16))
    data = path.read_bytes()
    for cut in range(1, len(data), 7):
        path.write_bytes(data[:cut])
        with pytest.raises(DataError):
            read_image(path)


def test_real_volumes_agree_with_nibabel(shared_data):
    for name in ("PET_image", "MR_T1_image"):
        path = shared_data / "sarcoma_nifti" / "STS_001" / f"{name}.nii.gz"
        reference = nibabel.load(path)
        np.testing.assert_array_equal(
            read_image(path).array[0], reference.get_fdata(dtype=np.float64).astype(np.float32)
        )
