"""Every scheduler of torch.optim.lr_scheduler, and weight averaging, drive SAM and GCSAM as they drive the base."""

from __future__ import annotations

import copy
import inspect
import warnings

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler, swa_utils

from medgcsam.optim import GCSAM, SAM

STEPS = 8
SCHEDULERS = {
    "StepLR": lambda o: lr_scheduler.StepLR(o, 2),
    "MultiStepLR": lambda o: lr_scheduler.MultiStepLR(o, [2, 4]),
    "ConstantLR": lambda o: lr_scheduler.ConstantLR(o),
    "LinearLR": lambda o: lr_scheduler.LinearLR(o),
    "ExponentialLR": lambda o: lr_scheduler.ExponentialLR(o, 0.9),
    "PolynomialLR": lambda o: lr_scheduler.PolynomialLR(o, 6),
    "LambdaLR": lambda o: lr_scheduler.LambdaLR(o, lambda step: 1 / (1 + step)),
    "MultiplicativeLR": lambda o: lr_scheduler.MultiplicativeLR(o, lambda step: 0.9),
    "CosineAnnealingLR": lambda o: lr_scheduler.CosineAnnealingLR(o, 6),
    "CosineAnnealingWarmRestarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 3),
    "CyclicLR": lambda o: lr_scheduler.CyclicLR(o, 0.001, 0.1, step_size_up=2),
    "OneCycleLR": lambda o: lr_scheduler.OneCycleLR(o, 0.1, total_steps=STEPS + 1),
    "SequentialLR": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LinearLR(o), lr_scheduler.ExponentialLR(o, 0.9)], milestones=[3]
    ),
    "ChainedScheduler": lambda o: lr_scheduler.ChainedScheduler(
        [lr_scheduler.ExponentialLR(o, 0.9), lr_scheduler.StepLR(o, 3)]
    ),
    "ReduceLROnPlateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=0),
    "SWALR": lambda o: swa_utils.SWALR(o, 0.2, anneal_epochs=4),
}
BASES = {
    "SGD": (torch.optim.SGD, {"momentum": 0.9}),
    "Adam": (torch.optim.Adam, {}),
    "AdamW": (torch.optim.AdamW, {"fused": True}),
    "RMSprop": (torch.optim.RMSprop, {"momentum": 0.8}),
}


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 2))


