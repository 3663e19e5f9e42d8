"""One run: every file, the same bytes again, resume to the same result, and refusals before training."""

from __future__ import annotations

import os
import shutil
import signal

import numpy as np
import pytest
import torch
from PIL import Image

from medgcsam.errors import ConfigError, DataError, Interrupted, MachineError
from medgcsam.journal import Journal
from medgcsam.run_folder import RunFolder, read_json, read_json_lines, read_table
from medgcsam.training import train
from medgcsam.training.stepper import Stepper

QUIET = Journal(quiet=True)


def run_of(config, **options) -> RunFolder:
    return RunFolder(train(config, journal=Journal(quiet=True), **options))


def test_a_run_learns_and_writes_every_file(config) -> None:
    run = run_of(config())
    assert run.path.parts[-4:] == ("discs", "gcsam", "seed-0", "fold-0")
    for path in (run.config, run.split, run.provenance, run.history, run.log, run.predictions, run.baseline,
                 run.metrics, run.last_checkpoint, run.best_checkpoint):  # fmt: skip
        assert path.stat().st_size > 0
    metrics = read_json(run.metrics)
    assert metrics["partitions"]["test"]["auroc"]["value"] > 0.95
    assert metrics["baseline"]["partitions"]["test"]["auroc"]["value"] > 0.95
    history = read_json_lines(run.history)
    assert [record["epoch"] for record in history] == [1, 2, 3]
    assert all(record["passes_per_step"] == 2 for record in history)
    assert all(record["radius"] == pytest.approx(0.05, rel=1e-4) for record in history)
    assert all(0 < record["centralized_share"] <= 1 for record in history)


def test_partitions_are_by_patient_and_only_validation_and_test_are_predicted(config) -> None:
    run = run_of(config())
    split, predictions = read_json(run.split), read_table(run.predictions)
    parts = {name: set(patients) for name, patients in split["partitions"].items()}
    assert len(set.union(*parts.values())) == sum(len(part) for part in parts.values()) == 48
    assert set(predictions["partition"]) == {"validation", "test"}
    for name in ("validation", "test"):
        assert set(predictions.loc[predictions["partition"] == name, "patient"]) == parts[name]
    assert np.allclose(predictions[["p_dark", "p_bright"]].sum(axis=1), 1, atol=1e-6)


def test_no_identifier_reaches_the_run_folder(config, cohort) -> None:
    run = run_of(config())
    for path in run.path.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert b"P017" not in content
            assert b"p017_0.png" not in content


def test_plain_identifiers_only_where_they_are_asked_for(config) -> None:
    loaded = config(("output.keep_patient_ids=true",))
    assert set(read_table(run_of(loaded).predictions)["patient"]) <= {f"P{n:03d}" for n in range(48)}


def test_the_same_command_gives_the_same_bytes(config) -> None:
    first = run_of(config())
    again = run_of(config(), restart=True)
    assert first.path == again.path
    old = RunFolder(first.path.with_name("fold-0.old-1"))
    for name in ("predictions", "baseline", "split"):
        assert getattr(old, name).read_bytes() == getattr(again, name).read_bytes()
    before, after = read_json(old.metrics), read_json(again.metrics)
    assert before.pop("cost")["gradient_evaluations"] == after.pop("cost")["gradient_evaluations"]
    assert before == after


@pytest.mark.parametrize("optimizer", ["adamw", "gcsam"])
@pytest.mark.parametrize("steps", [0, 7, 13])
def test_an_interrupted_run_goes_on_to_the_same_result(config, monkeypatch, optimizer, steps) -> None:
    loaded = config((f"optimizer.name={optimizer}", "network.dropout=0.2"))
    whole = run_of(loaded)
    kept = whole.predictions.read_bytes(), [_untimed(line) for line in read_json_lines(whole.history)]
    done = 0
    step = Stepper.step

    def stopped(self, *arguments):
        nonlocal done
        if done == steps:
            os.kill(os.getpid(), signal.SIGTERM)
        done += 1
        return step(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Stepper, "step", stopped)
        with pytest.raises(Interrupted, match="run the same command again"):
            run_of(loaded, restart=True)
    run = run_of(loaded)
    assert run.predictions.read_bytes() == kept[0]
    assert [_untimed(line) for line in read_json_lines(run.history)] == kept[1]


