"""What `predict` is given becomes images by name; what cannot be taken is told, never lost."""

from __future__ import annotations

import os
import zipfile

import numpy as np
import pytest
from PIL import Image

from medgcsam.errors import ConfigError, DataError
from medgcsam.intake.inputs import LISTED_TWICE, find_inputs


@pytest.fixture
def folder(tmp_path):
    """A folder of one picture, with a second one in a folder of its own."""
    place = tmp_path / "in"
    (place / "more").mkdir(parents=True)
    for name in ("a.png", "more/b.png"):
        Image.fromarray(np.zeros((9, 9), np.uint8)).save(place / name)
    return place


def faults(found):
    return {image.name: image.fault for image in found.images if image.fault}


def test_images_are_known_by_their_place_and_named_below_the_input(folder) -> None:
    found = find_inputs(folder)
    assert [(image.name, image.reference) for image in found.images] == [
        ("a.png", str(folder / "a.png")), ("more/b.png", str(folder / "more" / "b.png")),
    ]  # fmt: skip
    (one,) = find_inputs(folder / "a.png").images
    assert (one.name, one.reference) == ("a.png", str(folder / "a.png"))


def test_damaged_images_have_a_fault_and_other_files_are_passed_over(folder) -> None:
    (folder / "empty.nii.gz").write_bytes(b"")
    (folder / "cut.nii.gz").write_bytes(b"\x1f\x8b\x08\x00" + bytes(16))
    (folder / "text.NII").write_text("no image")
    (folder / "cut.dcm").write_bytes(bytes(100))
    (folder / "notes.txt").write_text("no image")
    (folder / "list").write_text("no image")
    found = find_inputs(folder)
    assert set(faults(found)) == {"empty.nii.gz", "cut.nii.gz", "text.NII", "cut.dcm"}
    assert "empty file" in faults(found)["empty.nii.gz"]
    assert {name for name, _ in found.passed_over} == {"notes.txt", "list"}


