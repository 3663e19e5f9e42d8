"""One call per step: accumulation equals the large batch, passes are counted, precision and schedule are right."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from medgcsam.config import GroupConfig, OptimizerConfig, ScheduleConfig
from medgcsam.config.optimizer_rules import BASES
from medgcsam.training.optimizers import learning_rate_factor
from medgcsam.training.stepper import Stepper

CPU = torch.device("cpu")


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 2))


def cross_entropy(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return nn.functional.cross_entropy(logits, targets)


def stepper(model: nn.Module, **optimizer) -> Stepper:
    base = {} if optimizer.get("name") in BASES else {"base": "sgd"}
    config = OptimizerConfig(**{"name": "gcsam", "lr": 0.1, **base, **optimizer})
    return Stepper(config, ScheduleConfig(), model, epochs=5, steps_per_epoch=4, device=CPU, precision="fp32")


@pytest.mark.parametrize("name", ["sgd", "sam", "gcsam"])
def test_accumulation_equals_the_large_batch(name) -> None:
    images, targets = torch.randn(24, 1, 8, 8), torch.randint(0, 2, (24,))
    options = {"name": name} if name == "sgd" else {"name": name, "base": "sgd", "rho": 0.5}
    whole = network()
    parts = copy.deepcopy(whole)
    one, many = stepper(whole, **options), stepper(parts, **options)
    for _ in range(3):
        one.step(whole, cross_entropy, [(images, targets, None)])
        many.step(parts, cross_entropy, [(images[:10], targets[:10], None), (images[10:], targets[10:], None)])
    for a, b in zip(whole.parameters(), parts.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("name", ["sam", "gcsam"])
def test_batchnorm_counts_the_pass_at_the_weights_only(name) -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 2))
    expected = copy.deepcopy(model)
    images = torch.randn(8, 1, 8, 8)
    expected(images)
    stepper(model, name=name).step(model, cross_entropy, [(images, torch.randint(0, 2, (8,)), None)])
    assert int(model[1].num_batches_tracked) == 1
    assert torch.allclose(model[1].running_mean, expected[1].running_mean)


def test_passes_are_counted() -> None:
    batch = [(torch.randn(8, 1, 8, 8), torch.randint(0, 2, (8,)), None)]
    model = network()
    late = stepper(model, start=0.5, ascent_fraction=0.25)
    passes = []
    for _ in range(5):
        late.begin_epoch()
        for _ in range(4):
            late.step(model, cross_entropy, batch)
        passes.append(late.observations()["passes_per_step"])
    assert passes == [1, 1, 1.125, 1.25, 1.25]
    assert late.observations()["gradient_evaluations"] == 20 + 10 * 0.25


def test_the_learning_rate_follows_the_schedule() -> None:
    model = network()
    plain = stepper(model, name="sgd")
    rates = []
    for _ in range(20):
        plain.step(model, cross_entropy, [(torch.randn(2, 1, 8, 8), torch.tensor([0, 1]), None)])
        rates.append(plain.optimizer.param_groups[0]["lr"])
    expected = [learning_rate_factor(ScheduleConfig(), step=step, steps=20, warmup=4) * 0.1 for step in range(20)]
    assert rates == pytest.approx(expected)


def test_clipping_bounds_the_step_of_every_optimizer() -> None:
    batch = [(torch.randn(8, 1, 8, 8) * 50, torch.randint(0, 2, (8,)), None)]
    for options in ({"name": "sgd", "momentum": 0.0}, {"name": "gcsam", "base": "sgd", "momentum": 0.0}):
        model = network()
        before = [p.detach().clone() for p in model.parameters()]
        clipped = stepper(model, max_norm=1e-3, weight_decay=0.0, **options)
        rate = clipped.learning_rate
        clipped.step(model, cross_entropy, batch)
        moved = torch.cat([(p - q).flatten() for p, q in zip(model.parameters(), before, strict=True)])
        assert moved.norm() <= rate * 1e-3 * 1.001


@pytest.mark.parametrize("name", ["sgd", "gcsam"])
def test_an_overflow_in_fp16_leaves_the_weights_alone(name) -> None:
    batch = [(torch.randn(8, 1, 8, 8), torch.randint(0, 2, (8,)), None)]
    model = network()
    config = OptimizerConfig(name=name, lr=0.1)
    half = Stepper(config, ScheduleConfig(), model, epochs=5, steps_per_epoch=4, device=CPU, precision="fp16")
    before = [p.detach().clone() for p in model.parameters()]
    half.step(model, lambda logits, targets: cross_entropy(logits, targets) * 1e38, batch)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))
    half.step(model, cross_entropy, batch)
    assert not any(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))


def batch(seed: int = 0, count: int = 8) -> tuple[torch.Tensor, torch.Tensor, None]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(count, 1, 8, 8, generator=generator)
    return images, torch.randint(0, 2, (count,), generator=generator), None


class Recorder(nn.Module):
    """A network that remembers type and number of images of each pass."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.passes = network(), []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits = self.inner(images)
        self.passes.append((logits.dtype, len(images)))
        return logits


