"""One run of a segmentation: every file, masks on the grids of the images, the same bytes again, resume, refusals."""

from __future__ import annotations

import os
import shutil
import signal
from types import SimpleNamespace

import nibabel
import numpy as np
import pytest
from PIL import Image as Picture

from medgcsam.errors import ConfigError, DataError, Interrupted
from medgcsam.imaging import Image, read_image
from medgcsam.journal import Journal
from medgcsam.pipeline.grids import Grid, back_to_grid
from medgcsam.recipes.predict import predict_images
from medgcsam.run_folder import RunFolder, read_json, read_json_lines, read_table
from medgcsam.training import train
from medgcsam.training.segmentation import Segmentation
from medgcsam.training.segmented import comparable, file_words
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

    masks = {path.name: np.asarray(nibabel.load(path).dataobj).T for path in disc_run.masks.iterdir()}
    references = [np.asarray(Picture.open(path)) > 0 for path in sorted(discs.glob("*_mask.png"))]
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


def interrupt_after_the_first_epoch(config, monkeypatch) -> None:
    original = Stepper.observations

    def stop(self):
        os.kill(os.getpid(), signal.SIGTERM)  # seen at the next step, the first of the second epoch
        return original(self)

    with monkeypatch.context() as patch:
        patch.setattr(Stepper, "observations", stop)
        with pytest.raises(Interrupted):
            run_of(config)


def folder_of(tmp_path) -> RunFolder:
    return RunFolder.of(tmp_path / "runs", "discs", "gcsam", 0, 0)


def test_a_run_goes_on_with_the_plan_that_it_was_begun_with(discs, tmp_path, monkeypatch) -> None:
    """Another device would plan other batches; what goes on is what was begun, to the same result."""
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    changes = {"training": {"batch_size": "auto", "epochs": 2}}
    whole = run_of(segmentation_config(discs, tmp_path / "whole", **changes))
    config = segmentation_config(discs, tmp_path / "parts", **changes)
    interrupt_after_the_first_epoch(config, monkeypatch)
    begun = folder_of(tmp_path / "parts")
    assert begun.plan.read_bytes() == whole.plan.read_bytes()
    monkeypatch.setattr("medgcsam.pipeline.plan._batch_size", lambda *_: (5, "another device"))
    resumed = run_of(config)
    assert resumed.plan.read_bytes() == whole.plan.read_bytes()
    assert resumed.config.read_text().count("batch_size: 2") == 1
    keys = ("train_loss", "validation_loss", "validation_dice")
    for one, other in zip(read_json_lines(whole.history), read_json_lines(resumed.history), strict=True):
        assert [one[key] for key in keys] == [other[key] for key in keys]


def test_a_refused_continuation_overwrites_nothing(discs, tmp_path, monkeypatch) -> None:
    config = segmentation_config(discs, tmp_path, training={"batch_size": "auto", "epochs": 2})
    interrupt_after_the_first_epoch(config, monkeypatch)
    run = folder_of(tmp_path)
    kept = shutil.copytree(run.path, tmp_path / "kept")

    def refused(error, match, path, content) -> None:
        path.write_bytes(content)
        before = {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in run.path.rglob("*") if file.is_file()}
        with pytest.raises(error, match=match):
            run_of(config)
        after = {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in run.path.rglob("*") if file.is_file()}
        assert after == before
        path.write_bytes((kept / path.relative_to(run.path)).read_bytes())

    planned = run.plan.read_text()
    assert '"value": 2,' in planned
    refused(
        ConfigError,
        r"disagree on image\.dimensions, training\.batch_size,",
        run.plan,
        planned.replace('"value": 2,', '"value": 3,').encode(),
    )
    refused(DataError, "--restart", run.last_checkpoint, run.last_checkpoint.read_bytes()[:1000])
    images = read_json(run.provenance)["images_sha256"]
    refused(DataError, "the images changed", run.provenance, run.provenance.read_bytes().replace(images.encode(), b"0"))