def test_links_and_what_cannot_be_opened_do_not_stop_the_rest(folder, tmp_path, monkeypatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(tmp_path / "elsewhere" / "c.png")
    (folder / "gone.png").symlink_to(folder / "nothing.png")
    (folder / "nowhere.png").symlink_to(tmp_path / "nothing.png")
    (folder / "out.png").symlink_to(tmp_path / "elsewhere" / "c.png")
    (folder / "out").symlink_to(tmp_path / "elsewhere")
    (folder / "inside").symlink_to(folder / "more")
    (folder / "readme.txt").symlink_to(folder / "nothing.txt")
    os.mkfifo(folder / "pipe.png")
    from medgcsam.intake import inputs

    real = inputs.sniff_kind

    def refusing(path):
        if path.name == "a.png":
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(inputs, "sniff_kind", refusing)
    found = find_inputs(folder)
    told = faults(found)
    assert set(told) == {"a.png", "gone.png", "nowhere.png", "out.png", "out"}
    assert told["nowhere.png"] == told["gone.png"]
    assert "symbolic link out of the folder" in told["out.png"]
    assert "Permission denied" in told["a.png"]
    assert "copy the file there" in told["gone.png"]
    assert [image.name for image in found.images if not image.fault] == ["more/b.png"]


def test_every_row_of_a_manifest_is_an_image_or_is_told(folder) -> None:
    text = "image,exclude\na.png,\na.png,\n,\nodd, name.png,\nmore/b.png,1\nmissing.png,\n"
    (folder / "list.csv").write_text(text)
    found = find_inputs(folder / "list.csv")
    assert [image.name for image in found.images] == ["a.png", "list.csv, line 5", "missing.png"]
    assert "3 fields where the header has 2; put quotation marks" in faults(found)["list.csv, line 5"]
    assert found.passed_over == (("a.png", LISTED_TWICE),)
    assert found.excluded == {"excluded in the manifest": 1}
    (folder / "other.csv").write_text("picture\na.png\n")
    with pytest.raises(ConfigError, match="needs a column called image"):
        find_inputs(folder / "other.csv")


def test_the_masks_of_earlier_predictions_are_no_new_images(folder) -> None:
    (folder / "out" / "masks").mkdir(parents=True)
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(folder / "out" / "masks" / "a.png")
    assert len(find_inputs(folder, without=folder / "out" / "masks").images) == 2


def test_what_is_not_there_is_an_error(tmp_path) -> None:
    for name in ("none.png", "none#series=1.2"):
        with pytest.raises(DataError, match="does not exist"):
            find_inputs(tmp_path / name)


def slices(folder, *, series: str, description: str, patient: str = "SECRET^ID", number: int = 3, tilt: float = 0.0):
    """CT slices of 8 x 8 pixels."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    folder.mkdir(parents=True, exist_ok=True)
    for n in range(number):
        ds = Dataset()
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"{series}.{n + 1}"
        ds.PatientID, ds.PatientName, ds.Modality = patient, "SECRET^NAME", "CT"
        ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SeriesDescription = "1.2.3", series, description
        ds.FrameOfReferenceUID, ds.InstanceNumber = "1.2.9", n + 1
        ds.Rows = ds.Columns = 8
        ds.PixelSpacing, ds.SliceThickness = [2, 2], 4
        ds.ImageOrientationPatient, ds.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, tilt * n, 4.0 * n]
        ds.BitsAllocated = ds.BitsStored = 16
        ds.HighBit, ds.PixelRepresentation, ds.SamplesPerPixel = 15, 1, 1
        ds.PhotometricInterpretation, ds.RescaleSlope, ds.RescaleIntercept = "MONOCHROME2", 1, 0
        ds.RescaleType, ds.ImageType = "HU", ["ORIGINAL", "PRIMARY", "AXIAL"]
        ds.PixelData = np.zeros((8, 8), np.int16).tobytes()
        ds.save_as(folder / f"{series.rpartition('.')[2]}_{n}.dcm", enforce_file_format=True)


@pytest.fixture
def study(tmp_path):
    """Two series in one folder, told apart by their descriptions, and one in a folder of its own."""
    place = tmp_path / "study"
    slices(place / "both", series="1.5.1", description="ax  T2")
    slices(place / "both", series="1.5.2", description="cor")
    slices(place / "own", series="1.5.3", description="", patient="")
    (place / "readme.txt").write_text("no image")
    return place


def test_series_have_the_shortest_name_that_is_their_own(study) -> None:
    found = find_inputs(study)
    assert [image.name for image in found.images] == ["both#ax T2", "both#cor", "own"]
    assert not faults(found)
    assert found.passed_over == (("readme.txt", "no image"),)
    assert [image.name for image in find_inputs(study / "own").images] == ["own"]


def test_series_of_an_archive_are_told_apart(study, tmp_path) -> None:
    with zipfile.ZipFile(tmp_path / "d.zip", "w") as archive:
        for file in sorted(study.rglob("*.dcm")):
            archive.write(file, file.relative_to(study).as_posix())
        archive.write(study / "readme.txt", "readme.txt")
    names = [image.name for image in find_inputs(tmp_path / "d.zip").images]
    assert names == ["d.zip#ax T2", "d.zip#cor", "d.zip#own"]


def test_nothing_of_the_patient_is_in_a_fault(tmp_path) -> None:
    place = tmp_path / "mixed"
    slices(place, series="1.6.1", description="x", patient="SECRET^A", number=2)
    slices(place / "more", series="1.6.1", description="x", patient="SECRET^B", number=3)
    slices(place / "tilted", series="1.6.2", description="y", tilt=1.0)
    told = faults(find_inputs(place))
    assert len(told) == 2
    assert not any("SECRET" in f"{name} {fault}" for name, fault in told.items())
    assert any("gantry tilt" in fault for fault in told.values())
    assert len(faults(find_inputs(place, resampled=True))) == 1
