from __future__ import annotations

import shutil
import sys
import zipfile

import nibabel
import numpy as np
import pydicom
import pytest

from medgcsam.errors import ConfigError, DataError
from medgcsam.imaging import Image, read_image, read_label
from medgcsam.imaging.image import Reference
from medgcsam.imaging.labels.write import Segment, write_nifti_label, write_seg

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
OBLIQUE = np.array([[0.7, 0.1, 0, -8], [-0.1, 0.7, 0, 3], [0, 0, 2.0, 1], [0, 0, 0, 1]])
OBLIQUE[:3, :2] /= np.linalg.norm(OBLIQUE[:3, 0])


def _label(shape, affine=None, spacing=None, seed=0, classes=3):
    numbers = np.random.default_rng(seed).integers(0, classes + 1, (1, *shape)).astype(np.int16)
    return Image(array=numbers, unit="label", affine=affine, spacing=spacing)


@pytest.mark.parametrize("name", ["m.nii", "m.nii.gz"])
@pytest.mark.parametrize("classes", [3, 300])
def test_a_nifti_label_reads_back_equal(tmp_path, name, classes):
    label = _label((5, 6, 4), OBLIQUE, classes=classes)
    write_nifti_label(label, tmp_path / name)
    back = nibabel.load(tmp_path / name)
    np.testing.assert_array_equal(np.asanyarray(back.dataobj), label.array[0])
    assert back.get_data_dtype() == (np.uint8 if classes == 3 else np.int16)
    np.testing.assert_allclose(back.affine, OBLIQUE, atol=1e-6)
    np.testing.assert_allclose(back.header.get_qform(), OBLIQUE, atol=1e-5)
    ours = read_label(tmp_path / name, label)
    np.testing.assert_array_equal(ours.array, label.array)
    assert ours.source["label_grid"] == "same"


def test_labels_of_pictures_and_of_images_without_orientation(tmp_path):
    for label in (_label((7, 5), spacing=(0.2, 0.3)), _label((7, 5, 3), spacing=(0.2, 0.3, 2.0)), _label((7, 5))):
        write_nifti_label(label, tmp_path / "m.nii.gz")
        back = read_label(tmp_path / "m.nii.gz", label)
        np.testing.assert_array_equal(back.array, label.array)
        image = read_image(tmp_path / "m.nii.gz")
        assert image.affine is None
        if label.spacing is not None:
            np.testing.assert_allclose(image.spacing, label.spacing, rtol=1e-6)


def test_the_same_label_gives_the_same_bytes_and_no_half_files(tmp_path):
    label = _label((5, 6, 4), OBLIQUE)
    for name in ("a.nii.gz", "b.nii.gz"):
        write_nifti_label(label, tmp_path / name)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()
    with pytest.raises(ConfigError, match=r"ends with \.nii"):
        write_nifti_label(label, tmp_path / "a.png")
    with pytest.raises(DataError, match="2 channels"):
        write_nifti_label(Image(array=np.zeros((2, 3, 3, 3), np.int16), unit="label"), tmp_path / "c.nii")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.nii.gz", "b.nii.gz"]


@pytest.fixture
def series(shared_data):
    pytest.importorskip("highdicom", reason="the extra dicom-seg is not installed")
    return shared_data / "sarcoma_dicom" / "STS_002" / "PET"


def _slices_of(path, image):
    """highdicom's own reading: (segments, i, j, k) in the order of the slices of the image."""
    import highdicom

    seg = highdicom.seg.segread(path)
    found = seg.get_pixels_by_source_instance(
        list(image.reference.sop_instance_uids), assert_missing_frames_are_empty=True
    )
    return found.transpose(3, 2, 1, 0)


def test_a_written_seg_reads_back_equal_here_and_by_highdicom(series, tmp_path):
    image = read_image(series / "image")
    tumour = read_label(series / "mask" / "RS.dcm", image)
    numbers = tumour.array.copy()
    numbers[0, :4, :9, 5:] = 2
    label = Image(array=numbers, unit="label", affine=image.affine)
    segments = ["tumour", Segment("skin", ("SCT", "123037004", "Body structure"), ("SCT", "39937001", "Skin"))]
    write_seg(label, image, tmp_path / "seg.dcm", segments)
    np.testing.assert_array_equal(_slices_of(tmp_path / "seg.dcm", image), [numbers[0] == 1, numbers[0] == 2])
    back = read_label(tmp_path / "seg.dcm", image)
    np.testing.assert_array_equal(back.array, numbers)
    assert back.source["structures"] == {"tumour": 1, "skin": 2}
    assert (back.source["label_series"], back.source["frame_of_reference"]) == ("same", "same")
    ds = pydicom.dcmread(tmp_path / "seg.dcm")
    assert ds.StudyInstanceUID == image.reference.study_uid
    assert ds.SegmentSequence[1].SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Skin"
    write_seg(label, image, tmp_path / "again.dcm", segments)
    assert pydicom.dcmread(tmp_path / "again.dcm").SOPInstanceUID == ds.SOPInstanceUID


