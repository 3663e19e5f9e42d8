"""Remembered digests: never older than the file."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest

from medgcsam.pipeline import sources
from medgcsam.pipeline.sources import source_digests

PNG = b"\x89PNG\r\n\x1a\n"  # a digest is of the bytes: a picture need not follow


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "SETTLED_SECONDS", -1000.0)  # as if the files were old
    paths = []
    for number in range(4):
        path = tmp_path / f"{number}.bin"
        path.write_bytes(PNG + bytes([number]) * 92)
        paths.append(str(path))
    return paths


def read_again(files, cache, monkeypatch) -> list[str]:
    read = []
    original = sources.source_digest
    with monkeypatch.context() as patch:
        patch.setattr(sources, "source_digest", lambda reference: read.append(reference) or original(reference))
        digests, unreadable = source_digests(files, cache=cache)
    for path, digest in zip(files, digests, strict=True):
        assert digest == hashlib.sha256(Path(path).read_bytes()).hexdigest()
    assert unreadable == {}
    return read


def test_unchanged_files_are_not_read_again(files, tmp_path, monkeypatch):
    assert read_again(files, tmp_path / "c", monkeypatch) == files
    assert read_again(files, tmp_path / "c", monkeypatch) == []


def test_a_change_of_the_same_size_under_the_old_modification_time_is_noticed(files, tmp_path, monkeypatch):
    read_again(files, tmp_path / "c", monkeypatch)
    state = os.stat(files[1])
    with open(files[1], "r+b") as file:
        file.seek(20)
        file.write(b"x")
    os.utime(files[1], ns=(state.st_atime_ns, state.st_mtime_ns))
    assert read_again(files, tmp_path / "c", monkeypatch) == [files[1]]


def test_a_slice_changed_in_its_folder_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "SETTLED_SECONDS", -1000.0)
    monkeypatch.setattr(sources, "source_digest", lambda folder: read.append(folder) or f"digest {len(read)}")
    folder, read = tmp_path / "series", []
    (folder / "more").mkdir(parents=True)
    for name in ("1.dcm", "2.dcm", "more/3.dcm"):
        (folder / name).write_bytes(bytes(200))
    for changed in ("2.dcm", "more/3.dcm"):
        before, _ = source_digests([str(folder)], cache=tmp_path / "c")
        assert source_digests([str(folder)], cache=tmp_path / "c")[0] == before
        (folder / changed).write_bytes(bytes(199) + b"\x07")
        assert source_digests([str(folder)], cache=tmp_path / "c")[0] != before
    assert len(read) == 3


def test_voxels_changed_beside_their_header_are_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "SETTLED_SECONDS", -1000.0)
    header, voxels = tmp_path / "a.mhd", tmp_path / "a.raw"
    header.write_text(
        "ObjectType = Image\nNDims = 3\nDimSize = 2 2 2\nElementSpacing = 1 1 1\nElementType = MET_UCHAR\n"
        "ElementDataFile = a.raw\n"
    )
    voxels.write_bytes(bytes(8))
    first, unreadable = source_digests([str(header)], cache=tmp_path / "c")
    assert not unreadable
    voxels.write_bytes(bytes(7) + b"\x01")
    assert source_digests([str(header)], cache=tmp_path / "c")[0] != first


def test_a_file_changed_just_now_is_not_remembered(files, tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "SETTLED_SECONDS", 2.0)
    assert read_again(files, tmp_path / "c", monkeypatch) == files
    assert read_again(files, tmp_path / "c", monkeypatch) == files


def test_a_damaged_memory_is_ignored_and_names_no_file(files, tmp_path, monkeypatch):
    read_again(files, tmp_path / "c", monkeypatch)
    (memory,) = (tmp_path / "c" / "digests").iterdir()
    assert ".bin" not in memory.read_text()
    memory.write_bytes(b"\xff\x00,\n")
    assert read_again(files, tmp_path / "c", monkeypatch) == files


def test_missing_files_and_archive_entries(tmp_path):
    images = np.arange(2 * 9, dtype=np.uint8).reshape(2, 3, 3)
    np.savez(tmp_path / "a.npz", train_images=images)
    entries = [f"{tmp_path / 'a.npz'}#train/{n}" for n in (0, 1)]
    digests, unreadable = source_digests([*entries, str(tmp_path / "none.png")], cache=tmp_path / "c")
    assert len(set(digests)) == 3
    assert list(unreadable) == [2]
    assert "none.png" in unreadable[2]
