"""Files of a run are whole or absent, and read back as written."""

from __future__ import annotations

import errno

import numpy as np
import pandas
import pytest

from medgcsam import run_folder
from medgcsam.errors import ConfigError, DataError, MachineError
from medgcsam.run_folder import RunFolder


def test_names_are_those_of_the_design(tmp_path) -> None:
    run = RunFolder.of(tmp_path, "chest", "gcsam", 3, 1)
    assert run.path == tmp_path / "chest" / "gcsam" / "seed-3" / "fold-1"
    assert run.predictions == run.path / "predictions.csv"
    assert run.last_checkpoint == run.path / "checkpoints" / "last.pt"
    assert run.external("north").metrics == run.path / "external" / "north" / "metrics.json"
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path) -> None:
    path = tmp_path / "metrics.json"
    run_folder.write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="JSON"):
        run_folder.write_json(path, {"a": float("nan")})
    with pytest.raises(RuntimeError):
        _half_written(path)
    assert run_folder.read_json(path) == {"a": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["metrics.json"]


def _half_written(path) -> None:
    with run_folder.replacing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError


def test_a_full_disk_is_one_sentence(tmp_path) -> None:
    with pytest.raises(MachineError, match="disk is full"), run_folder.replacing(tmp_path / "x"):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_tables_keep_text_and_float32_exactly(tmp_path) -> None:
    values = np.random.default_rng(0).random(50).astype(np.float32)
    table = pandas.DataFrame({"case": ["007"] * 50, "label": ["NA", ""] * 25, "p_a|b": values})
    run_folder.write_table(tmp_path / "predictions.csv", table)
    back = run_folder.read_table(tmp_path / "predictions.csv")
    assert back["case"].tolist() == table["case"].tolist()
    assert back["label"].tolist() == table["label"].tolist()
    assert np.array_equal(back["p_a|b"].to_numpy(np.float32), values)


def test_missing_and_damaged_files_say_so(tmp_path) -> None:
    with pytest.raises(DataError, match="missing"):
        run_folder.read_json(tmp_path / "metrics.json")
    (tmp_path / "metrics.json").write_text("{")
    with pytest.raises(DataError, match="damaged"):
        run_folder.read_json(tmp_path / "metrics.json")
    with pytest.raises(ConfigError, match="no run folder"):
        RunFolder.existing(tmp_path)


def test_json_lines_are_written_and_read(tmp_path) -> None:
    path = tmp_path / "history.jsonl"
    assert run_folder.read_json_lines(path) == []
    run_folder.write_json_lines(path, [{"epoch": 1}, {"epoch": 2}])
    assert run_folder.read_json_lines(path) == [{"epoch": 1}, {"epoch": 2}]
