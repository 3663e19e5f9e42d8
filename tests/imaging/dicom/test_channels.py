"""Single-frame files at the same positions: channels where the standard counts them, else refused or read one by one.

Every voxel holds a number that says which time point and slice it was written for.
"""

from __future__ import annotations

import gzip
import io
import json
import shutil
import warnings
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from medgcsam.errors import DataError
from medgcsam.imaging import read_image, source_digest

MR, PET = "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.128"
SLICES, ROWS, COLUMNS = 4, 5, 6
MOSAICS = Path(nibabel.__file__).parent / "nicom" / "tests" / "data"


@pytest.fixture
def write_times(write_series, tmp_path):
    """``write_times(count, **elements)``: ``count`` volumes of SLICES slices in one series, files in no order.

    Elements are values, or functions of (time point, slice). Returns (path, (count, column, row, slice) as written).
    """

    def write(count: int, *, folder: str = "series", **elements):
        volumes = np.random.default_rng(7).integers(0, 900, (count, SLICES, ROWS, COLUMNS)).astype(np.int16)
        places = np.random.default_rng(8).permutation([(t, k) for t in range(count) for k in range(SLICES)])
        elements = {"ImagePositionPatient": lambda t, k: [10, 20, 3.0 * k]} | elements
        own = {
            name: [value(int(t), int(k)) for t, k in places] if callable(value) else value
            for name, value in elements.items()
        }
        files = np.stack([volumes[t, k] for t, k in places])
        uids = [f"1.9.{n}" for n in range(len(places))]
        write_series(files, folder=folder, **({"SOPClassUID": MR, "Modality": "MR", "RescaleIntercept": 0,
                                               "SOPInstanceUID": uids} | own))  # fmt: skip
        return tmp_path / folder, volumes.transpose(0, 3, 2, 1)

    return write


DIRECTIONS = [None, [1.0, 0.0, 0.0], [0.0, 0.6, 0.8]]
TOLD = {
    "TemporalPositionIdentifier": ({"TemporalPositionIdentifier": lambda t, k: t + 1}, [1, 2, 3]),
    "TriggerTime": ({"TriggerTime": lambda t, k: ["0", "33.5", "1E2"][t]}, [0, 33.5, 100]),
    "InversionTime": ({"InversionTime": lambda t, k: 100 * 2**t}, [100, 200, 400]),
    "EchoTime": ({"EchoTime": lambda t, k: ["9.99", "20", "30"][t] if k else ["10", "20.0", "3E1"][t]}, [9.99, 20, 30]),
    "DiffusionBValue": ({"DiffusionBValue": lambda t, k: [0.0, 500.0, 1000.0][t]}, [0, 500, 1000]),
    "DiffusionBValue and DiffusionGradientOrientation": (
        {
            "DiffusionBValue": lambda t, k: [0.0, 800.0, 800.0][t],
            "DiffusionGradientOrientation": lambda t, k: [None, [0.0, 0.6, 0.8], [1.0, 0.0, 0.0]][t],
        },
        ["(0, ())", "(800, (0.0, 0.6, 0.8))", "(800, (1.0, 0.0, 0.0))"],
    ),
    "TemporalPositionIdentifier and EchoTime": (
        {"TemporalPositionIdentifier": lambda t, k: [1, 1, 2][t], "EchoTime": lambda t, k: [10, 30, 10][t]},
        ["(1, 10.0)", "(1, 30.0)", "(2, 10.0)"],
    ),
}


@pytest.mark.parametrize("careful", [False, True])
@pytest.mark.parametrize("by", TOLD)
def test_what_the_standard_counts_are_channels_in_its_order(write_times, monkeypatch, by, careful):
    elements, values = TOLD[by]
    # each slice has a time of its own, as it is acquired: that tells nothing apart and spoils nothing
    folder, written = write_times(3, AcquisitionTime=lambda t, k: f"1000{10 * t + k:02d}.5", **elements)
    if careful:
        monkeypatch.setattr("medgcsam.imaging.dicom.series.read_header", lambda *a, **k: None)
    image = read_image(folder)
    np.testing.assert_array_equal(image.array, written)
    assert image.source["channels_by"] == by
    assert image.source["channel_values"] == pytest.approx(values) if "and" not in by else values
    assert image.source["channel_seconds"] == [0, 10, 20]
    assert image.source["slices"] == SLICES
    assert "differing" not in image.source
    json.dumps(image.source["channel_values"])
    np.testing.assert_allclose(image.affine, [[-0.5, 0, 0, -10], [0, -2, 0, -20], [0, 0, 3, 0], [0, 0, 0, 1]])
    assert len(image.reference.files) == len(image.reference.sop_instance_uids) == SLICES
    for k, file in enumerate(image.reference.files):
        np.testing.assert_array_equal(pydicom.dcmread(file).pixel_array.T, image.array[0, ..., k])