def _untimed(record: dict) -> dict:
    return {key: value for key, value in record.items() if "seconds" not in key}


def test_a_finished_run_is_left_alone(config) -> None:
    run = run_of(config())
    before = {path: path.stat().st_mtime_ns for path in run.path.rglob("*")}
    assert run_of(config()).path == run.path
    assert {path: path.stat().st_mtime_ns for path in run.path.rglob("*")} == before


def test_another_configuration_is_refused_by_key(config) -> None:
    run_of(config())
    with pytest.raises(ConfigError, match=r"optimizer\.lr was 0\.003, is 0\.01"):
        run_of(config(("optimizer.lr=0.01",)))
    assert run_of(config(("report.title=Discs", "pipeline.memory=map"))).finished()


def test_other_images_are_refused_on_resume(config, cohort, tmp_path, monkeypatch) -> None:
    copy = shutil.copytree(cohort, tmp_path / "copy")
    loaded = config(data={"root": str(copy), "manifest": str(copy / "manifest.csv")})
    with monkeypatch.context() as patch:
        patch.setattr(Stepper, "step", lambda *_: os.kill(os.getpid(), signal.SIGTERM) or torch.zeros(()))
        with pytest.raises(Interrupted):
            run_of(loaded)
    Image.fromarray(np.full((40, 40), 7, np.uint8)).save(copy / "p017_0.png")
    with pytest.raises(DataError, match="the images changed since this run began"):
        run_of(loaded)


@pytest.mark.parametrize("optimizer", ["adamw", "gcsam"])
def test_half_precision_passes_learn_too(config, optimizer) -> None:
    run = run_of(config(("training.precision=bf16", f"optimizer.name={optimizer}", "training.epochs=2")))
    assert read_json_lines(run.history)[-1]["train_loss"] < 0.69


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_fp16_without_a_gpu_is_refused(config) -> None:
    with pytest.raises(MachineError, match="fp16 needs a GPU"):
        run_of(config(("training.precision=fp16", "training.device=auto")))


@pytest.mark.parametrize(
    ("optimizer", "base"), [("adam", None), ("sgd", None), ("sam", "sgd"), ("sam", "adam"), ("gcsam", "sgd")]
)
def test_every_optimizer_runs(config, optimizer, base) -> None:
    overrides = (f"optimizer.name={optimizer}", "training.epochs=1", *([f"optimizer.base={base}"] if base else []))
    history = read_json_lines(run_of(config(overrides)).history)
    assert history[0]["passes_per_step"] == (2 if base else 1)


def test_all_optimizers_start_from_the_same_weights_and_see_the_same_batches(config) -> None:
    """A GCSAM that begins its ascent after the last step is its base, to the last bit."""
    late = run_of(config(("optimizer.start=0.999", "training.epochs=2", "name=late")))
    base = run_of(config(("optimizer.name=adamw", "training.epochs=2")))
    losses = [[record["train_loss"] for record in read_json_lines(run.history)] for run in (late, base)]
    assert losses[0][0] == losses[1][0]


def test_early_stopping_keeps_the_best_epoch(config) -> None:
    run = run_of(config(("training.epochs=12", "training.patience=2")))
    history = read_json_lines(run.history)
    best = [record["epoch"] for record in history if record["best"]][-1]
    assert len(history) < 12
    assert len(history) == best + 2
    assert read_json(run.metrics)["selection"]["epoch"] == best


