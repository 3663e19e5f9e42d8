"""What `medgcsam import` prints to go on with works as it is printed, and is true."""

from __future__ import annotations

import io
import json
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from medgcsam.__main__ import main
from medgcsam.config import load


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


def printed(out: str, folder: Path) -> Path:
    """The configuration that an import printed, written to the file that it names."""
    lines = out.splitlines()
    (start,) = (number for number, line in enumerate(lines) if "configuration" in line and line.endswith(":"))
    name = next(word.rstrip(":,") for word in lines[start].split() if word.rstrip(":,").endswith(".yaml"))
    block = [line[2:] for line in lines[start + 1 :] if line.startswith("  ")]
    (folder / name).write_text("\n".join(block) + "\n")
    return folder / name


def pictures(folder: Path, *names: str) -> None:
    rng = np.random.default_rng(0)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (40, 40), dtype=np.uint8)).save(folder / name)


@pytest.fixture
def volumes(tmp_path: Path) -> Path:
    """A decathlon task of four cases, masks of two structures."""
    rng = np.random.default_rng(0)
    for number in range(4):
        image = rng.normal(0, 100, (18, 18, 18)).astype(np.float32)
        mask = np.zeros(image.shape, np.uint8)
        mask[4:8, 4:8, 4:8], mask[10:14, 4:8, 4:8] = 1, 2
        for name, array in (("imagesTr", image), ("labelsTr", mask)):
            path = tmp_path / "task" / name / f"c_{number}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            nibabel.save(nibabel.Nifti1Image(array, np.diag([1, 1, 1, 1])), path)
    content = {
        "modality": {"0": "CT"}, "labels": {"0": "background", "1": "liver", "2": "cancer"},
        "training": [{"image": f"imagesTr/c_{n}.nii.gz", "label": f"labelsTr/c_{n}.nii.gz"} for n in range(4)],
    }  # fmt: skip
    (tmp_path / "task" / "dataset.json").write_text(json.dumps(content))
    return tmp_path


def test_without_labels_it_says_so_and_prints_what_check_takes(volumes):
    code, out, err = medgcsam("import", "task", "--output", "m.csv", cwd=volumes)
    assert code == 0, err
    assert "no labels: not usable for training yet" in out
    assert "medgcsam check --config m.yaml" in out
    path = printed(out, volumes)
    assert load(path).data.structures == {"liver": ("1",), "cancer": ("2",)}
    code, out, err = medgcsam("check", "--config", path.name, cwd=volumes)
    assert code == 0, out + err


def test_with_labels_it_prints_a_configuration_that_runs(tmp_path):
    pictures(tmp_path / "set", *(f"{['well', 'no'][n % 2]}/p{n // 2:02d}_{n}.png" for n in range(24)))
    code, out, err = medgcsam("import", "set", "-o", "out/my set.csv", "--patient-pattern", r"p\d\d", cwd=tmp_path)
    assert code == 0, err
    assert "not usable" not in out
    path = printed(out, tmp_path)
    assert "patients" not in path.read_text()
    assert load(path).name == "my_set"
    code, out, err = medgcsam("split", "--config", path.name, cwd=tmp_path)
    assert code == 0, err
    assert "7 patients      14 images  (no 7, well 7)" in out


def test_several_findings_are_counted_by_class_and_named_a_multilabel_task(tmp_path):
    pictures(tmp_path, *(f"{number:02d}.png" for number in range(20)))
    rows = [f"{number:02d}.png,p{number},{number % 2}.0,{(1, '', 0, '')[number % 4]},," for number in range(20)]
    (tmp_path / "t.csv").write_text("\n".join(["image,patient_id,E,C,N,D", *rows, "00.png,,1,,,"]) + "\n")
    (tmp_path / "own.yaml").write_text(
        "title: t\nlicence: ''\ncitation: ''\nsource: ''\nimporter: table\nfolder: x\nfile: t.csv\n"
        "label_columns: {Edema: E, Cardiomegaly: C}\nno_finding: {column: N}\n"
    )
    code, out, err = medgcsam("import", ".", "--config", "own.yaml", "--json", cwd=tmp_path)
    assert code == 0, err
    summary = json.loads(out)
    assert summary["labels"] == {"Edema": 10, "Cardiomegaly": 5, "none": 5}
    assert summary["labels_not_known"] == {"Cardiomegaly": 10}
    assert summary["without_label"] == 0
    assert summary["left_out"] == {"no patient": 1}, "one empty cell does not make every patient unknown"
    assert (summary["patients"], summary["patients_known"]) == (20, True)
    code, out, err = medgcsam("import", ".", "--config", "own.yaml", "--overwrite", cwd=tmp_path)
    assert "labels: Edema 10, Cardiomegaly 5, none 5\n" in out
    assert "labels not known: Cardiomegaly 10\n" in out
    path = printed(out, tmp_path)
    assert (load(path).task, load(path).data.classes) == ("multilabel", ("Edema", "Cardiomegaly"))
    code, out, err = medgcsam("split", "--config", path.name, cwd=tmp_path)
    assert code == 0, err


