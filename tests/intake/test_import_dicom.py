"""A folder of DICOM becomes one row per image, and everything else is left out by name."""

from __future__ import annotations

import importlib.util
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file

from medgcsam.errors import ConfigError, DataError, MachineError
from medgcsam.imaging.sources import Item
from medgcsam.intake.description import Description, Selection
from medgcsam.intake.importers import COLLECTORS, Imported, dicom_scan
from medgcsam.intake.importers.dicom_scan import scan, scan_file

# Test folders are no packages, so the helpers beside this file are loaded by their path.
_spec = importlib.util.spec_from_file_location("dicom_phantoms", Path(__file__).with_name("dicom_phantoms.py"))
make = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(make)


def take(folder: Path, columns=None, **select) -> Imported:
    description = Description(
        title="t", licence="", citation="", source="", importer="dicom", folder=folder.name,
        columns=columns or {}, select=Selection(**select),
    )  # fmt: skip
    return COLLECTORS["dicom"](description, folder, None)


@pytest.fixture
def pacs(tmp_path: Path) -> Path:
    """An export: two CT series in one folder, a radiograph of two views, a report, an object without a patient."""
    folder = tmp_path / "export"
    make.write_series(folder / "a", "1.2.1", SeriesDescription="Thorax  nativ", PatientAge="057Y", PatientSex="F")
    for path in make.write_series(folder / "b", "1.2.2", PatientID="P2", StudyInstanceUID="1.2.8"):
        shutil.move(path, folder / "a" / f"b{path.name}")
    make.write_image(folder / "x" / "pa.dcm", make.DX, "1.2.3", "1.2.3.1", ViewPosition="PA")
    make.write_image(folder / "x" / "lat.dcm", make.DX, "1.2.3", "1.2.3.2", ViewPosition="LL")
    make.write_object(folder / "x" / "report.dcm", make.SR, "1.2.4", "1.2.4.1")
    make.write_image(folder / "x" / "nobody.dcm", make.DX, "1.2.5", "1.2.5.1", PatientID="")
    (folder / "x" / "notes.txt").write_text("hello")
    return folder


def test_slices_of_a_series_are_one_image_and_views_are_one_each(pacs):
    imported = take(pacs)
    rows = {row["image"]: row for row in imported.rows}
    assert set(rows) == {
        "export/a#series=1.2.1", "export/a#series=1.2.2", "export/x/pa.dcm", "export/x/lat.dcm"
    }  # fmt: skip
    first = rows["export/a#series=1.2.1"]
    assert (first["patient_id"], first["study"], first["slices"], first["age"]) == ("P1", "1.2.9", "3", "57")
    assert first["series_description"] == "Thorax nativ"
    assert rows["export/a#series=1.2.2"]["patient_id"] == "P2"
    assert imported.reasons() == {
        "no PatientID": 1, "no DICOM file": 1, "no image: Basic Text SR Storage": 1
    }  # fmt: skip
    assert imported.scanned.startswith("11 files: 9 DICOM objects in 4 series, 2 studies, 2 patients")


def test_modality_and_description_choose_and_what_they_leave_is_listed(pacs):
    imported = take(pacs, modality=("ct",), description="thorax")
    assert [row["image"] for row in imported.rows] == ["export/a#series=1.2.1"]
    assert imported.reasons()["modality DX"] == 1, "a series counts once"
    assert imported.reasons()["series description does not match"] == 1


