from __future__ import annotations

import csv

import nibabel
import numpy as np
import pytest
from PIL import Image as Pillow

from medgcsam.errors import ConfigError, DataError
from medgcsam.imaging import Image, read_image, read_label
from medgcsam.imaging.labels.label_maps import to_grid

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


@pytest.mark.parametrize(("scale", "white"), [(np.uint8(255), "255"), (np.uint16(65535), "65535")])
def test_the_white_of_a_binary_mask_is_named_by_1_and_by_itself(tmp_path, scale, white):
    path = _picture(tmp_path, MASK * scale)
    for names in ({"1": 2}, {white: 2}, {f"1|{white}": 2}, {"*": 2}, {white: 2, "3": 1}):
        np.testing.assert_array_equal(read_label(path, LIKE, names=names).array[0], 2 * MASK)
    with pytest.raises(DataError, match=f"has the structure '1' or '{white}', which several classes name"):
        read_label(path, LIKE, names={"1": 1, white: 2})
    three = MASK * np.uint8(255)
    three[0, 0] = 1
    found = read_label(_picture(tmp_path, three, name="three.png"), LIKE, names={"1": 1, "255": 2}).array[0]
    assert (found[0, 0], found[2, 1]) == (1, 2), "of more values each is itself"
    assert not read_label(_picture(tmp_path, MASK, name="one.png"), LIKE, names={white: 2}).array.any()


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
    assert label.source["label_grid"] == "same"
    with pytest.raises(DataError, match="3x4x5 for an image of 3x4x6"):
        read_label(_nifti(tmp_path, values), _like((3, 4, 6)))
    moved = np.eye(4)
    moved[0, 3] = -1
    label = read_label(_nifti(tmp_path, values, moved), _like((3, 4, 6), np.eye(4)), max_outside=0.5)
    np.testing.assert_array_equal(label.array[0, :2, :, :5], values[1:])
    assert not label.array[0, 2].any()
    assert not label.array[0, ..., 5].any()
    assert label.source["label_grid"] == "other"
    assert label.source["outside"] > 0.05
    with pytest.raises(DataError, match="outside of the image"):
        read_label(_nifti(tmp_path, values, moved), _like((3, 4, 6), np.eye(4)))
    moved[0, 3] = 40
    with pytest.raises(DataError, match="lies entirely outside"):
        read_label(_nifti(tmp_path, values, moved), _like((3, 4, 5), np.eye(4)), max_outside=1.0)


def test_one_of_many_structures_may_lie_outside_where_that_is_allowed(tmp_path):
    values = np.zeros((9, 4, 5), np.uint8)
    values[1], values[7] = 1, 2
    path, like = _nifti(tmp_path, values), _like((4, 4, 5), np.eye(4))
    with pytest.raises(DataError, match="all of '2' outside"):
        read_label(path, like)
    label = read_label(path, like, max_outside=1.0)
    np.testing.assert_array_equal(label.array[0], values[:4])
    assert label.source["outside"] == 1


def test_a_mask_in_other_axes_is_turned(tmp_path):
    """Written in LPS order by one program, read over an image in RAS order of another."""
    values = np.random.default_rng(6).integers(0, 3, (4, 5, 6)).astype(np.uint8)
    image = nibabel.Nifti1Image(values, np.diag([0.8, 0.9, 2.0, 1]))
    turned = image.as_reoriented(nibabel.orientations.axcodes2ornt(("P", "I", "L")))
    nibabel.save(turned, tmp_path / "m.nii.gz")
    label = read_label(tmp_path / "m.nii.gz", _like((4, 5, 6), image.affine))
    np.testing.assert_array_equal(label.array[0], values)


def test_classes_on_a_coarser_grid_are_those_that_fill_most_of_a_voxel(tmp_path):
    fine = np.random.default_rng(7).integers(0, 3, (8, 6, 4)).astype(np.uint8)
    affine = np.eye(4)
    coarse = np.diag([2.0, 2, 2, 1])
    coarse[:3, 3] = 0.5
    label = read_label(_nifti(tmp_path, fine, affine), _like((4, 3, 2), coarse)).array[0]
    blocks = fine.reshape(4, 2, 3, 2, 2, 2).transpose(0, 2, 4, 1, 3, 5).reshape(4, 3, 2, 8)
    counts = np.stack([(blocks == n).sum(-1) for n in range(3)], -1)
    sure = counts.max(-1) > 4
    np.testing.assert_array_equal(label[sure], counts.argmax(-1)[sure])
    assert not label[counts.max(-1) < 4].any()


