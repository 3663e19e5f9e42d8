"""Every optimizer class of torch.optim: it trains as base, in all its implementations, or is refused by name."""

from __future__ import annotations

import copy
import functools
import inspect
import re
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import Optimizer

from medgcsam.optim import GCSAM, SAM

CLASSES = {
    name: value
    for name, value in vars(torch.optim).items()
    if inspect.isclass(value) and issubclass(value, Optimizer) and value is not Optimizer
}
REFUSED = {"LBFGS": "calls the closure itself", "SparseAdam": "sparse gradients"}
TRAINABLE = sorted(set(CLASSES) - set(REFUSED))
EXPECTED = {"SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "NAdam", "RAdam", "Adamax", "Adadelta", "ASGD", "Rprop"}


def weights(dtype: torch.dtype = torch.float32) -> list[nn.Parameter]:
    """Matrices only, which is all that Muon takes."""
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=generator).to(dtype)) for shape in ((4, 6), (3, 4))]


def backward(params: list[nn.Parameter], step: int) -> torch.Tensor:
    inputs = torch.randn(8, 6, generator=torch.Generator().manual_seed(step)).to(params[0].dtype)
    for p in params:
        p.grad = None
    loss = (torch.tanh(inputs @ params[0].T) @ params[1].T - inputs[:, :3]).square().mean()
    loss.backward()
    return loss


def by_hand(make, options: dict[str, Any], rho: float, steps: int) -> list[nn.Parameter]:
    """SAM in six lines: w + rho * g / |g|, gradient there, back, step."""
    params = weights()
    inner = make(params, **options)
    for step in range(steps):
        backward(params, step)
        before = copy.deepcopy(params)
        norm = torch.cat([p.grad.flatten() for p in params]).norm()
        with torch.no_grad():
            for p in params:
                p.add_(p.grad * (rho / norm))
        backward(params, step)
        with torch.no_grad():
            for p, saved in zip(params, before, strict=True):
                p.copy_(saved)
        inner.step()
    return params


def trained(optimizer: Optimizer, params: list[nn.Parameter], steps: int) -> list[nn.Parameter]:
    for step in range(steps):
        optimizer.step(lambda step=step: backward(params, step))
    return params


def test_no_base_of_the_documentation_is_missing_here():
    assert set(CLASSES) >= EXPECTED | set(REFUSED)


@pytest.mark.parametrize("name", TRAINABLE)
def test_every_optimizer_of_torch_trains_as_base(name):
    params, options = weights(), {"lr": 2.0 if name == "Adadelta" else 0.01}
    trained(SAM(params, CLASSES[name], 0.1, **options), params, 5)
    for ours, theirs, start in zip(params, by_hand(CLASSES[name], options, 0.1, 5), weights(), strict=True):
        # Muon orthogonalizes in bfloat16, where a last bit of the gradient may become a step of 1 in 256.
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-3 if name == "Muon" else 2e-6)
        assert (ours - start).abs().max() > 4e-3


@pytest.mark.parametrize("name", sorted(set(CLASSES) & set(REFUSED)))
def test_what_cannot_be_a_base_is_refused_by_name_with_a_reason_and_a_way_out(name):
    with pytest.raises(ValueError, match=rf"{name} cannot be the base optimizer: .*{REFUSED[name]}.*take AdamW"):
        GCSAM(weights(), CLASSES[name], lr=0.01)


class OwnLBFGS(torch.optim.LBFGS):
    pass


DISGUISED = [
    (OwnLBFGS, "calls the closure itself"),
    (functools.partial(torch.optim.LBFGS, max_iter=2), "calls the closure itself"),
    (functools.partial(torch.optim.SparseAdam, betas=(0.8, 0.9)), "sparse gradients"),
    (functools.partial(torch.optim.AdamW, differentiable=True), "differentiable"),
]


@pytest.mark.parametrize(("base", "reason"), DISGUISED, ids=["subclass", "partial", "sparse", "tracked"])
def test_a_subclass_or_partial_of_what_cannot_be_a_base_is_refused_too(base, reason):
    with pytest.raises(ValueError, match=reason):
        GCSAM(weights(), base, lr=0.01)


def test_an_option_that_a_partial_brings_is_seen():
    with pytest.raises(ValueError, match="negate the loss"):
        GCSAM(weights(), functools.partial(torch.optim.AdamW, maximize=True), lr=0.01)


def test_a_base_of_ones_own_will_do():
    class SignDescent(Optimizer):
        def __init__(self, params, lr=0.1):
            super().__init__(params, {"lr": lr})

        @torch.no_grad()
        def step(self, closure=None):
            for group in self.param_groups:
                for p in group["params"]:
                    p.sub_(p.grad.sign(), alpha=group["lr"])

    params = weights()
    trained(SAM(params, SignDescent, 0.1, lr=0.02), params, 5)
    for ours, theirs in zip(params, by_hand(SignDescent, {"lr": 0.02}, 0.1, 5), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_base_can_be_a_partial():
    params, twins = weights(), weights()
    trained(SAM(params, functools.partial(torch.optim.SGD, momentum=0.9), 0.1, lr=0.02), params, 3)
    trained(SAM(twins, torch.optim.SGD, 0.1, lr=0.02, momentum=0.9), twins, 3)
    assert all(torch.equal(a, b) for a, b in zip(params, twins, strict=True))


# capturable wants the weights on an accelerator in most bases; tests/optim/test_cuda.py has it.
VARIANTS = [
    (name, option)
    for name, make in sorted(CLASSES.items())
    for option in ("foreach", "fused")
    if name not in REFUSED and option in inspect.signature(make).parameters
]


@pytest.mark.parametrize(("name", "option"), VARIANTS, ids=lambda value: value)
def test_implementations_of_a_base_give_the_same_weights(name, option):
    plain, special = weights(), weights()
    options = {"lr": 0.01} | ({"weight_decay": 0.1} if "weight_decay" in name else {})
    trained(GCSAM(plain, CLASSES[name], 0.1, foreach=False, **options), plain, 8)
    optimizer = GCSAM(special, CLASSES[name], 0.1, **{option: True}, **options)
    trained(optimizer, special, 8)
    assert optimizer.param_groups[0][option] is True
    for a, b in zip(special, plain, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=2e-6)


@pytest.mark.parametrize("name", ["Adam", "AdamW", "SGD", "Adagrad"])
def test_a_learning_rate_in_a_tensor_is_followed(name):
    params, twins = weights(), weights()
    lr = torch.tensor(0.01)
    by_tensor = GCSAM(params, CLASSES[name], 0.1, lr=lr)
    by_number = GCSAM(twins, CLASSES[name], 0.1, lr=0.01)
    for step in range(6):
        if step == 3:
            lr.fill_(0.05)
            by_number.param_groups[0]["lr"] = 0.05
        by_tensor.step(lambda step=step: backward(params, step))
        by_number.step(lambda step=step: backward(twins, step))
    for a, b in zip(params, twins, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=2e-6)


REFUSED_OPTIONS = [
    (name, option)
    for name in TRAINABLE
    for option in ("maximize", "differentiable")
    if option in inspect.signature(CLASSES[name]).parameters
]


@pytest.mark.parametrize(("name", "option"), REFUSED_OPTIONS, ids=lambda value: value)
def test_options_of_a_base_that_turn_the_ascent_round_or_track_it_are_refused(name, option):
    with pytest.raises(ValueError, match=re.escape(f"{option}=True")):
        GCSAM(weights(), CLASSES[name], lr=0.01, **{option: True})
