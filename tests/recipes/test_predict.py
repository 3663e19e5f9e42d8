"""`medgcsam predict`: files, folders, series and manifests; one bad case; going on; the mean of several networks."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys

import nibabel
import numpy as np
import pytest
from PIL import Image

from medgcsam.errors import ConfigError, DataError, Interrupted, MachineError
from medgcsam.intake.inputs import find_inputs
from medgcsam.journal import Journal
from medgcsam.recipes.predict import predict_images
from medgcsam.run_folder import RunFolder, read_table
from medgcsam.training import train
from tests.training.segmentation_cohorts import draw_balls, draw_discs, segmentation_config

QUIET = Journal(quiet=True)


@pytest.fixture(scope="module")
def discs(tmp_path_factory):
    return draw_discs(tmp_path_factory.mktemp("discs"))


@pytest.fixture(scope="module")
def folds(discs, tmp_path_factory):
    """Two folds of one setting."""
    folder = tmp_path_factory.mktemp("runs")
    for fold in (0, 1):
        train(segmentation_config(discs, folder, ("training.epochs=4", f"split.fold={fold}")), journal=QUIET)
    return folder / "runs" / "discs" / "gcsam" / "seed-0"


def predict(run, inputs, output, *, overwrite=False):
    return predict_images(run, inputs, output, device="cpu", overwrite=overwrite, journal=QUIET)


def contents(folder):
    """Bytes of every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def lines_of(output):
    return {line["path"]: line for line in read_table(output / "predictions.csv").to_dict("records")}


@pytest.fixture
def few(discs, tmp_path):
    """A folder of three pictures."""
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("p00.png", "p01.png", "p02.png"):
        (folder / name).write_bytes((discs / name).read_bytes())
    return folder


def test_a_run_predicts_what_it_predicted_when_it_was_tested(folds, discs, tmp_path) -> None:
    """The masks of validation and test cases again, from their files."""
    run = RunFolder(folds / "fold-0")
    (tmp_path / "in").mkdir()
    for path in discs.glob("p??.png"):
        (tmp_path / "in" / path.name).write_bytes(path.read_bytes())
    result = predict(run.path, tmp_path / "in", tmp_path / "out")
    assert result["done"] == 16
    assert not result["failed"]
    again = {nibabel.load(path).get_fdata().tobytes() for path in (tmp_path / "out" / "masks").iterdir()}
    assert {nibabel.load(path).get_fdata().tobytes() for path in run.masks.iterdir()} <= again


def test_one_bad_case_does_not_stop_the_rest_and_the_command_goes_on(folds, discs, tmp_path) -> None:
    inputs = tmp_path / "in"
    inputs.mkdir()
    for name in ("p00.png", "p01.png"):
        (inputs / name).write_bytes((discs / name).read_bytes())
    (inputs / "cut.png").write_bytes((discs / "p02.png").read_bytes()[:200])
    command = [sys.executable, "-m", "medgcsam", "predict", str(folds), str(inputs), "-o", str(tmp_path / "out")]
    first = subprocess.run([*command, "--json", "--device", "cpu"], capture_output=True, text=True)
    assert first.returncode == 3, first.stderr
    result = json.loads(first.stdout)
    assert result["done"] == 2
    assert [entry["image"] for entry in result["failed"]] == ["cut.png"]
    lines = read_table(tmp_path / "out" / "predictions.csv")
    assert dict(zip(lines["image"], lines["status"], strict=True)) == {
        "p00.png": "done", "p01.png": "done", "cut.png": "failed",
    }  # fmt: skip
    (inputs / "cut.png").write_bytes((discs / "p02.png").read_bytes())
    second = predict(folds, inputs, tmp_path / "out")
    assert second["done"] == 3
    assert second["known"] == 2


def test_several_networks_are_averaged_on_the_voxels_of_the_image(folds, discs, tmp_path) -> None:
    """By torch's interpolation of both folds' probabilities to the image's size, their mean and the larger one."""
    import torch

    from medgcsam.imaging import read_image
    from medgcsam.training.predictor import _probabilities, finished_runs, load_trained, segment

    trained = load_trained(finished_runs(folds), torch.device("cpu"))
    assert len(trained) == 2
    image = read_image(discs / "p03.png")
    found = segment(trained, image, torch.device("cpu"), scratch=None)
    parts = [torch.from_numpy(_probabilities(one, image, torch.device("cpu"), None)[0]).float() for one in trained]
    sized = [torch.nn.functional.interpolate(part[None], image.spatial_shape, mode="bilinear") for part in parts]
    wanted = torch.stack(sized).mean(0)[0].argmax(0).numpy()
    assert wanted.any()
    assert wanted.shape == found[0].shape
    assert (wanted != found[0]).mean() < 0.002