def test_a_structure_that_falls_between_the_voxels_is_reported(tmp_path):
    fine = np.zeros((8, 8, 8), np.uint8)
    fine[3, 3, 3] = 1
    coarse = np.diag([4.0, 4, 4, 1])
    coarse[:3, 3] = 1.5
    label = read_label(_nifti(tmp_path, fine), _like((2, 2, 2), coarse))
    assert (label.source["structures_lost"], label.source["empty"]) == (("1",), True)


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


def test_numbers_of_a_label_map_become_classes(tmp_path):
    values = np.random.default_rng(8).integers(0, 4, (3, 4, 5)).astype(np.uint8)
    path, like = _nifti(tmp_path, values), _like((3, 4, 5), np.eye(4))
    label = read_label(path, like, names={"1|3": 2, "2": 1})
    np.testing.assert_array_equal(label.array[0], np.array([0, 2, 1, 2])[values])
    part = read_label(path, like, names={"2": 1})
    np.testing.assert_array_equal(part.array[0], values == 2)
    assert part.source["structures_left_out"] == ("1", "3")
    channels = read_label(path, like, names={"2": 1, "3": 2, "9": 3}, overlapping=True)
    np.testing.assert_array_equal(channels.array, [values == 2, values == 3, values == 9])
    assert channels.source["classes_absent"] == (3,)
    named = read_label(path, like, names={"GTV": 1, "CTV": 2, "PTV": 3})
    np.testing.assert_array_equal(named.array[0], values)
    with pytest.raises(DataError, match="value 3, which is no class"):
        read_label(path, like, names={"GTV": 1, "CTV": 2})


@pytest.mark.parametrize("number", [0, -1, 40_000, 1.0, True])
def test_class_numbers_are_whole_and_positive(tmp_path, number):
    with pytest.raises(ConfigError, match="give a number from 1"):
        read_label(_picture(tmp_path, MASK), LIKE, names={"GTV": number})


def test_several_masks_of_one_image_are_united(tmp_path):
    other = np.zeros_like(MASK)
    other[0, 3:] = 1
    paths = [_picture(tmp_path, MASK * 255, name="a.png"), _picture(tmp_path, other * 255, name="b.png")]
    label = read_label(paths, LIKE)
    np.testing.assert_array_equal(label.array[0], MASK | other)
    assert label.source["files"] == 2
    clash = _picture(tmp_path, (MASK | other) * 2, name="c.png")
    with pytest.raises(DataError, match="with other classes"):
        read_label([paths[0], clash], LIKE)
    with pytest.raises(DataError, match="list of masks is empty"):
        read_label([], LIKE)


def test_one_file_per_structure_is_named_by_the_files(tmp_path):
    other = np.zeros_like(MASK)
    other[0, 3:] = 1
    paths = [_picture(tmp_path, MASK * 255, name="liver.png"), _picture(tmp_path, other * 255, name="left kidney.png")]
    label = read_label(paths, LIKE, names={"Left Kidney": 1, "liver": 2, "spleen": 3})
    np.testing.assert_array_equal(label.array[0], MASK * 2 + other)
    assert label.source["classes_absent"] == (3,)
    one = read_label(paths, LIKE, names={"liver": 1})
    np.testing.assert_array_equal(one.array[0], MASK)
    with pytest.raises(DataError, match="holds several"):
        read_label([_picture(tmp_path, MASK * 2 + other, name="liver.png")], LIKE, names={"liver": 1})


