"""SAM and GCSAM against a plain float64 reference written from the formulas: every base, option and lever.

Many settings are trained side by side, one row each, so that one backward pass serves them all. The reference keeps all
rows in one tensor: the bases compared here treat each number by itself, so that this is the same as one base per row.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from medgcsam.optim import GCSAM, SAM

STEPS = 50
SHAPES = [(4, 2, 3, 3), (4,), (4, 1, 1, 1), (3, 16)]
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
KEEP_A_MOMENT = ("SGD", "Adam", "AdamW", "RMSprop", "NAdam", "RAdam", "Adamax")

PLACES = ("ascent", "descent", "both", "none")
COMBINATIONS = [
    {"norm": norm, "centralize": centralize, "adaptive": adaptive, "rho": 0.2 if adaptive else 0.05}
    for norm, centralize, adaptive in itertools.product(("centralized", "raw"), PLACES, (False, True))
]
LEVERS = [
    {"start": 30},
    {"every": 3},
    {"start": 4, "every": 2},
    {"ascent_fraction": 0.3},
    {"ascent_fraction": 0.3, "every": 2},
    {"max_norm": 0.05},
    {"max_norm": 0.1, "every": 2},
    {"eta": 0.1, "start": 2},
    {"skip_nonfinite": True, "rho": 0.1},
    {"groups": [{"rho": 0.1}, {"rho": 0.1}, {"rho": 0.0}, {}]},
    {"groups": [{"centralize": "descent"}, {}, {"centralize": "both"}, {"centralize": "none"}]},
    {"groups": [{"transposed": 1}, {}, {"transposed": 4}, {"transposed": 1, "centralize": "both"}]},
    {"groups": [{"transposed": 2, "rho": 0.3}, {}, {}, {"rho": 0.1, "centralize": "both"}]},
]
MOMENTUM = [
    {"ascent": "momentum", "centralize": "none", "rho": 0.3},
    {"ascent": "momentum", "rho": 0.3, "norm": "raw", "adaptive": True, "start": 3, "every": 2},
    {"ascent": "momentum", "max_norm": 0.3, "groups": [{"rho": 0.3}, {}, {}, {"centralize": "both"}]},
]


def settings_for(base: str) -> list[dict[str, Any]]:
    """With AdamW everything by itself; with the others every combination, most of them with a lever on top.

    Where P is not applied to the ascent the norm has no meaning, which AdamW shows; it is not shown again.
    """
    if base == "AdamW":
        return [*COMBINATIONS, *LEVERS, *MOMENTUM]
    turn = list(BASES).index(base)
    told_apart = [
        own for own in COMBINATIONS if own["norm"] == "centralized" or own["centralize"] in ("ascent", "both")
    ]
    mixed = [{**own, **[{}, *LEVERS][(k + turn) % (1 + len(LEVERS))]} for k, own in enumerate(told_apart)]
    return [*mixed, *(MOMENTUM if base in KEEP_A_MOMENT else [])]


def start_weights() -> list[Tensor]:
    """In float32, so that training in float32 and in float64 can begin at the same numbers."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator) * 0.4 for shape in SHAPES]


