from __future__ import annotations

import nibabel
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from medgcsam.errors import DataError
from medgcsam.imaging import read_image
from medgcsam.imaging.formats.nifti import read_nifti
from medgcsam.imaging.formats.voxels import sibling_reader

RNG = np.random.default_rng(4)
TURNED = Rotation.from_euler("xyz", [8, -20, 35], degrees=True).as_matrix()
AFFINE = np.eye(4)  # oblique and left-handed
AFFINE[:3] = np.column_stack([TURNED * [-0.7, 0.6, 2.5], [5, -7, 9]])


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
        lambda d: d.extend(b"\0\0"),
        lambda d: d.__setitem__(slice(280, 328), (np.eye(4)[:3] * 1e30).astype(np.float32).tobytes()),
        lambda d: d.__setitem__(slice(112, 120), np.array([2, np.inf], np.float32).tobytes()),
        lambda d: d.__setitem__(123, 7),
    ],
    ids=[
        "absurd size",
        "empty axis",
        "offset",
        "singular affine",
        "unknown type",
        "truncated",
        "too long",
        "absurd spacing",
        "infinite scaling",
        "unknown unit",
    ],
)
def test_faulty_headers_are_one_sentence(tmp_path, patch):
    with pytest.raises(DataError, match=r"x\.nii"):
        read_image(_broken(tmp_path, patch))


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.full((2, 3, 4), np.nan, np.float32), "NaN"),
        (np.ones((2, 3, 4), np.complex64), "complex"),
        (np.zeros((2, 3, 4), np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])), "colours"),
        (np.ones((2, 3, 4, 2, 2), np.float32), "5 axes"),
    ],
)
def test_nan_complex_colour_and_five_axes_are_refused_by_name(tmp_path, values, reason):
    with pytest.raises(DataError, match=rf"x\.nii.*{reason}"):
        read_image(_save(tmp_path, values))


def _codes(tmp_path, sform, qform, codes=(1, 1)):
    image = nibabel.Nifti1Image(RNG.normal(size=(4, 5, 6)).astype(np.float32), None)
    image.header.set_sform(sform, codes[0])
    image.header.set_qform(qform, codes[1])
    nibabel.save(image, tmp_path / "x.nii")
    return (tmp_path / "x.nii").read_bytes()


@pytest.mark.parametrize("codes", [(1, 0), (0, 1), (2, 1)])
def test_one_form_or_two_that_agree_give_the_affine(tmp_path, codes):
    image = read_nifti(_codes(tmp_path, AFFINE, AFFINE, codes), "x")
    np.testing.assert_allclose(image.affine, AFFINE, atol=1e-5)
    assert image.source["orientation_source"] == ("sform" if codes[0] else "qform")


def test_forms_that_differ_are_refused_or_chosen_and_recorded(tmp_path):
    moved = AFFINE + np.array([[0, 0, 0, 1.0], [0] * 4, [0] * 4, [0] * 4])
    data = _codes(tmp_path, moved, AFFINE)
    with pytest.raises(DataError, match=r"sform and a qform that differ by up to 1\.67 voxels"):
        read_nifti(data, "x")
    for choice, affine in (("sform", moved), ("qform", AFFINE)):
        image = read_nifti(data, "x", orientation=choice)
        np.testing.assert_allclose(image.affine, affine, atol=1e-5)
        assert (image.source["orientation_source"], image.source["orientation_conflict_voxels"]) == (choice, 1.667)


def test_a_half_turn_whose_quaternion_has_only_float32_digits_is_no_conflict(tmp_path):
    turned = np.eye(4)
    turned[:3, :3] = Rotation.from_euler("zy", [180, 0.02], degrees=True).as_matrix() * 0.5
    turned[:3, 3] = 120, 90, -60
    np.testing.assert_allclose(read_nifti(_codes(tmp_path, turned, turned), "x").affine, turned, atol=1e-4)


def test_the_spacing_is_that_of_the_affine_and_not_of_pixdim(tmp_path):
    data = bytearray(_codes(tmp_path, AFFINE, AFFINE, (1, 0)))
    data[80:92] = np.ones(3, np.float32).tobytes()
    assert read_nifti(bytes(data), "x").spacing == pytest.approx((0.7, 0.6, 2.5))


