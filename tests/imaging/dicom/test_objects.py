from __future__ import annotations

import re
import warnings
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.pixels import apply_color_lut, apply_modality_lut, pixel_array

from medgcsam.errors import DataError
from medgcsam.imaging import read_image

TEST_FILES = Path(pydicom.__file__).parent / "data" / "test_files"
CT = "1.2.840.10008.5.1.4.1.1.2"
RNG = np.random.default_rng(3)
PIXELS = RNG.integers(0, 4096, (6, 9), dtype=np.uint16)


def test_a_ct_slice_is_a_volume_in_hounsfield_units_with_nibabels_affine():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nibabel calls its DICOM readers experimental
        from nibabel.nicom.dicomwrappers import wrapper_from_data
    ds = pydicom.dcmread(TEST_FILES / "CT_small.dcm")
    image = read_image(TEST_FILES / "CT_small.dcm")
    assert image.array.shape == (1, ds.Columns, ds.Rows, 1)
    assert image.unit == "HU"
    np.testing.assert_array_equal(image.array[0, :, :, 0].T, apply_modality_lut(ds.pixel_array, ds))
    # nibabel has patient coordinates to the left and posterior, and its index is (row, column, slice)
    reference = np.diag([-1, -1, 1, 1]) @ wrapper_from_data(ds).affine
    column, row = 3, 5
    np.testing.assert_allclose(image.affine @ [column, row, 0, 1], reference @ [row, column, 0, 1], atol=1e-4)
    assert image.spacing == pytest.approx((ds.PixelSpacing[1], ds.PixelSpacing[0], ds.SliceThickness))


