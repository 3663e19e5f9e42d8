"""Whole networks with layers of normalization and dropout: GCSAM against two passes written by hand, buffers included.

The reference never touches the network: it calls it with weights and buffers of its own (``functional_call``).
"""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.func import functional_call

from medgcsam.optim import GCSAM, frozen_statistics

STEPS = 3
RHO, LR, MOMENTUM = 0.3, 0.1, 0.9

NORMS_2D = {
    "BatchNorm2d": lambda: nn.BatchNorm2d(4),
    "BatchNorm2d, cumulative": lambda: nn.BatchNorm2d(4, momentum=None),
    "BatchNorm2d, no affine": lambda: nn.BatchNorm2d(4, affine=False),
    "BatchNorm2d, no statistics": lambda: nn.BatchNorm2d(4, track_running_stats=False),
    "BatchNorm2d, in evaluation mode": lambda: nn.BatchNorm2d(4).eval(),
    "GroupNorm": lambda: nn.GroupNorm(2, 4),
    "InstanceNorm2d": lambda: nn.InstanceNorm2d(4),
    "InstanceNorm2d, affine": lambda: nn.InstanceNorm2d(4, affine=True),
    "InstanceNorm2d, tracked": lambda: nn.InstanceNorm2d(4, affine=True, track_running_stats=True),
    "LayerNorm": lambda: nn.LayerNorm((4, 4, 4)),
    "RMSNorm": lambda: nn.RMSNorm((4, 4, 4)),
    "LocalResponseNorm": lambda: nn.LocalResponseNorm(2),
    "Dropout": lambda: nn.Dropout(0.4),
    "Dropout2d": lambda: nn.Dropout2d(0.4),
    "AlphaDropout": lambda: nn.AlphaDropout(0.4),
    "spectral norm": lambda: nn.utils.parametrizations.spectral_norm(nn.Conv2d(4, 4, 1)),
    "weight norm": lambda: nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 4, 1)),
    "all at once": lambda: nn.Sequential(
        nn.BatchNorm2d(4),
        nn.Tanh(),
        nn.InstanceNorm2d(4, affine=True, track_running_stats=True),
        nn.Tanh(),
        nn.Dropout2d(0.3),
        nn.GroupNorm(2, 4),
    ),
}
NORMS_1D = {"BatchNorm1d": lambda: nn.BatchNorm1d(4), "InstanceNorm1d": lambda: nn.InstanceNorm1d(4)}
NORMS_3D = {
    "BatchNorm3d": lambda: nn.BatchNorm3d(4),
    "InstanceNorm3d": lambda: nn.InstanceNorm3d(4, affine=True, track_running_stats=True),
}
CASES = [(name, 2) for name in NORMS_2D] + [(name, 1) for name in NORMS_1D] + [(name, 3) for name in NORMS_3D]
CONVOLUTION = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


def network(name: str, dimensions: int) -> nn.Sequential:
    torch.manual_seed(0)
    middle = (NORMS_1D | NORMS_2D | NORMS_3D)[name]()
    # Without a bias, which layers of normalization would take out again: its gradient is zero.
    convolution = CONVOLUTION[dimensions](1, 4, 3, padding=1, bias=False)
    layers = (convolution, middle, nn.SiLU(), nn.Flatten(), nn.Linear(4 * 4**dimensions, 3))
    return nn.Sequential(*layers).double()


