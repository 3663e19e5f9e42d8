"""`medgcsam import` as a user meets it: a manifest, a list of what was left out, and a summary that adds up."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medgcsam.__main__ import main
from medgcsam.cohort import read_manifest
from medgcsam.intake.importers import COLLECTORS


def medgcsam(*arguments: str, cwd: Path) -> tuple[int, str, str]:
    out, err, code = io.StringIO(), io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.chdir(cwd)
        patch.setattr(sys, "argv", ["medgcsam", *arguments])
        try:
            main()
        except SystemExit as leaving:
            code = leaving.code or 0
    return code, out.getvalue(), err.getvalue()


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Twelve pictures of two classes, a mask folder, and something that is no picture."""
    rng = np.random.default_rng(0)
    for number in range(12):
        place = tmp_path / "set" / ["well", "ill"][number % 2] / f"p{number // 2:02d}_{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (40, 40), dtype=np.uint8)).save(place)
    (tmp_path / "set" / "notes.txt").write_text("hello")
    return tmp_path


def test_class_folders_become_a_manifest_that_a_run_can_use(pictures):
    code, out, err = medgcsam("import", "set", "--output", "m.csv", "--patient-pattern", r"p\d\d", cwd=pictures)
    assert (code, err) == (0, "")
    assert "12  images of 6 patients, 0 with a mask" in out
    assert "1  no image by its name" in out
    table = read_manifest(pictures / "m.csv")
    assert table["patient_id"].nunique() == 6
    assert table["case"][0] == "set/ill/p00_1.png"
    with (pictures / "m.left_out.csv").open() as lines:
        assert list(csv.DictReader(lines)) == [
            {"reference": "notes.txt", "patient_id": "", "reason": "no image by its name", "detail": ""}
        ]
    (pictures / "run.yaml").write_text("name: r\ndata: {manifest: m.csv, classes: [well, ill]}\nsplit: {folds: 2}\n")
    code, out, err = medgcsam("split", "--config", "run.yaml", cwd=pictures)
    assert code == 0, err


def test_unknown_patients_are_said_and_never_guessed(pictures):
    code, out, _ = medgcsam("import", "set", "--json", cwd=pictures)
    summary = json.loads(out)
    assert (code, summary["patients"], summary["patients_known"]) == (0, None, False)
    assert summary["labels"] == {"ill": 6, "well": 6}
    header = (pictures / "manifest.csv").read_text().splitlines()[0]
    assert header == "image,label"
    _, out, _ = medgcsam("import", "set", "--overwrite", cwd=pictures)
    assert "patients: unknown" in out
    assert "--patient-pattern finds the patient" in out


def test_a_manifest_is_not_replaced_without_a_word(pictures):
    (pictures / "m.csv").write_text("mine")
    code, _, err = medgcsam("import", "set", "--output", "m.csv", cwd=pictures)
    assert code == 2
    assert "--overwrite" in err
    assert (pictures / "m.csv").read_text() == "mine"
    assert not (pictures / "m.left_out.csv").exists()


def test_a_table_with_columns_of_its_own(pictures):
    lines = ["File;Who;Finding", *(f"ill/p{n // 2:02d}_{n}.png;{n // 2};x" for n in range(1, 12, 2)), "gone.png;9;x"]
    (pictures / "set" / "t.csv").write_text("\n".join(lines))
    code, out, err = medgcsam(
        "import", "set/t.csv", "-o", "m.csv", "--patient-column", "Who", "--column", "image=File",
        "--column", "label=Finding", cwd=pictures,
    )  # fmt: skip
    assert code == 0, err
    assert "6  images of 6 patients" in out
    assert "1  file missing" in out
    table = read_manifest(pictures / "m.csv")
    assert all(Path(name).is_file() for name in table["image"])
    code, _, err = medgcsam("import", "set/t.csv", "--column", "image", "-o", "n.csv", cwd=pictures)
    assert code == 2
    assert "STANDARD=NAME" in err


def test_images_of_a_table_may_lie_elsewhere(pictures):
    lines = [
        "image,patient_id,label",
        *(f"p{n // 2:02d}_{n}.png,{n},x" for n in range(1, 12, 2)),
        "../well/p00_0.png,0,y",
    ]
    (pictures / "tables").mkdir()
    (pictures / "tables" / "t.csv").write_text("\n".join(lines))
    code, _, err = medgcsam("import", "tables/t.csv", "-o", "m.csv", cwd=pictures)
    assert (code, "--images" in err) == (3, True)
    code, out, err = medgcsam("import", "tables/t.csv", "-o", "m.csv", "--images", "set/ill", cwd=pictures)
    assert code == 0, err
    assert "6  images of 6 patients" in out
    assert "1  file outside of the folder" in out
    assert read_manifest(pictures / "m.csv")["case"][0] == "set/ill/p00_1.png"
    for arguments, said in (
        (("tables/t.csv", "--images", "nowhere"), "no such folder"),
        (("set", "--images", "set"), "table"),
    ):
        assert said in medgcsam("import", *arguments, "-o", "n.csv", cwd=pictures)[2]


def test_a_stopped_import_writes_nothing(pictures, monkeypatch):
    def stop(*arguments):
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setitem(COLLECTORS, "classes", stop)
    code, out, err = medgcsam("import", "set", "-o", "m.csv", "--json", cwd=pictures)
    assert (code, json.loads(out)["error"]) == (75, err.strip())
    assert "SIGTERM; nothing was written" in err
    assert not list(pictures.glob("*.csv"))


def test_labels_that_were_not_asked_for_are_offered(shared_data, tmp_path):
    code, out, err = medgcsam("import", str(shared_data / "sarcoma_dicom"), cwd=tmp_path)
    assert code == 0, err
    assert "12  label, and none was asked for (--labels rtstruct or --labels seg takes" in out


def test_labels_come_in_the_words_of_the_classes(shared_data, tmp_path):
    code, out, err = medgcsam("import", "--config", "breastmnist", "--json", cwd=tmp_path)
    assert code == 0, err
    summary = json.loads(out)
    assert summary["labels"] == {"normal_or_benign": 570, "malignant": 210}
    assert summary["partitions"] == {"train": 546, "test": 156, "validation": 78}
    assert "malignant,train" in (tmp_path / "manifest.csv").read_text()


def test_errors_are_one_sentence(tmp_path):
    for arguments, code, said in (
        (["import"], 2, "needs a folder"),
        (["import", "nowhere"], 3, "no such folder"),
        (["import", ".", "--kind", "tabel"], 2, "the kinds are"),
        (["import", "--config", "chest_xray_phantom"], 2, "needs no import"),
        (["import", "--config", "busi"], 3, "MEDGCSAM_DATA"),
        (["import", "--config", "busi", "-o", "busi.yaml"], 2, "ends in .csv"),
    ):
        result = medgcsam(*arguments, cwd=tmp_path)
        assert result[0] == code, result
        assert said in result[2]
        assert len(result[2].strip().splitlines()) == 1
