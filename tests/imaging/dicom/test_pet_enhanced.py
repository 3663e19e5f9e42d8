"""SUV of enhanced PET by its definition: a body in which the dose is spread evenly has an SUV of 1."""

from __future__ import annotations

import warnings

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from medgcsam.errors import ConfigError
from medgcsam.imaging import read_image
from medgcsam.imaging.dicom.pet_enhanced import ENHANCED_PET

DOSE_MBQ, HALF_LIFE, WEIGHT = 370.0, 6586.2, 80.0
SLOPES = [0.5, 2.0]


def item(**elements: object) -> list[Dataset]:
    ds = Dataset()
    for keyword, value in elements.items():
        setattr(ds, keyword, value)
    return [ds]


def mapping(units: str, slope: float, *, first: int = 0, last: int = 60_000, scheme: str = "UCUM") -> Dataset:
    code = item(CodeValue=units, CodingSchemeDesignator=scheme, CodeMeaning=units)
    (found,) = item(RealWorldValueSlope=slope, RealWorldValueIntercept=0.0, MeasurementUnitsCodeSequence=code)
    for word, value in (("First", first), ("Last", last)):
        found.add_new(f"RealWorldValue{word}ValueMapped", "US", value)
    return found


def even(minutes: float) -> float:
    """Bq/ml of a body of WEIGHT kg and 1 g/ml, the dose spread evenly in it, after so many minutes."""
    return 1e6 * DOSE_MBQ * 2 ** (-minutes * 60 / HALF_LIFE) / (1000 * WEIGHT)


@pytest.fixture
def write_pet(write_dicom):
    """``write_pet(**elements)``: two frames, corrected to 60 minutes after the injection; returns (path, pixels)."""

    def write(*, mappings=lambda n: [mapping("Bq/ml", SLOPES[n])], tracer=(), **elements):
        pixels = np.random.default_rng(3).integers(0, 50_000, (2, 3, 4)).astype(np.uint16)
        frames = []
        for n in range(2):
            frames += item(
                PlanePositionSequence=item(ImagePositionPatient=[0, 0, 2.0 * n]),
                PixelValueTransformationSequence=item(RescaleSlope=7, RescaleIntercept=0, RescaleType="US"),
                RealWorldValueMappingSequence=mappings(n),
            )
        shared = item(
            PlaneOrientationSequence=item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0]),
            PixelMeasuresSequence=item(PixelSpacing=[1, 1], SliceThickness=2),
        )
        given = {
            "RadionuclideTotalDose": DOSE_MBQ, "RadionuclideHalfLife": HALF_LIFE,
            "RadiopharmaceuticalStartDateTime": "20240228233000",
        }  # fmt: skip
        usual = {
            "SOPClassUID": ENHANCED_PET, "Modality": "PT", "NumberOfFrames": 2, "Rows": 3, "Columns": 4,
            "SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2", "PatientWeight": WEIGHT,
            "SharedFunctionalGroupsSequence": shared, "PerFrameFunctionalGroupsSequence": frames,
            "AttenuationCorrected": "YES", "DecayCorrected": "YES", "DecayCorrectionDateTime": "20240229003000.00",
            "RadiopharmaceuticalInformationSequence": item(**{**given, **dict(tracer)}),
        }  # fmt: skip
        usual |= elements
        usual = {name: value for name, value in usual.items() if value is not None}
        return write_dicom(pixels.reshape(-1, 4), **usual), pixels.transpose(2, 1, 0)

    return write


def test_activity_becomes_suv_by_the_mapping_of_each_frame(write_pet):
    path, pixels = write_pet()
    image = read_image(path)
    assert (image.unit, image.source["suv"], image.source["pet_units"]) == ("SUV", "computed", "Bq/ml")
    np.testing.assert_allclose(image.array[0], pixels * np.array(SLOPES) / even(60), rtol=1e-6)
    assert image.source["uptake_minutes"] == 60
    assert "2024" not in str(image.source)
    image = read_image(path, pet="stored")
    assert image.unit == "Bq/ml"
    np.testing.assert_allclose(image.array[0], pixels * np.array(SLOPES), rtol=1e-6)
    with pytest.raises(ConfigError, match="suv or stored"):
        read_image(path, pet="lbm")


def test_suv_that_is_mapped_stays_and_comes_before_activity(write_pet):
    both = lambda n: [mapping("Bq/ml", 9.0), mapping("g/ml{SUVbw}", 0.001 * (n + 1))]  # noqa: E731
    path, pixels = write_pet(mappings=both, PatientWeight=None)
    image = read_image(path)
    assert (image.unit, image.source["suv"]) == ("SUV", "stored")
    np.testing.assert_allclose(image.array[0], pixels * np.array([0.001, 0.002]), rtol=1e-6)


@pytest.mark.parametrize(
    ("injected", "corrected", "zone"),
    [
        ("20240228223000+0000", "20240229003000+0100", None),
        ("20240228233000+0200", "20240229003000", "+0200"),
        ("20240228233000", "20240228233000+0100", "+0200"),
    ],
)
def test_offsets_from_utc_are_set_against_each_other(write_pet, injected, corrected, zone):
    tracer = {"RadiopharmaceuticalStartDateTime": injected}
    path, _ = write_pet(tracer=tracer, DecayCorrectionDateTime=corrected, TimezoneOffsetFromUTC=zone)
    assert read_image(path).source["uptake_minutes"] == 60