def test_a_label_on_a_cropped_or_resampled_grid_is_written_on_the_slices(series, tmp_path):
    image = read_image(series / "image")
    tumour = read_label(series / "mask" / "RS.dcm", image)
    box = tuple(slice(int(axis.min()) - 1, int(axis.max()) + 2) for axis in np.nonzero(tumour.array[0]))
    affine = image.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ [part.start for part in box]
    write_seg(Image(array=tumour.array[:, *box], unit="label", affine=affine), image, tmp_path / "crop.dcm", ["GTV"])
    np.testing.assert_array_equal(_slices_of(tmp_path / "crop.dcm", image)[0], tumour.array[0])

    fine = image.affine @ np.diag([0.5, 0.5, 0.5, 1.0])
    fine[:3, 3] -= image.affine[:3, :3].sum(1) / 4  # the edges of the first voxels coincide
    doubled = tumour.array.repeat(2, 1).repeat(2, 2).repeat(2, 3)
    write_seg(Image(array=doubled, unit="label", affine=fine), image, tmp_path / "fine.dcm", ["GTV"])
    np.testing.assert_array_equal(_slices_of(tmp_path / "fine.dcm", image)[0], tumour.array[0])


def test_overlapping_channels_become_overlapping_segments(series, tmp_path):
    image = read_image(series / "image")
    inner = read_label(series / "mask" / "RS.dcm", image).array[0]
    outer = inner.copy()
    outer[:, :20, 3:9] = 1
    label = Image(array=np.stack([inner, outer]), unit="label", affine=image.affine)
    write_seg(label, image, tmp_path / "seg.dcm", ["GTV", "CTV"], algorithm="MANUAL")
    np.testing.assert_array_equal(_slices_of(tmp_path / "seg.dcm", image), label.array)
    np.testing.assert_array_equal(read_label(tmp_path / "seg.dcm", image, overlapping=True).array, label.array)


def test_an_image_from_an_archive_and_one_of_many_frames(shared_data, tmp_path):
    pytest.importorskip("highdicom", reason="the extra dicom-seg is not installed")
    folder = shared_data / "dicom_variety" / "dcmqi" / "segmentations" / "23x38x3"
    with zipfile.ZipFile(tmp_path / "ct.zip", "w") as archive:
        for file in sorted((folder / "image").iterdir()):
            archive.write(file, file.name)
    for source in (tmp_path / "ct.zip", folder / "multiframe" / "mf.dcm"):
        image = read_image(source)
        label = _label(image.spatial_shape, image.affine)
        write_seg(label, image, tmp_path / "seg.dcm", ["a", "b", "c"])
        np.testing.assert_array_equal(read_label(tmp_path / "seg.dcm", image).array, label.array)
    frames = pydicom.dcmread(tmp_path / "seg.dcm").PerFrameFunctionalGroupsSequence
    source = frames[0].DerivationImageSequence[0].SourceImageSequence[0]
    assert source.ReferencedSOPInstanceUID == image.reference.sop_instance_uids[0]


def test_what_no_seg_can_be_written_for_is_refused(series, tmp_path, monkeypatch):
    folder = tmp_path / "copy"
    shutil.copytree(series / "image", folder)
    image = read_image(folder)
    label = _label(image.spatial_shape, image.affine, classes=2)
    with pytest.raises(ConfigError, match="1 segments for 2 classes"):
        write_seg(label, image, tmp_path / "seg.dcm", ["a"])
    unknown = Image(array=image.array, unit="raw", affine=image.affine)
    with pytest.raises(DataError, match="image is of another kind"):
        write_seg(label, unknown, tmp_path / "seg.dcm", ["a", "b"])
    resampled = Image(
        array=image.array, unit="raw", affine=image.affine, reference=image.reference,
        source={"geometry": "resampled: a gap"},
    )  # fmt: skip
    with pytest.raises(DataError, match="not as it was stored"):
        write_seg(label, resampled, tmp_path / "seg.dcm", ["a", "b"])
    files = sorted(folder.iterdir())
    shutil.copy(files[1], files[0])
    with pytest.raises(DataError, match="no longer the file that was read"):
        write_seg(label, image, tmp_path / "seg.dcm", ["a", "b"])
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(ConfigError, match="extra dicom-seg"):
        write_seg(label, image, tmp_path / "seg.dcm", ["a", "b"])
    assert not (tmp_path / "seg.dcm").exists()


