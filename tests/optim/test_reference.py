"""SAM and GCSAM against a plain float64 reference written from the formulas, over many steps, bases and options."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from medgcsam.optim import GCSAM, SAM

STEPS = 50
BASES = {
    "SGD": (torch.optim.SGD, {"lr": 0.02, "momentum": 0.9, "nesterov": True, "weight_decay": 1e-3}),
    "Adam": (torch.optim.Adam, {"lr": 0.01}),
    "AdamW": (torch.optim.AdamW, {"lr": 0.01, "weight_decay": 0.05, "amsgrad": True}),
    "RMSprop": (torch.optim.RMSprop, {"lr": 0.003, "momentum": 0.5}),
    "Adagrad": (torch.optim.Adagrad, {"lr": 0.02}),
    "NAdam": (torch.optim.NAdam, {"lr": 0.01}),
    "RAdam": (torch.optim.RAdam, {"lr": 0.01}),
    "Adamax": (torch.optim.Adamax, {"lr": 0.01}),
    "Adadelta": (torch.optim.Adadelta, {"lr": 1.0}),
    "ASGD": (torch.optim.ASGD, {"lr": 0.02, "t0": 10}),
    "Rprop": (torch.optim.Rprop, {"lr": 0.001}),
}


def loss_of(weights: list[torch.Tensor], images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Convolution, depthwise 1x1, pooling, linear; weights with and without anything to centralize."""
    kernel, kernel_bias, depthwise, linear, linear_bias = weights
    hidden = torch.tanh(F.conv2d(images, kernel, kernel_bias, padding=1))
    hidden = F.conv2d(hidden, depthwise, groups=4) + hidden
    return F.cross_entropy(F.linear(F.adaptive_avg_pool2d(hidden, 2).flatten(1), linear, linear_bias), targets)


def start_weights(dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    torch.manual_seed(0)
    shapes = [(4, 2, 3, 3), (4,), (4, 1, 1, 1), (3, 16), (3,)]
    return [(torch.randn(shape, dtype=torch.float64) * 0.4).to(dtype).requires_grad_() for shape in shapes]


def batches(count: int, dtype: torch.dtype = torch.float64) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [
        (
            torch.randn(8, 2, 5, 5, generator=generator, dtype=torch.float64).to(dtype),
            torch.randint(0, 3, (8,), generator=generator),
        )
        for _ in range(count)
    ]


def unit_means_removed(gradient: torch.Tensor) -> torch.Tensor:
    if gradient.dim() < 2 or gradient[0].numel() == 1:
        return gradient.clone()
    return torch.stack([unit - unit.sum() / unit.numel() for unit in gradient])


def length(tensors: list[torch.Tensor]) -> float:
    return math.sqrt(sum(float((t * t).sum()) for t in tensors))


def gradients(weights: list[torch.Tensor], batch: tuple[torch.Tensor, torch.Tensor]) -> list[torch.Tensor]:
    leaves = [w.detach().clone().requires_grad_() for w in weights]
    return list(torch.autograd.grad(loss_of(leaves, *batch), leaves))


def reference(
    data, base, base_options, *, rho=0.05, norm="centralized", centralize="none", adaptive=False, eta=0.01, start=0,
    every=1, ascent_fraction=1.0, max_norm=None, ascent="gradient", rhos=None,
):  # fmt: skip
    """Weights after one step per batch, by the formulas, one tensor and one unit at a time."""
    weights = start_weights()
    inner = base(weights, **base_options)
    for step, (images, targets) in enumerate(data):
        at = [w.detach() for w in weights]
        due = step >= start and (step - start) % every == 0
        if due and ascent == "momentum":
            moments = [inner.state[w].get("exp_avg", inner.state[w].get("momentum_buffer")) for w in weights]
            if moments[0] is not None:
                size = length(moments)
                at = [w - rho * m / size for w, m in zip(at, moments, strict=True)]
        elif due:
            part = math.ceil(ascent_fraction * len(images))
            g = gradients(at, (images[:part], targets[:part]))
            d = [unit_means_removed(x) for x in g] if centralize in ("ascent", "both") else g
            t = [w.abs() + eta if adaptive else torch.ones_like(w) for w in at]
            size = length([s * x for s, x in zip(t, d if norm == "centralized" else g, strict=True)])
            own = rhos or [rho] * len(at)
            at = [w + r * s * s * x / size for w, r, s, x in zip(at, own, t, d, strict=True)]
        g = gradients(at, (images, targets))
        if centralize in ("descent", "both"):
            g = [unit_means_removed(x) for x in g]
        if max_norm is not None:
            factor = min(1.0, max_norm / (length(g) + 1e-6))  # the constant is torch's own, in clip_grad_norm_
            g = [x * factor for x in g]
        for w, x in zip(weights, g, strict=True):
            w.grad = x
        inner.step()
    return weights


def trained(weights, optimizer, data):
    for images, targets in data:

        def closure(images=images, targets=targets):
            optimizer.zero_grad()
            loss = loss_of(weights, images, targets)
            loss.backward()
            return loss

        part = optimizer.ascent_part((images, targets))
        optimizer.step(closure, ascent_closure=lambda part=part, closure=closure: closure(*part))
    return weights


def assert_same(ours, theirs, tolerance=1e-9):
    moved = max(float((a - b).detach().abs().max()) for a, b in zip(ours, start_weights(ours[0].dtype), strict=True))
    assert moved > 1e-4, "the weights did not move, so nothing was compared"
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=tolerance, check_dtype=False)


