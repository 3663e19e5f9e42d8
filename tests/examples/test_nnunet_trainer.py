"""The nnU-Net trainer: found by nnU-Net, planned, preprocessed, trained, validated and continued by nnU-Net itself."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("nnunetv2")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

DATASET = "Dataset001_Phantom"
PER_EPOCH = 4


@pytest.fixture(scope="module")
def places(tmp_path_factory, repository) -> Iterator[Path]:
    """nnU-Net's folders, with a preprocessed phantom, and its environment variables, set before it is imported."""
    folder = tmp_path_factory.mktemp("nnunet")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("raw", "preprocessed", "results"):
            (folder / name).mkdir()
            patch.setenv(f"nnUNet_{name}", str(folder / name))
        (folder / "trainers").mkdir()
        shutil.copy(repository / "docs" / "examples" / "nnUNetTrainerGCSAM.py", folder / "trainers")
        patch.setenv("nnUNet_extTrainer", str(folder / "trainers"))
        patch.setenv("nnUNet_n_proc_DA", "1")
        patch.setenv("nnUNet_def_n_proc", "1")
        draw_phantom(folder / "raw" / DATASET)
        plan_and_preprocess(folder)
        patch.setenv("nnUNet_n_proc_DA", "0")  # training: augmentation in this process
        yield folder


def draw_phantom(folder: Path) -> None:
    """Five volumes (64, 64, 6) of noise with a bright ball, and its mask."""
    import nibabel

    random = np.random.default_rng(0)
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    for case in range(5):
        middle = np.array([32, 32, 3]) + [*random.integers(-8, 8, 2), 0]
        distance = np.sqrt((((np.indices((64, 64, 6)).T - middle) / [1, 1, 0.3]) ** 2).sum(-1)).T
        mask = distance < 12
        image = random.normal(0, 1, mask.shape) + 3 * mask
        affine = np.diag([1.0, 1.0, 5.0, 1.0])
        name = f"case_{case}"
        nibabel.save(nibabel.Nifti1Image(image.astype(np.float32), affine), folder / "imagesTr" / f"{name}_0000.nii.gz")
        nibabel.save(nibabel.Nifti1Image(mask.astype(np.uint8), affine), folder / "labelsTr" / f"{name}.nii.gz")
    description = {
        "channel_names": {"0": "noise"}, "labels": {"background": 0, "ball": 1}, "numTraining": 5,
        "file_ending": ".nii.gz",
    }  # fmt: skip
    (folder / "dataset.json").write_text(json.dumps(description))


def plan_and_preprocess(folder: Path) -> None:
    """nnU-Net's own, for a small network and small batches."""
    from nnunetv2.experiment_planning.plan_and_preprocess_api import (
        extract_fingerprint_dataset,
        plan_experiment_dataset,
        preprocess_dataset,
    )

    extract_fingerprint_dataset(1, num_processes=1, verbose=False)
    plan_experiment_dataset(1)
    file = folder / "preprocessed" / DATASET / "nnUNetPlans.json"
    plans = json.loads(file.read_text())
    flat = plans["configurations"]["2d"]
    flat["batch_size"] = 4
    layers = flat["architecture"]["arch_kwargs"]["features_per_stage"]
    flat["architecture"]["arch_kwargs"]["features_per_stage"] = [min(8, width) for width in layers]
    file.write_text(json.dumps(plans))
    preprocess_dataset(1, configurations=["2d"], num_processes=[1])


def built(name: str = "nnUNetTrainerGCSAM", *, resume: bool = False, **settings):
    """The trainer as ``nnUNetv2_train 1 2d 0 -tr NAME -device cpu [--c]`` makes it, but for two short epochs."""
    from nnunetv2.run.run_training import get_trainer_from_args, maybe_load_checkpoint

    trainer = get_trainer_from_args("1", "2d", 0, name, continue_training=resume, device=torch.device("cpu"))
    short = {"num_epochs": 2, "num_iterations_per_epoch": PER_EPOCH, "num_val_iterations_per_epoch": 2, "save_every": 1}
    for attribute, value in {**short, **settings}.items():
        setattr(trainer, attribute, value)
    maybe_load_checkpoint(trainer, resume, False)
    return trainer


