"""Checkpoints, copies, groups, schedulers and hooks: SAM and GCSAM are ordinary optimizers to the rest of torch."""

from __future__ import annotations

import copy
import io
import pickle
import warnings

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from medgcsam.optim import GCSAM, SAM

BASES = {
    "SGD": (torch.optim.SGD, {"lr": 0.05, "momentum": 0.9}),
    "Adam": (torch.optim.Adam, {"lr": 0.01}),
    "AdamW": (torch.optim.AdamW, {"lr": 0.01, "amsgrad": True}),
    "fused": (torch.optim.AdamW, {"lr": 0.01, "fused": True}),
    "RMSprop": (torch.optim.RMSprop, {"lr": 0.01, "momentum": 0.5}),
    "Adagrad": (torch.optim.Adagrad, {"lr": 0.01}),
    "NAdam": (torch.optim.NAdam, {"lr": 0.01}),
    "RAdam": (torch.optim.RAdam, {"lr": 0.01}),
    "Adamax": (torch.optim.Adamax, {"lr": 0.01}),
    "Adadelta": (torch.optim.Adadelta, {"lr": 1.0, "base_rho": 0.8}),
    "ASGD": (torch.optim.ASGD, {"lr": 0.01}),
    "Rprop": (torch.optim.Rprop, {"lr": 0.01}),
}


def network(seed=0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 2))


def train(model, optimizer, steps, first=0):
    for step in range(first, first + steps):
        generator = torch.Generator().manual_seed(step)
        inputs, targets = torch.randn(8, 5, generator=generator), torch.randn(8, 2, generator=generator)

        def closure(inputs=inputs, targets=targets):
            optimizer.zero_grad()
            loss = (model(inputs) - targets).square().mean()
            loss.backward()
            return loss

        part = optimizer.ascent_part((inputs, targets))
        optimizer.step(closure, ascent_closure=lambda part=part, closure=closure: closure(*part))


def same_weights(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


def reloaded(state):
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


@pytest.mark.parametrize("base", BASES)
def test_resuming_from_a_checkpoint_changes_no_bit(base):
    make, options = BASES[base]
    whole, half, other = network(), network(), network(1)
    kept = GCSAM(whole.parameters(), make, every=3, **options)
    train(whole, kept, 10)
    optimizer = GCSAM(half.parameters(), make, every=3, **options)
    train(half, optimizer, 5)
    other.load_state_dict(half.state_dict())
    resumed = GCSAM(other.parameters(), make, **options)
    resumed.load_state_dict(reloaded(optimizer.state_dict()))
    train(other, resumed, 5, first=5)
    assert same_weights(whole, other)
    assert resumed.base.state is resumed.state
    assert resumed.base.param_groups is resumed.param_groups
    assert resumed.gradient_evaluations == kept.gradient_evaluations == 14
    assert (resumed.steps, resumed.ascents) == (10, 4)
    assert torch.equal(resumed.last_radius, kept.last_radius)


ALL_OPTIONS = [
    {"norm": "raw", "centralize": "both", "max_norm": 0.5},
    {"adaptive": True, "eta": 0.02, "rho": 0.3, "start": 7},
    {"ascent_fraction": 0.5, "centralize": "descent", "skip_nonfinite": True},
    {"ascent": "momentum", "rho": 0.2},
]


@pytest.mark.parametrize("options", ALL_OPTIONS, ids=str)
@pytest.mark.parametrize("way", ["state_dict", "deepcopy", "pickle"])
def test_every_way_of_copying_keeps_every_option(options, way):
    model = network()
    optimizer = GCSAM(model.parameters(), lr=0.01, **options)
    train(model, optimizer, 5)
    if way == "state_dict":
        other = network()
        other.load_state_dict(model.state_dict())
        twin = GCSAM(other.parameters())
        twin.load_state_dict(reloaded(optimizer.state_dict()))
    elif way == "deepcopy":
        other, twin = copy.deepcopy((model, optimizer))
    else:
        other, twin = pickle.loads(pickle.dumps((model, optimizer)))
    assert twin.base.param_groups is twin.param_groups
    assert twin.base.state is twin.state
    torch.testing.assert_close(twin.centralized_share, optimizer.centralized_share, rtol=0, atol=0, equal_nan=True)
    before = [p.detach().clone() for p in model.parameters()]
    train(other, twin, 5, first=5)
    assert all(torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True)), (
        "the copy is not independent"
    )
    train(model, optimizer, 5, first=5)
    assert same_weights(model, other)
    assert twin.gradient_evaluations == optimizer.gradient_evaluations


def test_state_of_a_plain_base_optimizer_can_be_taken_over():
    for make, options in (BASES["AdamW"], (torch.optim.Adadelta, {"lr": 1.0, "rho": 0.7})):
        model = network()
        plain = make(model.parameters(), **options)
        model(torch.ones(2, 5)).sum().backward()
        plain.step()
        options = {"lr": options["lr"]}
        optimizer = GCSAM(model.parameters(), make, rho=0.3, **options)
        optimizer.load_state_dict(plain.state_dict())
        assert optimizer.param_groups[0]["rho"] == 0.3
        assert optimizer.param_groups[0].get("base_rho", 0.7) == 0.7
        assert len(optimizer.state) == 4
        train(model, optimizer, 2)