def test_a_diverging_training_says_what_to_change(config) -> None:
    with pytest.raises(ConfigError, match=r"no longer a number; lower optimizer\.lr"):
        run_of(config(("optimizer.name=sgd", "optimizer.lr=1e30")))


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_exit_code_4(config) -> None:
    with pytest.raises(MachineError, match="torch sees no GPU") as error:
        run_of(config(("training.device=cuda",)))
    assert error.value.exit_code == 4


def test_smoke_runs_under_a_name_of_its_own(config) -> None:
    run = run_of(config(), smoke=True)
    assert run.path.parts[-4] == "discs-smoke"
    assert len(read_json_lines(run.history)) == 1


def test_damaged_checkpoints_are_refused(config) -> None:
    run = run_of(config())
    run.metrics.unlink()
    run.last_checkpoint.write_bytes(run.last_checkpoint.read_bytes()[:1000])
    with pytest.raises(DataError, match="--restart"):
        run_of(config())


def test_another_manifest_is_not_answered_with_the_old_numbers(config, cohort, tmp_path) -> None:
    run = run_of(config())
    lines = (cohort / "manifest.csv").read_text().splitlines()
    lines[-1], lines[-2] = lines[-1].replace("bright", "dark"), lines[-2].replace("bright", "dark")
    other = tmp_path / "other.csv"
    other.write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError, match="not the manifest"):
        run_of(config((f"data.manifest={other}",)))
    assert run.finished()


def test_a_refused_command_touches_no_run(config, tmp_path) -> None:
    run = run_of(config())
    before = {path: path.stat().st_mtime_ns for path in run.path.parent.rglob("*")}
    empty = tmp_path / "empty.csv"
    empty.write_text("image,patient_id,label\n")
    with pytest.raises(DataError, match="empty"):
        run_of(config((f"data.manifest={empty}",)), restart=True)
    assert {path: path.stat().st_mtime_ns for path in run.path.parent.rglob("*")} == before
    with pytest.raises(DataError, match="empty"):
        run_of(config((f"data.manifest={empty}", "name=other")))
    assert not (run.path.parents[3] / "other").exists()


def test_no_place_of_this_machine_is_in_the_run_folder(config, tmp_path, cohort) -> None:
    run = run_of(config())
    for path in run.path.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert str(tmp_path).encode() not in content, path.name
            assert str(cohort).encode() not in content, path.name


def test_a_pattern_that_fits_nothing_is_refused_before_a_run_is_begun(config, tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"'heed\.\*' fits the name of no trainable weight.*head\."):
        run_of(config(("optimizer.groups=[{match: heed.*, rho: 0.1}]",)))
    assert not list((tmp_path / "runs").glob("discs/**/config.yaml"))
    run = run_of(config(("optimizer.groups=[{match: head.*, rho: 0.1, lr_factor: 2}]", "training.epochs=1")))
    assert read_json_lines(run.history)[0]["radius"] > 0.05


def test_levers_show_in_the_history_and_the_cost(config) -> None:
    """Part of a batch counts as that part, a bf16 ascent as one pass, the momentum's as none."""
    levers = {
        "part": (("optimizer.ascent_fraction=0.5",), 1.5),
        "coarse": (("optimizer.ascent_precision=bf16",), 2.0),
        "momentum": (("optimizer.ascent=momentum",), 1.0),
    }
    for name, (overrides, passes) in levers.items():
        run = run_of(config((*overrides, f"name={name}", "training.epochs=2")))
        history, cost = read_json_lines(run.history), read_json(run.metrics)["cost"]
        steps = cost["gradient_evaluations"] / passes
        assert [record["passes_per_step"] for record in history] == [passes] * 2
        assert sum(record["ascents"] for record in history) == steps - (name == "momentum")
        assert all(record["radius"] == pytest.approx(0.05, rel=1e-3) for record in history)
        assert cost["seconds"] == pytest.approx(sum(record["seconds"] for record in history), abs=2e-3)
