"""The store on disk: resumed, damaged, and on a full disk."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from types import SimpleNamespace

import numpy as np
import pytest

from medgcsam.errors import MachineError
from medgcsam.pipeline.store import StoreWriter, exclusive, machine_errors, open_store, store_key

FIELDS = {"size": (4, 6), "channels": 1, "fit": "pad", "intensity": "display", "irregular": "refuse", "pet": "suv"}
IMAGE = SimpleNamespace(**FIELDS, orientation="refuse")
SOURCES = ["a" * 64, "b" * 64, "c" * 64]
KEY = store_key(IMAGE, SOURCES)


def pixels(row: int) -> np.ndarray:
    return np.full((1, 4, 6), row + 0.5, np.float16)


def write_store(folder):
    with exclusive(folder) as partial:
        writer = StoreWriter(partial, sources=SOURCES, image=IMAGE)
        for row in (2, 0, 1):  # any order
            writer.write(row, pixels(row), f"pixels {row}")
        writer.finish(folder)
    return open_store(folder)


def test_round_trip_is_plain_numpy(tmp_path):
    store = write_store(tmp_path / KEY)
    assert store.key == KEY
    assert len(store) == 3
    assert list(store.digests["source"]) == SOURCES
    assert list(store.digests["pixels"]) == ["pixels 0", "pixels 1", "pixels 2"]
    plain = np.load(tmp_path / KEY / "images.npy", allow_pickle=False)
    np.testing.assert_array_equal(plain, np.stack([pixels(row) for row in range(3)]))
    assert not store.images.flags.writeable
    assert not list(tmp_path.glob("*.partial"))


def test_images_sha256_does_not_depend_on_the_image_configuration(tmp_path):
    store = write_store(tmp_path / KEY)
    other = SimpleNamespace(**(vars(IMAGE) | {"intensity": "zscore"}))
    assert store_key(other, SOURCES) != KEY
    assert store_key(IMAGE, SOURCES[::-1]) != KEY
    assert len(store.images_sha256) == 64


def test_a_field_that_came_later_keeps_the_keys_of_older_stores():
    head = json.dumps({"format": 1, "image": FIELDS}, sort_keys=True)
    assert hashlib.sha256("\n".join([head, *SOURCES]).encode()).hexdigest() == KEY
    assert store_key(SimpleNamespace(**FIELDS, orientation="sform"), SOURCES) != KEY


@pytest.mark.parametrize("damage", ["cut", "json", "digests", "key"])
def test_a_damaged_store_is_not_opened_and_is_built_anew(tmp_path, damage):
    folder = tmp_path / KEY
    write_store(folder)
    if damage == "cut":
        with open(folder / "images.npy", "r+b") as file:
            file.truncate(150)
    elif damage == "json":
        (folder / "store.json").write_text("{")
    elif damage == "digests":
        (folder / "digests.csv").unlink()
    else:
        facts = json.loads((folder / "store.json").read_text())
        (folder / "store.json").write_text(json.dumps(facts | {"key": "another"}))
    assert open_store(folder) is None
    assert write_store(folder) is not None


def test_a_killed_build_keeps_only_what_its_journal_names(tmp_path):
    writer = StoreWriter(tmp_path / "x.partial", sources=SOURCES, image=IMAGE)
    writer.write(1, pixels(1), "one")
    writer.sync()
    writer.write(2, pixels(2), "two")  # never synced: as if killed here
    with open(tmp_path / "x.partial" / "done.csv", "a") as journal:
        journal.write("0,cut in the mid")
    again = StoreWriter(tmp_path / "x.partial", sources=SOURCES, image=IMAGE)
    assert again.done == {1: "one"}
    with pytest.raises(ValueError, match="2 rows are missing"):
        again.finish(tmp_path / KEY)
    assert open_store(tmp_path / KEY) is None


def test_space_is_reserved_before_anything_is_decoded(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(MachineError, match="full"), machine_errors(tmp_path):
        StoreWriter(tmp_path / "x.partial", sources=SOURCES, image=IMAGE)
    assert not (tmp_path / "x.partial").exists()


def test_a_file_system_that_cannot_reserve_space_still_works(tmp_path, monkeypatch):
    def unsupported(*_):
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(os, "posix_fallocate", unsupported)
    assert len(write_store(tmp_path / KEY)) == 3


def test_without_file_locks_each_process_builds_for_itself(tmp_path, monkeypatch):
    import fcntl

    def unsupported(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with exclusive(tmp_path / KEY) as partial:
        assert str(os.getpid()) in partial.name
    assert len(write_store(tmp_path / KEY)) == 3
    assert len(write_store(tmp_path / KEY)) == 3  # the other was faster
    assert not list(tmp_path.glob("*.partial"))


def test_wrong_pixels_are_refused(tmp_path):
    writer = StoreWriter(tmp_path / "x.partial", sources=SOURCES, image=IMAGE)
    with pytest.raises(ValueError, match="expected float16"):
        writer.write(0, pixels(0).astype(np.float32), "")
    with pytest.raises(ValueError, match="expected float16"):
        writer.write(0, pixels(0)[:, :3], "")
