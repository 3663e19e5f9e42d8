"""The rise of the loss at a fixed radius, against closed forms, and without a trace."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from medgcsam.optim import sharpness


def test_quadratic_has_its_closed_form() -> None:
    """L = w'Hw / 2 rises by g'e + e'He / 2."""
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(6, 6, generator=generator, dtype=torch.float64)
    hessian = root @ root.T
    a = nn.Parameter(torch.randn(4, generator=generator, dtype=torch.float64))
    b = nn.Parameter(torch.randn(2, generator=generator, dtype=torch.float64))

    def losses():
        w = torch.cat([a, b])
        yield w @ hessian @ w / 4
        yield w @ hessian @ w / 4

    w = torch.cat([a, b]).detach()
    for radius in (1e-3, 0.05, 2.0):
        g = hessian @ w
        e = radius * g / g.norm()
        found = sharpness([a, b], losses, radius)
        assert float(found) == pytest.approx(float(g @ e + e @ hessian @ e / 2), rel=1e-10)
    assert found.dtype == torch.float64


def test_small_radius_gives_the_norm_of_the_gradient() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1)).double()
    inputs = torch.randn(7, 3, dtype=torch.float64)
    gradients = torch.autograd.grad(model(inputs).square().mean(), list(model.parameters()))
    norm = torch.sqrt(sum(g.square().sum() for g in gradients))
    rise = sharpness(model.parameters(), lambda: [model(inputs).square().mean()], 1e-6)
    assert float(rise) / 1e-6 == pytest.approx(float(norm), rel=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weights_and_gradients_are_left_as_they_were(dtype) -> None:
    torch.manual_seed(0)
    model = nn.Linear(3, 2).to(dtype)
    model.weight.grad = torch.ones_like(model.weight)
    kept, before = model.weight.grad, [p.detach().clone() for p in model.parameters()]
    inputs, calls = torch.randn(4, 3, dtype=dtype), []

    def losses():
        calls.append([p.detach().clone() for p in model.parameters()])
        yield model(inputs).square().mean()

    sharpness(model.parameters(), losses, 0.1)
    assert model.weight.grad is kept
    assert kept.eq(1).all()
    assert model.bias.grad is None
    assert all(torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True))
    moved = torch.sqrt(sum((x - y).square().sum() for x, y in zip(*calls, strict=True)))
    assert float(moved) == pytest.approx(0.1, rel=1e-5)


class Broken(Exception):
    pass


@pytest.mark.parametrize("broken_call", [1, 2])
def test_everything_comes_back_when_a_pass_raises(broken_call) -> None:
    model, calls = nn.Linear(3, 2), []
    before = [p.detach().clone() for p in model.parameters()]

    def losses():
        calls.append(1)
        yield model(torch.ones(1, 3)).sum()
        if len(calls) == broken_call:
            raise Broken

    with pytest.raises(Broken):
        sharpness(model.parameters(), losses, 0.5)
    assert all(torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True))
    assert all(p.grad is None for p in model.parameters())


def test_frozen_weights_stay_and_a_flat_loss_has_none() -> None:
    frozen, flat = nn.Parameter(torch.ones(2), requires_grad=False), nn.Parameter(torch.zeros(2))
    assert float(sharpness([frozen, flat], lambda: [(flat.square() * frozen).sum()], 0.5)) == 0


def test_misuse_says_what_is_wrong() -> None:
    weight = nn.Parameter(torch.ones(2))
    with pytest.raises(ValueError, match="rho"):
        sharpness([weight], lambda: [weight.sum()], -1.0)
    with pytest.raises(ValueError, match="empty"):
        sharpness([weight], list, 0.1)
    with pytest.raises(RuntimeError, match="depend on the parameters"):
        sharpness([weight], lambda: [torch.ones((), requires_grad=True) * 2], 0.1)
    with pytest.raises(TypeError, match="float16"):
        sharpness([weight.detach().half().requires_grad_()], lambda: [weight.sum()], 0.1)


def test_float32_has_the_closed_form_to_its_own_precision() -> None:
    weight = nn.Parameter(torch.tensor([3.0, 4.0]))
    rise = sharpness([weight], lambda: [weight.square().sum() / 2], 0.5)
    assert float(rise) == pytest.approx(0.5 * 5 + 0.5**2 / 2, rel=1e-6)


def test_hooks_of_training_are_not_called_and_no_grad_around_it_does_not_matter() -> None:
    """As an optimizer that steps in the backward pass, or DistributedDataParallel, would have it."""
    weight, called = nn.Parameter(torch.ones(3)), []
    weight.register_post_accumulate_grad_hook(lambda parameter: called.append(parameter))
    with torch.no_grad():
        assert float(sharpness([weight], lambda: [weight.square().sum()], 0.1)) > 0
    assert not called
    weight.square().sum().backward()
    assert len(called) == 1


@pytest.mark.parametrize("factor", [torch.inf, torch.nan])
def test_without_a_finite_gradient_there_is_no_number(factor) -> None:
    weight = nn.Parameter(torch.ones(3))
    assert sharpness([weight], lambda: [(weight * factor).sum()], 0.1).isnan()
    assert weight.eq(1).all()


def test_weights_shared_or_without_a_part_in_the_loss_and_sparse_ones() -> None:
    shared, idle = nn.Parameter(torch.tensor([2.0])), nn.Parameter(torch.tensor([7.0]))
    rise = sharpness([shared, idle, shared], lambda: [shared.square().sum()], 0.5)
    assert float(rise) == pytest.approx(2.5**2 - 2**2)
    assert idle.item() == 7
    table = nn.Embedding(5, 2, sparse=True)
    with pytest.raises(RuntimeError, match="sparse=False"):
        sharpness(table.parameters(), lambda: [table(torch.tensor([1])).sum()], 0.1)
