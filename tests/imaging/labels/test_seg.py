from __future__ import annotations

import copy

import numpy as np
import pydicom
import pytest

from medgcsam.errors import DataError
from medgcsam.imaging import Image, read_image, read_label
from medgcsam.imaging.image import Reference
from medgcsam.imaging.labels.seg_frames import decoder

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.fixture
def folder(shared_data):
    return shared_data / "dicom_variety" / "dcmqi" / "segmentations" / "23x38x3"


@pytest.fixture
def source(folder):
    """A CT of three slices, (1, 23, 38, 3), and its files in the order of the slices."""
    image = read_image(folder / "image")
    return image, [pydicom.dcmread(file) for file in image.reference.files]


@pytest.fixture
def written(tmp_path):
    """``written(sources, pixels (frames, rows, columns(, segments)), names, type)`` by highdicom."""
    highdicom = pytest.importorskip("highdicom", reason="the extra dicom-seg is not installed")
    from pydicom.sr.codedict import codes

    def write(sources, pixels, names, kind="BINARY", *, edit=None, **options):
        described = [
            highdicom.seg.SegmentDescription(number, name, codes.SCT.Tissue, codes.SCT.Tissue, "MANUAL")
            for number, name in enumerate(names, start=1)
        ]
        seg = highdicom.seg.Segmentation(
            sources, pixels, kind, described, pydicom.uid.generate_uid(), 1, pydicom.uid.generate_uid(), 1,
            "maker", "model", "1", "1", **options,
        )  # fmt: skip
        if edit is not None:
            edit(seg)
        seg.save_as(tmp_path / "seg.dcm")
        return tmp_path / "seg.dcm"

    return write


def _numbers(source, seed=0, classes=3):
    image, _ = source
    return np.random.default_rng(seed).integers(0, classes + 1, image.spatial_shape).astype(np.uint8)


def _as_frames(numbers):
    return np.ascontiguousarray(numbers.transpose(2, 1, 0))


def _crop(image, box):
    affine = image.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ [part.start for part in box]
    return Image(array=image.array[(slice(None), *box)], unit=image.unit, affine=affine, reference=image.reference)


def test_frames_of_dcmqi_lie_on_the_slices_that_they_refer_to(folder, source):
    image, files = source
    label = read_label(folder / "seg" / "label.seg", image)
    seg = pydicom.dcmread(folder / "seg" / "label.seg")
    position = {file.SOPInstanceUID: k for k, file in enumerate(files)}
    for frame, groups in zip(seg.pixel_array, seg.PerFrameFunctionalGroupsSequence, strict=True):
        uid = groups.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        np.testing.assert_array_equal(label.array[0, :, :, position[uid]], frame.T)
    assert label.source["structures"] == {"Liver": 1}
    assert label.array.sum() == 322
    again = read_label(folder / "seg" / "label.seg", read_image(folder / "multiframe" / "mf.dcm"))
    np.testing.assert_array_equal(again.array, label.array)


@pytest.mark.parametrize("name", ["liver.dcm", "liver_expb.dcm", "liver_1frame.dcm", "liver_expb_1frame.dcm"])
def test_bits_are_unpacked_as_pydicom_does(shared_data, name):
    ds = pydicom.dcmread(shared_data / "dicom_variety" / "pydicom" / name)
    frames = ds.pixel_array.reshape(-1, ds.Rows, ds.Columns)
    mask = decoder(ds, "BINARY", {1}, name)
    for n, frame in enumerate(frames):
        np.testing.assert_array_equal(mask(n, 1).T, frame)