@pytest.mark.parametrize("modality", ["MR_T1", "PET"])
def test_slices_lie_where_the_reference_volume_has_them(shared_data, modality):
    volume = nibabel.load(shared_data / "sarcoma_nifti" / "STS_001" / f"{modality}_image.nii.gz")
    files = sorted((shared_data / "sarcoma_dicom" / "STS_001" / modality / "image").glob("*.dcm"))
    values = np.asarray(volume.dataobj)
    for path in files[:: len(files) // 4]:
        image = read_image(path)
        corners = np.array([[0, 0, 0, 1], [image.array.shape[1] - 1, image.array.shape[2] - 1, 0, 1]]).T
        index = np.rint(np.linalg.inv(volume.affine) @ image.affine @ corners).astype(int)
        np.testing.assert_allclose(volume.affine @ index, image.affine @ corners, atol=0.02)
        (i0, i1), (j0, j1), (k0, _) = index[:3]
        line_i, line_j = (
            np.linspace(a, b, n).round().astype(int)
            for a, b, n in ((i0, i1, image.array.shape[1]), (j0, j1, image.array.shape[2]))
        )
        expected = values[np.ix_(line_i, line_j, [k0])]
        np.testing.assert_allclose(image.array[0], expected, rtol=2e-6, atol=1e-6)


def test_lossless_transfer_syntaxes_give_the_same_pixels(shared_data):
    folder = shared_data / "dicom_variety" / "WG04"
    images = [read_image(folder / syntax / f"MR1_{syntax}") for syntax in ("J2KR", "JLSL", "JPLL", "RLE")]
    for image in images[1:]:
        np.testing.assert_array_equal(image.array, images[0].array)


def test_12_bit_jpeg_extended_is_refused_by_name(shared_data):
    for path in [TEST_FILES / "JPGExtended.dcm", *(shared_data / "dicom_variety" / "WG04" / "JPLY").glob("*")]:
        with pytest.raises(DataError, match="12-bit JPEG Extended"):
            read_image(path)


@pytest.mark.parametrize(
    "name",
    [
        "SC_rgb_rle.dcm",
        "SC_rgb_rle_16bit.dcm",
        "SC_rgb_small_odd.dcm",
        "examples_rgb_color.dcm",
        "SC_ybr_full_422_uncompressed.dcm",
        "SC_rgb_dcmtk_+eb+cy+np.dcm",
        "ExplVR_BigEnd.dcm",
    ],
)
def test_colour_is_red_green_blue_as_pydicom_decodes_it(name):
    ds = pydicom.dcmread(TEST_FILES / name)
    image = read_image(TEST_FILES / name)
    expected = pixel_array(ds).transpose(2, 0, 1) / (2**ds.BitsStored - 1)
    np.testing.assert_allclose(image.array, expected, atol=1e-6)


def test_ybr_and_rgb_of_the_same_picture_agree():
    rgb, ybr = (read_image(TEST_FILES / f"SC_{name}.dcm").array for name in ("rgb_rle", "ybr_full_422_uncompressed"))
    assert np.abs(rgb - ybr).mean() < 0.01


def test_palettes_agree_with_pydicom():
    ds = pydicom.dcmread(TEST_FILES / "examples_palette.dcm")
    expected = apply_color_lut(ds.pixel_array, ds)
    image = read_image(TEST_FILES / "examples_palette.dcm")
    np.testing.assert_allclose(image.array, expected.transpose(2, 0, 1) / np.iinfo(expected.dtype).max, atol=1e-6)


def test_rows_stay_rows(write_dicom):
    image = read_image(write_dicom(PIXELS, BitsStored=12))
    assert image.array.shape == (1, 6, 9)
    np.testing.assert_allclose(image.array[0], (PIXELS - PIXELS.min()) / np.ptp(PIXELS), atol=1e-6)


def test_without_preamble_and_extension_it_is_the_same_image(write_dicom):
    whole = read_image(write_dicom(PIXELS, name="a.png"))
    bare = read_image(write_dicom(PIXELS, name="b", preamble=False))
    np.testing.assert_array_equal(whole.array, bare.array)


@pytest.mark.parametrize(
    ("elements", "spacing", "source"),
    [
        ({"PixelSpacing": [0.2, 0.3], "ImagerPixelSpacing": [0.4, 0.5]}, (0.2, 0.3), "PixelSpacing"),
        ({"ImagerPixelSpacing": [0.4, 0.5]}, (0.4, 0.5), "ImagerPixelSpacing"),
        ({"PixelSpacing": [0, 0], "ImagerPixelSpacing": [0.4, 0.5]}, (0.4, 0.5), "ImagerPixelSpacing"),
        ({}, None, "none"),
    ],
)
def test_spacing_is_between_rows_then_columns_and_its_source_is_recorded(write_dicom, elements, spacing, source):
    image = read_image(write_dicom(PIXELS, **elements))
    assert (image.spacing, image.source["spacing_source"], image.affine) == (spacing, source, None)


def _region(*, form: int = 1, units: int = 3, delta: float = 0.02) -> Dataset:
    region = Dataset()
    region.RegionSpatialFormat, region.PhysicalUnitsXDirection, region.PhysicalUnitsYDirection = form, units, units
    region.PhysicalDeltaX, region.PhysicalDeltaY = delta, -1.5 * delta
    return region


@pytest.mark.parametrize(
    ("regions", "spacing"),
    [
        ([_region()], (0.3, 0.2)),
        ([_region(), _region(form=3, units=4, delta=9.0)], (0.3, 0.2)),  # beside a Doppler spectrum
        ([_region(), _region(delta=0.05)], None),
        ([_region(units=4)], None),
        ([_region(delta=0.0)], None),
        ([_region(form=2)], None),
    ],
)
def test_spacing_of_ultrasound_is_that_of_its_regions_in_cm_where_they_agree(write_dicom, regions, spacing):
    image = read_image(write_dicom(PIXELS, SequenceOfUltrasoundRegions=regions))
    assert image.spacing == (None if spacing is None else pytest.approx(spacing))
    assert image.source["spacing_source"] == ("none" if spacing is None else "SequenceOfUltrasoundRegions")


def test_pixels_that_are_not_square_are_recorded(write_dicom):
    assert read_image(write_dicom(PIXELS, PixelAspectRatio=[4, 3])).source["pixel_aspect_ratio"] == "4:3"
    assert "pixel_aspect_ratio" not in read_image(write_dicom(PIXELS, PixelAspectRatio=[1, 1])).source


def _ct(write_dicom, pixels=PIXELS, **more):
    elements = {
        "SOPClassUID": CT,
        "Modality": "CT",
        "PixelSpacing": [0.5, 0.7],
        "RescaleSlope": 1,
        "RescaleIntercept": -1024,
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "ImagePositionPatient": [10, 20, 30],
        "SliceThickness": 3,
    }
    return read_image(write_dicom(pixels, **(elements | more)))


def test_an_axial_slice_has_the_affine_worked_out_by_hand(write_dicom):
    expected = [[-0.7, 0, 0, -10], [0, -0.5, 0, -20], [0, 0, 3, 30], [0, 0, 0, 1]]
    np.testing.assert_allclose(_ct(write_dicom).affine, expected)


def test_a_slice_without_thickness_or_orientation_says_so(write_dicom):
    image = _ct(write_dicom, SliceThickness=None)
    assert (image.spacing, image.source["slice_step_source"]) == ((0.7, 0.5, 1.0), "assumed 1 mm")
    assert _ct(write_dicom, ImageOrientationPatient=None).affine is None
    assert _ct(write_dicom, ImageOrientationPatient=[1, 0, 0, 1, 0, 0]).source["orientation_ignored"]


def test_hounsfield_units_are_claimed_only_where_rescaled_to_them(write_dicom):
    assert _ct(write_dicom).unit == "HU"
    assert _ct(write_dicom, RescaleType="US").unit == "raw"


def test_a_pet_slice_is_scaled_to_suv_and_says_so_or_stays_as_stored(write_dicom):
    tracer = Dataset()
    tracer.RadionuclideTotalDose, tracer.RadionuclideHalfLife = 370e6, 6586.2
    pet = {
        "SOPClassUID": "1.2.840.10008.5.1.4.1.1.128",
        "Modality": "PT",
        "Units": "BQML",
        "DecayCorrection": "ADMIN",
        "CorrectedImage": ["DECY", "ATTN"],
        "PatientWeight": 74,
        "RescaleSlope": 2.5,
        "RescaleIntercept": 0,
        "RadiopharmaceuticalInformationSequence": [tracer],
    }
    image = _ct(write_dicom, **pet)
    np.testing.assert_allclose(image.array[0, :, :, 0].T, PIXELS * 2.5 / (370e6 / 74000), rtol=1e-6)
    assert (image.unit, image.source["pet_units"], image.source["suv"]) == ("SUV", "BQML", "computed")
    path = write_dicom(PIXELS, **pet)
    stored = read_image(path, pet="stored")
    np.testing.assert_allclose(stored.array[0, :, :, 0].T, PIXELS * 2.5)
    assert stored.unit == "Bq/ml"


def test_the_reference_names_the_object_and_the_source_does_not(write_dicom):
    path = write_dicom(PIXELS, StudyInstanceUID="1.2.3", SeriesInstanceUID="1.2.4", FrameOfReferenceUID="1.2.5")
    image, ds = read_image(path), pydicom.dcmread(path)
    found = image.reference
    assert (found.study_uid, found.series_uid, found.frame_of_reference_uid) == ("1.2.3", "1.2.4", "1.2.5")
    assert (found.sop_instance_uids, found.frame_numbers, found.files) == ((ds.SOPInstanceUID,), None, (str(path),))
    assert ds.SOPInstanceUID not in str(dict(image.source))


@pytest.mark.parametrize(
    ("elements", "message"),
    [
        ({"ConcatenationUID": "1.2.3", "InConcatenationTotalNumber": 3}, "one of 3 parts of an object"),
        ({"ConcatenationUID": "1.2.3"}, "one of several parts"),
        ({"PhotometricInterpretation": "YBR_PARTIAL_420", "SamplesPerPixel": 3}, "colours of the kind YBR_PARTIAL_420"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.77.1.6", "NumberOfFrames": 4}, "whole slide image"),
    ],
)
def test_parts_and_rare_colours_are_refused_by_name(write_dicom, elements, message):
    with pytest.raises(DataError, match=message):
        read_image(write_dicom(PIXELS, **elements))


def test_padding_of_a_slice_never_exceeds_the_smallest_true_value(write_dicom):
    pixels = PIXELS + np.uint16(100)
    pixels[0] = 65000
    bright = pixels.copy()
    image = _ct(write_dicom, bright, PixelPaddingValue=65000)
    assert image.array.max() == int(bright[1:].max()) - 1024
    assert (image.array[0, :, 0, 0] == int(bright[1:].min()) - 1024).all()
    pixels[0] = 0
    assert (_ct(write_dicom, pixels, PixelPaddingValue=0).array[0, :, 0, 0] == -1024).all()


def test_the_facts_hold_what_subgroups_need_and_never_who_it_was(write_dicom):
    image = read_image(
        write_dicom(
            PIXELS,
            BitsStored=12,
            Manufacturer="ACME",
            ManufacturerModelName="Ray 1",
            PatientSex="F",
            PatientAge="018M",
            PatientBirthDate="19700101",
            ImageType=["DERIVED", "SECONDARY"],
            BurnedInAnnotation="YES",
        )
    )
    facts = image.source
    assert (facts["scanner"], facts["sex"], facts["age"], facts["bits"]) == ("ACME Ray 1", "F", 1.5, 12)
    assert (facts["image_type"], facts["burned_in_annotation"]) == ("DERIVED/SECONDARY", "YES")
    assert facts["transfer_syntax"] == "Explicit VR Little Endian"
    assert not re.search("Doe|Jane|SECRET|1970", str(dict(facts)))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("liver_1frame.dcm", "label .*Segmentation"),
        ("rtstruct.dcm", "label .*RT Structure Set"),
        ("rtdose_1frame.dcm", "no image to learn from .*Dose"),
        ("rtplan.dcm", "without pixels .*RT Plan"),
        ("MR_truncated.dcm", "truncated"),
    ],
)
def test_what_is_no_single_image_is_refused_by_name(name, message):
    with pytest.raises(DataError, match=message) as caught:
        read_image(TEST_FILES / name)
    assert name in str(caught.value)