def backward(model, optimizer, step: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(step)
    optimizer.zero_grad()
    loss = (model(torch.randn(8, 5, generator=generator)) - 1).square().mean()
    loss.backward()
    return loss


def one_step(model, optimizer, step: int, form: str) -> None:
    if form == "closure":
        optimizer.step(lambda: backward(model, optimizer, step))
    else:
        backward(model, optimizer, step)
        if form == "two steps" and optimizer.ascend():
            backward(model, optimizer, step)
        if form == "two steps":
            optimizer.descend()
        else:
            optimizer.step()


def same_weights(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


def groups_of(optimizer) -> list[dict]:
    """What a scheduler may have changed."""
    return [{name: value for name, value in g.items() if name not in ("params", "rho", "centralize", "transposed")}
            for g in optimizer.param_groups]  # fmt: skip


def test_no_scheduler_of_torch_is_missing_here():
    found = {
        name
        for name, value in vars(lr_scheduler).items()
        if inspect.isclass(value) and issubclass(value, lr_scheduler.LRScheduler) and not name.startswith("_")
    }
    assert (found | {"ReduceLROnPlateau", "SWALR"}) - {"LRScheduler"} == set(SCHEDULERS)


def follow(make_scheduler, base, options, form, *, with_loss=False):
    """Train with a scheduler beside the base by itself; without a radius both must stay bit-equal."""
    make, base_options = BASES[base]
    model, twin = network(), network()
    optimizer = GCSAM(model.parameters(), make, rho=0.0, lr=0.05, **options, **base_options)
    plain = make(twin.parameters(), lr=0.05, **base_options)
    ours, theirs, seen = make_scheduler(optimizer), make_scheduler(plain), []
    for step in range(STEPS):
        one_step(model, optimizer, step, form)
        one_step(twin, plain, step, "plain")
        for scheduler in (ours, theirs):
            scheduler.step(*((1.0,) if with_loss else ()))
        assert groups_of(optimizer) == groups_of(plain)
        assert optimizer.base.param_groups is optimizer.param_groups
        assert same_weights(model, twin)
        seen.append(copy.deepcopy(groups_of(plain)[0]))
    assert not same_weights(model, network())
    return seen


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("form", ["closure", "two steps"])
def test_schedulers_drive_it_as_they_drive_the_base(name, form):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # "scheduler.step() before optimizer.step()" is a warning
        warnings.filterwarnings("ignore", message="The epoch parameter")
        seen = follow(SCHEDULERS[name], "AdamW", {"every": 2}, form, with_loss=name == "ReduceLROnPlateau")
    assert len({group["lr"] for group in seen}) > 1


CYCLES = {
    "OneCycleLR": lambda o: lr_scheduler.OneCycleLR(o, 0.1, total_steps=STEPS + 1, cycle_momentum=True),
    "CyclicLR": lambda o: lr_scheduler.CyclicLR(o, 0.001, 0.1, step_size_up=3, cycle_momentum=True),
}


@pytest.mark.parametrize("name", CYCLES)
@pytest.mark.parametrize("base", BASES)
def test_schedulers_that_cycle_momentum_reach_the_base(name, base):
    seen = follow(CYCLES[name], base, {}, "closure")
    momenta = [group["betas"][0] if "betas" in group else group["momentum"] for group in seen]
    assert len(set(momenta)) > 3


@pytest.mark.parametrize("name", sorted(set(SCHEDULERS) - {"LambdaLR", "MultiplicativeLR"}))
def test_optimizer_and_scheduler_resume_together(name):
    """Lambdas aside, which a scheduler does not save."""
    arguments = (1.0,) if name == "ReduceLROnPlateau" else ()
    model = network()
    optimizer = GCSAM(model.parameters(), rho=0.1, lr=0.05)
    scheduler = SCHEDULERS[name](optimizer)

    def go_on(model, optimizer, scheduler, first):
        for step in range(first, first + 3):
            one_step(model, optimizer, step, "closure")
            scheduler.step(*arguments)

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The epoch parameter")
        go_on(model, optimizer, scheduler, 0)
        other = network()
        twin = GCSAM(other.parameters(), rho=0.3, lr=0.4)
        follower = SCHEDULERS[name](twin)
        other.load_state_dict(model.state_dict())
        twin.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        follower.load_state_dict(copy.deepcopy(scheduler.state_dict()))
        go_on(model, optimizer, scheduler, 3)
        go_on(other, twin, follower, 3)
    assert same_weights(model, other)
    assert groups_of(optimizer) == groups_of(twin)
    assert twin.param_groups[0]["rho"] == 0.1


def test_a_scheduler_made_before_a_checkpoint_is_loaded_still_reaches_the_base():
    model = network()
    optimizer = SAM(model.parameters(), lr=0.1)
    scheduler = lr_scheduler.ExponentialLR(optimizer, 0.5)
    one_step(model, optimizer, 0, "closure")
    optimizer.load_state_dict(optimizer.state_dict())
    scheduler.step()
    assert optimizer.base.param_groups[0]["lr"] == 0.05


def test_a_radius_can_be_scheduled_in_the_groups():
    model = network()
    optimizer = SAM(model.parameters(), torch.optim.SGD, rho=0.1, lr=0.05)
    for step in range(4):
        optimizer.param_groups[0]["rho"] = 0.1 * (step + 1)
        one_step(model, optimizer, step, "closure")
        assert float(optimizer.last_radius) == pytest.approx(0.1 * (step + 1), rel=1e-6)


@pytest.mark.parametrize("average", ["swa", "ema"])
@pytest.mark.parametrize("options", [{}, {"ascent": "momentum"}], ids=str)
def test_averaged_models_average_the_weights_between_steps(average, options):
    model, decay = network(), 0.9
    optimizer = GCSAM(model.parameters(), torch.optim.SGD, rho=2.0, lr=0.1, momentum=0.9, **options)
    averaging = {} if average == "swa" else {"multi_avg_fn": swa_utils.get_ema_multi_avg_fn(decay)}
    averaged = swa_utils.AveragedModel(model, **averaging)
    seen = []
    for step in range(6):
        one_step(model, optimizer, step, "closure")
        averaged.update_parameters(model)
        seen.append(nn.utils.parameters_to_vector(model.parameters()).detach().clone())
    if average == "swa":
        expected = torch.stack(seen).mean(0)
    else:
        expected = seen[0]
        for vector in seen[1:]:
            expected = decay * expected + (1 - decay) * vector
    torch.testing.assert_close(nn.utils.parameters_to_vector(averaged.module.parameters()).detach(), expected)
    assert (seen[-1] - seen[0]).norm() > 0.1