def test_each_channel_is_what_simpleitk_reads_of_its_files_alone(write_times):
    folder, _ = write_times(3, TemporalPositionIdentifier=lambda t, k: t + 1, RescaleSlope=2, RescaleIntercept=-50)
    image = read_image(folder)
    for t in range(3):
        files = [str(f) for f in folder.iterdir() if pydicom.dcmread(f).TemporalPositionIdentifier == t + 1]
        files.sort(key=lambda f: float(pydicom.dcmread(f).ImagePositionPatient[2]))
        reader = sitk.ImageSeriesReader()
        reader.SetFileNames(files)
        np.testing.assert_array_equal(image.array[t].T, sitk.GetArrayFromImage(reader.Execute()))


def test_one_volume_can_be_chosen_by_argument_and_by_reference(write_times):
    folder, written = write_times(
        3, TemporalPositionIdentifier=lambda t, k: t + 1, AcquisitionTime=lambda t, k: f"2359{50 + t}"
    )
    for image in (
        read_image(folder, volume=1),
        read_image(f"{folder}#volume=1"),
        read_image(f"{folder}#series=1.2.3.4#volume=1"),
    ):
        np.testing.assert_array_equal(image.array, written[1:2])
        assert image.source["channel_values"] == [2]
        assert image.source["channel_seconds"] == [1]
        assert (image.source["volume"], image.source["volumes"]) == (1, 3)
        np.testing.assert_array_equal(pydicom.dcmread(image.reference.files[2]).pixel_array.T, image.array[0, ..., 2])
    archive = shutil.make_archive(str(folder), "zip", folder)
    np.testing.assert_array_equal(read_image(f"{archive}#volume=2").array, written[2:])
    with pytest.raises(DataError, match="has no volume 3, only 0 to 2"):
        read_image(folder, volume=3)
    with pytest.raises(DataError, match="names another volume"):
        read_image(f"{folder}#volume=1", volume=2)
    for wrong in ("volume=x", "series=1.2.3.4#x", "series=1.2.3.4#volume=-1"):
        with pytest.raises(DataError, match="selects nothing"):
            read_image(f"{folder}#{wrong}")
    digests = {source_digest(f"{folder}{one}") for one in ("", "#volume=0", "#volume=1")}
    assert len(digests) == 3


ONE = {"AcquisitionNumber": lambda t, k: t + 1}
SERIAL = {"AcquisitionTime": lambda t, k: f"10{5 * t:02d}{10 * k:02d}"}
ACQUISITIONS = {
    "numbers": ({**ONE, **SERIAL}, "3 acquisitions told apart by AcquisitionNumber .they differ in nothing else."),
    "times": (SERIAL, "3 acquisitions told apart by AcquisitionTime .they differ in nothing else."),
    "content": (
        {"ContentTime": lambda t, k: f"10{5 * t:02d}{10 * k:02d}"},
        "told apart by ContentTime .they differ in nothing else.",
    ),
    "midnight": (
        {"AcquisitionTime": lambda t, k: ["235800", "235959.9", "000100"][t]},
        "told apart by AcquisitionTime",
    ),
    "another protocol": (
        {"EchoTime": lambda t, k: [10, 50, 100][t], "RepetitionTime": lambda t, k: [500, 500, 4000][t]},
        "told apart by EchoTime .RepetitionTime differs.",
    ),
    "another angle": (
        {"TemporalPositionIdentifier": lambda t, k: t, "FlipAngle": lambda t, k: [5, 5, 15][t]},
        "TemporalPositionIdentifier .FlipAngle differs.",
    ),
    "another kind": (
        {
            "TemporalPositionIdentifier": lambda t, k: t,
            "ImageType": lambda t, k: [*[["ORIGINAL", "PRIMARY"]] * 2, ["DERIVED", "SECONDARY"]][t],
        },
        "TemporalPositionIdentifier .ImageType differs.",
    ),
    "echoes of other acquisitions": (
        {"EchoTime": lambda t, k: [10, 50, 100][t], **ONE},
        "told apart by EchoTime .AcquisitionNumber differs.",
    ),
    "against time": (
        {"TemporalPositionIdentifier": lambda t, k: t, "AcquisitionTime": lambda t, k: f"100{3 - t}00"},
        "TemporalPositionIdentifier runs against AcquisitionTime",
    ),
}


