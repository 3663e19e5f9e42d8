"""Series made by hand: every slice rescaled as its own header says, and what does not belong together refused."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from medgcsam.errors import DataError
from medgcsam.imaging import read_image
from medgcsam.imaging.dicom.pet import pet_scale

MR, PET = "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.128"


def noise(shape=(4, 5, 7), *, high=4000, dtype=np.int16) -> np.ndarray:
    return np.random.default_rng(0).integers(0, high, shape).astype(dtype)


def test_slices_are_sorted_rescaled_and_placed(write_series, tmp_path):
    volume = noise()
    write_series(volume)
    image = read_image(tmp_path / "series")
    assert image.unit == "HU"
    assert image.array.shape == (1, 7, 5, 4)
    assert np.array_equal(image.array[0], volume.T.astype(np.float32) - 1024)
    assert np.allclose(image.affine @ [2, 1, 3, 1], [-(10 + 2 * 0.5), -(20 + 1 * 2), 9, 1])
    assert image.spacing == (0.5, 2.0, 3.0)
    assert image.reference.sop_instance_uids == tuple(f"1.2.3.4.{k + 1}" for k in range(4))
    assert image.reference.series_uid == "1.2.3.4"
    assert image.reference.frame_of_reference_uid == "1.2.3.5"
    assert image.reference.patient_id == "SECRET-1"
    assert "SECRET-1" not in repr(image)
    assert image.source["rescale"] == (1.0, -1024.0)


def test_a_list_of_files_is_a_series_and_its_order_does_not_matter(write_series):
    volume = noise()
    paths = write_series(volume)
    image = read_image([paths[n] for n in (2, 0, 3, 1)])
    assert np.array_equal(image.array[0], volume.T.astype(np.float32) - 1024)
    with pytest.raises(DataError, match="list of files is empty"):
        read_image([])


def test_every_slice_has_its_own_slope_and_intercept(write_series, tmp_path):
    volume = noise()
    slopes, intercepts = ["0.37", "1", "2.5e-3", "1"], ["-0.125", "7.25", "0", "3"]
    write_series(volume, SOPClassUID=MR, Modality="MR", RescaleSlope=slopes, RescaleIntercept=intercepts)
    image = read_image(tmp_path / "series")
    assert image.unit == "raw"
    for k, (slope, intercept) in enumerate(zip(slopes, intercepts, strict=True)):
        expected = (volume[k] * np.float64(slope) + np.float64(intercept)).astype(np.float32)
        assert np.array_equal(image.array[0, ..., k].T, expected)
    assert image.source["rescale"] == "one per slice"


@pytest.mark.parametrize(("dtype", "bits"), [(np.int16, 12), (np.uint16, 12), (np.uint16, 16), (np.uint8, 8)])
def test_unused_bits_are_what_pydicom_makes_of_them(write_series, tmp_path, dtype, bits):
    volume = noise(high=2**31, dtype=np.int64).astype(dtype)  # rubbish above the stored bits
    paths = write_series(volume, BitsStored=bits)
    image = read_image(tmp_path / "series")
    for k, path in enumerate(paths):
        assert np.array_equal(image.array[0, ..., k].T, pydicom.dcmread(path).pixel_array.astype(np.float32) - 1024)


def test_encodings_left_to_pydicom_give_the_same(write_series, tmp_path):
    volume = noise(shape=(6, 5, 7), dtype=np.uint16)
    paths = write_series(volume)
    expected = read_image(tmp_path / "series")
    for k, path in enumerate(paths):
        ds = pydicom.dcmread(path)
        if k % 3 == 1:
            ds.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRBigEndian
            ds.PixelData = volume[k].astype(">u2").tobytes()
            list(ds)  # values, before their bytes are turned round
            pydicom.dcmwrite(path, ds, implicit_vr=False, little_endian=False, enforce_file_format=True)
        elif k % 3 == 2:
            del ds.file_meta
            ds.preamble = None
            ds.save_as(path, implicit_vr=True, little_endian=True)
    image = read_image(tmp_path / "series")
    assert np.array_equal(image.array, expected.array)
    assert np.array_equal(image.affine, expected.affine)
    assert image.reference == expected.reference


def test_padding_becomes_no_brighter_than_the_darkest_voxel_of_the_volume(write_series, tmp_path):
    volume = noise() + 100
    volume[:, 0, :3] = 30000
    volume[2] = 30000  # a slice of nothing else
    write_series(volume, PixelPaddingValue=30000)
    image = read_image(tmp_path / "series")
    true = volume.T[volume.T != 30000]
    assert image.source["padding_voxels"] == (volume == 30000).sum()
    assert np.array_equal(image.array[0][volume.T != 30000], true - np.float32(1024))
    assert (image.array[0][volume.T == 30000] == true.min() - 1024).all()


@pytest.mark.parametrize(
    ("elements", "message"),
    [
        ({"Modality": ["CT", "CT", "MR", "CT"]}, "mixes 2 modalities .CT, MR"),
        ({"FrameOfReferenceUID": ["1.2", "1.2", "1.3", "1.2"]}, "mixes 2 frames of reference"),
        ({"RescaleType": ["HU", "US", "HU", "HU"]}, "mixes 2 units"),
        ({"PhotometricInterpretation": ["MONOCHROME2", "MONOCHROME1"] * 2}, "mixes 2 photometric"),
        ({"SOPClassUID": [MR, MR, PET, MR]}, "mixes 2 kinds of object"),
        ({"RescaleSlope": [1, 1, 0, 1]}, "02-.*RescaleSlope of 0|RescaleSlope of 0"),
        ({"ImagePositionPatient": None}, "4 images without a position in space"),
        ({"PixelSpacing": [[1, 1], None, [1, 1], [1, 1]]}, "has no position in space, as others of its series have"),
        ({"ImageOrientationPatient": [1, 0, 0, 0, 2, 0]}, "no orthogonal unit vectors"),
        ({"ImageType": [["ORIGINAL", "PRIMARY", "AXIAL"]] * 3 + [["ORIGINAL", "PRIMARY", "LOCALIZER"]]}, "1 localiser"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]}, "all 4 mosaics lie at one position"),
        ({"SOPInstanceUID": ["1.1", "1.2", "1.2", "1.3"]}, "duplicate positions: .* are the same instance"),
        ({"NumberOfFrames": 2}, "4 multi-frame objects"),
    ],
)  # fmt: skip
def test_what_is_no_volume_is_refused(write_series, tmp_path, elements, message):
    write_series(noise(), **elements)
    with pytest.raises(DataError, match=message) as caught:
        read_image(tmp_path / "series")
    assert str(tmp_path) in str(caught.value)
    assert str(caught.value).endswith(".")


def test_localisers_and_second_copies_are_left_out_when_resampling_is_asked_for(write_series, tmp_path):
    volume = noise()
    paths = write_series(volume)
    (tmp_path / "series" / "again.dcm").write_bytes(paths[1].read_bytes())
    write_series(
        noise((1, 9, 9)), folder="series/scout", SOPInstanceUID="1.2.3.9",
        ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], ImageOrientationPatient=[0, 1, 0, 0, 0, -1],
    )  # fmt: skip
    image = read_image(tmp_path / "series", irregular="resample")
    assert np.array_equal(image.array[0], volume.T.astype(np.float32) - 1024)
    assert image.source["localisers_left_out"] == image.source["copies_left_out"] == 1
    assert image.source["geometry"] == "regular"
    other = paths[1].read_bytes()
    (tmp_path / "series" / "again.dcm").write_bytes(other[:-1] + bytes([other[-1] ^ 1]))
    with pytest.raises(DataError, match="same instance"):
        read_image(tmp_path / "series", irregular="resample")


def test_a_truncated_slice_is_refused_and_never_a_black_one(write_series, tmp_path):
    paths = write_series(noise())
    whole = paths[2].read_bytes()
    for length in (0, 100, 200, 500, len(whole) - 20, len(whole) - 1):
        paths[2].write_bytes(whole[:length])
        with pytest.raises(DataError):
            read_image(tmp_path / "series")
    paths[2].unlink()
    with pytest.raises(DataError, match="one slice missing"):
        read_image(tmp_path / "series")


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.floats(0, 0.999), st.sampled_from(list(b"\0 019.-\\\xff")), st.booleans()), max_size=3))
def test_a_damaged_slice_is_refused_or_is_what_pydicom_alone_reads(write_series, tmp_path, changes):
    paths = write_series(noise(shape=(3, 4, 5)))
    data = bytearray(paths[1].read_bytes())
    for part, byte, inserted in changes:
        at = 132 + int(part * (len(data) - 132))
        data[at : at + (not inserted)] = bytes([byte])
    paths[1].write_bytes(bytes(data))

    def result() -> tuple[object, ...] | str:
        try:
            image = read_image(tmp_path / "series")
        except DataError as error:
            return f"refused: {error}"
        return image.array.tobytes(), image.array.shape, image.affine.tobytes(), image.unit, image.reference

    quick = result()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("medgcsam.imaging.dicom.series.read_header", lambda *a, **k: None)
        careful = result()
    assert isinstance(quick, str) or quick == careful


def pet_elements(slices: int) -> dict:
    tracer = Dataset()
    tracer.RadionuclideTotalDose, tracer.RadionuclideHalfLife = 3.7e8, 6586.2
    tracer.RadiopharmaceuticalStartTime = "091500"
    return {
        "SOPClassUID": PET, "Modality": "PT", "Units": "BQML", "DecayCorrection": "START", "PatientWeight": 71,
        "CorrectedImage": ["ATTN", "DECY", "SCAT"], "SeriesDate": "20200102", "SeriesTime": "101500",
        "AcquisitionDate": "20200102", "AcquisitionTime": [f"10{15 + 2 * k}00" for k in range(slices)],
        "RadiopharmaceuticalInformationSequence": Sequence([tracer]),
        "RescaleSlope": [f"{k + 1}.5" for k in range(slices)], "RescaleIntercept": 0,
    }  # fmt: skip


def test_pet_slices_become_suv_by_the_factor_that_their_whole_headers_give(write_series, tmp_path):
    volume = noise()
    paths = write_series(volume, **pet_elements(4))
    image = read_image(tmp_path / "series")
    unit, factor, facts = pet_scale([pydicom.dcmread(path) for path in paths], "series")
    assert (image.unit, unit) == ("SUV", "SUV")
    assert image.source["uptake_minutes"] == facts["uptake_minutes"] == 60.0
    # by hand: dose decayed over an hour, per gram of body weight
    assert np.isclose(factor, 71000 / (3.7e8 * 2 ** (-3600 / 6586.2)))
    for k in range(4):
        assert np.array_equal(image.array[0, ..., k].T, (volume[k] * (k + 1.5) * factor).astype(np.float32))
    stored = read_image(tmp_path / "series", pet="stored")
    assert stored.unit == "Bq/ml"
    assert np.allclose(stored.array * np.float32(factor), image.array, rtol=1e-6)


@pytest.mark.parametrize(
    "elements", [{"Units": ["BQML", "CNTS", "BQML", "BQML"]}, {"PatientWeight": ["71", "71", "72", "71"]}]
)
def test_pet_slices_of_different_units_are_refused(write_series, tmp_path, elements):
    write_series(noise(), **pet_elements(4) | elements)
    with pytest.raises(DataError, match=f"mixes slices that differ in {next(iter(elements))}"):
        read_image(tmp_path / "series")