@pytest.mark.parametrize(
    ("network", "match"),
    [
        ({"levels": 9}, r"network\.levels: 9 are not possible"),
        ({"deep_supervision": True}, r"network\.deep_supervision: unet_small has none"),
        ({"name": "swin_unetr_small", "width": 12, "levels": "auto"}, "multiples of 32"),
        ({"name": "dynunet_small", "levels": 3}, "dynunet_small needs at least 4"),
        ({"weights": "weights.pt"}, r"weights\.pt"),
    ],
)
def test_what_is_refused_for_its_network_leaves_no_run_behind(discs, tmp_path, network, match) -> None:
    (tmp_path / "weights.pt").write_bytes(b"no weights")
    with pytest.raises((ConfigError, DataError), match=match):
        train(segmentation_config(discs, tmp_path, network=network), journal=Journal(quiet=True))
    assert not (tmp_path / "runs" / "discs").exists()


def test_epochs_are_selected_by_the_rule_that_masks_are_made_by() -> None:
    """A probability of one half is no structure, in both."""
    probabilities = np.array([[[0.5, 0.6], [0.4, 0.5]]], np.float32)
    job = object.__new__(Segmentation)
    job.cases = SimpleNamespace(overlapping=True)
    ((predicted, _),) = job._pairs(probabilities, np.ones((1, 2, 2), np.uint8))
    grid = Grid((2, 2), (0, 1), (False, False), (2, 2), None)
    np.testing.assert_array_equal(predicted, back_to_grid(probabilities, grid, overlapping=True)[0] > 0)


def test_a_finished_run_is_shown_and_a_changed_one_refused(discs, disc_run, tmp_path) -> None:
    folder = disc_run.path.parents[4]
    config = segmentation_config(discs, folder, ("training.epochs=8",))
    before = disc_run.metrics.stat().st_mtime_ns
    assert train(config, journal=Journal(quiet=True)) == disc_run.path
    assert disc_run.metrics.stat().st_mtime_ns == before
    with pytest.raises(ConfigError, match=r"patches\.foreground"):
        train(segmentation_config(discs, folder, ("training.epochs=8", "patches.foreground=0.9")))


def test_a_mask_of_another_size_is_refused_or_counted(discs, tmp_path) -> None:
    text = (discs / "manifest.csv").read_text().replace("p05_mask.png", "small.png")
    Picture.fromarray(np.zeros((5, 5), np.uint8)).save(discs / "small.png")
    (discs / "faulty.csv").write_text(text)
    data = {"manifest": str(discs / "faulty.csv"), "root": str(discs)}
    with pytest.raises(DataError, match=r"small\.png|p05"):
        train(segmentation_config(discs, tmp_path, data=data))
    left = segmentation_config(discs, tmp_path, ("training.epochs=1",), data=data | {"faulty_masks": "exclude"})
    run = run_of(left)
    assert sum(read_json(run.split)["excluded"].values()) == 1


def test_windows_can_be_joined_on_disk(discs, tmp_path) -> None:
    """The same run, with the same result to what float16 tells apart, and nothing left of the file."""
    found = []
    for stitch in ("cpu", "disk"):
        (tmp_path / stitch).mkdir()
        run = run_of(segmentation_config(discs, tmp_path / stitch, ("training.epochs=1", f"inference.stitch={stitch}")))
        lines = read_table(run.cases).to_dict("records")
        found.append([float(line["dice"]) for line in sorted(lines, key=lambda line: float(line["reference_size"]))])
        files = {path.name for path in run.path.iterdir()}
        assert files == {"config.yaml", "plan.json", "split.json", "fingerprints.json", "provenance.json", "log.txt",
                         "history.jsonl", "cases.csv", "baseline.csv", "components.json", "metrics.json", "checkpoints",
                         "masks"}  # fmt: skip
    assert found[0] == pytest.approx(found[1], abs=2e-3)


