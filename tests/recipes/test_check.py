"""`check` as a whole: what it says, what it returns, what may be accepted."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture
from PIL import ImageDraw
from scipy.ndimage import gaussian_filter

from medgcsam.config import load
from medgcsam.errors import ConfigError, DataError
from medgcsam.journal import Journal
from medgcsam.recipes.check import check_data
from medgcsam.recipes.split import write_split


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def config(tmp_path: Path):
    """Four patients; one image is the resized copy of another patient's, one is black."""
    pictures = []
    for seed in range(3):
        noise = gaussian_filter(np.random.default_rng(seed).normal(0, 1, (64, 64)), 2)
        pictures.append(Picture.fromarray((128 + 250 * noise).clip(0, 255).astype(np.uint8)))
        pictures[-1].save(tmp_path / f"{seed}.png")
    pictures[0].resize((80, 80), Picture.Resampling.BICUBIC).save(tmp_path / "3.png")
    Picture.fromarray(np.zeros((64, 64), np.uint8)).save(tmp_path / "4.png")
    rows = "".join(f"{n}.png,P{n},{'ill' if n % 2 else 'well'}\n" for n in range(5))
    (tmp_path / "manifest.csv").write_text("image,patient_id,label\n" + rows)
    (tmp_path / "site.yaml").write_text(
        "name: site\ndata: {manifest: manifest.csv, classes: [well, ill]}\noutput: {folder: runs}\n"
    )
    return load(str(tmp_path / "site.yaml"), ())


def test_what_is_said_and_returned(config):
    stream = io.StringIO()
    result = check_data(config, journal=Journal(stream=stream))
    assert result["kinds"] == {"constant": 1, "near_duplicates": 1}
    assert [fault["row"] for fault in result["faults"]] == [2, 6]
    (copies,) = result["copies"]
    assert (copies["first"], copies["second"]) == ("0.png", "3.png")
    assert result["failing"] == 2
    lines = stream.getvalue().splitlines()
    assert lines[0].startswith(
        "near_duplicates  0.png and 3.png of different patients are nearly identical (lines 2, 5"
    )
    assert lines[1].startswith("constant         line 6: 4.png has the same value")
    assert "5 images of 5 patients, 2 fault(s)" in lines[-1]


def test_accepted_kinds_are_told_and_do_not_fail(config):
    stream = io.StringIO()
    result = check_data(config, journal=Journal(stream=stream), accept=["constant", "near_duplicates"])
    assert (result["failing"], len(result["faults"])) == (0, 2)
    assert "(constant, accepted)" in stream.getvalue()
    with pytest.raises(ConfigError, match="nearest: 'constant'"):
        check_data(config, journal=Journal(stream=stream), accept=["konstant"])


def test_on_a_terminal_it_is_a_table(config):
    stream = Terminal()
    check_data(config, journal=Journal(stream=stream))
    assert "what is wrong" in stream.getvalue()
    assert "4.png has the same value in every pixel" in stream.getvalue()


def test_a_second_check_says_what_it_remembers(config):
    stream = io.StringIO()
    check_data(config, journal=Journal(stream=io.StringIO()))
    check_data(config, journal=Journal(stream=stream))
    assert "5 images had been checked before" in stream.getvalue()


def test_a_set_without_labels_is_checked_and_split(config, tmp_path):
    (tmp_path / "manifest.csv").write_text("image,patient_id\n" + "".join(f"{n}.png,P{n}\n" for n in range(5)))
    stream = io.StringIO()
    result = check_data(config, journal=Journal(stream=stream))
    assert (result["labelled"], result["kinds"]) == (False, {"constant": 1, "near_duplicates": 1})
    assert stream.getvalue().count("no labels") == 1
    document = write_split(load(str(tmp_path / "site.yaml"), ["split.folds=3"]), journal=Journal(stream=stream))
    assert sum(count["images"] for count in document["counts"].values()) == 5
    assert all(count["images"] and not count["labels"] for count in document["counts"].values())
    assert "split by patient alone" in stream.getvalue()