@pytest.mark.parametrize("case", ACQUISITIONS)
def test_several_acquisitions_are_refused_together_and_read_one_by_one(write_times, case):
    elements, message = ACQUISITIONS[case]
    folder, written = write_times(3, **elements)
    with pytest.raises(DataError, match=message) as caught:
        read_image(folder)
    assert "12 slices lie at 4 positions" in str(caught.value)
    assert "#volume=0 to #volume=2" in str(caught.value)
    for t in range(3):
        image = read_image(folder, volume=t)
        np.testing.assert_array_equal(image.array, written[t : t + 1])
        assert image.source["volumes"] == 3


@pytest.mark.parametrize(
    "elements",
    [
        {},
        {"InstanceNumber": lambda t, k: 4 * t + k},
        {"TemporalPositionIdentifier": lambda t, k: min(t, 1)},
        {"TemporalPositionIdentifier": lambda t, k: t if k else t + 1},
        {"TemporalPositionIdentifier": lambda t, k: None if (t, k) == (1, 2) else t},
        {"TriggerTime": lambda t, k: 100 * t + k},
        {"TriggerTime": lambda t, k: "nan" if t == 2 else t},
        {"TemporalPositionIdentifier": lambda t, k: t, "EchoTime": lambda t, k: 10 + 20 * (k % 2)},
        {"TemporalPositionIdentifier": lambda t, k: t, "DiffusionBValue": lambda t, k: 100.0 * (k % 2)},
        {"AcquisitionTime": lambda t, k: f"1000{10 * k + t:02d}"},  # interleaved: which belong together, nothing says
        {"AcquisitionTime": lambda t, k: "100000"},
        {"AcquisitionNumber": lambda t, k: t if k else t + 1},
    ],
)
def test_what_no_attribute_tells_apart_is_refused_also_one_by_one(write_times, elements):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder, _ = write_times(3, **elements)
    for volume in (None, 0):
        with pytest.raises(DataError, match=r"12 slices lie at 4 positions; .* no attribute tells apart"):
            read_image(folder, volume=volume)


def test_a_missing_or_an_extra_image_is_no_channel(write_times):
    folder, _ = write_times(2, TemporalPositionIdentifier=lambda t, k: t)
    files = {(int(ds.TemporalPositionIdentifier), float(ds.ImagePositionPatient[2])): f
             for f in folder.iterdir() for ds in [pydicom.dcmread(f)]}  # fmt: skip
    files[1, 3.0].unlink()
    with pytest.raises(DataError, match="7 slices lie at 4 positions"):
        read_image(folder)
    ds = pydicom.dcmread(files[0, 3.0])
    ds.SOPInstanceUID = "1.9.99"
    ds.save_as(files[1, 3.0])
    with pytest.raises(DataError, match="8 slices lie at 4 positions"):
        read_image(folder)
    ds.TemporalPositionIdentifier = 1
    ds.ImagePositionPatient = [11, 20, 3.0]  # in the plane of the other, and a millimetre aside
    ds.save_as(files[1, 3.0])
    with pytest.raises(DataError, match="side by side"):
        read_image(folder)


def test_slices_of_several_diffusion_weights_are_no_volume(write_times):
    folder, _ = write_times(1, DiffusionBValue=lambda t, k: 1000.0 * (k > 1))
    with pytest.raises(DataError, match=r"mixes 2 diffusion weights .DiffusionBValue. .0\.0, 1000\.0."):
        read_image(folder)


def test_gaps_are_refused_or_filled_in_every_channel(write_times):
    position = lambda t, k: [10, 20, [0.0, 3.0, 6.0, 12.0][k]]  # noqa: E731
    folder, written = write_times(2, TemporalPositionIdentifier=lambda t, k: t, ImagePositionPatient=position)
    with pytest.raises(DataError, match="one slice missing"):
        read_image(folder)
    image = read_image(folder, irregular="resample")
    np.testing.assert_allclose(image.array[..., [0, 1, 2, 4]], written, rtol=1e-6)
    np.testing.assert_allclose(image.array[..., 3], written[..., 2:].mean(-1), rtol=1e-6)