def same_state(a, b) -> bool:
    """Nested dicts and lists of tensors and numbers, bit for bit; NaN equals NaN."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a.nan_to_num(-1.0), b.nan_to_num(-1.0))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same_state(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same_state, a, b))
    return a == b


def killed_in(trainer, epoch: int) -> None:
    if trainer.current_epoch == epoch:
        raise KeyboardInterrupt
    type(trainer).on_epoch_start(trainer)


def test_training_stops_and_goes_on_as_nnunet_does(places, monkeypatch) -> None:
    first = built(late=0.5)

    monkeypatch.setattr(first, "on_epoch_start", lambda: killed_in(first, epoch=1))
    with pytest.raises(KeyboardInterrupt):
        first.run_training()
    assert first.optimizer.gradient_evaluations == PER_EPOCH  # the first half has no ascent
    assert math.isfinite(first.logger.get_value("train_losses", step=-1))

    second = built(late=1.0, rho=0.3, resume=True)  # the checkpoint has the last word on these
    assert second.current_epoch == 1
    assert same_state(first.optimizer.state_dict(), second.optimizer.state_dict())
    assert same_state(first.network.state_dict(), second.network.state_dict())
    second.run_training()
    assert second.optimizer.steps == 2 * PER_EPOCH
    assert second.optimizer.gradient_evaluations == PER_EPOCH + 2 * PER_EPOCH
    assert second.optimizer.last_radius.item() == pytest.approx(first.rho, rel=1e-4)
    assert math.isfinite(second.logger.get_value("train_losses", step=-1))
    log = "".join(file.read_text() for file in sorted(Path(second.output_folder).glob("training_log*.txt")))
    assert f"Gradient evaluations so far: {3 * PER_EPOCH} in {2 * PER_EPOCH} steps" in log

    second.perform_actual_validation()
    summary = json.loads((Path(second.output_folder) / "validation" / "summary.json").read_text())
    assert 0 <= summary["foreground_mean"]["Dice"] <= 1


def batch_for(trainer) -> dict:
    """A batch as the loaders make it: data (4, 1, y, x) and one target per resolution of deep supervision."""
    torch.manual_seed(5)
    size = trainer.configuration_manager.patch_size
    targets = [
        torch.randint(0, 2, (4, 1, *(round(n * s) for n, s in zip(size, scale, strict=True)))).float()
        for scale in trainer._get_deep_supervision_scales()
    ]
    return {"data": torch.randn(4, 1, *size), "target": targets}


def trained(trainer, count: int = 3) -> torch.Tensor:
    """All weights after ``count`` steps on one batch, from initial weights that are the same at each call."""
    torch.manual_seed(0)
    trainer.initialize()
    trainer.network.train()
    batch = batch_for(trainer)
    assert all(math.isfinite(trainer.train_step(batch)["loss"]) for _ in range(count))
    return torch.cat([p.detach().flatten() for p in trainer.network.parameters()])


def test_before_the_ascent_a_step_is_that_of_nnunet(places) -> None:
    torch.testing.assert_close(trained(built(late=0.0)), trained(built("nnUNetTrainer")), rtol=1e-5, atol=1e-6)


def test_ascent_on_a_part_of_the_batch(places) -> None:
    trainer = built(late=1.0, ascent_fraction=0.25)
    trained(trainer)
    assert trainer.optimizer.gradient_evaluations == 3 * 1.25


def test_a_grad_scaler_changes_nothing_but_rounding(places) -> None:
    """On a GPU nnU-Net has one; on a CPU it can be given one, without float16."""
    scaled = built(late=1.0)
    scaled.grad_scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    torch.testing.assert_close(trained(scaled), trained(built(late=1.0)), rtol=1e-4, atol=1e-5)
    assert scaled.optimizer.skipped == 0
    assert scaled.optimizer.gradient_evaluations == 6


def test_transposed_convolutions_are_known_to_the_optimizer(places) -> None:
    trainer = built()
    trainer.initialize()
    groups = {id(p): group for group in trainer.optimizer.param_groups for p in group["params"]}
    layers = [m for m in trainer.network.modules() if isinstance(m, torch.nn.ConvTranspose2d)]
    assert layers
    assert all(groups[id(layer.weight)]["transposed"] == 1 for layer in layers)
    assert len(groups) == sum(1 for _ in trainer.network.parameters())
