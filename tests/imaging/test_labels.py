from __future__ import annotations

import csv

import nibabel
import numpy as np
import pytest
from PIL import Image as Pillow

from medgcsam.errors import DataError
from medgcsam.imaging import Image, read_image, read_label

MASK = np.zeros((7, 5), np.uint8)
MASK[2:5, 1:3] = 1
LIKE = Image(array=np.zeros((1, 7, 5), np.float32), unit="display", spacing=(0.2, 0.3))


def _like(shape, affine=None):
    return Image(array=np.zeros((1, *shape), np.float32), unit="raw", affine=affine)


def _picture(tmp_path, array, mode=None, name="mask.png", **options):
    picture = Pillow.fromarray(array)
    (picture.convert(mode) if mode else picture).save(tmp_path / name, **options)
    return tmp_path / name


@pytest.mark.parametrize("mode", ["1", "L", "LA", "RGB", "RGBA"])
def test_a_binary_mask_is_0_and_1_whatever_the_mode(tmp_path, mode):
    label = read_label(_picture(tmp_path, MASK * 255, mode), LIKE)
    np.testing.assert_array_equal(label.array[0], MASK)
    assert (label.array.dtype, label.unit, label.spacing) == (np.int16, "label", LIKE.spacing)


def test_16_bit_and_tiff_masks(tmp_path):
    np.testing.assert_array_equal(read_label(_picture(tmp_path, MASK * np.uint16(65535)), LIKE).array[0], MASK)
    np.testing.assert_array_equal(
        read_label(_picture(tmp_path, MASK * np.uint16(300)), LIKE).array[0], MASK.astype(int) * 300
    )
    np.testing.assert_array_equal(read_label(_picture(tmp_path, MASK * 255, name="m.tif"), LIKE).array[0], MASK)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_class_numbers_stay_in_gray_and_palette(tmp_path, bits):
    classes = MASK * 3
    classes[0, 0] = 1
    indexed = Pillow.frombytes("P", (5, 7), classes.tobytes())
    indexed.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255])
    indexed.save(tmp_path / "p.png", bits=bits)
    np.testing.assert_array_equal(read_label(tmp_path / "p.png", LIKE).array[0], classes)
    np.testing.assert_array_equal(read_label(_picture(tmp_path, classes), LIKE).array[0], classes)


def test_gray_of_few_bits_is_not_spread_over_255(tmp_path):
    import struct
    import zlib

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = b"".join(bytes([0, 0x12, 0x30]) for _ in range(7))  # three columns of 4 bits: 1, 2, 3
    data = (
        chunk(b"IHDR", struct.pack(">IIBBBBB", 3, 7, 4, 0, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )
    (tmp_path / "m.png").write_bytes(b"\x89PNG\r\n\x1a\n" + data)
    assert read_label(tmp_path / "m.png", _like((7, 3))).array[0, 4].tolist() == [1, 2, 3]


def test_an_empty_mask_is_a_mask(tmp_path):
    assert read_label(_picture(tmp_path, MASK * 0), LIKE).array.max() == 0


def test_what_is_no_mask_is_refused(tmp_path):
    ramp = np.arange(7 * 60, dtype=np.uint16).astype(np.uint8).reshape(7, 60)
    with pytest.raises(DataError, match="256 gray levels"):
        read_label(_picture(tmp_path, ramp), _like((7, 60)))
    with pytest.raises(DataError, match="coloured"):
        read_label(_picture(tmp_path, np.stack([MASK, MASK * 0, MASK], axis=-1) * 255), LIKE)
    with pytest.raises(DataError, match="JPEG smears"):
        read_label(_picture(tmp_path, MASK * 255, name="m.jpg"), LIKE)
    with pytest.raises(DataError, match="5x7 for an image of 7x5"):
        read_label(_picture(tmp_path, MASK.T.copy()), LIKE)
    with pytest.raises(DataError, match="not exist"):
        read_label(tmp_path / "absent.png", LIKE)


def _nifti(tmp_path, array, affine=None):
    nibabel.save(nibabel.Nifti1Image(array, np.eye(4) if affine is None else affine), tmp_path / "m.nii.gz")
    return tmp_path / "m.nii.gz"


def test_a_nifti_mask_lies_on_the_affine_of_its_image(tmp_path):
    values = np.random.default_rng(5).integers(0, 4, (3, 4, 5)).astype(np.uint8)
    label = read_label(_nifti(tmp_path, values), _like((3, 4, 5), np.eye(4)))
    np.testing.assert_array_equal(label.array[0], values)
    moved = np.eye(4)
    moved[0, 3] = 0.5
    with pytest.raises(DataError, match=r"0\.5 mm away"):
        read_label(_nifti(tmp_path, values, moved), _like((3, 4, 5), np.eye(4)))
    with pytest.raises(DataError, match="3x4x5 for an image of 3x4x6"):
        read_label(_nifti(tmp_path, values), _like((3, 4, 6), np.eye(4)))


@pytest.mark.parametrize("value", [0.5, -1.0, 40_000.0])
def test_fractions_negative_and_huge_values_are_no_classes(tmp_path, value):
    with pytest.raises(DataError, match="not class numbers"):
        read_label(_nifti(tmp_path, np.full((2, 2, 2), value, np.float32)), _like((2, 2, 2)))


@pytest.mark.parametrize("axes", [2, 3])
def test_masks_cross_between_pictures_and_single_slices(tmp_path, axes):
    columns_rows = MASK.T if axes == 2 else MASK.T[..., None]
    np.testing.assert_array_equal(read_label(_nifti(tmp_path, columns_rows), LIKE).array[0], MASK)
    over_slice = read_label(_nifti(tmp_path, columns_rows), _like((5, 7, 1)))
    np.testing.assert_array_equal(over_slice.array[0, :, :, 0], MASK.T)
    from_png = read_label(_picture(tmp_path, MASK * 255), _like((5, 7, 1)))
    np.testing.assert_array_equal(from_png.array, over_slice.array)


def test_all_lesion_masks_of_busi_are_binary_or_of_the_size_the_labels_say(shared_data):
    folder = shared_data / "breast_ultrasound_masks"
    with open(folder / "labels.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    foreground = 0
    for row in rows[::4] + [row for row in rows if row["mask_size_mismatch"]]:
        path = folder / row["file"]
        image = read_image(path)
        for name in row["masks"].split(";"):
            if name == row["mask_size_mismatch"]:
                with pytest.raises(DataError, match="resample it to the image"):
                    read_label(path.parent / name.strip(), image)
                continue
            label = read_label(path.parent / name.strip(), image)
            assert set(np.unique(label.array)) <= {0, 1}
            if ";" not in row["masks"]:
                assert label.array.mean() == pytest.approx(float(row["fg_fraction"]), abs=1e-4)
            foreground += int(label.array.sum())
    assert foreground > 0


def test_sarcoma_masks_lie_on_their_images(shared_data):
    folder = shared_data / "sarcoma_nifti" / "STS_002"
    label = read_label(folder / "PET_mask.nii.gz", read_image(folder / "PET_image.nii.gz"))
    assert set(np.unique(label.array)) == {0, 1}
