"""One run of a segmentation: every file, masks on the grids of the images, the same bytes again, resume, refusals."""

from __future__ import annotations

import os
import signal

import nibabel
import numpy as np
import pytest

from medgcsam.errors import ConfigError, DataError, Interrupted
from medgcsam.imaging import read_image
from medgcsam.journal import Journal
from medgcsam.run_folder import RunFolder, read_json, read_json_lines, read_table
from medgcsam.training import train
from medgcsam.training.stepper import Stepper
from tests.training.segmentation_cohorts import draw_balls, draw_discs, segmentation_config


def run_of(config, **options) -> RunFolder:
    return RunFolder(train(config, journal=Journal(quiet=True), **options))


@pytest.fixture(scope="module")
def discs(tmp_path_factory):
    return draw_discs(tmp_path_factory.mktemp("discs"))


@pytest.fixture(scope="module")
def balls(tmp_path_factory):
    return draw_balls(tmp_path_factory.mktemp("balls"))


@pytest.fixture(scope="module")
def disc_run(discs, tmp_path_factory) -> RunFolder:
    return run_of(segmentation_config(discs, tmp_path_factory.mktemp("run"), ("training.epochs=8",)))


def test_a_run_learns_and_writes_every_file(disc_run) -> None:
    run = disc_run
    for path in (run.config, run.plan, run.split, run.provenance, run.history, run.log, run.cases, run.baseline,
                 run.components, run.metrics, run.last_checkpoint, run.best_checkpoint):  # fmt: skip
        assert path.stat().st_size > 0
    metrics = read_json(run.metrics)
    assert metrics["task"] == "segmentation"
    assert metrics["partitions"]["test"]["dice"]["value"] > 0.8
    assert metrics["partitions"]["test"]["dice"]["n_patients"] == 4
    assert all(
        {"validation_dice", "validation_loss", "sharpness"} <= set(line) for line in read_json_lines(run.history)
    )


def test_cases_are_those_of_validation_and_test_each_once(disc_run) -> None:
    cases, split = read_table(disc_run.cases), read_json(disc_run.split)["partitions"]
    for name in ("validation", "test"):
        assert sorted(cases.loc[cases["partition"] == name, "patient"]) == sorted(split[name])
    assert set(cases["structure"]) == {"disc"}


def test_dice_of_cases_is_that_of_the_masks(disc_run, discs) -> None:
    """From the written masks and the original files alone, by numpy."""
    from PIL import Image

    from medgcsam.imaging import pixel_digest  # noqa: F401

    masks = {path.name: np.asarray(nibabel.load(path).dataobj).T for path in disc_run.masks.iterdir()}
    references = [np.asarray(Image.open(path)) > 0 for path in sorted(discs.glob("*_mask.png"))]
    for line in read_table(disc_run.cases).to_dict("records"):
        found = masks[f"{line['case']}.nii.gz"] > 0
        best = max(2 * (found & one).sum() / (found.sum() + one.sum()) for one in references)
        assert float(line["dice"]) == pytest.approx(best, abs=1e-6)


def test_no_identifier_reaches_the_run_folder(disc_run) -> None:
    for path in disc_run.path.rglob("*"):
        assert "p03" not in path.name
        if path.is_file():
            content = path.read_bytes()
            assert b"P03" not in content
            assert b"p03.png" not in content


def test_volumes_get_masks_on_the_grids_of_their_files(balls, tmp_path) -> None:
    changes = {"patches": {"size": [24, 24, 8], "per_image": 1}, "image": {"spacing": "auto"}}
    run = run_of(segmentation_config(balls, tmp_path, ("training.epochs=1",), **changes))
    affines = [read_image(path).affine for path in sorted(balls.glob("p??.nii.gz"))]
    for path in run.masks.iterdir():
        mask = nibabel.load(path)
        assert mask.shape == (28, 30, 14)
        assert any(np.allclose(mask.affine, affine, atol=1e-4) for affine in affines)
    plan, config = read_json(run.plan), run.config.read_text()
    assert plan["image.spacing"]["asked"] == "auto"
    assert plan["image.spacing"]["reason"] in config
    assert len(plan["image.spacing"]["value"]) == 3


def test_the_same_run_gives_the_same_bytes(discs, tmp_path) -> None:
    runs = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        runs.append(run_of(segmentation_config(discs, tmp_path / name, ("training.epochs=1",))))
    first, second = (read_json_lines(run.history) for run in runs)
    assert first[0]["train_loss"] == second[0]["train_loss"]
    assert [line["dice"] for line in read_table(runs[0].cases).to_dict("records")] == [
        line["dice"] for line in read_table(runs[1].cases).to_dict("records")
    ]


def test_an_interrupted_run_goes_on_to_the_same_result(discs, tmp_path, monkeypatch) -> None:
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    whole = run_of(segmentation_config(discs, tmp_path / "whole"))
    original, calls = Stepper.observations, []

    def stop_in_the_second(self):
        calls.append(1)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self)

    config = segmentation_config(discs, tmp_path / "parts")
    monkeypatch.setattr(Stepper, "observations", stop_in_the_second)
    with pytest.raises(Interrupted):
        run_of(config)
    monkeypatch.undo()
    resumed = run_of(config)
    keys = ("train_loss", "validation_loss", "validation_dice")
    for one, other in zip(read_json_lines(whole.history), read_json_lines(resumed.history), strict=True):
        assert [one[key] for key in keys] == [other[key] for key in keys]


def test_a_finished_run_is_shown_and_a_changed_one_refused(discs, disc_run, tmp_path) -> None:
    folder = disc_run.path.parents[4]
    config = segmentation_config(discs, folder, ("training.epochs=8",))
    before = disc_run.metrics.stat().st_mtime_ns
    assert train(config, journal=Journal(quiet=True)) == disc_run.path
    assert disc_run.metrics.stat().st_mtime_ns == before
    with pytest.raises(ConfigError, match=r"patches\.foreground"):
        train(segmentation_config(discs, folder, ("training.epochs=8", "patches.foreground=0.9")))


def test_a_mask_of_another_size_is_refused_or_counted(discs, tmp_path) -> None:
    from PIL import Image

    text = (discs / "manifest.csv").read_text().replace("p05_mask.png", "small.png")
    Image.fromarray(np.zeros((5, 5), np.uint8)).save(discs / "small.png")
    (discs / "faulty.csv").write_text(text)
    data = {"manifest": str(discs / "faulty.csv"), "root": str(discs)}
    with pytest.raises(DataError, match=r"small\.png|p05"):
        train(segmentation_config(discs, tmp_path, data=data))
    left = segmentation_config(discs, tmp_path, ("training.epochs=1",), data=data | {"faulty_masks": "exclude"})
    run = run_of(left)
    assert sum(read_json(run.split)["excluded"].values()) == 1