def test_identical_files_across_partitions_are_found_without_labels(config, tmp_path):
    for number in range(1, 5):
        shutil.copy(tmp_path / "0.png", tmp_path / f"{number}.png")
    (tmp_path / "manifest.csv").write_text("image,patient_id\n" + "".join(f"{n}.png,P{n}\n" for n in range(5)))
    with pytest.raises(DataError, match="identical to one in another partition"):
        write_split(load(str(tmp_path / "site.yaml"), ["split.folds=3"]), journal=Journal(quiet=True))


def test_a_split_without_labels_needs_an_image_in_every_partition(config, tmp_path):
    (tmp_path / "manifest.csv").write_text("image,patient_id,partition\n0.png,P0,train\n1.png,P1,test\n")
    with pytest.raises(DataError, match="a partition has no image"):
        write_split(load(str(tmp_path / "site.yaml"), ["split.by=manifest"]), journal=Journal(quiet=True))


def test_suspicions_are_told_and_fail_only_when_asked(config, tmp_path):
    picture = Picture.open(tmp_path / "1.png").resize((256, 256))
    ImageDraw.Draw(picture).text((20, 100), "ACCESSION 12345678  WARD 7", fill=255, font_size=20)
    ImageDraw.Draw(picture).text((20, 130), "1937-05-11 08:15  SUPINE AP", fill=0, font_size=20)
    picture.save(tmp_path / "1.png")
    (tmp_path / "manifest.csv").write_text("image,patient_id,label\n1.png,P1,ill\n2.png,P2,well\n9.png,P3,\n")
    stream = io.StringIO()
    result = check_data(config, journal=Journal(stream=stream))
    assert (result["kinds"], result["failing"]) == ({"burned_in_text": 1}, 0)
    assert "(burned_in_text, suspicion)" in stream.getvalue()
    assert "0 fault(s), 1 suspicion(s)" in stream.getvalue()
    assert "note: 1 rows left out: no label" in stream.getvalue()
    assert any("odd_size is not looked for" in note for note in result["notes"])
    assert check_data(config, journal=Journal(quiet=True), strict=True)["failing"] == 1


@pytest.mark.parametrize(
    ("option", "value", "code"), [("--accept", "konstant", 2), ("--set", "data.manifest=no.csv", 3)]
)
def test_an_error_is_json_too_where_that_is_asked_for(config, tmp_path, option, value, code):
    command = [sys.executable, "-m", "medgcsam", "check", "--config", "site.yaml", "--json", option, value]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert json.loads(done.stdout) == {"error": done.stderr.strip(), "exit_code": code}


SLOW = """
import os, sys, time
from pathlib import Path
from medgcsam.intake import check
from medgcsam.intake.examine import Examined

def slow(rows, reading):
    for _ in rows:
        Path("pids", str(os.getpid())).touch()
        time.sleep(0.3)
        yield Examined()

check.examine_each = slow
sys.argv = ["medgcsam", "check", "--config", "site.yaml", "--set", "pipeline.workers=1"]
from medgcsam.__main__ import main
main()
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGKILL"])
def test_a_stopped_check_leaves_no_worker_behind(config, tmp_path, name):
    pids = tmp_path / "pids"
    pids.mkdir()
    rows = "".join(f"{n}.png,P{n},ill\n" for n in range(1000))
    (tmp_path / "manifest.csv").write_text("image,patient_id,label\n" + rows)
    process = subprocess.Popen([sys.executable, "-c", SLOW], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: len(list(pids.iterdir())) == 2)
    process.send_signal(getattr(signal, name))
    _, errors = process.communicate(timeout=20)
    if name != "SIGKILL":
        assert process.returncode == 75, errors
        assert errors == f"check: stopped by {name}; run the same command again to go on.\n"
    wait_for(lambda: not any(alive(int(path.name)) for path in pids.iterdir()))


def wait_for(condition) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and that nobody has asked for yet does not."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
