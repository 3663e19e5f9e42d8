"""The optimizer section as an optimizer of torch: bases, options, groups, and the schedule."""

from __future__ import annotations

import inspect

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from medgcsam.config import GroupConfig, OptimizerConfig, ScheduleConfig
from medgcsam.config.optimizer_rules import BASES
from medgcsam.errors import ConfigError
from medgcsam.optim import GCSAM, SAM
from medgcsam.training.optimizers import build_optimizer, learning_rate_factor


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 2))


def test_cosine_after_the_warm_up_is_torchs_own() -> None:
    config = ScheduleConfig(final=0.1)
    weight = nn.Parameter(torch.ones(1))
    reference = torch.optim.SGD([weight], lr=1.0)
    cosine = lr_scheduler.CosineAnnealingLR(reference, T_max=90, eta_min=0.1)
    for step in range(10, 100):
        factor = learning_rate_factor(config, step=step, steps=100, warmup=10)
        assert factor == pytest.approx(reference.param_groups[0]["lr"])
        reference.step()
        cosine.step()
    rising = [learning_rate_factor(config, step=step, steps=100, warmup=10) for step in range(11)]
    assert rising == sorted(rising)
    assert 0 < rising[0] < rising[10] == 1
    assert learning_rate_factor(ScheduleConfig(name="constant"), step=50, steps=100, warmup=10) == 1


@pytest.mark.parametrize("name", ["adamw", "sam", "gcsam"])
def test_biases_and_norms_are_not_decayed(name) -> None:
    model = network()
    optimizer = build_optimizer(OptimizerConfig(name=name, weight_decay=0.3), model, steps=10)
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert {p.dim() > 1: decay[id(p)] for p in model.parameters()} == {True: 0.3, False: 0.0}
    assert len(decay) == len(list(model.parameters()))


def stepped(optimizer: torch.optim.Optimizer, model: nn.Module, steps: int = 3) -> list[torch.Tensor]:
    for step in range(steps):
        images = torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(step))

        def closure(images=images):
            optimizer.zero_grad()
            loss = model(images).square().mean()
            loss.backward()
            return loss

        optimizer.step(closure)
    return [p.detach() for p in model.parameters()]


OPTIONS = {
    "sgd": {"momentum": 0.8, "nesterov": True},
    "rmsprop": {"momentum": 0.5, "eps": 1e-6},
    "nadam": {"decoupled_weight_decay": True, "betas": (0.8, 0.99)},
    "adadelta": {"base_rho": 0.7},
}


@pytest.mark.parametrize("base", BASES)
def test_every_base_alone_and_under_gcsam_is_torchs_own(base) -> None:
    """`name: BASE`, GCSAM of radius 0 over it, and torch's class with the same options take the same steps."""
    written = OPTIONS.get(base, {})
    given = {"rho" if key == "base_rho" else key: value for key, value in written.items()}
    decay = {} if base == "rprop" else {"weight_decay": 0.01}
    model = network()
    weights = [p for p in model.parameters() if p.dim() > 1]
    plain = [p for p in model.parameters() if p.dim() == 1]
    classes = {name.lower(): cls for name, cls in vars(torch.optim).items() if inspect.isclass(cls)}
    reference = classes[base]([{"params": weights}, {"params": plain, **dict.fromkeys(decay, 0.0)}], lr=0.01, **decay,
                              **given)  # fmt: skip
    expected = stepped(reference, model)
    for config in (
        OptimizerConfig(name=base, lr=0.01, **written),
        OptimizerConfig(name="gcsam", base=base, rho=0.0, lr=0.01, **written),
    ):
        twin = network()
        optimizer = build_optimizer(config, twin, steps=3)
        assert isinstance(getattr(optimizer, "base", optimizer), classes[base])
        for ours, theirs in zip(stepped(optimizer, twin), expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)


def test_every_option_reaches_the_optimizer() -> None:
    written = {
        "rho": 0.2, "adaptive": True, "eta": 0.03, "every": 3, "max_norm": 2.0, "skip_nonfinite": True,
        "ascent_fraction": 0.5, "ascent_precision": "bf16", "replay_random": True, "synchronize_ascent": True,
    }  # fmt: skip
    for kind, own in ((SAM, {}), (GCSAM, {"norm": "raw", "centralize": "both"})):
        config = OptimizerConfig(name=kind.__name__.lower(), start=0.6, **written, **own)
        optimizer = build_optimizer(config, network(), steps=50)
        assert isinstance(optimizer, kind)
        assert optimizer.start == 30
        for name, value in (written | own).items():
            place = optimizer.param_groups[0] if name in ("rho", "centralize") else vars(optimizer)
            assert place[name] == value, name
    assert build_optimizer(OptimizerConfig(name="sam", ascent="momentum"), network(), steps=1).ascent == "momentum"
    # Whatever the library offers by name, the section does: nobody forgets the next one.
    offered = set(inspect.signature(GCSAM).parameters) - {"params", "base", "base_options"}
    assert offered <= set(OptimizerConfig.model_fields)


def test_groups_give_weights_their_own_radius_centralization_and_rate() -> None:
    groups = (
        GroupConfig(match=["1.*"], rho=0.5, lr_factor=0.1),
        GroupConfig(match=["4.*", "0.weight"], centralize="none"),
    )
    model = network()
    names = {p: name for name, p in model.named_parameters()}
    optimizer = build_optimizer(OptimizerConfig(name="gcsam", rho=0.05, groups=groups), model, steps=1)
    found = {names[p]: group for group in optimizer.param_groups for p in group["params"]}
    assert set(found) == set(names.values())
    assert {name: group["rho"] for name, group in found.items()} == {
        "0.weight": 0.05, "0.bias": 0.05, "1.weight": 0.5, "1.bias": 0.5, "4.weight": 0.05, "4.bias": 0.05
    }  # fmt: skip
    assert (found["0.weight"]["centralize"], found["4.weight"]["centralize"]) == ("none", "none")
    assert found["1.bias"]["lr_factor"] == 0.1
    assert found["0.weight"]["weight_decay"] == 0.01
    plain = build_optimizer(OptimizerConfig(name="adamw", groups=(groups[0],)), network(), steps=1)
    assert {group.get("lr_factor") for group in plain.param_groups} == {None, 0.1}


def test_a_pattern_that_fits_nothing_names_the_nearest() -> None:
    config = OptimizerConfig(groups=(GroupConfig(match=["4.weigth"], rho=0.1),))
    with pytest.raises(ConfigError, match=r"'4.weigth' fits the name of no trainable weight.*4\.weight"):
        build_optimizer(config, network(), steps=1)


def test_a_pattern_whose_weights_are_taken_is_refused() -> None:
    groups = (GroupConfig(match=["4.*"], rho=0.1), GroupConfig(match=["4.bias"], rho=0.2))
    with pytest.raises(ConfigError, match=r"'4.bias' fits belongs to an earlier group"):
        build_optimizer(OptimizerConfig(groups=groups), network(), steps=1)
    build_optimizer(OptimizerConfig(groups=groups[::-1]), network(), steps=1)