def test_adadelta_keeps_its_own_rho():
    weight = nn.Parameter(torch.ones(3))
    twin = nn.Parameter(torch.ones(3))
    optimizer = SAM([weight], torch.optim.Adadelta, rho=0.0, base_rho=0.6, lr=1.0)
    plain = torch.optim.Adadelta([twin], lr=1.0, rho=0.6)
    for _ in range(5):
        weight.grad, twin.grad = weight.detach() * 2, twin.detach() * 2
        optimizer.ascend()
        weight.grad = weight.detach() * 2
        optimizer.descend()
        plain.step()
    assert torch.equal(weight, twin)
    assert optimizer.param_groups[0]["rho"] == 0.0


def test_state_cannot_be_taken_while_weights_are_away():
    model = network()
    optimizer = GCSAM(model.parameters())
    model(torch.ones(2, 5)).sum().backward()
    optimizer.ascend()
    for take in (optimizer.state_dict, lambda: copy.deepcopy(optimizer), lambda: pickle.dumps(optimizer)):
        with pytest.raises(RuntimeError, match="away from w"):
            take()
    optimizer.restore()
    optimizer.state_dict()


def test_added_group_is_trained_by_both():
    model, head = network(), nn.Linear(2, 2)
    optimizer = GCSAM(model.parameters(), lr=0.01)
    train(model, optimizer, 2)
    optimizer.add_param_group({"params": head.parameters(), "rho": 0.2, "lr": 0.5})
    group = optimizer.param_groups[1]
    assert (group["rho"], group["lr"], group["centralize"], group["betas"]) == (0.2, 0.5, "ascent", (0.9, 0.999))
    whole = nn.Sequential(model, head)
    before = head.weight.detach().clone()
    train(whole, optimizer, 2, first=2)
    assert not torch.equal(head.weight, before)
    assert head.weight in optimizer.base.state
    with pytest.raises(ValueError, match="rho"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.ones(2))], "rho": -1.0})
    assert len(optimizer.param_groups) == len(optimizer.base.param_groups) == 2


def test_named_parameters_keep_their_names():
    optimizer = GCSAM(network().named_parameters(), lr=0.01)
    assert optimizer.state_dict()["param_groups"][0]["param_names"] == ["0.weight", "0.bias", "2.weight", "2.bias"]


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
    "OneCycleLR": lambda o: lr_scheduler.OneCycleLR(o, 0.1, total_steps=8),
    "SequentialLR": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LinearLR(o), lr_scheduler.ExponentialLR(o, 0.9)], milestones=[3]
    ),
    "ChainedScheduler": lambda o: lr_scheduler.ChainedScheduler([lr_scheduler.ExponentialLR(o, 0.9)]),
    "ReduceLROnPlateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=0),
}


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("form", ["closure", "two steps"])
def test_schedulers_drive_it_as_they_drive_the_base(name, form):
    model, twin = network(), network()
    optimizer = GCSAM(model.parameters(), torch.optim.AdamW, lr=0.05, every=2)
    plain = torch.optim.AdamW(twin.parameters(), lr=0.05)
    ours, theirs = SCHEDULERS[name](optimizer), SCHEDULERS[name](plain)
    arguments = (1.0,) if name == "ReduceLROnPlateau" else ()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # "scheduler.step() before optimizer.step()" is a warning
        warnings.filterwarnings("ignore", message="The epoch parameter")
        for _ in range(6):
            if form == "closure":
                train(model, optimizer, 1)
            else:
                model(torch.ones(2, 5)).sum().backward()
                if optimizer.ascend():
                    model(torch.ones(2, 5)).sum().backward()
                optimizer.descend()
            twin(torch.ones(2, 5)).sum().backward()
            plain.step()
            ours.step(*arguments)
            theirs.step(*arguments)
            for a, b in zip(optimizer.param_groups, plain.param_groups, strict=True):
                assert (a["lr"], a["betas"]) == (b["lr"], b["betas"])
                assert optimizer.base.param_groups[0]["lr"] == b["lr"]
    assert optimizer.steps == 6


def test_scheduler_survives_load_state_dict():
    model = network()
    optimizer = SAM(model.parameters(), lr=0.1)
    scheduler = lr_scheduler.ExponentialLR(optimizer, 0.5)
    train(model, optimizer, 1)
    optimizer.load_state_dict(optimizer.state_dict())
    scheduler.step()
    assert optimizer.base.param_groups[0]["lr"] == 0.05


def test_step_hooks_run_once_per_step_in_every_form():
    model = network()
    optimizer = GCSAM(model.parameters(), lr=0.01)
    calls = []
    optimizer.register_step_pre_hook(lambda *_: calls.append("before"))
    optimizer.register_step_post_hook(lambda *_: calls.append("after"))
    train(model, optimizer, 1)
    assert calls == ["before", "after"]
    model(torch.ones(2, 5)).sum().backward()
    optimizer.ascend()
    model(torch.ones(2, 5)).sum().backward()
    optimizer.descend()
    assert calls == ["before", "after"] * 2
    scaler = torch.amp.GradScaler("cpu")

    def closure():
        optimizer.zero_grad()
        loss = model(torch.ones(2, 5)).sum()
        scaler.scale(loss).backward()
        return loss

    optimizer.step(closure, scaler=scaler)
    scaler.update()
    assert calls == ["before", "after"] * 3


def test_profiler_sees_the_step_by_name():
    model = network()
    optimizer = GCSAM(model.parameters(), lr=0.01)
    with torch.profiler.profile() as profile:
        train(model, optimizer, 1)
    assert "Optimizer.step#GCSAM.step" in {event.name for event in profile.events()}