def test_predictions_of_other_networks_are_not_mixed_in(folds, discs, tmp_path) -> None:
    predict(folds / "fold-0", discs / "p00.png", tmp_path / "out")
    with pytest.raises(ConfigError, match="other networks"):
        predict(folds, discs / "p00.png", tmp_path / "out")


def test_a_refused_command_claims_no_folder(folds, few, tmp_path) -> None:
    out = tmp_path / "out"
    with pytest.raises(DataError, match="does not exist"):
        predict(folds / "fold-0", tmp_path / "mistyped", out)
    assert not out.exists()
    predict(folds / "fold-0", few, out)
    before = contents(out)
    with pytest.raises(DataError, match="does not exist"):
        predict(folds / "fold-1", tmp_path / "mistyped", out, overwrite=True)
    with pytest.raises(ConfigError, match="other networks"):
        predict(folds / "fold-1", few, out)
    assert contents(out) == before
    assert predict(folds / "fold-1", few, out, overwrite=True)["known"] == 0


def test_a_network_is_known_by_its_weights_and_decisions(folds, few, tmp_path) -> None:
    """Trained anew under the same configuration it is another one; moved, or stitched elsewhere, it is the same."""
    run = RunFolder(tmp_path / "run")
    shutil.copytree(folds / "fold-0", run.path)
    predict(folds / "fold-0", few, tmp_path / "out")
    run.config.write_text(run.config.read_text().replace("stitch: auto", "stitch: disk"))
    assert "stitch: disk" in run.config.read_text()
    assert predict(run.path, few, tmp_path / "out")["known"] == 3
    decisions = run.components.read_text()
    run.components.write_text(decisions.replace('"keep": "all"', '"keep": "LARGEST"').replace("largest", "all").lower())
    with pytest.raises(ConfigError, match="other networks"):
        predict(run.path, few, tmp_path / "out")
    run.components.write_text(decisions)
    shutil.copy(folds / "fold-1" / "checkpoints" / "best.pt", run.best_checkpoint)
    with pytest.raises(ConfigError, match="other networks"):
        predict(run.path, few, tmp_path / "out")


def test_images_of_one_name_in_two_folders_have_a_line_and_a_mask_each(folds, discs, tmp_path) -> None:
    for place, name in (("A", "p00.png"), ("B", "p01.png")):
        (tmp_path / place).mkdir()
        (tmp_path / place / "scan.png").write_bytes((discs / name).read_bytes())
        predict(folds / "fold-0", tmp_path / place / "scan.png", tmp_path / "out")
    lines = lines_of(tmp_path / "out")
    assert list(lines) == [str(tmp_path / place / "scan.png") for place in "AB"]
    assert len({line["mask"] for line in lines.values()}) == 2
    assert all((tmp_path / "out" / line["mask"]).is_file() for line in lines.values())


def test_a_changed_image_replaces_no_result_unasked(folds, few, discs, tmp_path) -> None:
    out = tmp_path / "out"
    predict(folds / "fold-0", few, out)
    before = contents(out)
    (few / "p01.png").write_bytes((discs / "p07.png").read_bytes())
    (few / "p02.png").unlink()
    result = predict(folds / "fold-0", few, out)
    assert [entry["image"] for entry in result["failed"]] == ["p01.png"]
    assert "has changed since it was predicted" in result["failed"][0]["reason"]
    assert result["known"] == 1
    after = contents(out)
    assert {name for name in before if before[name] != after[name]} <= {"predictions.csv"}
    assert lines_of(out)[str(few / "p01.png")]["status"] == "done"
    again = predict(folds / "fold-0", few / "p01.png", out, overwrite=True)
    assert again["done"] == 1
    assert len(lines_of(out)) == 3  # the others stay
    changed = {name for name in before if before[name] != contents(out)[name]}
    assert {name.partition("-")[0] for name in changed} == {"predictions.csv", "masks/p01"}


def test_a_mask_that_is_gone_is_made_again(folds, few, tmp_path) -> None:
    out = tmp_path / "out"
    predict(folds / "fold-0", few, out)
    before = contents(out)
    next((out / "masks").glob("p01*")).unlink()
    assert predict(folds / "fold-0", few, out)["known"] == 2
    assert contents(out) == before