@pytest.mark.parametrize(
    "elements",
    [
        {"Rows": 60000, "Columns": 60000},
        {"Rows": 0},
        {"HighBit": 14},
        {"BitsAllocated": None},
        {"Rows": 12},
        {"PhotometricInterpretation": "HSV", "SamplesPerPixel": 3},
    ],
)
def test_headers_that_contradict_the_pixels_are_refused(write_dicom, elements):
    path = write_dicom(PIXELS, BitsStored=12)
    ds = pydicom.dcmread(path)
    for keyword, value in elements.items():
        setattr(ds, keyword, value)
    ds.save_as(path)
    with pytest.raises(DataError, match="image"):
        read_image(path)


@pytest.mark.parametrize(
    "name",
    [
        "MR_small.dcm",
        "MR_small_RLE.dcm",
        "MR_small_jp2klossless.dcm",
        "MR_small_jpeg_ls_lossless.dcm",
        "SC_rgb_jpeg_dcmtk.dcm",
        "SC_rgb_jpeg_gdcm.dcm",
        "image_dfl.dcm",
    ],
)
def test_a_truncated_file_is_refused_or_complete(tmp_path, name):
    data = (TEST_FILES / name).read_bytes()
    whole, refused = read_image(TEST_FILES / name).array, []
    for cut in np.linspace(1, len(data) - 1, 60).astype(int):
        (tmp_path / "cut").write_bytes(data[:cut])
        try:
            image = read_image(tmp_path / "cut")
        except DataError as error:
            refused.append(str(error))
        else:
            np.testing.assert_array_equal(image.array, whole)
    assert len(refused) > 40
    assert all(str(tmp_path / "cut") in sentence for sentence in refused)


@pytest.mark.parametrize("name", ["CT_small.dcm", "MR_small_RLE.dcm", "SC_rgb_small_odd.dcm"])
def test_damaged_bytes_end_in_an_image_or_a_data_error(tmp_path, name):
    data = (TEST_FILES / name).read_bytes()
    places = np.random.default_rng(6).integers(0, min(len(data), 1800), (40, 3))
    outcomes = []
    for number, row in enumerate(places):
        damaged = bytearray(data)
        for place in row:
            damaged[place] = (damaged[place] + 1 + number) % 256
        (tmp_path / "damaged").write_bytes(damaged)
        try:
            outcomes.append(np.isfinite(read_image(tmp_path / "damaged").array).all())
        except DataError:
            outcomes.append(True)
    assert all(outcomes)
