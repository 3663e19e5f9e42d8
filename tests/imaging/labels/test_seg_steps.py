"""How thick the frames of a DICOM SEG are, where it has other planes than its image."""

from __future__ import annotations

import nibabel
import numpy as np
import pydicom
import pytest

from medgcsam.errors import DataError
from medgcsam.imaging import read_image, read_label
from medgcsam.imaging.labels.write import write_seg

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
LPS = np.diag([-1.0, -1, 1, 1])


@pytest.fixture
def image(write_series):
    """Twelve slices of 20x16 pixels (rows x columns), 1 mm apart and 1 mm thick, pixels of 1 mm."""
    positions = [[5, 6, 7.0 + k] for k in range(12)]
    write = write_series(
        np.zeros((12, 20, 16), np.int16), ImagePositionPatient=positions, PixelSpacing=[1.0, 1.0], SliceThickness=1.0,
        StudyDate="20200101", StudyTime="100000", AccessionNumber="", StudyID="1", PatientBirthDate="", PatientSex="",
        ReferringPhysicianName="", SeriesNumber=1, InstanceNumber=1, ImageType=["ORIGINAL", "PRIMARY", "AXIAL"],
    )  # fmt: skip
    return read_image(write[0].parent)


@pytest.fixture
def seg_at(image, tmp_path):
    """``seg_at(pixels (frames, rows, columns), z, spacing, thickness, between)`` by highdicom, pixels of 2 mm."""
    highdicom = pytest.importorskip("highdicom", reason="the extra dicom-seg is not installed")
    from pydicom.sr.codedict import codes

    def write(pixels, z, *, thickness, between, in_plane=2.0, series=None):
        corner = 5.5 if in_plane == 2 else 5.0
        described = highdicom.seg.SegmentDescription(1, "a", codes.SCT.Tissue, codes.SCT.Tissue, "MANUAL")
        seg = highdicom.seg.Segmentation(
            [pydicom.dcmread(file) for file in image.reference.files], pixels, "BINARY", [described],
            pydicom.uid.generate_uid(), 1, pydicom.uid.generate_uid(), 1, "maker", "model", "1", "1",
            pixel_measures=highdicom.PixelMeasuresSequence((in_plane, in_plane), thickness, between),
            plane_orientation=highdicom.PlaneOrientationSequence("PATIENT", [1, 0, 0, 0, 1, 0]),
            plane_positions=[
                highdicom.PlanePositionSequence("PATIENT", [corner, corner + 1, 7.0 + place]) for place in z
            ],
        )  # fmt: skip
        measures = seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
        measures.SliceThickness, measures.SpacingBetweenSlices = thickness, between
        if between is None:
            del measures.SpacingBetweenSlices
        if series is not None:
            seg.ReferencedSeriesSequence[0].SeriesInstanceUID = series
        seg.save_as(tmp_path / "seg.dcm")
        return tmp_path / "seg.dcm"

    return write


@pytest.mark.parametrize(("step", "count"), [(2.0, 6), (3.0, 4)])
@pytest.mark.parametrize("between", [True, False])
def test_frames_thicker_than_slices_fill_all_the_slices_between_as_the_nifti_does(
    image, seg_at, tmp_path, step, count, between
):
    pixels = np.zeros((count, 10, 8), np.uint8)
    pixels[1 : count - 1, 2:8, 1:6] = 1
    path = seg_at(pixels, [step * k for k in range(count)], thickness=step, between=step if between else None)
    label = read_label(path, image)
    affine = np.diag([2.0, 2, step, 1])
    affine[:3, 3] = (5.5, 6.5, 7)
    nibabel.save(nibabel.Nifti1Image(pixels.transpose(2, 1, 0), LPS @ affine), tmp_path / "m.nii")
    np.testing.assert_array_equal(label.array, read_label(tmp_path / "m.nii", image).array)
    assert label.array.sum() == pixels.sum() * 4 * step
    assert label.source["frame_step_mm"] == step


def test_one_thick_frame_is_as_thick_as_its_file_says(image, seg_at):
    label = read_label(seg_at(np.ones((1, 10, 8), np.uint8), [3.0], thickness=3.0, between=3.0), image)
    assert np.flatnonzero(label.array.any((0, 1, 2))).tolist() == [2, 3, 4]


def test_a_rounded_step_does_not_drift(image, seg_at):
    path = seg_at(np.ones((2, 10, 8), np.uint8), [1.0, 9.0], thickness=2.04, between=2.04)
    label = read_label(path, image)
    assert np.flatnonzero(label.array.any((0, 1, 2))).tolist() == [1, 2, 9, 10]
    assert label.source["frame_step_mm"] == 2


def test_frames_between_the_slices_are_as_thick_as_their_file_says(image, seg_at):
    path = seg_at(np.ones((3, 10, 8), np.uint8), [1.5, 5.5, 9.5], thickness=2.0, between=2.0)
    assert np.flatnonzero(read_label(path, image).array.any((0, 1, 2))).tolist() == [1, 2, 5, 6, 9, 10]


def test_thickness_of_overlapping_slices_is_no_step(image, seg_at):
    """CT of 2 mm every 1 mm: frames on neighbouring slices, or on pixels of the very series, keep the image's step."""
    pixels = np.ones((3, 20, 16), np.uint8)
    path = seg_at(pixels, [2, 3, 4], thickness=2.0, between=None, in_plane=1.0, series="1.2.9")
    assert np.flatnonzero(read_label(path, image).array.any((0, 1, 2))).tolist() == [2, 3, 4]
    path = seg_at(pixels[:1], [4], thickness=2.0, between=None, in_plane=1.0)
    assert np.flatnonzero(read_label(path, image).array.any((0, 1, 2))).tolist() == [4]
    path = seg_at(pixels[:1], [4], thickness=0.5, between=None, in_plane=1.0)
    assert np.flatnonzero(read_label(path, image).array.any((0, 1, 2))).tolist() == [4]


def test_a_stated_step_that_the_frames_contradict(image, seg_at):
    pixels = np.ones((3, 20, 16), np.uint8)
    label = read_label(seg_at(pixels, [2, 3, 4], thickness=2.0, between=2.0, in_plane=1.0), image)
    assert np.flatnonzero(label.array.any((0, 1, 2))).tolist() == [2, 3, 4]
    assert label.source["frame_step_stated_mm"] == 2
    with pytest.raises(DataError, match="frames 3 mm apart and says that they are 2 mm apart"):
        read_label(seg_at(pixels, [2, 5, 10], thickness=2.0, between=2.0, in_plane=1.0), image)


def test_a_written_seg_of_one_slice_stays_on_it(image, tmp_path):
    pytest.importorskip("highdicom", reason="the extra dicom-seg is not installed")
    from medgcsam.imaging import Image

    array = np.zeros((1, 16, 20, 12), np.int16)
    array[0, 3:9, 4:12, 5] = 1
    write_seg(Image(array=array, unit="label", affine=image.affine), image, tmp_path / "s.dcm", ["a"])
    np.testing.assert_array_equal(read_label(tmp_path / "s.dcm", image).array, array)
