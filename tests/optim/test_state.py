"""Checkpoints, copies, groups and hooks: SAM and GCSAM are ordinary optimizers to the rest of torch."""

from __future__ import annotations

import copy
import inspect
import io
import pickle

import pytest
import torch
from torch import nn

from medgcsam.optim import GCSAM, SAM

BASES = {
    "SGD": (torch.optim.SGD, {"lr": 0.05, "momentum": 0.9}),
    "Adam": (torch.optim.Adam, {"lr": 0.01}),
    "AdamW": (torch.optim.AdamW, {"lr": 0.01, "amsgrad": True}),
    "fused": (torch.optim.AdamW, {"lr": 0.01, "fused": True}),
    "foreach": (torch.optim.AdamW, {"lr": 0.01, "foreach": True}),
    "RMSprop": (torch.optim.RMSprop, {"lr": 0.01, "momentum": 0.5}),
    "Adagrad": (torch.optim.Adagrad, {"lr": 0.01}),
    "NAdam": (torch.optim.NAdam, {"lr": 0.01}),
    "RAdam": (torch.optim.RAdam, {"lr": 0.01}),
    "Adamax": (torch.optim.Adamax, {"lr": 0.01}),
    "Adadelta": (torch.optim.Adadelta, {"lr": 1.0, "base_rho": 0.8}),
    "ASGD": (torch.optim.ASGD, {"lr": 0.01}),
    "Rprop": (torch.optim.Rprop, {"lr": 0.01}),
}
OPTIONS = [
    {"norm": "raw"},
    {"centralize": "both"},
    {"norm": "raw", "centralize": "descent", "max_norm": 0.5},
    {"adaptive": True, "eta": 0.02, "rho": 0.3},
    {"start": 5},
    {"every": 3},
    {"start": 3, "every": 2, "ascent_fraction": 0.5},
    {"ascent_precision": "bf16"},
    {"ascent": "momentum", "rho": 0.2},
    {"ascent": "momentum", "start": 5, "every": 2, "centralize": "none"},
    {"skip_nonfinite": True, "max_norm": 0.1},
    {"replay_random": True},
    {"synchronize_ascent": True},
    {"groups": [{"rho": 0.2, "lr": 0.02}, {"centralize": "both", "rho": 0.0}, {"transposed": 1}, {}]},
    {"groups": [{"transposed": 1, "rho": 0.3, "centralize": "both"}, {}, {}, {}], "adaptive": True, "every": 2},
]


def network(seed=0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Dropout(0.3), nn.Linear(8, 2))


def built(model, options, make=torch.optim.AdamW, base_options=None) -> GCSAM:
    """``groups`` has options for each of the four parameters."""
    own = {name: value for name, value in options.items() if name != "groups"}
    groups = [
        {"params": [p], **group} for p, group in zip(model.parameters(), options.get("groups", [{}] * 4), strict=True)
    ]
    params = groups if "groups" in options else model.parameters()
    return GCSAM(params, make, **own, **(base_options or {"lr": 0.01}))


def train(model, optimizer, steps, first=0):
    for step in range(first, first + steps):
        torch.manual_seed(step)
        inputs, targets = torch.randn(8, 5), torch.randn(8, 2)

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


def test_every_option_is_among_those_tested_here():
    known = {name for options in OPTIONS for name in options} | {"params", "base", "base_options", "self"}
    assert set(inspect.signature(GCSAM.__init__).parameters) <= known
    assert set(inspect.signature(SAM.__init__).parameters) <= known


def assert_resumes(model, optimizer, other, twin):
    """Both go on alike to the last bit, and separately."""
    assert twin.base.param_groups is twin.param_groups
    assert twin.base.state is twin.state
    for reading in ("last_radius", "centralized_share"):
        a, b = getattr(twin, reading), getattr(optimizer, reading)
        torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)
    before = [p.detach().clone() for p in model.parameters()]
    train(other, twin, 3, first=4)
    same = [torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True)]
    assert all(same), "the copy is not independent"
    train(model, optimizer, 3, first=4)
    assert same_weights(model, other)
    assert not any(torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True))
    for name in ("steps", "ascents", "skipped", "gradient_evaluations", "last_radius"):
        assert getattr(twin, name) == getattr(optimizer, name)
    for a, b in zip(twin.param_groups, optimizer.param_groups, strict=True):
        assert {k: v for k, v in a.items() if k != "params"} == {k: v for k, v in b.items() if k != "params"}


WITH_BASES = [
    (options, base)
    for k, options in enumerate(OPTIONS)
    for base in ("SGD", "RMSprop" if "ascent" in options else ("fused", "Adadelta", "NAdam")[k % 3])
]


