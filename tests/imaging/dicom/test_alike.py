"""What slices of one series must share: each mixture that would be one wrong volume is refused, the rest recorded."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from medgcsam.errors import DataError
from medgcsam.imaging import read_image

MR, PET, NM = "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.128", "1.2.840.10008.5.1.4.1.1.20"
SECONDARY, DX, US = "1.2.840.10008.5.1.4.1.1.7", "1.2.840.10008.5.1.4.1.1.1.1", "1.2.840.10008.5.1.4.1.1.6.1"
AXIAL, MIP = ["ORIGINAL", "PRIMARY", "AXIAL"], ["DERIVED", "SECONDARY", "MIP"]


def noise(shape=(4, 5, 7)) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 4000, shape).astype(np.int16)


def table(kind: str) -> list[Dataset]:
    """A ModalityLUTSequence that subtracts 1000 from 12-bit values, wrapped to unsigned."""
    item = Dataset()
    item.LUTDescriptor, item.ModalityLUTType = [4096, 0, 16], kind
    item.LUTData = np.arange(4096, dtype="<u2").tobytes()
    item["LUTData"].VR = "OW"
    return [item]


@pytest.mark.parametrize("careful", [False, True])
@pytest.mark.parametrize(
    "elements",
    [
        {"RescaleSlope": [1, 1, None, 1], "RescaleIntercept": [-1024, -1024, None, -1024]},
        {"RescaleSlope": [1, 1, "", 1], "RescaleIntercept": [-1024, -1024, "", -1024]},
        {"ModalityLUTSequence": [None, None, table("HU"), None]},
        {"ModalityLUTSequence": [table("HU"), table("HU"), None, table("HU")]},
    ],
)
def test_a_slice_with_no_rescale_among_slices_that_have_one_is_refused_by_name(
    write_series, tmp_path, monkeypatch, elements, careful
):
    paths = write_series(noise(), **elements)
    if careful:  # all headers are left to pydicom
        monkeypatch.setattr("medgcsam.imaging.dicom.series.read_header", lambda *a, **k: None)
    with pytest.raises(DataError, match="rescale") as caught:
        read_image(tmp_path / "series")
    assert str(paths[2]) in str(caught.value)


@pytest.mark.parametrize("careful", [False, True])
@pytest.mark.parametrize(("kind", "unit"), [("HU", "HU"), ("US", "raw"), ("OD", "raw")])
def test_values_by_a_table_are_hounsfield_units_only_where_the_table_says_so(
    write_series, tmp_path, monkeypatch, kind, unit, careful
):
    paths = write_series(noise(), ModalityLUTSequence=table(kind), RescaleSlope=None, RescaleIntercept=None)
    if careful:
        monkeypatch.setattr("medgcsam.imaging.dicom.series.read_header", lambda *a, **k: None)
    image = read_image(tmp_path / "series")
    assert image.unit == read_image(paths[0]).unit == unit
    assert image.source["modality_lut"] == "table"
    assert np.array_equal(image.array[0], noise().T)


def test_tables_of_two_types_are_refused(write_series, tmp_path):
    kinds = [table("HU"), table("HU"), table("US"), table("HU")]
    write_series(noise(), ModalityLUTSequence=kinds, RescaleSlope=None, RescaleIntercept=None)
    with pytest.raises(DataError, match=r"mixes 2 units .*HU, US"):
        read_image(tmp_path / "series")


@pytest.mark.parametrize(
    ("elements", "message"),
    [
        ({"PatientID": ["P-1", "P-2"] * 2}, "mixes 2 patients .PatientID.;"),
        ({"StudyInstanceUID": ["1.2.7", "1.2.8"] * 2}, "mixes 2 studies .StudyInstanceUID.;"),
        ({"EchoTime": ["10", "20"] * 2}, "mixes 2 echo times .10, 20"),
        ({"ImageType": [AXIAL, AXIAL, AXIAL, MIP]}, r"mixes 2 image types .DERIVED\\SECONDARY\\MIP"),
        ({"SeriesInstanceUID": None}, "4 images without a SeriesInstanceUID"),
    ],
)
@pytest.mark.parametrize("sop", [MR, PET])
def test_images_that_are_not_of_one_kind_are_no_volume(write_series, tmp_path, elements, message, sop):
    write_series(noise(), SOPClassUID=sop, Modality="MR", **elements)
    with pytest.raises(DataError, match=message) as caught:
        read_image(tmp_path / "series")
    assert not any(secret in str(caught.value) for secret in ("P-1", "P-2", "1.2.7", "1.2.8"))
    assert str(caught.value).endswith(".")


def test_echo_times_that_are_written_differently_are_one(write_series, tmp_path):
    write_series(noise(), SOPClassUID=MR, Modality="MR", EchoTime=["10", "10.0", "1E1", "10.001"])
    image = read_image(tmp_path / "series")
    assert image.array.shape == (1, 7, 5, 4)
    assert "differing" not in image.source


def test_what_may_differ_between_slices_is_recorded(write_series, tmp_path):
    types = [[*AXIAL, "A"], [*AXIAL, "B"]] * 2
    write_series(noise(), KVP=["80", "140"] * 2, ImageType=types, AcquisitionNumber=[1, 1, 2, 2])
    assert read_image(tmp_path / "series").source["differing"] == ("ImageType", "KVP", "AcquisitionNumber")
    write_series(noise(), folder="same", KVP="80", ImageType=AXIAL)
    assert "differing" not in read_image(tmp_path / "same").source


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("sop", [SECONDARY, DX, US])
def test_pictures_in_gray_are_no_volume_wherever_they_lie(write_series, tmp_path, sop, photometric):
    paths = write_series(noise(), SOPClassUID=sop, Modality="OT", PhotometricInterpretation=photometric)
    with pytest.raises(DataError, match="no cross-sections"):
        read_image(tmp_path / "series")
    assert read_image(paths[0]).unit == "display"


def test_inverted_gray_is_refused_where_only_the_unit_could_tell_what_is_bright(write_series, tmp_path):
    options = {"PhotometricInterpretation": "MONOCHROME1"}
    paths = write_series(noise(), SOPClassUID=MR, Modality="MR", **options)
    for source in (paths[0], tmp_path / "series"):
        with pytest.raises(DataError, match="MONOCHROME1"):
            read_image(source)
    write_series(noise(), folder="ct", **options)  # Hounsfield units are what they are, however they are shown
    image = read_image(tmp_path / "ct")
    assert image.unit == "HU"
    assert np.array_equal(image.array[0], noise().T - np.float32(1024))


@pytest.mark.parametrize("count", [1, 4])
def test_a_localiser_is_refused_alone_and_in_a_series(write_series, tmp_path, count):
    write_series(noise()[:count], ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    with pytest.raises(DataError, match="localiser"):
        read_image(tmp_path / "series")


@pytest.mark.parametrize("slices", [[1, 2], [3]])
@pytest.mark.parametrize("careful", [False, True])
def test_pet_slices_of_different_doses_get_no_suv(write_series, tmp_path, monkeypatch, slices, careful):
    def tracer(dose: float) -> list[Dataset]:
        item = Dataset()
        item.RadionuclideTotalDose, item.RadionuclideHalfLife = dose, 6586.2
        item.RadiopharmaceuticalStartTime = "091500"
        return [item]

    doses = [tracer(4.7e8 if k in slices else 3.7e8) for k in range(4)]
    elements = {
        "SOPClassUID": PET, "Modality": "PT", "Units": "BQML", "DecayCorrection": "START", "PatientWeight": 71,
        "CorrectedImage": ["ATTN", "DECY"], "SeriesDate": "20200102", "SeriesTime": "101500",
        "AcquisitionDate": "20200102", "AcquisitionTime": "101500", "RescaleIntercept": 0,
    }  # fmt: skip
    paths = write_series(noise(), **elements, RadiopharmaceuticalInformationSequence=doses)
    if careful:
        monkeypatch.setattr("medgcsam.imaging.dicom.series.read_header", lambda *a, **k: None)
    image = read_image(tmp_path / "series")
    assert image.unit == "Bq/ml"
    assert image.source["suv"] == "not computed: the slices differ in RadionuclideTotalDose"
    for path in paths:  # the same sequence in another encoding is the same
        ds = pydicom.dcmread(path)
        ds.RadiopharmaceuticalInformationSequence = tracer(3.7e8)
        if path == paths[2]:
            ds["RadiopharmaceuticalInformationSequence"].is_undefined_length = True
        ds.save_as(path)
    assert read_image(tmp_path / "series").unit == "SUV"
