"""The Lightning example: two passes per step, the weights of a plain loop, exact resume, all precisions, DDP."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from types import ModuleType

import pytest
import torch
from torch import nn

from medgcsam.optim import GCSAM, parameter_groups

lightning = pytest.importorskip("lightning")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning"),
]

STEPS_PER_EPOCH = 19  # 1200 images in batches of 64


@pytest.fixture(scope="module")
def example(repository) -> ModuleType:
    file = repository / "docs" / "examples" / "lightning_module.py"
    spec = importlib.util.spec_from_file_location("lightning_module", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def trainer_for(epochs: int, **options) -> lightning.Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return lightning.Trainer(
        accelerator="cpu", devices=1, max_epochs=epochs, **{**quiet, "enable_checkpointing": False, **options}
    )


def fitted(module, example, epochs: int, **options):
    """The module after ``epochs`` epochs, and its trainer."""
    trainer = trainer_for(epochs, **options)
    trainer.fit(module, *example.loaders())
    return module, trainer


def built(example, kind: str = "Digits", epochs: int = 2, **options):
    torch.manual_seed(0)
    return getattr(example, kind)(steps=epochs * STEPS_PER_EPOCH, **options)


def weights(module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in module.network.parameters()])


def same(a, b) -> bool:
    """Weights and BatchNorm statistics, bit for bit."""
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def same_state(a, b) -> bool:
    """Nested dicts and lists of tensors and numbers, bit for bit."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same_state(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same_state, a, b))
    return a == b


def plain_loop(example, module, epochs: int) -> GCSAM:
    """What the module's training is meant to be, written without Lightning."""
    optimizer = GCSAM(parameter_groups(module.network), torch.optim.AdamW, rho=0.05, lr=1e-3, weight_decay=1e-2)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=module.hparams.steps)
    train, _ = example.loaders()
    module.network.train()
    for epoch in range(epochs):
        train.sampler.set_epoch(epoch)
        for images, labels in train:

            def closure(images=images, labels=labels):
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(module.network(images), labels)
                loss.backward()
                return loss

            optimizer.step(closure, model=module.network)
            scheduler.step()
    return optimizer


def test_it_takes_two_passes_per_step_to_the_weights_of_a_plain_loop(example) -> None:
    module, trainer = fitted(built(example), example, 2)
    reference = built(example)
    plain_loop(example, reference, 2)
    assert same(module.network, reference.network)
    optimizer = module.optimizers().optimizer
    assert trainer.global_step == optimizer.steps == 2 * STEPS_PER_EPOCH
    assert optimizer.gradient_evaluations == 2 * trainer.global_step
    assert trainer.lr_scheduler_configs[0].scheduler.last_epoch == trainer.global_step
    assert int(module.network[1].num_batches_tracked) == trainer.global_step
    assert trainer.callback_metrics["accuracy"] > 0.8  # chance is 0.1


def test_the_logged_loss_is_the_mean_of_the_first_passes(example) -> None:
    first, trainer = [], trainer_for(1)

    class Watched(example.Digits):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            first.append((len(batch[0]), loss.detach()))
            return loss

    torch.manual_seed(0)
    trainer.fit(Watched(steps=STEPS_PER_EPOCH), *example.loaders())
    at_w = first[::2]
    mean = sum(size * loss for size, loss in at_w) / sum(size for size, _ in at_w)
    torch.testing.assert_close(trainer.callback_metrics["train_loss"], mean)


def test_lightnings_own_call_is_enough_without_batch_statistics(example) -> None:
    """The docstring's claim: automatic optimization calls ``step(closure)``, and GCSAM calls the closure twice."""

    def without_statistics(module):
        torch.manual_seed(1)
        module.network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        return module

    class Bare(example.Digits):
        def optimizer_step(self, epoch, batch_idx, optimizer, optimizer_closure):
            lightning.LightningModule.optimizer_step(self, epoch, batch_idx, optimizer, optimizer_closure)

    module, _ = fitted(without_statistics(Bare(steps=STEPS_PER_EPOCH)), example, 1)
    reference = without_statistics(built(example, epochs=1))
    plain_loop(example, reference, 1)
    assert same(module.network, reference.network)


@pytest.mark.parametrize("kind", ["Digits", "AccumulatedDigits"])
@pytest.mark.parametrize("weights_only", [True, False])
def test_resuming_from_lightnings_checkpoint_changes_no_bit(example, kind, weights_only, tmp_path) -> None:
    # start falls into the second epoch: the counters must come back as well.
    options = {"options": {"start": 25, "max_norm": 1.0}}
    keep = lightning.pytorch.callbacks.ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1)
    through, trainer = fitted(
        built(example, kind, 3, **options), example, 3, callbacks=[keep], enable_checkpointing=True
    )
    torch.manual_seed(99)
    resumed = getattr(example, kind)(steps=3 * STEPS_PER_EPOCH, **options)
    second = trainer_for(3)
    second.fit(resumed, *example.loaders(), ckpt_path=tmp_path / "epoch=0.ckpt", weights_only=weights_only)
    assert second.global_step == trainer.global_step
    assert same(through.network, resumed.network)
    a, b = through.optimizers().optimizer, resumed.optimizers().optimizer
    assert a.gradient_evaluations == b.gradient_evaluations == 2 * 3 * STEPS_PER_EPOCH - 25
    assert same_state(a.state_dict(), b.state_dict())