@pytest.mark.parametrize("fault", [ValueError("SECRET^NAME"), MemoryError(), ConfigError("x"), RuntimeError("y")])
def test_no_error_of_one_image_stops_the_rest_or_names_a_patient(folds, few, tmp_path, monkeypatch, fault) -> None:
    from medgcsam.recipes import predict as module

    real = module.read_image

    def failing(reference, **options):
        if reference.endswith("p01.png"):
            raise fault
        return real(reference, **options)

    monkeypatch.setattr(module, "read_image", failing)
    result = predict(folds / "fold-0", few, tmp_path / "out")
    assert result["done"] == 2
    assert [entry["image"] for entry in result["failed"]] == ["p01.png"]
    assert "SECRET" not in result["failed"][0]["reason"]


def test_what_stops_the_machine_stops_the_command(folds, few, tmp_path, monkeypatch) -> None:
    from medgcsam.training import segmented

    def full(*_arguments):
        raise MachineError("out/masks/x.nii.gz: the disk is full; free some space.")

    monkeypatch.setattr(segmented, "write_nifti_label", full)
    with pytest.raises(MachineError, match="disk is full"):
        predict(folds / "fold-0", few, tmp_path / "out")
    assert not (tmp_path / "out" / "predictions.csv").exists()


def test_a_stopped_command_goes_on_to_the_same_bytes(folds, few, tmp_path, monkeypatch) -> None:
    from medgcsam.recipes import predict as module

    (few / "p01_cut.png").write_bytes((few / "p01.png").read_bytes()[:200])
    predict(folds, few, tmp_path / "whole")
    real, seen = module.read_image, []

    def stopping(reference, **options):
        seen.append(reference)
        if len(seen) == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(reference, **options)

    monkeypatch.setattr(module, "read_image", stopping)
    with pytest.raises(Interrupted, match="SIGTERM"):
        predict(folds, few, tmp_path / "stopped")
    assert len(lines_of(tmp_path / "stopped")) == 3
    assert predict(folds, few, tmp_path / "stopped")["known"] == 2
    assert contents(tmp_path / "stopped") == contents(tmp_path / "whole")


def test_a_folder_that_cannot_be_written_to_is_said_in_words_of_predict(folds, few, tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineError, match="name another folder with --output"):
        predict(folds / "fold-0", few, tmp_path / "file" / "out")


def test_a_manifest_names_the_images(folds, discs, tmp_path) -> None:
    (discs / "few.csv").write_text("image\np04.png\np05.png\nmissing.png\n")
    result = predict(folds / "fold-0", discs / "few.csv", tmp_path / "out")
    assert result["done"] == 2
    assert result["failed"][0]["image"] == "missing.png"


def test_an_empty_folder_and_no_run_are_refused(folds, tmp_path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no image"):
        predict(folds, tmp_path / "empty", tmp_path / "out")
    with pytest.raises(ConfigError, match="no finished run"):
        predict(tmp_path / "empty", tmp_path / "empty", tmp_path / "out")


def test_dicom_series_become_dicom_seg_that_reads_back(shared_data, tmp_path) -> None:
    """Trained on balls, tried on one PET series: the SEG and the NIfTI mask hold the same voxels."""
    pytest.importorskip("highdicom")
    from medgcsam.imaging import read_image, read_label

    folder = tmp_path / "balls"
    folder.mkdir()
    draw_balls(folder)
    changes = {"patches": {"size": [24, 24, 8], "per_image": 1}}
    train(segmentation_config(folder, tmp_path, ("training.epochs=1",), **changes), journal=QUIET)
    series = shared_data / "sarcoma_dicom" / "STS_001" / "PET" / "image"
    result = predict(tmp_path / "runs" / "discs" / "gcsam" / "seed-0" / "fold-0", series, tmp_path / "out")
    assert result["done"] == 1, result
    (line,) = read_table(tmp_path / "out" / "predictions.csv").to_dict("records")
    image = read_image(series)
    mask = read_label(tmp_path / "out" / line["mask"], like=image)
    assert mask.array.shape[1:] == image.spatial_shape
    if mask.array.any():
        seg = read_label(tmp_path / "out" / line["dicom_seg"], like=image)
        assert np.array_equal(seg.array > 0, mask.array > 0)


def test_what_an_input_holds(shared_data, tmp_path) -> None:
    found = find_inputs(shared_data / "sarcoma_dicom")
    assert len(found.images) == 12
    assert not any(image.fault for image in found.images)
    assert len(found.passed_over) >= 12  # the contours
    refused = find_inputs(shared_data / "dicom_series" / "failing")
    assert any("gantry tilt" in image.fault for image in refused.images)
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(tmp_path / "one.png")
    assert [image.name for image in find_inputs(tmp_path / "one.png").images] == ["one.png"]
