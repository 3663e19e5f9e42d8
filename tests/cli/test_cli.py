"""The command line as a user meets it: help, output, exit codes, one sentence per error."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from medgcsam.__main__ import main

VERBS = ["import", "train", "evaluate", "check", "split", "report", "identify", "doctor", "compare"]


def medgcsam(*arguments: str, cwd: Path, **environment: str | None) -> subprocess.CompletedProcess:
    """Run the command in this process, as its entry point does, in folder ``cwd``; None takes a variable away."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.chdir(cwd)
        patch.setattr(sys, "argv", ["medgcsam", *arguments])
        for name, value in environment.items():
            patch.delenv(name, raising=False) if value is None else patch.setenv(name, value)
        try:
            main()
        except SystemExit as leaving:
            code = leaving.code or 0
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


def refused(result: subprocess.CompletedProcess, exit_code: int) -> str:
    """The one sentence of an expected error."""
    assert result.returncode == exit_code, result.stderr
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert "Traceback" not in result.stderr
    return lines[0]


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A hospital's folder: 40 patients, one picture each, a manifest and a configuration."""
    rng = np.random.default_rng(3)
    lines = ["image,patient_id,label"]
    for number in range(40):
        pixels = rng.normal(90, 25, (36, 36))
        pixels[10:26, 10:26] += 60 * (number % 2)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(tmp_path / f"{number:02d}.png")
        lines.append(f"{number:02d}.png,P{number:02d},{['sound', 'ill'][number % 2]}")
    (tmp_path / "manifest.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "site.yaml").write_text(
        "name: site\ndata:\n  manifest: manifest.csv\n  classes: [sound, ill]\n"
        "split: {folds: 4}\nimage: {size: 32}\nnetwork: {width: 4}\n"
        "optimizer: {name: gcsam, lr: 3e-3}\ntraining: {epochs: 2, batch_size: 8, device: cpu, threads: 1}\n"
        "evaluation: {replicates: 100}\npipeline: {workers: 0}\noutput: {folder: runs}\n"
        "report: {reference_standard: Three readers}\n"
    )
    return tmp_path


def edit(site: Path, name: str, old: str, new: str) -> None:
    text = (site / name).read_text()
    assert old in text
    (site / name).write_text(text.replace(old, new))