def test_segments_of_3d_slicer_keep_their_names_and_layers(tmp_path):
    first, second = np.zeros((2, 4, 5, 6), np.uint8)
    first[1:3, 1:3, 2], first[3, 4, 5], second[2:4, 2:5, 2] = 1, 2, 1
    layers = np.stack([first, second])
    header = "\n".join([
        "NRRD0004", "type: uint8", "dimension: 4", "space: left-posterior-superior", "sizes: 2 4 5 6",
        "space directions: none (-1,0,0) (0,-1,0) (0,0,1)", "space origin: (0,0,0)", "kinds: list domain domain domain",
        "encoding: raw", "Segment0_Name:=liver", "Segment0_Layer:=0", "Segment0_LabelValue:=1", "Segment1_Name:=vein",
        "Segment1_Layer:=0", "Segment1_LabelValue:=2", "Segment2_Name:=tumour", "Segment2_Layer:=1",
        "Segment2_LabelValue:=1", "", "",
    ])  # fmt: skip
    (tmp_path / "s.seg.nrrd").write_bytes(header.encode() + layers.tobytes(order="F"))
    like = _like((4, 5, 6), np.eye(4))
    label = read_label(tmp_path / "s.seg.nrrd", like, names={"liver": 2, "vein": 1})
    np.testing.assert_array_equal(label.array[0], (first == 1) * 2 + (first == 2))
    assert label.source["structures_left_out"] == ("tumour",)
    with pytest.raises(DataError, match="'tumour' overlap"):
        read_label(tmp_path / "s.seg.nrrd", like)
    channels = read_label(tmp_path / "s.seg.nrrd", like, overlapping=True)
    np.testing.assert_array_equal(channels.array, [first == 1, first == 2, second == 1])


def test_a_series_of_dicom_masks(tmp_path, write_dicom):
    """As some archives export masks: CT images with 0 and 255, here on the planes of an image of four slices."""
    values = np.random.default_rng(9).integers(0, 2, (4, 7, 5)).astype(np.uint8)
    (tmp_path / "masks").mkdir()
    for k in (2, 0, 3, 1):
        write_dicom(
            values[k] * np.uint8(255), name=f"masks/{k}.dcm", SOPClassUID="1.2.840.10008.5.1.4.1.1.2", Modality="CT",
            PixelSpacing=[1, 1], SliceThickness=2, ImagePositionPatient=[0, 0, 2 * k],
            ImageOrientationPatient=[1, 0, 0, 0, 1, 0], SeriesInstanceUID="1.2.3", StudyInstanceUID="1.2",
            FrameOfReferenceUID="1.2.4", RescaleSlope=1, RescaleIntercept=0,
        )  # fmt: skip
    like = _like((5, 7, 4), np.diag([-1.0, -1, 2, 1]))
    label = read_label(tmp_path / "masks", like)
    np.testing.assert_array_equal(label.array[0], values.transpose(2, 1, 0))


def test_a_folder_with_one_dicom_label_is_that_label(shared_data):
    folder = shared_data / "dicom_variety" / "dcmqi" / "segmentations" / "23x38x3"
    image = read_image(folder / "image")
    label = read_label(folder / "seg", image)
    np.testing.assert_array_equal(label.array, read_label(folder / "seg" / "label.seg", image).array)
    with pytest.raises(DataError, match="holds 4 DICOM labels"):
        read_label(folder.parent, image)


def test_a_prediction_comes_back_onto_the_grid_of_its_image():
    """Predicted on voxels twice as large, in a frame that reaches further than the image."""
    coarse = np.diag([2.0, 2, 2, 1])
    coarse[:3, 3] = -3.5
    numbers = np.zeros((1, 8, 8, 6), np.int16)
    numbers[0, 3:6, 2:5, 2:4], numbers[0, 0, 0, 0] = 1, 2  # the second is padding beside the image
    label = Image(array=numbers, unit="label", affine=coarse)
    like = _like((9, 10, 8), np.eye(4))
    back = to_grid(label, like)
    assert back.spatial_shape == (9, 10, 8)
    centres = (np.stack(np.meshgrid(*[np.arange(n) for n in (9, 10, 8)], indexing="ij"), -1) + 3.5) / 2
    nearest = np.rint(centres).astype(int)
    np.testing.assert_array_equal(back.array[0], numbers[0][tuple(np.moveaxis(nearest, -1, 0))])
    two = to_grid(
        Image(array=np.concatenate([numbers == 1, numbers == 2]).astype(np.int16), unit="label", affine=coarse), like
    )
    np.testing.assert_array_equal(two.array[0], back.array[0] == 1)
    assert not two.array[1].any()