@pytest.mark.parametrize(("options", "base"), WITH_BASES, ids=str)
def test_state_dict_keeps_every_option_in_the_midst_of_training(options, base):
    make, base_options = BASES[base]
    model, other = network(), network(1)
    optimizer = built(model, options, make, base_options)
    train(model, optimizer, 4)
    other.load_state_dict(model.state_dict())
    # All but the number of groups comes from the checkpoint.
    twin = built(other, {"groups": [{}] * 4} if "groups" in options else {}, make)
    twin.load_state_dict(reloaded(optimizer.state_dict()))
    for name in {*options} - {"groups", "rho", "centralize"}:
        assert getattr(twin, name) == options[name]
    assert_resumes(model, optimizer, other, twin)


def through_torch_save(pair):
    buffer = io.BytesIO()
    torch.save(pair, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


WAYS = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda pair: pickle.loads(pickle.dumps(pair)),
    "torch.save": through_torch_save,
}


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("way", WAYS)
def test_copies_of_the_whole_optimizer_keep_every_option(options, way):
    model = network()
    optimizer = built(model, options)
    train(model, optimizer, 4)
    other, twin = WAYS[way]((model, optimizer))
    assert_resumes(model, optimizer, other, twin)


@pytest.mark.parametrize("kind", [SAM, GCSAM])
@pytest.mark.parametrize("way", WAYS)
def test_an_optimizer_that_has_not_stepped_yet_can_be_copied(kind, way):
    model = network()
    optimizer = kind(model.parameters(), torch.optim.SGD, momentum=0.9, lr=0.05)
    other, twin = WAYS[way]((model, optimizer))
    assert type(twin) is kind
    train(other, twin, 2)
    train(model, optimizer, 2)
    assert same_weights(model, other)


def test_counts_of_skipped_steps_are_kept():
    model = network()
    optimizer = GCSAM(model.parameters(), skip_nonfinite=True)
    train(model, optimizer, 2)
    optimizer.zero_grad()
    model(torch.full((1, 5), torch.nan)).sum().backward()
    optimizer.ascend()
    optimizer.descend()
    twin = GCSAM(network().parameters())
    twin.load_state_dict(reloaded(optimizer.state_dict()))
    assert (twin.steps, twin.skipped, twin.gradient_evaluations) == (3, 1, 6)


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


def test_a_group_added_in_the_midst_of_training_is_trained_and_kept():
    def grown(rows):
        return nn.Sequential(network(), nn.Linear(2, rows))

    whole, other = grown(2), grown(2)
    optimizer = GCSAM(whole[0].parameters(), lr=0.01)
    train(whole, optimizer, 2)
    optimizer.add_param_group({"params": whole[1].parameters(), "rho": 0.2, "lr": 0.5})
    group = optimizer.param_groups[1]
    assert (group["rho"], group["lr"], group["centralize"], group["betas"]) == (0.2, 0.5, "ascent", (0.9, 0.999))
    before = whole[1].weight.detach().clone()
    train(whole, optimizer, 2, first=2)
    assert not torch.equal(whole[1].weight, before)
    assert whole[1].weight in optimizer.base.state
    twin = GCSAM([{"params": other[0].parameters()}, {"params": other[1].parameters()}])
    other.load_state_dict(whole.state_dict())
    twin.load_state_dict(reloaded(optimizer.state_dict()))
    assert_resumes(whole, optimizer, other, twin)


def test_an_added_group_of_whole_weights_equals_one_given_at_the_start():
    ends = []
    for late in (False, True):
        model = network()
        first, second = list(model.parameters())[:2], list(model.parameters())[2:]
        optimizer = GCSAM([{"params": first}, *([] if late else [{"params": second, "rho": 0.2}])], lr=0.01)
        if late:
            optimizer.add_param_group({"params": second, "rho": 0.2})
        train(model, optimizer, 4)
        ends.append(model)
    assert same_weights(*ends)


@pytest.mark.parametrize(
    ("group", "error"),
    [
        ({"rho": -1.0}, ValueError),
        ({"centralize": "always"}, ValueError),
        ({"maximize": True}, ValueError),
        ({"params": [nn.Parameter(torch.ones(2, dtype=torch.bfloat16))]}, TypeError),
        ({"params": [nn.Parameter(torch.ones(2, dtype=torch.complex64))]}, TypeError),
    ],
    ids=str,
)
def test_a_group_that_is_refused_leaves_no_trace(group, error):
    optimizer = GCSAM(network().parameters())
    with pytest.raises(error):
        optimizer.add_param_group({"params": [nn.Parameter(torch.ones(2))], **group})
    with pytest.raises(ValueError, match="more than one parameter group"):
        optimizer.add_param_group({"params": optimizer.param_groups[0]["params"][:1]})
    assert len(optimizer.param_groups) == len(optimizer.base.param_groups) == 1


def test_named_parameters_keep_their_names():
    optimizer = GCSAM(network().named_parameters(), lr=0.01)
    assert optimizer.state_dict()["param_groups"][0]["param_names"] == ["0.weight", "0.bias", "3.weight", "3.bias"]


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
