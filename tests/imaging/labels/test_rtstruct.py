from __future__ import annotations

import csv

import nibabel
import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from medgcsam.errors import DataError
from medgcsam.imaging import Image, read_image, read_label
from medgcsam.imaging.image import Reference

FRAME, SERIES = "1.2.3.4", "1.2.3.5"
AFFINE = np.array([[-1.0, 0, 0, 20], [0, -1.0, 0, 20], [0, 0, 3.0, -30], [0, 0, 0, 1]])
LIKE = Image(
    array=np.zeros((1, 40, 40, 20), np.float32),
    unit="HU",
    affine=AFFINE,
    spacing=(1.0, 1.0, 3.0),
    reference=Reference(series_uid=SERIES, frame_of_reference_uid=FRAME),
)


def _turned(affine):
    return Image(array=LIKE.array, unit="raw", affine=affine, spacing=LIKE.spacing, reference=LIKE.reference)


def _ring(radius, z, centre=(0.0, 0.0)):
    angle = np.linspace(0, 2 * np.pi, 120, endpoint=False) + 0.01
    x, y = centre[0] + radius * np.cos(angle), centre[1] + radius * np.sin(angle)
    return np.stack([x, y, np.full(120, float(z))], 1)


@pytest.fixture
def structure_set(tmp_path):
    """``structure_set({name: [(points (n, 3) LPS, type), ...]})`` writes an RTSTRUCT and returns its path."""

    def write(regions, *, frame=FRAME, series=SERIES, name="rs.dcm"):
        ds = Dataset()
        ds.SOPClassUID, ds.SOPInstanceUID, ds.Modality = "1.2.840.10008.5.1.4.1.1.481.3", generate_uid(), "RTSTRUCT"
        referenced, study, one = Dataset(), Dataset(), Dataset()
        one.SeriesInstanceUID = series
        study.RTReferencedSeriesSequence = [one]
        referenced.FrameOfReferenceUID, referenced.RTReferencedStudySequence = frame, [study]
        ds.ReferencedFrameOfReferenceSequence = [referenced]
        ds.StructureSetROISequence, ds.ROIContourSequence = [], []
        for number, (roi, contours) in enumerate(regions.items(), start=3):
            region, drawn = Dataset(), Dataset()
            region.ROINumber, region.ROIName, region.ReferencedFrameOfReferenceUID = number, roi, frame
            drawn.ReferencedROINumber = number
            drawn.ContourSequence = [_contour(*contour) for contour in contours]
            ds.StructureSetROISequence.append(region)
            ds.ROIContourSequence.insert(0, drawn)  # in another order, as in real files
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, generate_uid()
        ds.save_as(tmp_path / name, enforce_file_format=True)
        return tmp_path / name

    return write


def _contour(points, kind="CLOSED_PLANAR"):
    contour = Dataset()
    contour.ContourGeometricType, contour.NumberOfContourPoints = kind, len(points)
    contour.ContourData = [f"{value:.4f}" for value in np.asarray(points).ravel()]
    return contour


