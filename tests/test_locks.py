"""One process at a time writes to a folder."""

from __future__ import annotations

import subprocess
import sys

import pytest

from medgcsam.errors import MachineError
from medgcsam.locks import only_writer

WAITS = """
import sys
from pathlib import Path
from medgcsam.locks import only_writer
with only_writer(Path(sys.argv[1]), "medgcsam predict"):
    print("held", flush=True)
    sys.stdin.readline()
"""


def test_a_second_process_is_refused_and_a_dead_one_holds_nothing(tmp_path) -> None:
    command = [sys.executable, "-c", WAITS, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        refused = pytest.raises(MachineError, match=r"another `medgcsam predict` is writing to this folder")
        with refused, only_writer(tmp_path, "medgcsam predict"):
            raise AssertionError
        other.kill()
    with only_writer(tmp_path, "medgcsam predict"):
        pass


def test_a_folder_that_is_not_there_is_said(tmp_path) -> None:
    with pytest.raises(MachineError, match="cannot be written"), only_writer(tmp_path / "none", "x"):
        raise AssertionError