def test_overlapping_segments_on_their_own_grid(shared_data):
    """The series of this file is not at hand, so an image is made on the planes that its frames name."""
    path = shared_data / "dicom_variety" / "dcmqi" / "segmentations" / "partial_overlaps.dcm"
    ds = pydicom.dcmread(path)
    z = [float(g.PlanePositionSequence[0].ImagePositionPatient[2]) for g in ds.PerFrameFunctionalGroupsSequence]
    first = ds.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence[0].ImagePositionPatient
    affine = np.diag([-0.810547, -0.810547, 1.0, 1.0])
    affine[:3, 3] = (-first[0], -first[1], min(z) - 1)
    like = Image(array=np.zeros((1, 512, 512, 5), np.float32), unit="HU", affine=affine)
    with pytest.raises(DataError, match="overlap another structure"):
        read_label(path, like)
    label = read_label(path, like, overlapping=True)
    assert list(label.source["structures"]) == ["GREEN", "ORANGE", "PURPLE", "LIGHT_BLUE", "DARK_BLUE"]
    expected = np.zeros((5, 512, 512, 5), int)
    for frame, groups, place in zip(ds.pixel_array, ds.PerFrameFunctionalGroupsSequence, z, strict=True):
        segment = groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        expected[segment - 1, :, :, round(place - min(z)) + 1] = frame.T
    np.testing.assert_array_equal(label.array, expected)


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
def test_many_segments_of_highdicom(source, written, kind):
    image, files = source
    numbers = _numbers(source)
    numbers[:, :, 1] = np.where(numbers[:, :, 1] == 2, 0, numbers[:, :, 1])  # an empty frame, which is not stored
    path = written(files, _as_frames(numbers), ["liver", "tumour", "vein"], kind)
    label = read_label(path, image)
    np.testing.assert_array_equal(label.array[0], numbers)
    assert label.source["segmentation"] == kind
    merged = read_label(path, image, names={"tumour|vein": 7})
    np.testing.assert_array_equal(merged.array[0], np.where(numbers > 1, 7, 0))
    assert merged.source["structures_left_out"] == ("liver",)


def test_a_label_map_describes_all_its_numbers(source, written):
    image, files = source
    names = ["liver", "tumour", "vein"]
    path = written(files, _as_frames(_numbers(source)), names, "LABELMAP", edit=lambda seg: seg.SegmentSequence.pop())
    with pytest.raises(DataError, match="pixels of a segment that it does not describe"):
        read_label(path, image)


def test_frames_in_any_order_and_slices_counted_the_other_way(source, written):
    image, files = source
    numbers = _numbers(source, seed=1, classes=1)
    path = written(files[::-1], _as_frames(numbers)[::-1], ["liver"])
    np.testing.assert_array_equal(read_label(path, image).array[0], numbers)
    flipped = image.affine @ np.diag([1.0, 1, -1, 1])
    flipped[:3, 3] = image.affine[:3, 3] + 2 * image.affine[:3, 2]
    other = Image(array=image.array[..., ::-1], unit="HU", affine=flipped, reference=image.reference)
    np.testing.assert_array_equal(read_label(path, other).array[0], numbers[..., ::-1])


def test_fractional_segments_count_from_one_half(source, written):
    image, files = source
    shares = np.random.default_rng(4).random((3, 38, 23, 1)).astype(np.float32)
    path = written(files, shares, ["liver"], "FRACTIONAL", max_fractional_value=200)
    label = read_label(path, image)
    stored = np.round(shares[..., 0] * 200) / 200
    np.testing.assert_array_equal(label.array[0], (stored >= 0.5).transpose(2, 1, 0))
    assert label.source["fractional"] == "PROBABILITY"


def test_a_label_of_the_whole_series_over_a_part_of_it(source, written):
    image, files = source
    numbers = np.zeros(image.spatial_shape, np.uint8)
    numbers[5:9, 6:20, :] = 1
    part = _crop(image, (slice(4, 20), slice(6, 30), slice(1, 3)))
    path = written(files, _as_frames(numbers), ["liver"])
    with pytest.raises(DataError, match=r"33\.3% of 'liver' outside"):
        read_label(path, part)
    label = read_label(path, part, max_outside=0.5)
    np.testing.assert_array_equal(label.array[0], numbers[4:20, 6:30, 1:3])
    one = _crop(image, (slice(0, 23), slice(0, 38), slice(2, 3)))
    np.testing.assert_array_equal(read_label(path, one).array[0], numbers[:, :, 2:])