def test_series_that_the_reader_refuses_are_left_out_by_its_reason(tmp_path):
    folder = tmp_path / "e"
    make.write_series(folder / "gap", "1.1", count=5)[2].unlink()
    for path in make.write_series(folder / "tilt", "1.2", count=4):
        ds = pydicom.dcmread(path)
        ds.ImagePositionPatient = [0, ds.ImagePositionPatient[2] * 0.3, ds.ImagePositionPatient[2]]
        ds.save_as(path)
    make.write_series(folder / "scout", "1.3", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    make.write_series(folder / "times", "1.4", step=0.0, SliceThickness=1)
    make.write_series(folder / "nowhere", "1.5", ImagePositionPatient=None)
    make.write_series(folder / "two", "1.6", count=2)
    pydicom_file = folder / "two" / "001.dcm"
    ds = pydicom.dcmread(pydicom_file)
    ds.PatientID = "P9"
    ds.save_as(pydicom_file)
    make.write_series(folder / "good", "1.7")
    imported = take(folder)
    assert [row["image"] for row in imported.rows] == ["e/good#series=1.7"]
    reasons = {entry.reference: entry.reason for entry in imported.left_out}
    assert reasons == {
        "e/gap#series=1.1": "slices missing",
        "e/tilt#series=1.2": "gantry tilt",
        "e/scout#series=1.3": "localiser",
        "e/times#series=1.4": "duplicate positions",
        "e/nowhere#series=1.5": "no position or orientation",
        "e/two#series=1.6": "series of several patients",
    }
    kept = take(folder, keep_irregular=True)
    assert {row["image"] for row in kept.rows} == {"e/good#series=1.7", "e/gap#series=1.1", "e/tilt#series=1.2"}


def test_copies_are_taken_once(tmp_path):
    folder = tmp_path / "e"
    make.write_series(folder / "one", "1.1")
    shutil.copytree(folder / "one", folder / "two")
    (folder / "two" / "002.dcm").unlink()
    make.write_image(folder / "p.dcm", make.DX, "1.2", "1.2.1")
    shutil.copy(folder / "p.dcm", folder / "q.dcm")
    imported = take(folder)
    assert {row["image"] for row in imported.rows} == {"e/one#series=1.1", "e/p.dcm"}
    assert sorted(imported.reasons()) == [
        "same SOPInstanceUID as an object that is taken", "same SOPInstanceUIDs as a series that is taken"
    ]  # fmt: skip


def test_an_object_twice_in_one_folder_is_no_volume(tmp_path):
    folder = tmp_path / "e"
    make.write_series(folder, "1.1")
    shutil.copy(folder / "000.dcm", folder / "copy.dcm")
    assert take(folder).reasons() == {"duplicate positions": 1}


def test_zip_archives_are_looked_into(tmp_path):
    folder = tmp_path / "e"
    paths = make.write_series(tmp_path / "loose", "1.1")
    picture = make.write_image(tmp_path / "loose" / "p.dcm", make.DX, "1.2", "1.2.1")
    folder.mkdir()
    with zipfile.ZipFile(folder / "case.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in (*paths, picture):
            archive.write(path, f"DICOM/{path.name}")
    rows = {row["image"]: row["slices"] for row in take(folder).rows}
    assert rows == {"e/case.zip#series=1.1": "3", "e/case.zip#DICOM/p.dcm": "1"}
    with zipfile.ZipFile(folder / "evil.zip", "w") as archive:
        archive.writestr("../../p.dcm", picture.read_bytes())
    (left,) = (entry for entry in take(folder).left_out if entry.reference == "e/evil.zip")
    assert left.reason == "cannot be read"
    assert "leads out of it" in left.detail


def test_an_archive_or_a_medium_may_be_named_itself(tmp_path):
    paths = make.write_series(tmp_path / "disc", "1.1")
    with zipfile.ZipFile(tmp_path / "case.zip", "w") as archive:
        for path in paths:
            archive.write(path, path.name)
    (row,) = take(tmp_path / "case.zip").rows
    assert row["image"] == f"{tmp_path.name}/case.zip#series=1.1"
    shutil.copy(get_testdata_file("DICOMDIR"), tmp_path / "disc")
    imported = take(tmp_path / "disc" / "DICOMDIR")
    assert [row["image"] for row in imported.rows] == ["disc#series=1.1"]
    assert not imported.left_out, "the index is no image, and nobody misses it"


def test_links_out_of_the_folder_are_left_out(tmp_path):
    outside = make.write_image(tmp_path / "outside" / "p.dcm", make.DX, "1.2", "1.2.1")
    make.write_series(tmp_path / "e", "1.1")
    (tmp_path / "e" / "link.dcm").symlink_to(outside)
    (tmp_path / "e" / "folder").symlink_to(outside.parent)
    imported = take(tmp_path / "e")
    assert len(imported.rows) == 1
    assert set(imported.reasons()) == {"symbolic link out of the folder", "symbolic link to a folder"}


@pytest.mark.parametrize("kind", ["seg", "rtstruct"])
def test_labels_are_matched_by_the_series_they_refer_to(tmp_path, kind):
    folder = tmp_path / "e"
    for number in (1, 2, 3):
        make.write_series(folder / f"s{number}", f"1.{number}")
    write = make.write_seg if kind == "seg" else make.write_rtstruct
    write(folder / "far" / "label1", "7.1", "1.1")
    write(folder / "far" / "label2", "7.2", "1.2", SeriesDescription="reader A")
    write(folder / "far" / "label3", "7.3", "1.2", SeriesDescription="reader B")
    write(folder / "far" / "label4", "7.4", "1.99")
    imported = take(folder, labels=kind)
    assert {row["series"]: row["mask"] for row in imported.rows} == {"1.1": "e/far/label1", "1.3": ""}
    assert imported.reasons() == {
        "one of several labels of a series": 2, "several labels refer to it": 1, "label of no image that is taken": 1
    }  # fmt: skip
    chosen = take(folder, labels=kind, label_description="READER b")
    assert {row["series"]: row["mask"] for row in chosen.rows} == {
        "1.1": "", "1.2": "e/far/label3", "1.3": ""
    }  # fmt: skip
    assert take(folder).reasons() == {"label, and none was asked for": 4}


def test_a_label_of_another_patient_is_no_label(tmp_path):
    make.write_series(tmp_path / "e", "1.1")
    make.write_seg(tmp_path / "e" / "label", "7.1", "1.1", PatientID="P7")
    assert "its label is of another patient" in take(tmp_path / "e", labels="seg").reasons()


def test_masks_by_name_and_labels_by_table(tmp_path):
    folder, masks = tmp_path / "e", tmp_path / "masks"
    make.write_series(folder / "s1", "1.1", AccessionNumber="A1")
    make.write_series(folder / "s2", "1.2", PatientID="P2", AccessionNumber="A2")
    masks.mkdir()
    for name in ("1.1.nii.gz", "P2.nii.gz", "P9.nii.gz"):
        (masks / name).write_bytes(b"")
    imported = take(folder, labels=str(masks))
    assert {row["series"]: Path(row["mask"]).name for row in imported.rows} == {
        "1.1": "1.1.nii.gz", "1.2": "P2.nii.gz"
    }  # fmt: skip
    assert imported.reasons() == {"mask without an image": 1}
    table = tmp_path / "t.csv"
    table.write_text("AccessionNumber,Finding\nA1,ill\nA3,well\n")
    labelled = take(folder, columns={"label": "Finding"}, labels=str(table))
    assert {row["series"]: row["label"] for row in labelled.rows} == {"1.1": "ill", "1.2": ""}
    assert labelled.reasons() == {"label in the table without an image": 1}
    table.write_text("AccessionNumber,Finding\nA1,ill\nA1,well\n")
    assert (
        "contradictory labels in the table" in take(folder, columns={"label": "Finding"}, labels=str(table)).reasons()
    )
    with pytest.raises(ConfigError, match="column of labels"):
        take(folder, labels=str(table))
    with pytest.raises(DataError, match="no such folder of masks"):
        take(folder, labels=str(tmp_path / "nowhere"))


def test_crowded_folders_are_said(tmp_path, monkeypatch):
    monkeypatch.setattr("medgcsam.intake.importers.dicom_folder.MAX_FILES", 4)
    monkeypatch.setattr("medgcsam.intake.importers.dicom_folder.MANY_SERIES", 1)
    make.write_series(tmp_path / "e" / "one", "1.1")
    for path in make.write_series(tmp_path / "e" / "two", "1.2"):
        shutil.copy(path, path.with_name(f"x{path.name}"))
        ds = pydicom.dcmread(path.with_name(f"x{path.name}"))
        ds.SeriesInstanceUID, ds.SOPInstanceUID = "1.3", f"1.3.{int(path.stem)}"
        ds.save_as(path.with_name(f"x{path.name}"))
    imported = take(tmp_path / "e")
    assert [row["image"] for row in imported.rows] == ["e/one#series=1.1"]
    assert imported.reasons() == {"in a folder of over 4 files": 2}
    assert "e/two holds 2 series" in imported.notes[0]


def test_what_is_imported_can_be_read(shared_data):
    from medgcsam.imaging import read_image, read_label

    with open(shared_data / "sarcoma_nifti" / "cases.csv") as lines:
        voxels = {tuple(line.split(",")[:2]): int(line.split(",")[6]) for line in list(lines)[1:]}
    imported = take(shared_data / "sarcoma_dicom" / "STS_002", labels="rtstruct")
    for row in imported.rows:
        image = read_image(imported.root / row["image"])
        label = read_label(imported.root / row["mask"], image)
        assert image.spatial_shape[2] == int(row["slices"])
        known = voxels.get((row["patient_id"], {"PT": "PET", "MR": "MR_T1"}.get(row["modality"], "")))
        assert known is None or np.count_nonzero(label.array) == pytest.approx(known, rel=1e-3)


def test_damaged_files_are_left_out(tmp_path):
    folder = tmp_path / "e"
    paths = make.write_series(folder, "1.1")
    content = paths[0].read_bytes()
    (folder / "cut.dcm").write_bytes(content[:200])
    (folder / "empty.dcm").write_bytes(b"")
    imported = take(folder)
    assert len(imported.rows) == 1
    assert {entry.reference for entry in imported.left_out} == {"e/cut.dcm", "e/empty.dcm"}
    (folder / "only").mkdir()
    (folder / "only" / "x.txt").write_text("x")
    with pytest.raises(DataError, match="no DICOM object"):
        take(folder / "only")


def test_long_headers_are_read_to_their_end(tmp_path):
    path = make.write_image(tmp_path / "e" / "p.dcm", make.DX, "1.2", "1.2.1", ImageComments="x" * 10)
    ds = pydicom.dcmread(path)
    ds.add_new(0x00091001, "OB", b"\0" * 400_000)
    ds.save_as(path)
    (header,) = scan_file(str(path), str(tmp_path))
    assert (header.fault, header.shape, header["PatientID"]) == ("", (3, 2), "P1")


def test_the_quick_walk_finds_what_pydicom_finds(shared_data, monkeypatch):
    names = ("dicom_series", "chest_xray_dicom", "dicom_variety", "sarcoma_dicom/STS_002")
    paths = [path for name in names for path in sorted((shared_data / name).rglob("*")) if path.is_file()]
    quick = list(scan(paths, shared_data))
    monkeypatch.setattr("medgcsam.intake.importers.dicom_scan._quick", lambda *arguments: None)
    assert quick == list(scan(paths, shared_data))


def test_slices_among_other_images_are_no_volume(tmp_path):
    make.write_series(tmp_path / "e", "1.1")
    make.write_image(tmp_path / "e" / "m.dcm", make.CT, "1.1", "1.1.9", ImageType=["ORIGINAL", "PRIMARY", "MOSAIC"])
    imported = take(tmp_path / "e")
    assert [row["image"] for row in imported.rows] == ["e/m.dcm"]
    assert imported.reasons() == {"slices and other images in one series": 1}


def test_frames_of_reference_are_not_mixed(tmp_path):
    make.write_series(tmp_path / "e", "1.1", FrameOfReferenceUID="1.5")
    ds = pydicom.dcmread(tmp_path / "e" / "001.dcm")
    ds.FrameOfReferenceUID = "1.6"
    ds.save_as(tmp_path / "e" / "001.dcm")
    assert take(tmp_path / "e").reasons() == {"several frames of reference in one series": 1}


def test_what_no_decoder_reads_is_left_out(tmp_path, shared_data):
    folder = tmp_path / "e"
    folder.mkdir()
    shutil.copy(shared_data / "dicom_variety" / "WG04" / "JPLY" / "RG2_JPLY", folder)
    assert take(folder).reasons() == {"12-bit JPEG Extended cannot be decoded": 1}


def test_processes_find_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr("medgcsam.intake.importers.dicom_scan.PARALLEL_FROM", 1)
    paths = make.write_series(tmp_path / "e", "1.1")
    told = []
    apart = list(scan(paths, tmp_path, workers=1, progress=lambda done, total: told.append((done, total))))
    assert apart == list(scan(paths, tmp_path))
    assert told[-1] == (3, 3)


def test_sarcoma(shared_data):
    imported = take(shared_data / "sarcoma_dicom", labels="rtstruct")
    with open(shared_data / "sarcoma_dicom" / "series.csv") as lines:
        expected = {(line.split(",")[0], line.split(",")[2]): line.strip().split(",") for line in list(lines)[1:]}
    assert len(imported.rows) == len(expected) == 12
    for row in imported.rows:
        known = expected[row["patient_id"], row["modality"]]
        assert row["slices"] == known[3]
        assert row["mask"] == f"sarcoma_dicom/{known[6]}"
    assert imported.reasons() == {"no DICOM file": 1}


def test_series_that_must_be_refused_are_not_taken(shared_data):
    imported = take(shared_data / "dicom_series" / "failing")
    assert not imported.rows
    reasons = {entry.reference.split("#")[0].partition("/")[2]: entry.reason for entry in imported.left_out}
    expected = {
        "gantrytilting/001": "gantry tilt",
        "notavolume/001": "several acquisitions at the same positions",
        "slicecount/001": "too few slices",
        "sliceincrement/001": "slices missing",
        "sliceincrement/002": "slices missing and gantry tilt",
        "sliceorientation/001": "mixed orientation",
    }
    assert {name: reasons[name] for name in expected} == expected


@pytest.mark.parametrize("error", [MachineError("x does not fit into memory"), RuntimeError()])
def test_a_file_that_breaks_its_reader_does_not_end_the_scan(tmp_path, monkeypatch, error):
    def broken(*_args):
        raise error

    assert dicom_scan.scan_item(Item("a.dcm", 1, 0, broken), "a.dcm").fault == dicom_scan.UNREADABLE
    monkeypatch.setattr(dicom_scan, "file_item", broken)
    (found,) = scan_file(str(tmp_path / "a.dcm"), str(tmp_path))
    assert found.fault == dicom_scan.UNREADABLE
    assert found.detail == (str(error) or "RuntimeError")
