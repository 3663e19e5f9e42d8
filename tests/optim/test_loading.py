"""Loading a state after a step that was interrupted, and states that cannot be."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from medgcsam.optim import GCSAM


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 2))


def train(model, optimizer, steps, first=0):
    for step in range(first, first + steps):
        inputs = torch.randn(8, 5, generator=torch.Generator().manual_seed(step))

        def closure(inputs=inputs):
            optimizer.zero_grad()
            loss = (model(inputs) - 1).square().mean()
            loss.backward()
            return loss

        optimizer.step(closure)


def same_weights(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


@pytest.mark.parametrize("away", ["ascend", "swap"])
@pytest.mark.parametrize("order", [("model", "optimizer"), ("optimizer", "model")])
def test_loading_after_an_interrupted_step_gives_the_weights_of_the_checkpoint(away, order):
    model = network()
    optimizer = GCSAM(model.parameters(), lr=0.1, ascent="momentum" if away == "swap" else "gradient")
    parts = {"model": model, "optimizer": optimizer}
    train(model, optimizer, 2)
    checkpoint = {name: copy.deepcopy(part.state_dict()) for name, part in parts.items()}
    train(model, optimizer, 3, first=2)
    if away == "swap":
        optimizer.swap()
    else:
        model(torch.ones(2, 5)).sum().backward()
        optimizer.ascend()
    for name in order:
        parts[name].load_state_dict(checkpoint[name])
    for name, value in model.state_dict().items():
        assert torch.equal(value, checkpoint["model"][name])
    optimizer.restore()
    assert all(torch.equal(value, checkpoint["model"][name]) for name, value in model.state_dict().items())
    train(model, optimizer, 1)


def test_loading_the_optimizer_alone_after_an_interrupted_step_brings_the_weights_back():
    model = network()
    optimizer = GCSAM(model.parameters(), lr=0.1)
    train(model, optimizer, 2)
    before = copy.deepcopy(model)
    state = optimizer.state_dict()
    model(torch.ones(2, 5)).sum().backward()
    optimizer.ascend()
    assert not same_weights(model, before)
    optimizer.load_state_dict(state)
    assert same_weights(model, before)


@pytest.mark.parametrize("change", [{"rho": -0.1}, {"maximize": True}, {"centralize": "never"}, {"every": 0}], ids=str)
def test_an_impossible_state_is_refused_before_anything_is_loaded(change):
    model = network()
    optimizer = GCSAM(model.parameters(), lr=0.1)
    train(model, optimizer, 1)
    state = copy.deepcopy(optimizer.state_dict())
    state["param_groups"][0]["lr"] = 0.7
    target = state["sharpness"] if "every" in change else state["param_groups"][0]
    target.update(change)
    with pytest.raises(ValueError, match=next(iter(change))):
        optimizer.load_state_dict(state)
    assert optimizer.param_groups[0]["lr"] == 0.1