@pytest.mark.parametrize(
    ("elements", "tracer", "reason"),
    [
        ({"PatientWeight": None}, {}, "PatientWeight"),
        ({"AttenuationCorrected": "NO"}, {}, "attenuation"),
        ({"DecayCorrected": "NO"}, {}, "decay"),
        ({"DecayCorrectionDateTime": None}, {}, "no DecayCorrectionDateTime"),
        ({"DecayCorrectionDateTime": "20240228"}, {}, "no DecayCorrectionDateTime"),
        ({"DecayCorrectionDateTime": "20240228230000"}, {}, "not before the scan"),
        ({"DecayCorrectionDateTime": "20240330003000"}, {}, "not before the scan"),
        ({"DecayCorrectionDateTime": "20240229003000+0100"}, {}, "only one of the times"),
        ({}, {"RadionuclideTotalDose": 370e6}, "RadionuclideTotalDose in MBq"),
        ({}, {"RadionuclideTotalDose": None}, "RadionuclideTotalDose in MBq"),
        ({}, {"RadionuclideHalfLife": 0}, "RadionuclideHalfLife"),
        ({"RadiopharmaceuticalInformationSequence": []}, {}, "no RadiopharmaceuticalInformationSequence"),
        ({"RadiopharmaceuticalInformationSequence": [Dataset(), Dataset()]}, {}, "several radiopharmaceuticals"),
    ],
)
def test_without_what_it_takes_activity_stays_and_the_reason_is_recorded(write_pet, elements, tracer, reason):
    path, pixels = write_pet(tracer=tracer, **elements)
    image = read_image(path)
    assert image.unit == "Bq/ml"
    assert reason in image.source["suv"]
    np.testing.assert_allclose(image.array[0], pixels * np.array(SLOPES), rtol=1e-6)


@pytest.mark.parametrize(
    ("mappings", "reason"),
    [
        (lambda n: [], "units are not given"),
        (lambda n: [mapping("{counts}", 1.0)], "units are {counts}"),
        (lambda n: [mapping("g/ml{SUVlbm}", 1.0)], "units are g/ml{SUVlbm}"),
        (lambda n: [mapping(["Bq/ml", "{counts}"][n], 1.0)], "units are Bq/ml, {counts}"),
        (lambda n: [mapping("Bq/ml", 1.0, scheme="99X")], "units are not given"),
        (lambda n: [mapping("Bq/ml", 1.0, last=[60_000, 10][n])], "does not go through all values"),
    ],
)
def test_other_units_stay_as_they_are_rescaled(write_pet, mappings, reason):
    path, pixels = write_pet(mappings=mappings)
    image = read_image(path)
    assert image.unit == "raw"
    assert image.source["suv"].startswith("not computed: ")
    assert reason in image.source["suv"]
    np.testing.assert_array_equal(image.array[0], 7 * pixels.astype(np.float32))


@pytest.mark.parametrize("units", ["BQML", "GML"])
def test_a_legacy_converted_object_has_the_suv_of_the_slices_it_was_made_of(write_series, tmp_path, units):
    legacy = pytest.importorskip("highdicom.legacy")
    tracer = item(
        RadionuclideTotalDose=3.7e8, RadionuclideHalfLife=HALF_LIFE, RadiopharmaceuticalStartTime="091500",
        RadionuclideCodeSequence=item(CodeValue="C-111A1", CodingSchemeDesignator="SRT", CodeMeaning="18F"),
    )  # fmt: skip
    volume = np.random.default_rng(0).integers(0, 900, (3, 4, 5)).astype(np.int16)
    paths = write_series(
        volume, SOPClassUID="1.2.840.10008.5.1.4.1.1.128", Modality="PT", Units=units, DecayCorrection="START",
        CorrectedImage=["ATTN", "DECY"], PatientWeight=71, SeriesDate="20200102", SeriesTime="101500",
        AcquisitionDate="20200102", AcquisitionTime=["101500", "101700", "101900"], RescaleIntercept=0,
        RescaleSlope=["1", "2", "3"], RadiopharmaceuticalInformationSequence=tracer, InstanceNumber=[1, 2, 3],
        StudyID="1", StudyDate="20200102", StudyTime="101500", AccessionNumber="", PatientBirthDate="", PatientSex="",
        ReferringPhysicianName="", SeriesNumber=1, Manufacturer="x", ImageType=["ORIGINAL", "PRIMARY"],
        FrameReferenceTime=0, ActualFrameDuration=120_000, PositionReferenceIndicator="", RescaleType=units,
        PatientPosition="HFS", CountsSource="EMISSION", SeriesType=["STATIC", "IMAGE"], NumberOfSlices=3,
        ImageIndex=[1, 2, 3], RandomsCorrectionMethod="NONE", CollimatorType="NONE", ContentDate="20200102",
        ContentTime="101500",
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        slices = [pydicom.dcmread(path) for path in paths]
        made = legacy.LegacyConvertedEnhancedPETImage(slices, "1.2.3.9", 2, "1.2.3.9.1", 1)
        made.save_as(tmp_path / "legacy.dcm")
    classic, image = read_image(tmp_path / "series"), read_image(tmp_path / "legacy.dcm")
    assert (classic.unit, classic.source["suv"]) == ("SUV", "computed" if units == "BQML" else "stored")
    assert (image.unit, image.source["suv"]) == (classic.unit, classic.source["suv"])
    assert image.source.get("suv_factor") == classic.source.get("suv_factor")
    np.testing.assert_allclose(image.array, classic.array, rtol=1e-6)