def test_frames_of_a_dynamic_pet_are_told_apart_by_their_reference_time(write_times):
    folder, written = write_times(
        3, SOPClassUID=PET, Modality="PT", Units="GML", FrameReferenceTime=lambda t, k: [30000, 90000, 450000][t],
        RescaleSlope=lambda t, k: 0.5 * (t + 1),
    )  # fmt: skip
    image = read_image(folder)
    assert (image.unit, image.source["channels_by"]) == ("SUV", "FrameReferenceTime")
    assert image.source["channel_values"] == [30000, 90000, 450000]
    np.testing.assert_allclose(image.array, written * np.array([0.5, 1, 1.5]).reshape(3, 1, 1, 1))


def test_padding_of_all_channels_stays_below_their_values(write_times):
    folder, written = write_times(2, TemporalPositionIdentifier=lambda t, k: t, PixelPaddingValue=850)
    image = read_image(folder)
    np.testing.assert_array_equal(image.array, np.where(written == 850, written[written != 850].min(), written))


def mosaics(folder: Path, *, count: int = 2, **elements) -> list[np.ndarray]:
    """Real mosaics of one series; returns the volumes (row, column, slice) that nibabel finds in them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nibabel calls its DICOM readers experimental
        from nibabel.nicom.dicomwrappers import wrapper_from_data
    folder.mkdir()
    volumes = []
    for n in range(count):
        source = MOSAICS / ("siemens_dwi_0.dcm.gz" if n == 0 else "siemens_dwi_1000.dcm.gz")
        if not source.exists():
            pytest.skip("nibabel was installed without its test data")
        ds = pydicom.dcmread(io.BytesIO(gzip.decompress(source.read_bytes())))
        ds.SeriesInstanceUID, ds.SOPInstanceUID = "1.2.3.4", f"1.9.{n}"
        ds.FrameOfReferenceUID, ds.StudyInstanceUID, ds.PatientID = "1.2.3.5", "1.2.3", "P"
        ds.AcquisitionNumber, ds.AcquisitionTime, ds.AcquisitionDate = n + 1, f"1000{8 * n:02d}", "20200101"
        ds.PixelData = (ds.pixel_array + n).astype("<u2").tobytes()
        for name, value in elements.items():
            setattr(ds, name, value(n))
        ds.save_as(folder / f"{count - n}.dcm")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            volumes.append(wrapper_from_data(ds).get_unscaled_data())
    return volumes


def test_a_series_of_mosaics_has_a_channel_for_each(tmp_path):
    volumes = mosaics(tmp_path / "series", count=3)
    image = read_image(tmp_path / "series")
    assert image.source["channels_by"] == "AcquisitionNumber"
    assert image.source["channel_values"] == [1, 2, 3]
    assert image.source["channel_seconds"] == [0, 8, 16]
    for n, volume in enumerate(volumes):
        found = image.array[n].transpose(1, 0, 2)
        order = 1 if np.array_equal(found, volume) else -1  # along the normal, or against it as the scanner counted
        np.testing.assert_array_equal(found, volume[..., ::order])
        alone = read_image(tmp_path / "series" / f"{3 - n}.dcm")
        np.testing.assert_array_equal(image.array[n], alone.array[0])
        np.testing.assert_allclose(image.affine, alone.affine)
        np.testing.assert_array_equal(read_image(tmp_path / "series", volume=n).array, alone.array)
    assert "2020" not in str(image.source)


@pytest.mark.parametrize(
    ("elements", "message"),
    [
        (
            {"AcquisitionNumber": lambda n: 1, "AcquisitionTime": lambda n: "100000"},
            "all 2 mosaics lie at one position",
        ),
        ({"AcquisitionTime": lambda n: f"1000{59 - n}"}, "AcquisitionNumber runs against AcquisitionTime"),
        ({"SpacingBetweenSlices": lambda n: 2.5 + n}, "another size or place than the first"),
        ({"ImagePositionPatient": lambda n: [-100, -100, 3.0 * n]}, "another size or place than the first"),
    ],
)
def test_mosaics_that_need_not_belong_together_are_refused(tmp_path, elements, message):
    mosaics(tmp_path / "series", **elements)
    with pytest.raises(DataError, match=message):
        read_image(tmp_path / "series")
