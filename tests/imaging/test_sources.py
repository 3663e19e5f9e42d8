"""Folders, archives and media from outside: read as one image, and never beyond their own bounds."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.fileset import FileSet
from pydicom.uid import ExplicitVRLittleEndian

from medgcsam.errors import DataError
from medgcsam.imaging import read_image, source_digest
from medgcsam.imaging.sources import MEDIA_DIRECTORY, folder_items, zip_items

VOLUME = np.random.default_rng(0).integers(0, 2000, (4, 5, 7)).astype(np.int16)


def pack(path: Path, members: dict[str, bytes], *, method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_zip_reads_as_the_folder_that_it_holds(tmp_path, write_series, method):
    paths = write_series(VOLUME)
    members = {f"DICOM/{n}/{path.name}": path.read_bytes() for n, path in enumerate(paths)}
    archive = pack(tmp_path / "study.zip", members | {"readme.txt": b"hello"}, method=method)
    image, folder = read_image(archive), read_image(tmp_path / "series")
    assert np.array_equal(image.array, folder.array)
    assert image.source == dict(folder.source) | {"other_files": 1}
    assert image.reference.files[0] == f"{archive}#DICOM/0/{paths[0].name}"
    assert source_digest(archive) == source_digest(tmp_path / "series") == source_digest(f"{archive}#series=1.2.3.4")
    assert np.array_equal(read_image(f"{archive}#series=1.2.3.4").array, folder.array)


def test_a_member_of_a_zip_is_named_behind_a_hash_sign(tmp_path):
    picture, stream = np.arange(35, dtype=np.uint8).reshape(7, 5), io.BytesIO()
    Pillow.fromarray(picture).save(stream, format="png")
    archive = pack(tmp_path / "a.zip", {"images/one#1.png": stream.getvalue(), "b.txt": b"text, not an image"})
    image = read_image(f"{archive}#images/one#1.png")
    assert np.array_equal(np.rint(image.array[0] * 255), picture)
    (tmp_path / "same.png").write_bytes(stream.getvalue())
    assert source_digest(f"{archive}#images/one#1.png") == source_digest(tmp_path / "same.png")
    for member, message in (("images/two.png", "holds no 'images/two.png'"), ("b.txt", "no kind that can be read")):
        with pytest.raises(DataError, match=message):
            read_image(f"{archive}#{member}")


def test_a_detached_header_finds_its_voxels_in_the_same_folder_of_the_archive(tmp_path):
    header = b"NRRD0004\ntype: uint8\ndimension: 2\nsizes: 3 2\nencoding: raw\ndata file: x.raw\n"
    archive = pack(tmp_path / "a.zip", {"in/x.nhdr": header, "in/x.raw": bytes(range(6)), "alone.nhdr": header})
    assert np.array_equal(read_image(f"{archive}#in/x.nhdr").array, np.arange(6, dtype=np.float32).reshape(1, 2, 3))
    with pytest.raises(DataError, match="which is not there"):
        read_image(f"{archive}#alone.nhdr")


@pytest.mark.parametrize("name", ["../up.dcm", "/etc/passwd", "a/../../b.dcm", "..\\up.dcm", "C:\\x.dcm"])
def test_paths_out_of_an_archive_are_refused(tmp_path, name):
    archive = pack(tmp_path / "bad.zip", {name: b"x"})
    with pytest.raises(DataError, match="a path that leads out of it"):
        read_image(archive)


def test_decompression_bombs_are_refused_before_they_are_unpacked(tmp_path, monkeypatch):
    archive = pack(tmp_path / "bomb.zip", {f"{n}": bytes(2**20) for n in range(40)})
    monkeypatch.setattr("medgcsam.imaging.sources.RATIO_COUNTS_FROM", 2**24)
    with pytest.raises(DataError, match="a decompression bomb"):
        zip_items(archive)
    monkeypatch.setattr("medgcsam.imaging.sources.RATIO_COUNTS_FROM", 2**28)
    assert len(zip_items(archive)) == 40
    monkeypatch.setattr("medgcsam.imaging.sources.MAX_UNPACKED", 2**24)
    with pytest.raises(DataError, match="a decompression bomb"):
        zip_items(archive)
    monkeypatch.setattr("medgcsam.imaging.sources.MAX_FILES", 39)
    with pytest.raises(DataError, match="over 39 files"):
        zip_items(archive)


def test_an_archive_that_lies_about_its_sizes_or_is_damaged_is_refused(tmp_path, write_series):
    members = {path.name: path.read_bytes() for path in write_series(VOLUME)}
    data = bytearray(pack(tmp_path / "a.zip", members).read_bytes())
    central = data.index(b"PK\x01\x02")
    lying = data[: central + 24] + (200).to_bytes(4, "little") + data[central + 28 :]
    broken = data[:200] + bytes(200) + data[400:]
    locked = data[: central + 8] + b"\1" + data[central + 9 :]
    for name, content, message in (
        ("lying", lying, "."),
        ("broken", broken, "damaged zip file"),
        ("cut", data[:-30], "damaged zip file"),
        ("locked", locked, "password"),
    ):
        (tmp_path / f"{name}.zip").write_bytes(bytes(content))
        with pytest.raises(DataError, match=message):
            read_image(tmp_path / f"{name}.zip")


def test_links_out_of_a_folder_are_refused_and_links_within_it_passed_over(tmp_path, write_series):
    paths = write_series(VOLUME)
    expected = read_image(tmp_path / "series")
    os.symlink(paths[0].name, tmp_path / "series" / "again.dcm")
    os.symlink(".", tmp_path / "series" / "loop")
    assert np.array_equal(read_image(tmp_path / "series").array, expected.array)
    os.symlink(tmp_path / "series", tmp_path / "named by the user")
    assert np.array_equal(read_image(tmp_path / "named by the user").array, expected.array)
    (tmp_path / "other").mkdir()
    for target in (tmp_path / "other", Path("/etc/passwd"), Path("../absent.dcm")):
        link = tmp_path / "series" / "out"
        os.symlink(target, link)
        with pytest.raises(DataError, match="a link out of its folder"):
            read_image(tmp_path / "series")
        link.unlink()


def test_what_is_no_regular_file_is_never_waited_for(tmp_path, write_series):
    write_series(VOLUME)
    os.mkfifo(tmp_path / "series" / "pipe")
    assert len(folder_items(tmp_path / "series")) == 4
    for path in (tmp_path / "series" / "pipe", "/dev/zero"):
        with pytest.raises(DataError, match="not a regular file"):
            read_image(path)


def test_too_many_files_and_too_large_ones_are_refused(tmp_path, write_series, monkeypatch):
    write_series(VOLUME)
    monkeypatch.setattr("medgcsam.imaging.sources.MAX_FILES", 3)
    with pytest.raises(DataError, match="over 3 files"):
        read_image(tmp_path / "series")
    monkeypatch.setattr("medgcsam.imaging.sources.MAX_FILES", 4)
    monkeypatch.setattr("medgcsam.imaging.sources.MAX_FILE_BYTES", 100)
    with pytest.raises(DataError, match="too many for one image"):
        read_image(tmp_path / "series")


def test_a_medium_as_pydicom_writes_it_is_read_through_its_index(tmp_path, write_series):
    paths = write_series(VOLUME) + write_series(VOLUME[:3] + 5, folder="second", SeriesInstanceUID="1.2.3.6",
                                                SOPInstanceUID=["1.8.1", "1.8.2", "1.8.3"])  # fmt: skip
    files = FileSet()
    for path in paths:
        ds = dcmread(path)
        ds.StudyID, ds.StudyDate, ds.StudyTime, ds.SeriesNumber, ds.InstanceNumber = "1", "20200101", "1200", 1, 1
        files.add(ds)
    files.write(tmp_path / "disc")
    index = tmp_path / "disc" / "DICOMDIR"
    with pytest.raises(DataError, match="2 image series"):
        read_image(index)
    expected = read_image(tmp_path / "series")
    image = read_image(f"{index}#series=1.2.3.4")
    assert np.array_equal(image.array, expected.array)
    for file in sorted((tmp_path / "disc").rglob("*"), reverse=True):  # as a copy of a disc may have it
        if file.name != "DICOMDIR":
            file.rename(file.with_name(file.name.lower()))
    assert np.array_equal(read_image(f"{index}#series=1.2.3.4").array, expected.array)
    next(file for file in (tmp_path / "disc").rglob("*") if file.is_file() and file != index).unlink()
    with pytest.raises(DataError, match="which is not there; copy the whole medium"):
        read_image(index)


def write_index(path: Path, names: list[list[str]]) -> None:
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = MEDIA_DIRECTORY, "1.2.3"
    ds.DirectoryRecordSequence = []
    for parts in names:
        record = Dataset()
        record.DirectoryRecordType, record.ReferencedFileID = "IMAGE", parts
        ds.DirectoryRecordSequence.append(record)
    ds.save_as(path, enforce_file_format=True)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("parts", [["..", "series", "0"], ["/etc", "passwd"], ["../series/00-00.dcm"], [".", "x"]])
def test_a_medium_does_not_lead_out_of_its_folder(tmp_path, write_series, parts):
    write_series(VOLUME)
    (tmp_path / "disc").mkdir()
    write_index(tmp_path / "disc" / "DICOMDIR", [parts])
    with pytest.raises(DataError, match="a path that leads out of it"):
        read_image(tmp_path / "disc" / "DICOMDIR")


def test_a_medium_without_images_or_with_a_link_out_of_it_is_refused(tmp_path, write_series):
    paths = write_series(VOLUME)
    (tmp_path / "disc").mkdir()
    index = tmp_path / "disc" / "DICOMDIR"
    write_index(index, [])
    with pytest.raises(DataError, match="names no image"):
        read_image(index)
    os.symlink(paths[0], tmp_path / "disc" / "IM1")
    write_index(index, [["IM1"]])
    with pytest.raises(DataError, match="a link out of its folder"):
        read_image(index)
