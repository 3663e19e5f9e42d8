"""Hashes name a patient the same way everywhere below one output folder, and only there."""

from __future__ import annotations

import stat
import threading

import pytest

from medgcsam.errors import DataError, MachineError
from medgcsam.privacy import hash_id, load_salt


def test_the_salt_is_made_once_and_kept(tmp_path) -> None:
    assert load_salt(tmp_path / "runs") == load_salt(tmp_path / "runs")
    assert load_salt(tmp_path / "runs") != load_salt(tmp_path / "other")
    assert stat.S_IMODE((tmp_path / "runs" / ".salt").stat().st_mode) == 0o600


def test_writers_that_start_together_agree_and_leave_nothing_behind(tmp_path) -> None:
    for attempt in range(20):
        folder, salts, barrier = tmp_path / str(attempt), [], threading.Barrier(8)

        def read(folder=folder, salts=salts, barrier=barrier) -> None:
            barrier.wait()
            salts.append(load_salt(folder))

        threads = [threading.Thread(target=read) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(set(salts)) == 1
        assert salts[0] == load_salt(folder)
        assert [entry.name for entry in folder.iterdir()] == [".salt"]


def test_hashes_depend_on_salt_kind_and_value() -> None:
    hashes = {hash_id(salt, kind, value) for salt in (b"a", b"b") for kind in ("patient", "case") for value in "12"}
    assert len(hashes) == 8
    assert all(len(value) == 16 and int(value, 16) >= 0 for value in hashes)


def test_a_damaged_salt_is_not_replaced(tmp_path) -> None:
    (tmp_path / ".salt").write_text("pepper")
    with pytest.raises(DataError, match="not a salt"):
        load_salt(tmp_path)
    assert (tmp_path / ".salt").read_text() == "pepper"


def test_an_unwritable_folder_is_one_sentence(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineError, match=r"output\.folder"):
        load_salt(tmp_path / "file" / "runs")
