"""Palettes, label maps without orientation, and labels of another patient."""

from __future__ import annotations

from dataclasses import replace

import nibabel
import numpy as np
import pydicom
import pytest
from PIL import Image as Pillow

from medgcsam.errors import DataError
from medgcsam.imaging import Image, read_image, read_label

MASK = np.zeros((7, 5), np.uint8)
MASK[2:5, 1:3] = 1
LIKE = Image(array=np.zeros((1, 7, 5), np.float32), unit="display", spacing=(0.2, 0.3))


def _indexed(path, indices, palette, **options):
    picture = Pillow.frombytes("P", indices.shape[::-1], indices.astype(np.uint8).tobytes())
    picture.putpalette(palette)
    picture.save(path, **options)
    return path


def test_a_palette_of_grays_counts_by_its_grays(tmp_path):
    path = _indexed(tmp_path / "white_first.png", 1 - MASK, [255, 255, 255, 0, 0, 0])
    np.testing.assert_array_equal(read_label(path, LIKE).array[0], MASK)
    Pillow.fromarray(MASK * 255).convert("RGB").quantize(2).save(tmp_path / "quantized.png")
    np.testing.assert_array_equal(read_label(tmp_path / "quantized.png", LIKE).array[0], MASK)
    Pillow.fromarray(MASK * 255).convert("P").save(tmp_path / "ramp.png")
    np.testing.assert_array_equal(read_label(tmp_path / "ramp.png", LIKE).array[0], MASK)
    Pillow.fromarray(MASK * 3).convert("P").save(tmp_path / "classes.png")
    np.testing.assert_array_equal(read_label(tmp_path / "classes.png", LIKE).array[0], MASK * 3)
    transparent = _indexed(tmp_path / "t.png", 1 - MASK, [255, 255, 255, 255, 255, 255], transparency=bytes([255, 0]))
    np.testing.assert_array_equal(read_label(transparent, LIKE).array[0], MASK)


def test_numbers_without_a_palette_of_their_own_count(tmp_path):
    """Pillow saves an indexed picture that nobody gave a palette with one of a single black, in one bit."""
    Pillow.frombytes("P", (5, 7), MASK.tobytes()).save(tmp_path / "m.png")
    np.testing.assert_array_equal(read_label(tmp_path / "m.png", LIKE).array[0], MASK)


def test_two_classes_of_one_gray_are_refused(tmp_path):
    path = _indexed(tmp_path / "m.png", MASK + MASK.T.copy().reshape(7, 5), [0, 0, 0, 90, 90, 90, 90, 90, 90])
    with pytest.raises(DataError, match="the same gray"):
        read_label(path, LIKE)


def test_the_background_of_a_coloured_palette_is_black_or_transparent(tmp_path):
    colours = [255, 255, 255, 255, 0, 0, 0, 0, 255]
    with pytest.raises(DataError, match="colour 0 of its palette"):
        read_label(_indexed(tmp_path / "white.png", MASK * 2, colours), LIKE)
    clear = _indexed(tmp_path / "clear.png", MASK * 2, colours, transparency=0)
    np.testing.assert_array_equal(read_label(clear, LIKE).array[0], MASK * 2)
    black = _indexed(tmp_path / "black.png", MASK * 2, [0, 0, 0, *colours[3:]])
    np.testing.assert_array_equal(read_label(black, LIKE).array[0], MASK * 2)


def _without_orientation(path, values):
    image = nibabel.Nifti1Image(values, None)
    image.header["sform_code"] = image.header["qform_code"] = 0
    nibabel.save(image, path)
    return path


def test_a_volume_without_orientation_is_not_laid_onto_one_that_has_it(tmp_path):
    values = np.random.default_rng(1).integers(0, 3, (3, 4, 5)).astype(np.uint8)
    path = _without_orientation(tmp_path / "m.nii", values)
    oriented = Image(array=np.zeros((1, 3, 4, 5), np.float32), unit="raw", affine=np.diag([-1.0, -1, 2, 1]))
    with pytest.raises(DataError, match="does not say how it lies"):
        read_label(path, oriented)
    by_index = read_label(path, oriented, orientation="index")
    np.testing.assert_array_equal(by_index.array[0], values)
    assert by_index.source["label_grid"] == "not checked"
    bare = Image(array=oriented.array, unit="raw")
    np.testing.assert_array_equal(read_label(path, bare).array[0], values)
    flat = _without_orientation(tmp_path / "flat.nii", values[..., 0])
    one = Image(array=np.zeros((1, 3, 4, 1), np.float32), unit="raw", affine=oriented.affine)
    np.testing.assert_array_equal(read_label(flat, one).array[0, ..., 0], values[..., 0])


@pytest.mark.parametrize("kind", ["seg", "rtstruct"])
def test_a_label_of_another_patient_is_refused(shared_data, tmp_path, kind):
    if kind == "seg":
        folder = shared_data / "dicom_variety" / "dcmqi" / "segmentations" / "23x38x3"
        image, label = read_image(folder / "multiframe" / "mf.dcm"), folder / "seg" / "label.seg"
        assert image.reference.patient_id == pydicom.dcmread(label).PatientID.strip() != ""
    else:
        folder = shared_data / "sarcoma_dicom" / "STS_002" / "PET"
        image, label = read_image(folder / "image"), folder / "mask" / "RS.dcm"
    ds = pydicom.dcmread(label)

    def like(patient_id):
        known = replace(image.reference, patient_id=patient_id)
        return Image(array=image.array, unit=image.unit, affine=image.affine, reference=known)

    assert read_label(label, like(ds.PatientID.strip() + " ")).source["patient"] == "same"
    assert read_label(label, like("")).source["patient"] == "not checked"
    with pytest.raises(DataError, match="another patient") as caught:
        read_label(label, like("someone else"))
    assert "someone else" not in str(caught.value)
    assert str(ds.PatientID) not in str(caught.value).removeprefix(str(label))
    assert "someone else" not in repr(like("someone else").reference)
    ds.PatientID = ""
    ds.save_as(tmp_path / "blank.dcm")
    assert read_label(tmp_path / "blank.dcm", like("someone else")).source["patient"] == "not checked"