def test_one_volume_of_a_4d_file(tmp_path):
    values = RNG.normal(size=(3, 4, 5, 2)).astype(np.float32)
    data = _save(tmp_path, values).read_bytes()
    image = read_nifti(data, "x", volume=1)
    np.testing.assert_array_equal(image.array[0], values[..., 1])
    np.testing.assert_array_equal(read_image(f"{tmp_path}/x.nii.gz#volume=1").array, image.array)
    assert (image.source["volume"], image.source["volumes"]) == (1, 2)
    with pytest.raises(DataError, match="no volume 2, only 0 to 1"):
        read_nifti(data, "x", volume=2)


def test_vectors_in_the_fifth_axis_are_channels_and_empty_axes_do_not_count(tmp_path):
    values = RNG.normal(size=(3, 4, 5, 1, 2)).astype(np.float32)
    np.testing.assert_array_equal(read_image(_save(tmp_path, values)).array, np.moveaxis(values[..., 0, :], -1, 0))
    assert read_image(_save(tmp_path, values[..., :1])).array.shape == (1, 3, 4, 5)


@pytest.mark.parametrize("pair", [nibabel.Nifti1Pair, nibabel.Nifti2Pair])
@pytest.mark.parametrize("end", ["", ".gz"])
def test_a_pair_is_read_with_its_neighbour_and_refused_without(tmp_path, pair, end):
    values = RNG.integers(0, 99, (3, 4, 5)).astype(np.int16)
    nibabel.save(pair(values, AFFINE), tmp_path / f"x.hdr{end}")
    path = tmp_path / f"x.hdr{end}"
    image = read_image(path)
    np.testing.assert_array_equal(image.array[0], values)
    np.testing.assert_allclose(image.affine, AFFINE, atol=1e-5)
    with pytest.raises(DataError, match=r"pair; convert"):
        read_nifti(path.read_bytes(), str(path))
    (tmp_path / f"x.img{end}").unlink()
    with pytest.raises(DataError, match="not there"):
        read_nifti(path.read_bytes(), str(path), sibling=sibling_reader(path))


def test_analyze_is_refused_by_name(tmp_path):
    nibabel.save(nibabel.AnalyzeImage(np.zeros((3, 4, 5), np.int16), np.eye(4)), tmp_path / "x.hdr")
    with pytest.raises(DataError, match=r"Analyze 7\.5.*left from right"):
        read_image(tmp_path / "x.hdr")


def test_sheared_axes_are_refused_kept_or_resampled(tmp_path):
    sheared = AFFINE.copy()
    sheared[:3, 2] += 0.5 * TURNED[:, 1]  # as a tilted gantry: each slice slips by 0.5 mm along j
    ramp = np.arange(7 * 8 * 9).reshape(7, 8, 9).astype(np.float32)
    data = _save(tmp_path, ramp, sheared, name="x.nii").read_bytes()
    with pytest.raises(DataError, match=r"11\.3 degrees away from right angles \(sheared\)"):
        read_nifti(data, "x")
    kept = read_nifti(data, "x", irregular="keep")
    np.testing.assert_allclose(kept.affine, sheared, atol=1e-5)
    image = read_nifti(data, "x", irregular="resample")
    assert image.spacing == pytest.approx((0.7, 0.6, 2.5))
    assert image.source["geometry"].startswith("resampled")
    np.testing.assert_allclose(np.linalg.norm(image.affine[:3, :3], axis=0), image.spacing)
    # A ramp is linear in space, so linear interpolation keeps it wherever the old grid reaches.
    index = np.argwhere(np.ones(image.spatial_shape))
    old = (np.linalg.inv(sheared) @ image.affine @ np.c_[index, np.ones(len(index))].T)[:3].T
    inside = ((old > -1e-4) & (old < np.array(ramp.shape) - 1 + 1e-4)).all(1)
    assert inside.sum() > 0.6 * ramp.size
    np.testing.assert_allclose(image.array[0].ravel()[inside], old[inside] @ [72, 9, 1], atol=0.02)
    assert (image.array[0].ravel()[~inside] == 0).mean() > 0.9


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