def test_groups_that_stand_for_patients_are_called_so(tmp_path):
    pictures(tmp_path, "a.png", "b.png", "c.png")
    (tmp_path / "t.csv").write_text("image,group,label\na.png,1,x\nb.png,1,y\nc.png,2,x\n")
    (tmp_path / "own.yaml").write_text(
        "title: t\nlicence: ''\ncitation: ''\nsource: ''\nimporter: table\nfolder: x\nfile: t.csv\n"
        "columns: {patient_id: group}\npatients: unknown\n"
    )
    _, out, _ = medgcsam("import", ".", "--config", "own.yaml", cwd=tmp_path)
    (line,) = (line for line in out.splitlines() if "patients: unknown" in line)
    assert "groups of the column patient_id are kept together" in line
    assert "each image" not in line
    (tmp_path / "u.csv").write_text("image,label\na.png,x\nb.png,y\n")
    _, out, _ = medgcsam("import", "u.csv", "--overwrite", cwd=tmp_path)
    (line,) = (line for line in out.splitlines() if "patients: unknown" in line)
    assert "each image counts as a patient" in line


def test_where_nothing_is_taken_it_says_what_to_do(tmp_path):
    pictures(tmp_path / "set", "ill/a.png", "well/b.png")
    (tmp_path / "t.csv").write_text("image,label\ngone.png,x\n")
    code, _, err = medgcsam("import", "set", "--patient-pattern", "zz", cwd=tmp_path)
    assert code == 3
    assert "the pattern finds no patient: 2" in err
    assert "correct --patient-pattern" in err
    code, _, err = medgcsam("import", "t.csv", cwd=tmp_path)
    assert code == 3
    assert "file missing: 1" in err
    assert "the folder" in err.split(";", 1)[1]


def test_an_error_is_json_too_where_json_is_asked_for(tmp_path):
    code, out, err = medgcsam("import", "nowhere", "--json", cwd=tmp_path)
    assert json.loads(out) == {"error": err.strip(), "exit_code": 3}
    assert (code, "nowhere" in err) == (3, True)
    assert medgcsam("import", "nowhere", cwd=tmp_path)[1] == ""


def test_faults_that_are_json_already_get_no_second_document(tmp_path):
    pictures(tmp_path, "a.png", "b.png")
    (tmp_path / "m.csv").write_text("image,patient_id,label\na.png,1,x\nb.png,2,y\ngone.png,3,x\n")
    (tmp_path / "c.yaml").write_text("name: c\ndata: {manifest: m.csv}\n")
    code, out, _ = medgcsam("check", "--config", "c.yaml", "--json", cwd=tmp_path)
    assert code == 3
    assert "faults" in json.loads(out)


@pytest.mark.parametrize("name", ["bus_bra.yaml", "bus_bra", "own.yaml", "./own.yaml"])
def test_a_data_description_is_no_configuration(tmp_path, name):
    (tmp_path / "own.yaml").write_text("title: t\nimporter: table\nfolder: x\nfile: t.csv\n")
    code, _, err = medgcsam("split", "--config", name, cwd=tmp_path)
    assert code == 2
    assert "this is a data description, not a configuration; name it in a configuration as data.manifest" in err
    assert len(err.strip().splitlines()) == 1