@pytest.mark.parametrize("base", BASES)
def test_every_base_takes_the_step_of_the_formula(base):
    make, options = BASES[base]
    weights = start_weights()
    optimizer = GCSAM(weights, make, rho=0.05, **options)
    trained(weights, optimizer, batches(STEPS))
    assert_same(weights, reference(batches(STEPS), make, options, centralize="ascent"))
    assert optimizer.gradient_evaluations == 2 * STEPS


OPTIONS = list(itertools.product(["centralized", "raw"], ["ascent", "descent", "both", "none"], [False, True]))


@pytest.mark.parametrize(("norm", "centralize", "adaptive"), OPTIONS)
@pytest.mark.parametrize("base", ["SGD", "AdamW"])
def test_every_combination_of_norm_place_and_adaptive(base, norm, centralize, adaptive):
    make, base_options = BASES[base]
    options = {"rho": 0.2 if adaptive else 0.05, "norm": norm, "centralize": centralize, "adaptive": adaptive}
    weights = start_weights()
    trained(weights, GCSAM(weights, make, **options, **base_options), batches(25))
    assert_same(weights, reference(batches(25), make, base_options, **options))


LEVERS = [
    {"start": 30},
    {"every": 3, "start": 4},
    {"ascent_fraction": 0.25},
    {"ascent_fraction": 0.3, "every": 2},
    {"max_norm": 0.05},
    {"ascent": "momentum", "centralize": "none", "rho": 0.3},
    {"centralize": "both", "max_norm": 0.1, "every": 2},
]


@pytest.mark.parametrize("options", LEVERS, ids=str)
def test_cost_levers_and_clipping(options):
    make, base_options = BASES["AdamW"]
    options = {"centralize": "ascent", **options}
    weights = start_weights()
    trained(weights, GCSAM(weights, make, **options, **base_options), batches(STEPS))
    assert_same(weights, reference(batches(STEPS), make, base_options, **options))


def test_momentum_ascent_runs_over_sgd_momentum_too():
    make, base_options = BASES["SGD"]
    weights = start_weights()
    optimizer = SAM(weights, make, 0.1, ascent="momentum", **base_options)
    trained(weights, optimizer, batches(STEPS))
    assert_same(weights, reference(batches(STEPS), make, base_options, rho=0.1, ascent="momentum"))
    assert optimizer.gradient_evaluations == STEPS


