"""``ascent="momentum"`` leaves the moments alone and costs one pass; ``swap`` shows where gradients are taken."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from medgcsam.optim import GCSAM, SAM, parameter_groups


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.ConvTranspose2d(4, 2, 2, groups=2), nn.Flatten(), nn.Linear(50, 2)
    ).double()


def train(model, optimizer, steps=3):
    for step in range(steps):
        images = torch.randn(4, 1, 6, 6, generator=torch.Generator().manual_seed(step), dtype=torch.float64)

        def closure(images=images):
            optimizer.zero_grad()
            loss = model(images).square().mean()
            loss.backward()
            return loss

        optimizer.step(closure)


def length(tensors) -> torch.Tensor:
    return torch.sqrt(sum(t.square().sum() for t in tensors))


def centralized(moment: torch.Tensor, layout: int) -> torch.Tensor:
    if moment.dim() < 2:
        return moment
    if not layout:
        return moment - moment.mean(dim=tuple(range(1, moment.dim())), keepdim=True)
    inputs = moment.shape[0] // layout
    units = [m - m.mean(dim=(0, *range(2, m.dim())), keepdim=True) for m in moment.split(inputs)]
    return torch.cat(units)


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("norm", ["centralized", "raw"])
@pytest.mark.parametrize("kind", ["SAM", "GCSAM"])
def test_swap_goes_to_the_point_of_the_formula_and_back(kind, norm, adaptive):
    model = network()
    groups = parameter_groups(model)
    if kind == "GCSAM":
        optimizer = GCSAM(groups, rho=0.3, norm=norm, adaptive=adaptive, ascent="momentum", lr=0.01)
    else:
        optimizer = SAM([{**g, "centralize": "none"} for g in groups], rho=0.3, adaptive=adaptive, ascent="momentum",
                        lr=0.01)  # fmt: skip
    train(model, optimizer)
    layouts = {p: g["transposed"] for g in optimizer.param_groups for p in g["params"]}
    chosen = {p: g["centralize"] == "ascent" for g in optimizer.param_groups for p in g["params"]}
    weights = list(layouts)
    before = [w.detach().clone() for w in weights]
    moments = [optimizer.state[w]["exp_avg"].clone() for w in weights]
    counted = (optimizer.steps, optimizer.ascents, optimizer.gradient_evaluations, float(optimizer.last_radius))
    d = [centralized(m, layouts[w]) if chosen[w] else m for w, m in zip(weights, moments, strict=True)]
    t = [w.abs() + 0.01 if adaptive else torch.ones_like(w) for w in before]
    divisor = d if kind == "SAM" or norm == "centralized" else moments
    size = length([s * x for s, x in zip(t, divisor, strict=True)])
    optimizer.swap()
    for w, b, s, x in zip(weights, before, t, d, strict=True):
        torch.testing.assert_close(w.detach(), b - 0.3 * s * s * x / size, rtol=0, atol=1e-12)
    optimizer.swap()
    assert all(torch.equal(w, b) for w, b in zip(weights, before, strict=True))
    assert all(torch.equal(optimizer.state[w]["exp_avg"], m) for w, m in zip(weights, moments, strict=True))
    assert counted == (optimizer.steps, optimizer.ascents, optimizer.gradient_evaluations, float(optimizer.last_radius))


def test_swapping_between_steps_changes_no_bit_of_training():
    ends = []
    for swapping in (False, True):
        model = network()
        optimizer = GCSAM(model.parameters(), rho=0.3, ascent="momentum", lr=0.01)
        for _ in range(3):
            train(model, optimizer)
            for _ in range(2 * swapping):
                optimizer.swap()
        ends.append([p.detach() for p in model.parameters()])
        assert (optimizer.gradient_evaluations, optimizer.steps, optimizer.ascents) == (9, 9, 8)
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))


def test_the_gradient_is_taken_at_the_swapped_point():
    model = network()
    optimizer = SAM(model.parameters(), torch.optim.SGD, rho=0.3, ascent="momentum", lr=0.01, momentum=0.9)
    train(model, optimizer)
    images = torch.randn(4, 1, 6, 6, dtype=torch.float64)
    optimizer.swap()
    expected = model(images).square().mean().item()
    optimizer.swap()
    plain = model(images).square().mean().item()

    def closure():
        optimizer.zero_grad()
        loss = model(images).square().mean()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == expected != plain


def test_while_swapped_nothing_else_may_happen():
    model = network()
    optimizer = GCSAM(model.parameters(), rho=0.3, ascent="momentum", lr=0.01)
    optimizer.swap()  # no moments yet: the same point
    optimizer.swap()
    train(model, optimizer)
    optimizer.swap()
    before = copy.deepcopy(model.state_dict())
    calls = (
        lambda: train(model, optimizer, 1), optimizer.ascend, optimizer.descend, optimizer.state_dict,
        lambda: copy.deepcopy(optimizer),
    )  # fmt: skip
    for call in calls:
        with pytest.raises(RuntimeError, match="swap"):
            call()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    optimizer.restore()
    train(model, optimizer, 1)
    optimizer.zero_grad()
    optimizer.ascend()
    with pytest.raises(RuntimeError, match="between ascend"):
        optimizer.swap()
    optimizer.restore()


def test_swap_is_for_momentum_only():
    with pytest.raises(RuntimeError, match='ascent="momentum"'):
        GCSAM(network().parameters()).swap()


@pytest.mark.parametrize(("option", "value"), [("ascent_fraction", 0.5), ("ascent_precision", "bf16")])
def test_levers_of_the_first_pass_are_refused(option, value):
    with pytest.raises(ValueError, match=f"{option} has no meaning"):
        SAM(network().parameters(), ascent="momentum", **{option: value})


def test_moments_are_not_copied(monkeypatch):
    """Of all weights nothing is copied but the weights themselves, there and back."""
    copies = []
    original = torch._foreach_copy_

    def counted(to, of):
        copies.append(sum(t.numel() for t in to))
        original(to, of)

    monkeypatch.setattr(torch, "_foreach_copy_", counted)
    for kind in (SAM, GCSAM):
        model = network()
        optimizer = kind(model.parameters(), ascent="momentum", lr=0.01)
        train(model, optimizer, 1)
        optimizer.zero_grad()
        copies.clear()
        optimizer.ascend()
        optimizer.restore()
        assert copies == [sum(p.numel() for p in model.parameters())] * 2


def test_frozen_weights_take_no_part():
    model = network()
    optimizer = SAM(model.parameters(), rho=0.5, ascent="momentum", lr=0.01)
    train(model, optimizer, 2)
    model[0].requires_grad_(False)
    frozen, trained = model[0].weight.clone(), model[4].weight.detach().clone()
    optimizer.zero_grad()
    optimizer.ascend()
    assert torch.equal(model[0].weight, frozen)
    assert not torch.equal(model[4].weight, trained)
    away = [p for p in model.parameters() if p.requires_grad]
    moved = [p.detach().clone() for p in away]
    optimizer.restore()
    torch.testing.assert_close(
        length([a - b.detach() for a, b in zip(moved, away, strict=True)]), torch.tensor(0.5).double()
    )


def test_weights_turned_to_half_precision_are_refused():
    model = network()
    optimizer = SAM(model.parameters(), ascent="momentum", lr=0.01)
    train(model, optimizer, 1)
    model.bfloat16()
    optimizer.zero_grad()
    with pytest.raises(TypeError, match="too coarse"):
        optimizer.ascend()