def batches(count: int, dtype: torch.dtype = torch.float64) -> list[tuple[Tensor, Tensor]]:
    """Six 4 x 4 images of two channels each, as patches (6, 18, 16) for a 3 x 3 convolution, and their classes."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(count, 6, 2, 4, 4, generator=generator)
    classes = torch.randint(0, 3, (count, 6), generator=generator)
    patches = [torch.nn.functional.unfold(own, 3, padding=1).to(dtype) for own in images]
    return list(zip(patches, classes, strict=True))


def losses_of(weights: list[Tensor], batch: tuple[Tensor, Tensor]) -> Tensor:
    """One loss per row of a network of convolution, depthwise 1x1, pooling and linear layer; rows are on axis 0."""
    patches, classes = batch
    kernel, bias, depthwise, linear = weights
    hidden = torch.tanh(kernel.flatten(2)[:, None] @ patches + bias[:, None, :, None])
    hidden = hidden + hidden * depthwise.flatten(2)[:, None]
    features = hidden.unflatten(-1, (4, 4)).mean(-1).flatten(2)
    scores = (features @ linear.mT).log_softmax(-1)
    return -scores[:, torch.arange(len(classes)), classes].mean(1)


def gradients(rows: list[list[Tensor]], batch: tuple[Tensor, Tensor]) -> list[list[Tensor]]:
    stacked = [torch.stack([w.detach() for w in weights]).requires_grad_() for weights in zip(*rows, strict=True)]
    found = torch.autograd.grad(losses_of(stacked, batch).sum(), stacked)
    return [list(own) for own in zip(*found, strict=True)]


def part_of(batch: tuple[Tensor, Tensor], fraction: float) -> tuple[Tensor, Tensor]:
    count = math.ceil(fraction * len(batch[0]))
    return batch[0][:count], batch[1][:count]


def unit_means_removed(gradient: Tensor, transposed: int = 0) -> Tensor:
    """P of one weight; ``transposed`` is the number of groups of a transposed convolution."""
    if gradient.dim() < 2:
        return gradient
    if transposed:
        blocks = [unit_means_removed(block.transpose(0, 1)) for block in gradient.chunk(transposed)]
        return torch.cat([block.transpose(0, 1) for block in blocks])
    inputs = gradient[0].numel()
    axes = list(range(1, gradient.dim()))
    return gradient if inputs == 1 else gradient - gradient.sum(axes, keepdim=True) / inputs


def length(tensors: list[Tensor]) -> Tensor:
    return torch.cat([t.flatten() for t in tensors]).square().sum().sqrt()


def option(setting: dict[str, Any], name: str, index: int | None = None) -> Any:
    defaults = {"rho": 0.05, "norm": "centralized", "centralize": "ascent", "adaptive": False, "eta": 0.01,
                "start": 0, "every": 1, "ascent_fraction": 1.0, "ascent": "gradient", "max_norm": None,
                "transposed": 0}  # fmt: skip
    own = setting.get("groups", [{}] * len(SHAPES))[index] if index is not None else {}
    return own.get(name, setting.get(name, defaults[name]))


def due(setting: dict[str, Any], step: int) -> bool:
    return step >= option(setting, "start") and (step - option(setting, "start")) % option(setting, "every") == 0


def projected(setting: dict[str, Any], gradient: list[Tensor], where: str) -> list[Tensor]:
    return [
        unit_means_removed(g, option(setting, "transposed", i)) if option(setting, "centralize", i) in where else g
        for i, g in enumerate(gradient)
    ]


def moved(setting: dict[str, Any], weights: list[Tensor], g: list[Tensor]) -> list[Tensor]:
    """w + e by the formula; with ``ascent="momentum"`` e points against g."""
    d = projected(setting, g, ("ascent", "both"))
    t = [w.abs() + option(setting, "eta") if option(setting, "adaptive") else torch.ones_like(w) for w in weights]
    size = length([s * x for s, x in zip(t, d if option(setting, "norm") == "centralized" else g, strict=True)])
    rho = [option(setting, "rho", i) for i in range(len(g))]
    sign = -1 if option(setting, "ascent") == "momentum" else 1
    return [w + sign * r * s * s * x / size for w, r, s, x in zip(weights, rho, t, d, strict=True)]


def split(row: Tensor) -> list[Tensor]:
    return [own.reshape(shape) for own, shape in zip(row.split([math.prod(s) for s in SHAPES]), SHAPES, strict=True)]


def join(rows: list[list[Tensor]]) -> Tensor:
    return torch.stack([torch.cat([w.flatten() for w in row]) for row in rows])


def reference(base, options, settings, data, rows=None, state=None, first=0):
    """Weights per setting after one step per batch; ``rows`` and ``state`` of the base are where to begin."""
    weights = join(rows or [start_weights()] * len(settings)).double().requires_grad_()
    inner = base([weights], **options)
    if state:
        inner.load_state_dict({**inner.state_dict(), "state": {0: state}})
    for step, batch in enumerate(data, first):
        at = [split(row) for row in weights.detach()]
        there = list(at)
        moments = inner.state[weights].get("exp_avg", inner.state[weights].get("momentum_buffer"))
        for fraction in sorted({option(setting, "ascent_fraction") for setting in settings}):
            g = gradients(at, part_of(batch, fraction))
            for k, setting in enumerate(settings):
                if option(setting, "ascent_fraction") != fraction or not due(setting, step):
                    continue
                if option(setting, "ascent") == "gradient":
                    there[k] = moved(setting, at[k], g[k])
                elif moments is not None:
                    there[k] = moved(setting, at[k], split(moments[k]))
        descent = []
        for setting, g in zip(settings, gradients(there, batch), strict=True):
            g = projected(setting, g, ("descent", "both"))
            limit = option(setting, "max_norm")
            # The constant is torch's own, in clip_grad_norm_.
            descent.append(g if limit is None else [x * min(1.0, limit / (float(length(g)) + 1e-6)) for x in g])
        weights.grad = join(descent)
        inner.step()
    return [split(row) for row in weights.detach()]


def optimizers(make, options, settings, dtype):
    """One optimizer per setting over weights of its own."""
    built = []
    for setting in settings:
        weights = [w.to(dtype).requires_grad_() for w in start_weights()]
        own = {name: value for name, value in setting.items() if name != "groups"}
        groups = [{"params": [w], **group} for w, group in zip(weights, setting["groups"], strict=True)] if (
            "groups" in setting
        ) else weights  # fmt: skip
        built.append((weights, GCSAM(groups, make, **own, **options)))
    return built


def train(built, settings, data, first=0):
    """The two-step form for all optimizers, one backward pass for all of them at a time."""
    rows = [weights for weights, _ in built]
    for step, batch in enumerate(data, first):
        ascent_gradients = {}
        for fraction in {option(setting, "ascent_fraction") for setting in settings}:
            ascent_gradients[fraction] = gradients(rows, part_of(batch, fraction))
        for k, (setting, (weights, optimizer)) in enumerate(zip(settings, built, strict=True)):
            by_gradient = option(setting, "ascent") == "gradient"
            for i, w in enumerate(weights):
                w.grad = ascent_gradients[option(setting, "ascent_fraction")][k][i] if by_gradient else None
            assert optimizer.ascend() == (by_gradient and due(setting, step))
        for (weights, optimizer), own in zip(built, gradients(rows, batch), strict=True):
            for w, g in zip(weights, own, strict=True):
                w.grad = g
            optimizer.descend()


def assert_rows_equal(ours, theirs, settings, tolerance):
    start = start_weights()
    for setting, a, b in zip(settings, ours, theirs, strict=True):
        difference = max(float((x.detach().double() - y).abs().max()) for x, y in zip(a, b, strict=True))
        assert difference <= tolerance, f"{setting}: {difference:.3g}"
        distance = max(float((x.detach().double() - y).abs().max()) for x, y in zip(a, start, strict=True))
        assert distance > 1e-4, f"{setting}: the weights did not move, so nothing was compared"


@pytest.mark.parametrize("base", BASES)
def test_fifty_steps_in_float64_are_those_of_the_formulas_for_every_option(base):
    make, options = BASES[base]
    settings, data = settings_for(base), batches(STEPS)
    built = optimizers(make, options, settings, torch.float64)
    train(built, settings, data)
    theirs = reference(make, options, settings, data)
    assert_rows_equal([weights for weights, _ in built], theirs, settings, 1e-9)
    for setting, (_, optimizer) in zip(settings, built, strict=True):
        extra = sum(due(setting, step) for step in range(STEPS)) * option(setting, "ascent_fraction")
        passes = STEPS + (extra if option(setting, "ascent") == "gradient" else 0)
        assert optimizer.gradient_evaluations == pytest.approx(passes)


def test_every_setting_has_weights_of_its_own():
    """So that no option is compared with itself left out: only the norm has no meaning where P is not applied."""
    make, options = BASES["AdamW"]
    settings = settings_for("AdamW")
    ends = join(reference(make, options, settings, batches(12)))
    distances = torch.cdist(ends, ends)
    pairs = itertools.combinations(range(len(settings)), 2)
    equal = [(settings[i], settings[j]) for i, j in pairs if distances[i, j] < 1e-5]
    assert len(equal) == 4
    for a, b in equal:
        assert a == {**b, "norm": a["norm"]}
        assert a["centralize"] in ("descent", "none")


def state_in_one_tensor(built) -> dict[str, Tensor]:
    """The state of all bases as ``reference`` keeps it; step counts are the same in every row."""
    rows = [[optimizer.state[w] for w in weights] for weights, optimizer in built]
    return {
        name: (join([[state[name] for state in row] for row in rows]) if value.dim() else value).double()
        for name, value in rows[0][0].items()
    }


@pytest.mark.parametrize("base", BASES)
def test_each_step_in_float32_is_that_of_the_formulas_for_every_option(base):
    """The first four steps, each one compared with the reference begun at the same weights and state.

    No exception is needed: the gradients here are not so near zero that a base which divides by their size, or takes
    their sign, makes more than 1e-6 out of their rounding.
    """
    make, options = BASES[base]
    settings, steps = settings_for(base), 4
    built, exact = optimizers(make, options, settings, torch.float32), batches(steps)
    for step, batch in enumerate(batches(steps, torch.float32)):
        rows = [[w.detach().clone() for w in weights] for weights, _ in built]
        state = state_in_one_tensor(built) if step else None
        theirs = reference(make, options, settings, [exact[step]], rows, state, step)
        train(built, settings, [batch], step)
        assert_rows_equal([weights for weights, _ in built], theirs, settings, 1e-6)


def test_sam_is_the_formula_without_centralization():
    make, options = BASES["Adam"]
    weights = [w.double().requires_grad_() for w in start_weights()]
    setting = {"rho": 0.1, "centralize": "none"}
    train([(weights, SAM(weights, make, 0.1, **options))], [setting], batches(STEPS))
    assert_rows_equal([weights], reference(make, options, [setting], batches(STEPS)), [setting], 1e-9)