def test_the_ascent_takes_its_part_of_every_accumulated_batch() -> None:
    model = Recorder()
    stepper(model, ascent_fraction=0.25).step(model, cross_entropy, [batch(0, 8), batch(1, 4)])
    assert [count for _, count in model.passes] == [2, 1, 8, 4]


@pytest.mark.parametrize(("precision", "second"), [("fp32", torch.float32), ("bf16", torch.bfloat16),
                                                   ("fp16", torch.float16)])  # fmt: skip
@pytest.mark.parametrize("batches", [1, 2])
def test_a_bf16_ascent_in_any_precision(precision, second, batches) -> None:
    model = Recorder()
    config = OptimizerConfig(ascent_precision="bf16", lr=0.1)
    mixed = Stepper(config, ScheduleConfig(), model, epochs=5, steps_per_epoch=4, device=CPU, precision=precision)
    mixed.step(model, cross_entropy, [batch(seed) for seed in range(batches)])
    assert [kind for kind, _ in model.passes] == [torch.bfloat16] * batches + [second] * batches
    assert mixed.gradient_evaluations == 2


def test_momentum_ascent_costs_one_evaluation_per_step() -> None:
    model = network()
    momentum = stepper(model, name="sam", ascent="momentum", rho=0.1)
    for seed in range(4):
        momentum.step(model, cross_entropy, [batch(seed)])
    record = momentum.observations()
    assert (record["gradient_evaluations"], record["passes_per_step"], record["ascents"]) == (4, 1, 3)
    assert record["radius"] == pytest.approx(0.1, rel=1e-5)


def test_radius_and_share_are_means_over_the_epochs_ascents() -> None:
    model = network()
    raw = stepper(model, norm="raw", every=2, rho=0.3)
    radii, shares = [], []
    for seed in range(6):
        raw.step(model, cross_entropy, [batch(seed)])
        if seed % 2 == 0:
            radii.append(float(raw.optimizer.last_radius))
            shares.append(float(raw.optimizer.centralized_share))
    record = raw.observations()
    assert record["radius"] == pytest.approx(sum(radii) / 3, rel=1e-5)
    assert record["centralized_share"] == pytest.approx(sum(shares) / 3, rel=1e-5)
    assert record["ascents"] == 3
    assert len(set(radii)) == 3
    raw.begin_epoch()
    raw.step(model, cross_entropy, [batch(0)])
    assert raw.observations()["radius"] == pytest.approx(float(raw.optimizer.last_radius), rel=1e-5)
    plain = stepper(network(), name="sgd")
    plain.step(network(), cross_entropy, [batch()])
    assert (plain.observations()["radius"], plain.observations()["centralized_share"]) == (None, None)


@pytest.mark.parametrize("name", ["sgd", "sam"])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_skipped_steps_are_counted_for_every_optimizer(name, precision) -> None:
    model = network()
    base = {"base": "sgd"} if name == "sam" else {}
    config = OptimizerConfig(name=name, lr=0.1, skip_nonfinite=True, **base)
    careful = Stepper(config, ScheduleConfig(), model, epochs=5, steps_per_epoch=4, device=CPU, precision=precision)
    before = [p.detach().clone() for p in model.parameters()]
    careful.step(model, lambda logits, targets: cross_entropy(logits, targets) * torch.inf, [batch()])
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))
    careful.step(model, cross_entropy, [batch()])
    assert not any(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))
    record = careful.observations()
    assert record["skipped"] == 1
    again = Stepper(config, ScheduleConfig(), model, epochs=5, steps_per_epoch=4, device=CPU, precision=precision)
    again.load_state_dict(careful.state_dict())
    assert again.skipped == 1


@pytest.mark.parametrize("name", ["sgd", "gcsam"])
def test_groups_scale_the_scheduled_rate(name) -> None:
    base = {"base": "sgd"} if name == "gcsam" else {}
    model = network()
    scaled = stepper(model, name=name, groups=(GroupConfig(match="4.*", lr_factor=0.1),), **base)
    scaled.step(model, cross_entropy, [batch()])
    first = scaled.config.lr * learning_rate_factor(ScheduleConfig(), step=0, steps=20, warmup=4)
    rates = {group["lr"] for group in scaled.optimizer.param_groups}
    assert sorted(rates) == pytest.approx([first * 0.1, first])


def test_a_bf16_ascent_adds_up_over_accumulated_batches() -> None:
    """Its casts of weights are shared by the batches of a step, and must neither go stale nor lose a gradient."""
    images, targets, _ = batch(count=16)
    wholes, parts = network(), network()
    options = {"ascent_precision": "bf16", "rho": 0.5}
    one, many = stepper(wholes, **options), stepper(parts, **options)
    for _ in range(3):
        one.step(wholes, cross_entropy, [(images, targets, None)])
        many.step(parts, cross_entropy, [(images[:8], targets[:8], None), (images[8:], targets[8:], None)])
    for a, b in zip(wholes.parameters(), parts.parameters(), strict=True):
        assert torch.allclose(a, b, atol=2e-3)
    assert float(one.optimizer.last_radius) == pytest.approx(0.5, rel=1e-5)