def test_a_threshold_is_set_on_the_values_of_the_file_unless_the_network_sees_z_scores() -> None:
    values = np.array([[[0.0, 1.0, 3.0, 8.0]]], np.float32)
    image = Image(array=values, unit="raw", spacing=(1.0, 1.0))
    for intensity in ("foreground", "percentile", "display"):
        assert np.array_equal(comparable(image, intensity), values)
    used = np.array([1.0, 3.0, 8.0])
    assert comparable(image, "zscore") == pytest.approx((values - used.mean()) / used.std(), abs=1e-5)


def test_the_rule_of_the_baseline_is_in_the_unit_of_the_file(balls, tmp_path) -> None:
    """Balls of 60 over noise of deviation 20: the best cut lies between; in z-scores it would be about 2."""
    changes = {"patches": {"size": [24, 24, 8], "per_image": 1}, "image": {"intensity": "foreground"}}
    run = run_of(segmentation_config(balls, tmp_path, ("training.epochs=1",), **changes))
    method = read_json(run.metrics)["baseline"]["method"]
    assert 15 < float(method.split(">=")[1].split()[0]) < 60


def test_structures_that_overlap_have_masks_of_their_own(discs, tmp_path) -> None:
    """A disc and its upper half, one mask file each: read, trained, measured and written as two."""
    lines = ["image,mask,patient_id"]
    for path in sorted(discs.glob("p??.png")):
        mask = np.asarray(Picture.open(discs / f"{path.stem}_mask.png")) > 0
        half = mask.copy()
        half[int(np.flatnonzero(mask.any(1)).mean()) :] = False
        folder = tmp_path / path.stem
        folder.mkdir()
        for name, part in (("whole", mask), ("upper half", half)):
            Picture.fromarray(part.astype(np.uint8)).save(folder / f"{name}.png")
        lines.append(f"{path},{folder}/whole.png|{folder}/upper half.png,{path.stem}")
    (tmp_path / "manifest.csv").write_text("\n".join(lines) + "\n")
    structures = {"whole": ["whole"], "upper half": ["upper half"]}
    data = {"manifest": str(tmp_path / "manifest.csv"), "overlapping": True, "structures": structures}
    run = run_of(segmentation_config(discs, tmp_path, ("training.epochs=8",), data=data))
    test = read_json(run.metrics)["partitions"]["test"]
    assert test["dice_whole"]["value"] > 0.8
    assert test["dice_upper half"]["value"] > 0.4
    case = read_table(run.cases)["case"].iat[0]
    files = [run.masks / f"{case}_{name}.nii.gz" for name in ("whole", "upper_half")]
    whole, half = (np.asarray(nibabel.load(file).dataobj) > 0 for file in files)
    assert (whole & half).any()
    result = predict_images(
        run.path, discs / "p00.png", tmp_path / "out", device="cpu", overwrite=False, journal=Journal(quiet=True)
    )
    assert result["done"] == 1
    (line,) = read_table(tmp_path / "out" / "predictions.csv").to_dict("records")
    masks = [tmp_path / "out" / name for name in line["mask"].split("|")]
    assert len(masks) == 2
    assert all(mask.is_file() for mask in masks)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["a b", "liver"], ["a_b", "liver"]),
        (["a b", "a_b", "c"], ["a_b-1", "a_b-2", "c"]),
        (["GTV", "gtv"], ["GTV-1", "gtv-2"]),
        (["\u809d", "\u813e"], ["_-1", "_-2"]),
        (["a b", "a_b", "a_b-1"], ["1-a_b", "2-a_b", "3-a_b-1"]),
        (["x" * 90 + "1", "x" * 90 + "2"], ["x" * 60 + "-1", "x" * 60 + "-2"]),
    ],
)
def test_structures_have_file_names_of_their_own(names, words) -> None:
    assert file_words(names) == words