def test_a_sheared_label_has_an_sform_alone_and_reads_back(tmp_path):
    sheared = np.diag([1.0, 1, 2, 1])
    sheared[0, 2] = 0.8
    label = _label((5, 6, 4), sheared)
    write_nifti_label(label, tmp_path / "m.nii")
    header = nibabel.load(tmp_path / "m.nii").header
    assert (int(header["sform_code"]), int(header["qform_code"])) == (1, 0)
    np.testing.assert_array_equal(read_label(tmp_path / "m.nii", label).array, label.array)


def test_a_label_beside_the_image_is_refused_and_what_is_cut_is_returned(series, tmp_path):
    image = read_image(series / "image")
    numbers = np.zeros((1, *image.spatial_shape), np.int16)
    numbers[0, :8, :8, :4] = 1

    def moved(by):
        affine = image.affine.copy()
        affine[:3, 3] += affine[:3, :3] @ by
        return Image(array=numbers, unit="label", affine=affine)

    with pytest.raises(DataError, match="lies outside of its image"):
        write_seg(moved((-400, 0, 0)), image, tmp_path / "seg.dcm", ["a"])
    assert not (tmp_path / "seg.dcm").exists()
    assert write_seg(moved((-2, 0, 0)), image, tmp_path / "seg.dcm", ["a"]) == pytest.approx(0.25)
    assert write_seg(moved((2, 0, 0)), image, tmp_path / "seg.dcm", ["a"]) == 0
    nothing = Image(array=numbers * 0, unit="label", affine=image.affine)
    assert write_seg(nothing, image, tmp_path / "seg.dcm", ["a"]) == 0


@pytest.mark.parametrize("multiframe", [False, True])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_an_image_turned_after_it_was_read_is_refused(shared_data, tmp_path, axis, multiframe):
    pytest.importorskip("highdicom", reason="the extra dicom-seg is not installed")
    folder = shared_data / "dicom_variety" / "dcmqi" / "segmentations" / "23x38x3"
    image = read_image(folder / "multiframe" / "mf.dcm" if multiframe else folder / "image")
    flip = np.eye(4)
    flip[axis, axis], flip[axis, 3] = -1, image.spatial_shape[axis] - 1
    turned = Image(
        array=np.flip(image.array, axis + 1), unit=image.unit, affine=image.affine @ flip, reference=image.reference
    )
    label = _label(turned.spatial_shape, turned.affine, classes=1)
    with pytest.raises(DataError, match="no longer lies as its files say"):
        write_seg(label, turned, tmp_path / "seg.dcm", ["a"])
    assert write_seg(label, image, tmp_path / "seg.dcm", ["a"]) == 0


def test_two_echoes_in_one_object_have_a_message_of_their_own(tmp_path):
    known = Reference(
        sop_instance_uids=("1.2",) * 6, frame_numbers=tuple(range(1, 7)), files=("x.dcm",) * 6, series_uid="1.3"
    )
    image = Image(array=np.zeros((2, 4, 5, 3), np.float32), unit="raw", affine=np.eye(4), reference=known)
    with pytest.raises(DataError, match="2 channels"):
        write_seg(_label((4, 5, 3), np.eye(4), classes=1), image, tmp_path / "seg.dcm", ["a"])


def test_a_refusal_of_highdicom_does_not_name_the_patient(series, tmp_path, monkeypatch):
    import highdicom

    def refusing(**_arguments):
        raise ValueError("Invalid value for VR PN: 'SECRET^NAME'")

    monkeypatch.setattr(highdicom.seg, "Segmentation", refusing)
    image = read_image(series / "image")
    label = _label(image.spatial_shape, image.affine, classes=2)
    with pytest.raises(DataError, match=r"do not allow it \(Invalid value for VR PN: \.\.\.\)"):
        write_seg(label, image, tmp_path / "seg.dcm", ["a", "b"])