def test_a_label_of_some_slices_over_the_whole_series(source, written):
    image, files = source
    numbers = _numbers(source, classes=2)
    label = read_label(written(files[1:2], _as_frames(numbers)[1:2], ["a", "b"]), image)
    assert not label.array[0, :, :, [0, 2]].any()
    np.testing.assert_array_equal(label.array[0, :, :, 1], numbers[:, :, 1])


def test_an_empty_segmentation_is_a_label(source, written):
    image, files = source
    label = read_label(written(files, _as_frames(_numbers(source, classes=0)), ["liver"]), image)
    assert (label.source["empty"], label.source["structures"]) == (True, {"liver": 1})


def test_a_picture_without_a_place_in_space_is_matched_by_its_instance(source, written):
    image, files = source
    numbers = _numbers(source, classes=1)

    def without_place(seg):
        for groups in seg.PerFrameFunctionalGroupsSequence:
            del groups.PlanePositionSequence

    path = written(files, _as_frames(numbers), ["liver"], edit=without_place)
    for k, file in enumerate(files):
        known = Reference(sop_instance_uids=(file.SOPInstanceUID,), files=("x",))
        picture = Image(array=np.zeros((1, 38, 23), np.float32), unit="display", reference=known)
        np.testing.assert_array_equal(read_label(path, picture).array[0], numbers[:, :, k].T)
    np.testing.assert_array_equal(read_label(path, image).array[0], numbers)
    stranger = Image(array=picture.array, unit="display", reference=Reference(sop_instance_uids=("1.2",), files=("x",)))
    with pytest.raises(DataError, match="drawn on other images"):
        read_label(path, stranger)
    with pytest.raises(DataError, match="its image is not DICOM"):
        read_label(path, Image(array=picture.array, unit="display"))


def _shift_first(seg):
    position = seg.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence[0].ImagePositionPatient
    position[2] = float(position[2]) + 1.0


def _repeat_first(seg):
    groups = seg.PerFrameFunctionalGroupsSequence
    groups[1].PlanePositionSequence = copy.deepcopy(groups[0].PlanePositionSequence)


def _unplace_first(seg):
    del seg.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence


def _repeat_number(seg):
    seg.SegmentSequence.append(copy.deepcopy(seg.SegmentSequence[0]))


def _name_an_odd_type(seg):
    kind = f"Doe\x1b[2J\n{'x' * 5_000}"
    seg["SegmentationType"] = pydicom.DataElement("SegmentationType", "LO", kind, validation_mode=0)


def _cut(seg):
    seg.PixelData = seg.PixelData[:100]


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (_shift_first, "even steps"),
        (_repeat_first, "duplicate positions"),
        (_unplace_first, "1 of 3 frames without a position"),
        (_repeat_number, "numbers its segments twice"),
        (_cut, "truncated"),
        (lambda seg: setattr(seg, "FrameOfReferenceUID", "1.2.3"), "another frame of reference"),
        (lambda seg: setattr(seg, "SegmentationType", "SPLINE"), "type SPLINE"),
        (_name_an_odd_type, "of the type DOE"),
        (lambda seg: setattr(seg, "TotalPixelMatrixRows", 9), "whole slide"),
        (lambda seg: seg.PerFrameFunctionalGroupsSequence.pop(), "describes 2 of its 3 frames"),
        (lambda seg: seg.SegmentSequence.pop(), "does not describe"),
        (lambda seg: setattr(seg, "NumberOfFrames", 10**9), "frames, which cannot be"),
    ],
)
def test_what_cannot_be_placed_for_certain_is_refused(source, written, edit, words):
    image, files = source
    path = written(files, np.ones((3, 38, 23), np.uint8), ["liver"], edit=edit)
    with pytest.raises(DataError, match=words) as caught:
        read_label(path, image)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < len(str(path)) + 200
