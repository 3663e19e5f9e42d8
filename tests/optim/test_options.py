"""Every mistake a user can make is one clear sentence, and leaves the weights where they were."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from medgcsam.optim import GCSAM, SAM


def weights():
    return [nn.Parameter(torch.ones(2, 3)), nn.Parameter(torch.ones(2))]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rho": -0.1}, "rho must be a finite number of 0 or more, but is -0.1"),
        ({"rho": math.nan}, "rho"),
        ({"rho": "0.05"}, "rho"),
        ({"eta": -1.0}, "eta"),
        ({"norm": "l2"}, "norm must be one of centralized, raw, but is 'l2'"),
        ({"centralize": "gradient"}, "centralize must be one of ascent, descent, both, none"),
        ({"ascent": "random"}, "ascent must be one of"),
        ({"start": -1}, "start"),
        ({"start": 0.6}, "start must be a whole number"),
        ({"every": 0}, "every"),
        ({"ascent_fraction": 0.0}, "ascent_fraction"),
        ({"ascent_fraction": 0.5, "ascent": "momentum"}, "no ascent pass"),
        ({"max_norm": 0.0}, "max_norm"),
        ({"maximize": True}, "negate the loss"),
        ({"differentiable": True}, "differentiable"),
        ({"base": torch.optim.LBFGS}, "LBFGS cannot be the base"),
        ({"base": torch.optim.SparseAdam}, "SparseAdam cannot be the base"),
        ({"lr": -1.0}, "learning rate"),
    ],
    ids=str,
)
def test_impossible_options(options, message):
    with pytest.raises(ValueError, match=message):
        GCSAM(weights(), **options)


@pytest.mark.parametrize("base", [torch.optim.SGD(weights(), lr=0.1), "AdamW", None])
def test_base_must_be_a_class(base):
    with pytest.raises(TypeError, match="base must be an optimizer class"):
        SAM(weights(), base)


def test_unknown_option_is_refused_by_the_base():
    with pytest.raises(TypeError, match="nesterow"):
        SAM(weights(), torch.optim.SGD, lr=0.1, nesterow=True)


@pytest.mark.parametrize(
    "group", [{"rho": -1}, {"centralize": "always"}, {"transposed": -1}, {"maximize": True}], ids=str
)
def test_impossible_group(group):
    with pytest.raises(ValueError, match=next(iter(group)) if "maximize" not in group else "negate"):
        GCSAM([{"params": weights(), **group}])


def test_no_closure_and_no_ascent():
    optimizer = SAM(weights())
    with pytest.raises(RuntimeError, match="needs a closure"):
        optimizer.step()
    with pytest.raises(RuntimeError, match="ascend"):
        optimizer.descend()


@pytest.mark.parametrize("silent_pass", [1, 2])
def test_closure_without_backward(silent_pass):
    params, calls = weights(), []
    optimizer = SAM(params, lr=0.1)

    def closure():
        calls.append(1)
        loss = sum((p * p).sum() for p in params)
        if len(calls) != silent_pass:
            optimizer.zero_grad()
            loss.backward()
        return loss

    with pytest.raises(RuntimeError, match="backward"):
        optimizer.step(closure)
    assert all(torch.equal(p, torch.ones_like(p)) for p in params)
    calls.append(1)
    optimizer.step(closure)  # and it works again afterwards
    assert not torch.equal(params[0], torch.ones(2, 3))


def test_closure_that_forgets_zero_grad_still_descends_at_the_worst_point():
    forgetful, careful = weights(), weights()
    for params, clear in ((forgetful, False), (careful, True)):
        optimizer = SAM(params, torch.optim.SGD, rho=0.5, lr=0.1)

        def closure(params=params, clear=clear, optimizer=optimizer):
            if clear:
                optimizer.zero_grad()
            loss = sum((p**3).sum() for p in params)
            loss.backward()
            return loss

        optimizer.step(closure)
    assert all(torch.equal(a, b) for a, b in zip(forgetful, careful, strict=True))


def test_two_ascents_in_a_row():
    params = weights()
    optimizer = SAM(params)
    for p in params:
        p.grad = torch.ones_like(p)
    optimizer.ascend()
    with pytest.raises(RuntimeError, match="twice"):
        optimizer.ascend()
    with pytest.raises(RuntimeError, match="between ascend"):
        optimizer.step(lambda: None)
    optimizer.restore()
    assert all(torch.equal(p, torch.ones_like(p)) for p in params)


def test_nothing_but_torch_is_imported():
    import subprocess
    import sys

    code = (
        "import sys, medgcsam.optim; "
        "heavy = {'monai', 'pandas', 'scipy', 'sklearn', 'matplotlib', 'pydantic'} & set(sys.modules); "
        "own = {m for m in sys.modules if m.startswith('medgcsam.') and not m.startswith('medgcsam.optim')}; "
        "assert not heavy and not own, (heavy, own)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
