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
        ({"rho": math.nan}, "rho must be a finite number of 0 or more, but is nan"),
        ({"rho": math.inf}, "rho must be a finite number of 0 or more, but is inf"),
        ({"rho": "0.05"}, "rho must be a finite number of 0 or more, but is '0.05'"),
        ({"rho": True}, "rho must be a finite number of 0 or more, but is True"),
        ({"rho": None}, "rho must be a finite number of 0 or more, but is None"),
        ({"eta": -1.0}, "eta must be a finite number"),
        ({"eta": math.inf}, "eta must be a finite number"),
        ({"norm": "l2"}, "norm must be one of centralized, raw, but is 'l2'"),
        ({"centralize": "gradient"}, "centralize must be one of ascent, descent, both, none"),
        ({"ascent": "random"}, "ascent must be one of"),
        ({"start": -1}, "start"),
        ({"start": 0.6}, "start must be a whole number"),
        ({"start": True}, "start must be a whole number"),
        ({"every": 0}, "every must be a whole number of 1 or more"),
        ({"every": 1.5}, "every must be a whole number"),
        ({"ascent_fraction": 0.0}, r"ascent_fraction must lie in \(0, 1\], but is 0.0"),
        ({"ascent_fraction": 1.01}, "ascent_fraction must lie in"),
        ({"ascent_fraction": math.nan}, "ascent_fraction must lie in"),
        ({"ascent_fraction": 0.5, "ascent": "momentum"}, "no ascent pass"),
        ({"max_norm": 0.0}, "max_norm must be above 0, or None for no clipping"),
        ({"max_norm": math.nan}, "max_norm must be above 0"),
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


@pytest.mark.parametrize(
    "options",
    [
        {"ascent_fraction": "half"},
        {"max_norm": "1"},
        {"adaptive": "no"},
        {"skip_nonfinite": "no"},
        {"replay_random": "no"},
        {"synchronize_ascent": "no"},
    ],
    ids=str,
)
def test_options_of_a_wrong_type_are_named(options):
    ((name, value),) = options.items()
    with pytest.raises(ValueError, match=f"{name} .*but is {value!r}"):
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


class Sharded(nn.Parameter):
    """Looks like the DTensor that fully_shard makes of a weight, which needs a process group to exist."""

    placements = ("Shard(0)",)


def test_weights_spread_over_processes_are_refused():
    with pytest.raises(TypeError, match="DistributedDataParallel"):
        GCSAM([Sharded(torch.ones(2, 2))])


def test_what_a_factory_makes_is_checked_like_a_class():
    with pytest.raises(ValueError, match="LBFGS"):
        SAM(weights(), lambda params, **options: torch.optim.LBFGS(params, **options))
    with pytest.raises(ValueError, match="GCSAM cannot be the base"):
        SAM(weights(), GCSAM)


def test_a_radius_that_became_impossible_is_refused():
    own = weights()
    optimizer = SAM(own, lr=0.1)
    optimizer.param_groups[0]["rho"] = -0.1
    sum(w.sum() for w in own).backward()
    with pytest.raises(ValueError, match="rho"):
        optimizer.ascend()


def test_no_group_is_added_while_weights_are_swapped():
    own = weights()
    optimizer = SAM(own, ascent="momentum", lr=0.1)
    optimizer.swap()
    with pytest.raises(RuntimeError, match="swap"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.ones(2))]})


def test_a_subclass_of_adadelta_keeps_its_own_rho():
    class Quiet(torch.optim.Adadelta):
        def __init__(self, params, **options):
            super().__init__(params, **options)

    ends = []
    for base in (torch.optim.Adadelta, Quiet):
        own = weights()
        optimizer = SAM(own, base, rho=0.05, lr=1.0)
        assert optimizer.param_groups[0]["base_rho"] == 0.9
        for _ in range(3):
            optimizer.step(lambda own=own, optimizer=optimizer: _loss(own, optimizer))
        ends.append(own)
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))
    with pytest.raises(ValueError, match="base_rho"):
        SAM(weights(), torch.optim.Adadelta, base_rho=1.5)


def _loss(own, optimizer):
    optimizer.zero_grad()
    loss = sum((w - 3).square().sum() for w in own)
    loss.backward()
    return loss