def test_contours_of_real_patients_give_their_masks(shared_data):
    """Four patients, three series each. The masks were made from these contours by others, so Dice is to be 1."""
    with open(shared_data / "sarcoma_dicom" / "series.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12
    for row in rows:
        path = shared_data / "sarcoma_dicom" / row["rtstruct"]
        image = read_image(path.parent.parent / "image")
        label = read_label(path, image)
        assert (label.source["frame_of_reference"], label.source["label_series"]) == ("same", "same")
        nifti = shared_data / "sarcoma_nifti" / row["patient_id"] / f"{row['modality']}_mask.nii.gz"
        if row["modality"] != "CT":  # the archive has no NIfTI of CT
            mask = np.asanyarray(nibabel.load(nifti).dataobj) > 0
            both = (mask & (label.array[0] > 0)).sum()
            assert 2 * both / (mask.sum() + label.array.sum()) >= 0.999, path
        assert label.array.any()


def test_a_cylinder_with_a_hole_lies_where_its_points_say(structure_set):
    slices = range(-15, 13, 3)
    rings = [(_ring(10.2, z, (4, -3)),) for z in slices] + [(_ring(5.2, z, (4, -3)),) for z in slices]
    label = read_label(structure_set({"GTV": rings}), LIKE)
    index = np.stack(np.meshgrid(*[np.arange(n) for n in LIKE.spatial_shape], indexing="ij"), -1)
    x, y, z = np.moveaxis((index @ AFFINE[:3, :3].T + AFFINE[:3, 3]) * (-1, -1, 1), -1, 0)  # LPS
    away = (x - 4) ** 2 + (y + 3) ** 2
    expected = (away < 10.2**2) & (away > 5.2**2) & (z >= -15) & (z <= 12)
    assert (label.array[0] != expected).sum() <= 4 * len(slices)  # the rings are polygons
    assert label.source["structures"] == {"GTV": 1}


def _half_filled(affine):
    """Voxels of LIKE's shape of which slabs of discs 1 mm thick, that make a ball of 12 mm, fill half; by samples."""
    index = np.stack(np.meshgrid(*[np.arange(n) for n in LIKE.spatial_shape], indexing="ij"), -1)
    share = np.zeros(LIKE.spatial_shape)
    for offset in np.ndindex(3, 3, 9):
        within = (np.array(offset) + 0.5) / (3, 3, 9) - 0.5
        x, y, z = np.moveaxis((index + within) @ affine[:3, :3].T + affine[:3, 3], -1, 0)
        share += x**2 + y**2 < 12.0**2 - (np.floor(z) + 0.5) ** 2
    return share > 40.5


@pytest.mark.parametrize("angle", [0.0, 25.0, 90.0])
def test_an_oblique_image_shows_the_same_volume(structure_set, angle):
    """A ball drawn on transverse planes every 1 mm, in an image turned about the x axis."""
    radii = {z: np.sqrt(12.0**2 - z**2) for z in np.arange(-11.5, 12, 1.0)}
    path = structure_set({"ball": [(_ring(r, z),) for z, r in radii.items()]})
    turn = np.eye(4)
    c, s = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    turn[1:3, 1:3] = [[c, -s], [s, c]]
    label = read_label(path, _turned(turn @ AFFINE))
    assert label.array.sum() == pytest.approx(_half_filled(turn @ AFFINE).sum(), rel=0.02)
    centre = np.argwhere(label.array[0]).mean(0) @ AFFINE[:3, :3].T + AFFINE[:3, 3]
    np.testing.assert_allclose(centre, 0, atol=0.5)
    assert label.source.get("contours", "parallel") == ("parallel" if angle == 0 else "oblique to the image")


def test_the_step_between_contours_decides_how_far_they_reach(structure_set):
    every = structure_set({"a": [(_ring(8.2, z),) for z in range(-12, 10, 3)], "dot": [(_ring(4.2, 20.5),)]})
    sparse = structure_set({"a": [(_ring(8.2, z),) for z in range(-12, 10, 6)]}, name="sparse.dcm")
    lesions = structure_set({"a": [(_ring(8.2, z),) for z in (-24, -12, 15)]}, name="lesions.dcm")
    per_slice = {
        path.name: read_label(path, LIKE, names={"a": 1}).array.any((0, 1, 2)).sum()
        for path in (every, sparse, lesions)
    }
    assert per_slice == {"rs.dcm": 8, "sparse.dcm": 8, "lesions.dcm": 3}
    assert read_label(sparse, LIKE).source["contour_step_mm"] == 6
    assert "contour_step_mm" not in read_label(lesions, LIKE).source
    dot = read_label(every, LIKE, names={"dot": 1})  # between two slices, 0.5 mm above the nearer one
    assert np.flatnonzero(dot.array.any((0, 1, 2))).tolist() == [17]


def test_another_frame_of_reference_is_refused(structure_set):
    path = structure_set({"GTV": [(_ring(8.2, 0),)]}, frame="1.2.3.999")
    with pytest.raises(DataError, match="another frame of reference"):
        read_label(path, LIKE)
    unknown = Image(array=LIKE.array, unit="raw", affine=AFFINE)
    assert read_label(path, unknown).source["frame_of_reference"] == "not checked"
    other = structure_set({"GTV": [(_ring(8.2, 0),)]}, series="1.2.3.998", name="b.dcm")
    assert read_label(other, LIKE).source["label_series"] == "another"


def test_structures_outside_the_image_are_refused(structure_set):
    with pytest.raises(DataError, match="entirely outside"):
        read_label(structure_set({"GTV": [(_ring(8.2, 300),)]}), LIKE, max_outside=1.0)
    with pytest.raises(DataError, match="all of 'GTV' outside"):
        read_label(structure_set({"GTV": [(_ring(8.2, 300),)]}), LIKE)
    path = structure_set({"GTV": [(_ring(8.2, 0, (17, 0)),)]}, name="b.dcm")
    with pytest.raises(DataError, match="of 'GTV' outside of the image"):
        read_label(path, LIKE)
    assert 0.1 < read_label(path, LIKE, max_outside=0.5).source["outside"] < 0.5


def test_a_slice_of_the_series_gets_its_part_of_the_structure(structure_set):
    path = structure_set({"GTV": [(_ring(8.2, z),) for z in (-6, -3, 0)]})
    for k, filled in ((9, True), (15, False)):
        affine = AFFINE.copy()
        affine[2, 3] += 3 * k
        one = Image(array=LIKE.array[..., :1], unit="HU", affine=affine, reference=LIKE.reference)
        label = read_label(path, one)
        assert (bool(label.array.any()), label.source["empty"]) == (filled, not filled)


def test_points_lines_and_empty_regions(structure_set):
    path = structure_set({
        "isocentre": [(_ring(1, 0)[:1], "POINT")],
        "GTV": [(_ring(8.2, 0),)],
        "nothing": [],
        "couch": [(_ring(8.2, 0), "OPEN_PLANAR")],
    })  # fmt: skip
    label = read_label(path, LIKE)
    assert label.source["structures"] == {"GTV": 1, "nothing": 2}
    assert label.source["structures_without_area"] == ("isocentre", "couch")
    assert read_label(path, LIKE, names={"nothing": 1}).source["empty"]
    with pytest.raises(DataError, match="none of the structures"):
        read_label(path, LIKE, names={"couch": 1})
    mixed = structure_set({"GTV": [(_ring(8.2, 0),), (_ring(8.2, 3), "OPEN_PLANAR")]}, name="b.dcm")
    with pytest.raises(DataError, match="mixes areas with points or open lines"):
        read_label(mixed, LIKE)


def test_overlapping_structures_need_channels(structure_set):
    path = structure_set({"CTV": [(_ring(12.2, 0),)], "GTV": [(_ring(8.2, 0),)]})
    with pytest.raises(DataError, match="'GTV' overlap another structure in 2"):
        read_label(path, LIKE)
    label = read_label(path, LIKE, overlapping=True, names={"gtv*": 2, "CTV | ptv": 1, "bowel": 3})
    assert label.array.shape == (3, *LIKE.spatial_shape)
    assert label.source["channels"] == (1, 2, 3)
    assert label.source["classes_absent"] == (3,)
    inner, outer = label.array[1].astype(bool), label.array[0].astype(bool)
    assert (inner & ~outer).sum() == 0 < inner.sum() < outer.sum()
    assert read_label(path, LIKE, names={"GTV": 5}).source["structures_left_out"] == ("CTV",)


@pytest.mark.parametrize(
    ("points", "words"),
    [
        (np.array([[0, 0, 0], [9, 0, 0], [9, 9, 9], [0, 9, 0.0]]), "not flat"),
        (np.array([[0, 0, 0], [np.nan, 0, 0], [9, 9, 0.0]]), "not finite"),
        (np.array([[0, 0, 0], [9e7, 0, 0], [9, 9, 0.0]]), "metres off"),
    ],
)
def test_contours_that_cannot_be_are_refused(structure_set, points, words):
    with pytest.raises(DataError, match=words):
        read_label(structure_set({"GTV": [(points,)]}), LIKE)


def test_an_image_without_orientation_cannot_take_contours(structure_set):
    with pytest.raises(DataError, match="has no orientation"):
        read_label(structure_set({"GTV": [(_ring(8.2, 0),)]}), Image(array=np.zeros((1, 9, 9)), unit="display"))
