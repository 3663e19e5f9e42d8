"""The schedule, weight decay groups, and accumulation that equals the large batch."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from medgcsam.config import OptimizerConfig, ScheduleConfig
from medgcsam.training.optimizers import Stepper, build_optimizer, learning_rate_factor

CPU = torch.device("cpu")


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 2))


def cross_entropy(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return nn.functional.cross_entropy(logits, targets)


def stepper(model: nn.Module, **optimizer) -> Stepper:
    config = OptimizerConfig(**{"name": "gcsam", "base": "sgd", "lr": 0.1, **optimizer})
    return Stepper(config, ScheduleConfig(), model, epochs=5, steps_per_epoch=4, device=CPU, precision="fp32")


def test_cosine_after_the_warm_up_is_torchs_own() -> None:
    config = ScheduleConfig(final=0.1)
    weight = nn.Parameter(torch.ones(1))
    reference = torch.optim.SGD([weight], lr=1.0)
    cosine = lr_scheduler.CosineAnnealingLR(reference, T_max=90, eta_min=0.1)
    for step in range(10, 100):
        factor = learning_rate_factor(config, step=step, steps=100, warmup=10)
        assert factor == pytest.approx(reference.param_groups[0]["lr"])
        reference.step()
        cosine.step()
    rising = [learning_rate_factor(config, step=step, steps=100, warmup=10) for step in range(11)]
    assert rising == sorted(rising)
    assert 0 < rising[0] < rising[10] == 1
    assert learning_rate_factor(ScheduleConfig(name="constant"), step=50, steps=100, warmup=10) == 1


@pytest.mark.parametrize("name", ["adamw", "sam", "gcsam"])
def test_biases_and_norms_are_not_decayed(name) -> None:
    model = network()
    optimizer = build_optimizer(OptimizerConfig(name=name, weight_decay=0.3), model, steps=10)
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert {p.dim() > 1: decay[id(p)] for p in model.parameters()} == {True: 0.3, False: 0.0}
    assert len(decay) == len(list(model.parameters()))


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