def test_ascent_on_a_part_of_the_batch(example) -> None:
    module, trainer = fitted(built(example, epochs=1, options={"ascent_fraction": 0.25}), example, 1)
    optimizer = module.optimizers().optimizer
    assert optimizer.gradient_evaluations == 1.25 * trainer.global_step
    whole, _ = fitted(built(example, epochs=1), example, 1)
    assert not same(module.network, whole.network)


def mixed(precision: str, **scaler):
    scaler = torch.amp.GradScaler("cpu", **scaler) if precision == "16-mixed" else None
    return lightning.pytorch.plugins.MixedPrecision(precision, "cpu", scaler)


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_mixed_precision_stays_near_float32(example, precision) -> None:
    full, _ = fitted(built(example, epochs=1), example, 1)
    module, trainer = fitted(built(example, epochs=1), example, 1, plugins=[mixed(precision)])
    assert module.optimizers().optimizer.gradient_evaluations == 2 * trainer.global_step
    assert module.optimizers().optimizer.skipped == 0
    assert 0 < (weights(module) - weights(full)).norm() / weights(full).norm() < 0.05


def test_overflow_in_float16_is_skipped_and_lowers_the_scale(example) -> None:
    plugin = mixed("16-mixed", init_scale=2.0**24)
    module, trainer = fitted(built(example, epochs=1), example, 1, plugins=[plugin])
    optimizer = module.optimizers().optimizer
    assert 0 < optimizer.skipped < trainer.global_step
    assert plugin.scaler.get_scale() == 2.0**24 * 0.5**optimizer.skipped
    assert torch.isfinite(weights(module)).all()


def test_accumulated_micro_batches_are_the_whole_batch(example) -> None:
    parts, trainer = fitted(built(example, "AccumulatedDigits", 1, parts=4), example, 1)
    whole, _ = fitted(built(example, "AccumulatedDigits", 1, parts=1), example, 1)
    torch.testing.assert_close(weights(parts), weights(whole), rtol=1e-3, atol=1e-4)
    assert trainer.global_step == STEPS_PER_EPOCH
    assert parts.optimizers().optimizer.gradient_evaluations == 2 * STEPS_PER_EPOCH
    assert trainer.lr_scheduler_configs[0].scheduler.last_epoch == STEPS_PER_EPOCH


@pytest.mark.parametrize("option", [{"accumulate_grad_batches": 2}, {"gradient_clip_val": 1.0}], ids=str)
def test_what_cannot_work_is_refused(example, option) -> None:
    with pytest.raises(ValueError, match="Not with GCSAM"):
        fitted(built(example), example, 1, **option)


REPLICAS = """
import torch, lightning
from torch.utils.data import DataLoader, TensorDataset
from lightning_module import Digits

data = TensorDataset(torch.randn(96, 1, 8, 8), torch.randint(0, 10, (96,)))
for synchronize in (False, True):
    torch.manual_seed(0)
    module = Digits(steps=6, options={"synchronize_ascent": synchronize})
    trainer = lightning.Trainer(
        accelerator="cpu", devices=2, strategy="ddp", max_steps=6, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )
    trainer.fit(module, DataLoader(data, 8, shuffle=True))
    weights = trainer.strategy.all_gather(torch.cat([p.detach().flatten() for p in module.network.parameters()]))
    shares = trainer.strategy.all_gather(module.optimizers().optimizer.centralized_share)
    if trainer.is_global_zero:
        equal = [torch.equal(both[0], both[1]) for both in (weights, shares)]
        print("synchronize", synchronize, "weights and ascents equal", equal)
        print("passes", module.optimizers().optimizer.gradient_evaluations)
"""


def test_replicas_stay_equal_and_ascend_as_told(repository, tmp_path) -> None:
    (tmp_path / "replicas.py").write_text(REPLICAS)
    paths = [str(repository), str(repository / "docs" / "examples"), os.environ.get("PYTHONPATH", "")]
    result = subprocess.run(
        [sys.executable, "replicas.py"], cwd=tmp_path, capture_output=True, text=True, timeout=120,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert "synchronize False weights and ascents equal [True, False]" in result.stdout, result.stderr
    assert "synchronize True weights and ascents equal [True, True]" in result.stdout, result.stderr
    assert result.stdout.count("passes 12") == 2