def batches(dimensions: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    shape = (STEPS, 6, 1, *[4] * dimensions)
    images = torch.randn(shape, generator=generator, dtype=torch.float64) * 2 + 1
    return list(zip(images, torch.randint(0, 3, (STEPS, 6), generator=generator), strict=True))


def centralized(gradient: torch.Tensor) -> torch.Tensor:
    if gradient.dim() < 2 or gradient[0].numel() == 1:
        return gradient
    return gradient - gradient.flatten(1).mean(1).reshape(-1, *[1] * (gradient.dim() - 1))


def by_hand(model: nn.Module, data, *, replay: bool):
    """Weights and buffers after GCSAM over SGD with momentum, by the formulas."""
    weights = {name: p.detach().clone() for name, p in model.named_parameters()}
    buffers = {name: b.clone() for name, b in model.named_buffers()}
    velocity = {name: torch.zeros_like(w) for name, w in weights.items()}

    def gradient(at, own_buffers, images, labels):
        leaves = {name: w.clone().requires_grad_() for name, w in at.items()}
        loss = nn.functional.cross_entropy(functional_call(model, (leaves, own_buffers), (images,)), labels)
        return dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))

    for images, labels in data:
        draws = torch.get_rng_state()
        g = {name: centralized(own) for name, own in gradient(weights, buffers, images, labels).items()}
        size = torch.cat([own.flatten() for own in g.values()]).norm()
        there = {name: w + RHO * g[name] / size for name, w in weights.items()}
        after = torch.get_rng_state()
        if replay:
            torch.set_rng_state(draws)
        thrown_away = {name: b.clone() for name, b in buffers.items()}
        g = gradient(there, thrown_away, images, labels)
        if replay:
            torch.set_rng_state(after)
        for name, w in weights.items():
            velocity[name] = MOMENTUM * velocity[name] + g[name]
            weights[name] = w - LR * velocity[name]
    return weights, buffers


def train(model: nn.Module, data, *, replay: bool, form: str) -> None:
    options = {"rho": RHO, "replay_random": replay, "lr": LR, "momentum": MOMENTUM}
    optimizer = GCSAM(model.parameters(), torch.optim.SGD, **options)
    for images, labels in data:

        def closure(images=images, labels=labels):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(images), labels)
            loss.backward()
            return loss

        if form == "closure":
            optimizer.step(closure, model=model)
        else:
            closure()
            optimizer.ascend()
            with frozen_statistics(model):
                closure()
            optimizer.descend()


@pytest.mark.parametrize(("name", "dimensions"), CASES, ids=[name for name, _ in CASES])
@pytest.mark.parametrize("form", ["closure", "replayed", "two steps"])
def test_steps_and_running_statistics_are_those_of_two_passes_by_hand(name, dimensions, form):
    model, data = network(name, dimensions), batches(dimensions)
    start = {key: value.clone() for key, value in model.state_dict().items()}
    torch.manual_seed(7)
    weights, buffers = by_hand(model, data, replay=form == "replayed")
    drawn = torch.rand(3)
    assert all(torch.equal(value, start[key]) for key, value in model.state_dict().items()), "the reference has effects"
    torch.manual_seed(7)
    train(model, data, replay=form == "replayed", form="two steps" if form == "two steps" else "closure")
    for key, p in model.named_parameters():
        torch.testing.assert_close(p.detach(), weights[key], rtol=0, atol=1e-11)
        assert (p.detach() - start[key]).abs().max() > 1e-4
    for key, b in model.named_buffers():
        torch.testing.assert_close(b, buffers[key], rtol=0, atol=1e-12)
    assert torch.equal(torch.rand(3), drawn), "the generator stands elsewhere"


@pytest.mark.parametrize("name", ["BatchNorm2d", "InstanceNorm2d, tracked", "spectral norm"])
def test_statistics_moved_and_without_the_model_they_would_differ(name):
    """So that the test above is known to see a statistic that the second pass has changed."""
    data, model = batches(2), network(name, 2)
    _, right = by_hand(model, data, replay=False)
    start = {key: b.clone() for key, b in model.named_buffers()}
    assert any(not torch.equal(right[key], b) for key, b in start.items())
    optimizer = GCSAM(model.parameters(), torch.optim.SGD, rho=RHO, lr=LR, momentum=MOMENTUM)
    for images, labels in data:

        def closure(images=images, labels=labels):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(images), labels)
            loss.backward()
            return loss

        optimizer.step(closure)
    assert any((b - right[key]).abs().max() > 1e-3 for key, b in model.named_buffers())


@pytest.mark.parametrize("name", ["Dropout", "Dropout2d", "AlphaDropout"])
def test_replaying_the_draws_gives_other_weights(name):
    data, ends = batches(2), []
    for replay in (False, True):
        model = network(name, 2)
        torch.manual_seed(7)
        train(model, data, replay=replay, form="closure")
        ends.append(nn.utils.parameters_to_vector(model.parameters()).detach())
    assert (ends[0] - ends[1]).abs().max() > 1e-4