def test_sam_is_the_formula_without_centralization():
    make, options = BASES["Adam"]
    weights = start_weights()
    trained(weights, SAM(weights, make, 0.1, **options), batches(STEPS))
    assert_same(weights, reference(batches(STEPS), make, options, rho=0.1))


def test_groups_have_their_own_radius_under_one_norm():
    make, options = BASES["SGD"]
    weights = start_weights()
    groups = [{"params": weights[:2], "rho": 0.1}, {"params": weights[2:3], "rho": 0.0}, {"params": weights[3:]}]
    optimizer = SAM(groups, make, 0.05, **options)
    trained(weights, optimizer, batches(STEPS))
    assert_same(weights, reference(batches(STEPS), make, options, rhos=[0.1, 0.1, 0.0, 0.05, 0.05]))


def test_one_step_in_float32():
    make, options = BASES["AdamW"]
    weights = start_weights(torch.float32)
    trained(weights, GCSAM(weights, make, **options), batches(1, torch.float32))
    assert_same(weights, reference(batches(1), make, options, centralize="ascent"), tolerance=1e-6)


def test_two_steps_form_equals_closure_form_bit_for_bit():
    make, options = BASES["AdamW"]
    by_closure, by_hand = start_weights(), start_weights()
    trained(by_closure, GCSAM(by_closure, make, every=2, **options), batches(10))
    optimizer = GCSAM(by_hand, make, every=2, **options)
    wanted = []
    for batch in batches(10):
        optimizer.zero_grad()
        loss_of(by_hand, *batch).backward()
        wanted.append(optimizer.ascend())
        if wanted[-1]:
            optimizer.zero_grad()
            loss_of(by_hand, *batch).backward()
        optimizer.descend()
    assert wanted == [True, False] * 5
    assert all(torch.equal(a, b) for a, b in zip(by_closure, by_hand, strict=True))
    assert optimizer.gradient_evaluations == 15


def test_accumulated_micro_batches_equal_the_large_batch():
    make, options = BASES["AdamW"]
    weights, data = start_weights(), batches(10)
    optimizer = GCSAM(weights, make, max_norm=0.2, **options)
    for images, targets in data:

        def closure(images=images, targets=targets):
            optimizer.zero_grad()
            losses = [loss_of(weights, images[i : i + 2], targets[i : i + 2]) / 4 for i in range(0, 8, 2)]
            for loss in losses:
                loss.backward()
            return sum(losses)

        optimizer.step(closure)
    assert_same(weights, reference(data, make, options, centralize="ascent", max_norm=0.2))


def test_rho_zero_is_the_base_optimizer():
    make, options = BASES["AdamW"]
    weights, plain = start_weights(), start_weights()
    trained(weights, SAM(weights, make, 0.0, **options), batches(10))
    inner = make(plain, **options)
    for batch in batches(10):
        inner.zero_grad()
        loss_of(plain, *batch).backward()
        inner.step()
    assert all(torch.equal(a, b) for a, b in zip(weights, plain, strict=True))


def test_radius_and_share_are_those_of_the_perturbation():
    for norm, adaptive in itertools.product(["centralized", "raw"], [False, True]):
        weights = start_weights()
        groups = [{"params": weights[:3]}, {"params": weights[3:], "rho": 0.2}]
        optimizer = GCSAM(groups, torch.optim.SGD, 0.05, norm=norm, adaptive=adaptive, lr=0.1)
        before = [w.detach().clone() for w in weights]
        loss_of(weights, *batches(1)[0]).backward()
        raw = [w.grad.clone() for w in weights]
        optimizer.ascend()
        e = [w.detach() - b for w, b in zip(weights, before, strict=True)]
        assert float(optimizer.last_radius) == pytest.approx(length(e), rel=1e-10)
        share = length([unit_means_removed(g) for g in raw]) / length(raw)
        assert float(optimizer.centralized_share) == pytest.approx(share, rel=1e-10)
        assert share < 0.999
        optimizer.restore()
    assert float(GCSAM(start_weights()).last_radius) != float(GCSAM(start_weights()).last_radius)  # not a number