def train(site: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    return medgcsam("train", "--config", "site.yaml", *arguments, cwd=site, **environment)


def test_the_whole_way_of_a_run(site) -> None:
    result = train(site)
    assert result.returncode == 0, result.stderr
    assert "internal testing: 10 patients, 10 images, 5 with ill" in result.stdout
    assert "medgcsam compare --config site.yaml" in result.stdout
    run = site / "runs" / "site" / "gcsam" / "seed-0" / "fold-0"
    page = (run / "report.html").read_text()
    assert page.startswith("<!DOCTYPE html>")
    assert "Three readers" in page

    again = train(site, "--json")
    summary = json.loads(again.stdout)
    assert summary["metrics"] == json.loads((run / "metrics.json").read_text())
    assert "This run is finished" in again.stderr

    before = json.loads((run / "metrics.json").read_text())
    evaluated = medgcsam("evaluate", str(run), "--json", cwd=site)
    assert json.loads(evaluated.stdout)["metrics"] == before

    case = (run / "predictions.csv").read_text().splitlines()[1].split(",")
    for hashed in case[:2]:
        found = medgcsam("identify", hashed, "--config", "site.yaml", cwd=site)
        assert found.returncode == 0, found.stderr
        assert "patient_id P" in found.stdout
    unknown = medgcsam("identify", "0" * 16, "--config", "site.yaml", cwd=site)
    assert "no patient or image" in refused(unknown, 3)

    report = medgcsam("report", str(run), cwd=site)
    assert (report.returncode, report.stdout.strip()) == (0, f"Report: {run.relative_to(site)}/report.html")


def test_external_testing(site, tmp_path) -> None:
    train(site)
    run = site / "runs" / "site" / "gcsam" / "seed-0" / "fold-0"
    same = medgcsam("evaluate", str(run), "--manifest", "manifest.csv", cwd=site)
    assert "30 patients of this manifest were trained or selected on" in refused(same, 3)
    other = (site / "manifest.csv").read_text().replace(",P", ",Q")
    (site / "other.csv").write_text(other)
    copies = medgcsam("evaluate", str(run), "--manifest", "other.csv", cwd=site)
    assert "30 images of this manifest were trained or selected on" in refused(copies, 3)
    assert not (run / "external" / "other" / "metrics.json").exists()
    for path in site.glob("*.png"):  # another site's images: the same mirrored
        ImageOps.mirror(Image.open(path)).save(path)
    result = medgcsam("evaluate", str(run), "--manifest", "other.csv", cwd=site)
    assert result.returncode == 0, result.stderr
    assert "external testing: 40 patients" in result.stdout
    folder = run / "external" / "other"
    metrics = json.loads((folder / "metrics.json").read_text())
    trained = json.loads((run / "metrics.json").read_text())
    assert metrics["testing"] == "external"
    assert metrics["operating_point"] == trained["operating_point"]
    assert metrics["counts"] == {"patients": 40, "images": 40, "labels": {"sound": 20, "ill": 20}}
    page = (folder / "report.html").read_text()
    assert "Three readers" not in page, "the reference standard of the training data is not that of others"
    assert "external testing" in page.lower()
    assert "Overlap with training and validation" in page
    assert "identical images across partitions" not in page


def test_split_check_and_doctor(site) -> None:
    split = medgcsam("split", "--config", "site.yaml", "--json", cwd=site)
    document = json.loads(split.stdout)
    assert document["counts"]["test"]["patients"] == 10
    run = site / "runs" / "site" / "gcsam" / "seed-0" / "fold-0"
    assert json.loads((run / "split.json").read_text()) == document
    assert train(site).returncode == 0
    assert json.loads((run / "split.json").read_text()) == document

    given = medgcsam(
        "train", "--config", "site.yaml", "--set", "name=again", "--set", "split.by=file",
        "--set", f"split.file={run / 'split.json'}", cwd=site,
    )  # fmt: skip
    assert given.returncode == 0, given.stderr
    other = json.loads((site / "runs" / "again" / "gcsam" / "seed-0" / "fold-0" / "split.json").read_text())
    assert other["partitions"] == document["partitions"]

    sound = medgcsam("check", "--config", "site.yaml", cwd=site)
    assert sound.returncode == 0, sound.stderr
    doctor = medgcsam("doctor", "--json", cwd=site)
    assert doctor.returncode == 0, doctor.stderr
    facts = json.loads(doctor.stdout)
    assert facts["transfer_syntaxes"]["RLE Lossless"]
    assert facts["folders"]["output"]["writable"]


def test_print_config_is_the_configuration(site) -> None:
    printed = train(site, "--print-config", "--set", "training.epochs=9")
    (site / "printed.yaml").write_text(printed.stdout)
    again = medgcsam("train", "--config", "printed.yaml", "--print-config", cwd=site)
    assert printed.stdout == again.stdout
    assert "epochs: 9" in printed.stdout


def test_a_truncated_png(site) -> None:
    path = site / "07.png"
    path.write_bytes(path.read_bytes()[:200])
    assert "07.png" in refused(train(site), 3)
    listed = medgcsam("check", "--config", "site.yaml", cwd=site)
    assert listed.returncode == 3
    assert "07.png" in listed.stdout


def test_a_truncated_dicom(site) -> None:
    from pydicom.data import get_testdata_file

    content = Path(get_testdata_file("CT_small.dcm")).read_bytes()
    (site / "07.png").write_bytes(content[: len(content) // 2])
    assert "07.png" in refused(train(site), 3)


def test_an_empty_manifest(site) -> None:
    (site / "manifest.csv").write_text("image,patient_id,label\n")
    assert "manifest.csv" in refused(train(site), 3)


def test_a_label_that_is_no_class(site) -> None:
    edit(site, "manifest.csv", "P04,sound", "P04,sund")
    sentence = refused(train(site), 3)
    assert "'sund'" in sentence
    assert "line 6" in sentence


def test_a_missing_patient(site) -> None:
    edit(site, "manifest.csv", "04.png,P04", "04.png,")
    assert "line 6" in refused(train(site), 3)


def test_a_wrong_column_name(site) -> None:
    edit(site, "manifest.csv", "patient_id", "patientid")
    assert "patient_id" in refused(train(site), 2)


def test_the_same_image_of_two_patients(site) -> None:
    for number in range(1, 40, 2):
        (site / f"{number:02d}.png").write_bytes((site / "00.png").read_bytes())
    assert "identical" in refused(train(site), 3)


def test_an_unwritable_output_folder(site) -> None:
    (site / "runs").write_text("a file where the folder should be")
    assert "runs" in refused(train(site), 4)
    assert (site / "runs").read_text() == "a file where the folder should be"


def test_misspelt_keys_and_a_negative_rho_come_at_once(site) -> None:
    edit(site, "site.yaml", "name: gcsam, lr: 3e-3", "name: gcsam, roh: 0.1, rho: -1")
    edit(site, "site.yaml", "epochs: 2", "epoch: 2")
    result = train(site)
    assert result.returncode == 2
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 3
    assert all(line.startswith("site.yaml:") for line in lines)
    assert "'rho'" in result.stderr
    assert "'epochs'" in result.stderr


def test_a_class_with_one_patient(site) -> None:
    lines = (site / "manifest.csv").read_text().splitlines()
    kept = [line for line in lines if not line.endswith(",ill")] + [next(line for line in lines if "ill" in line)]
    (site / "manifest.csv").write_text("\n".join(kept) + "\n")
    assert "1 patient" in refused(train(site), 3)


def test_a_data_set_that_is_not_there(site) -> None:
    sentence = refused(medgcsam("train", "--config", "nih_chest_xray.yaml", cwd=site, MEDGCSAM_DATA="nowhere"), 3)
    assert "nowhere" in sentence
    assert "it can be had from" in sentence
    unset = medgcsam("train", "--config", "nih_chest_xray.yaml", cwd=site, MEDGCSAM_DATA=None)
    assert "MEDGCSAM_DATA is not set" in refused(unset, 3)


def test_an_unset_variable_and_an_unknown_config(site) -> None:
    edit(site, "site.yaml", "manifest: manifest.csv", "manifest: ${NO_SUCH_VARIABLE}/manifest.csv")
    assert "NO_SUCH_VARIABLE" in refused(train(site), 2)
    assert "chest_xray.yaml" in refused(medgcsam("train", "--config", "chest_xrey.yaml", cwd=site), 2)


def test_no_run_there(site) -> None:
    assert "no run folder" in refused(medgcsam("evaluate", "runs/nothing", cwd=site), 2)
    assert "no run folder" in refused(medgcsam("report", "runs/nothing", cwd=site), 2)


def test_debug_adds_the_traceback(site) -> None:
    (site / "manifest.csv").write_text("image,patient_id,label\n")
    result = train(site, "--debug")
    assert result.returncode == 3
    assert "Traceback" in result.stderr


@pytest.mark.parametrize("verb", VERBS)
def test_help_has_an_example(verb, tmp_path) -> None:
    result = medgcsam(verb, "--help", cwd=tmp_path)
    assert result.returncode == 0
    assert f"Example: medgcsam {verb}" in " ".join(result.stdout.split())


def test_help_loads_nothing_heavy(tmp_path) -> None:
    code = "import sys, medgcsam.cli; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path).stdout.split()
    heavy = {
        "torch",
        "monai",
        "numpy",
        "pandas",
        "scipy",
        "sklearn",
        "pydantic",
        "yaml",
        "pydicom",
        "matplotlib",
        "rich",
    }
    assert not heavy & set(loaded)


def test_a_terminated_run_exits_75_and_goes_on(site) -> None:
    arguments = [sys.executable, "-m", "medgcsam", "train", "--config", "site.yaml", "--set", "training.epochs=400"]
    process = subprocess.Popen(arguments, cwd=site, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    history = site / "runs" / "site" / "gcsam" / "seed-0" / "fold-0" / "history.jsonl"
    deadline = time.monotonic() + 120
    while not history.is_file() and time.monotonic() < deadline:
        time.sleep(0.1)
    process.terminate()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 75, errors
    assert "run the same command again" in errors
    assert history.read_text().count("\n") < 400
