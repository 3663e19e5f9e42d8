"""One step in its two forms, in micro-batches, without a radius; and what the optimizer reads off its last ascent."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from medgcsam.optim import GCSAM, SAM

BASES = {
    "SGD": (torch.optim.SGD, {"lr": 0.05, "momentum": 0.9}),
    "AdamW": (torch.optim.AdamW, {"lr": 0.01}),
    "Adadelta": (torch.optim.Adadelta, {"lr": 1.0, "base_rho": 0.8}),
    "Rprop": (torch.optim.Rprop, {"lr": 0.001}),
}
OPTIONS = [
    {},
    {"norm": "raw", "centralize": "both", "max_norm": 0.1},
    {"adaptive": True, "start": 3, "every": 2},
    {"ascent_fraction": 0.5, "skip_nonfinite": True},
]


def network() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Tanh(), nn.Conv2d(4, 4, 1, groups=4), nn.Flatten(), nn.Linear(16, 3))
    return model.double()


def batches(count: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(count, 8, 1, 4, 4, generator=generator, dtype=torch.float64)
    return list(zip(images, torch.randint(0, 3, (count, 8), generator=generator), strict=True))


def one_pass(model, optimizer, images, labels) -> torch.Tensor:
    optimizer.zero_grad()
    loss = nn.functional.cross_entropy(model(images), labels)
    loss.backward()
    return loss


def by_closure(model, optimizer, batch) -> torch.Tensor:
    part = optimizer.ascent_part(batch)
    return optimizer.step(
        lambda: one_pass(model, optimizer, *batch), ascent_closure=lambda: one_pass(model, optimizer, *part)
    )


def in_two_steps(model, optimizer, batch) -> torch.Tensor:
    due = optimizer.steps >= optimizer.start and (optimizer.steps - optimizer.start) % optimizer.every == 0
    loss = one_pass(model, optimizer, *(optimizer.ascent_part(batch) if due else batch))
    assert optimizer.ascend() == due
    if due:
        one_pass(model, optimizer, *batch)
    optimizer.descend()
    return loss


def weights_of(model: nn.Module) -> list[torch.Tensor]:
    return [p.detach().clone() for p in model.parameters()]


def same(a, b) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("base", BASES)
def test_two_steps_form_equals_closure_form_bit_for_bit(base, options):
    make, base_options = BASES[base]
    models = [network(), network()]
    ours = [GCSAM(model.parameters(), make, **options, **base_options) for model in models]
    for batch in batches(10):
        assert torch.equal(by_closure(models[0], ours[0], batch), in_two_steps(models[1], ours[1], batch))
    assert same(models[0].parameters(), models[1].parameters())
    assert not same(models[0].parameters(), network().parameters())
    for counter in ("steps", "ascents", "gradient_evaluations", "last_radius", "centralized_share"):
        assert getattr(ours[0], counter) == getattr(ours[1], counter)


@pytest.mark.parametrize("form", ["closure", "two steps"])
@pytest.mark.parametrize("options", OPTIONS[:3], ids=str)
def test_accumulated_micro_batches_equal_the_large_batch(options, form):
    models = [network(), network()]
    ours = [GCSAM(model.parameters(), torch.optim.SGD, lr=0.1, momentum=0.9, **options) for model in models]

    def accumulated(images, labels):
        ours[1].zero_grad()
        total = torch.zeros((), dtype=torch.float64)
        for part, own in zip(images.chunk(4), labels.chunk(4), strict=True):
            loss = nn.functional.cross_entropy(models[1](part), own) / 4
            loss.backward()
            total += loss.detach()
        return total

    for images, labels in batches(10):
        whole = by_closure(models[0], ours[0], (images, labels))
        if form == "closure":
            loss = ours[1].step(lambda images=images, labels=labels: accumulated(images, labels))
        else:
            loss = accumulated(images, labels)
            if ours[1].ascend():
                accumulated(images, labels)
            ours[1].descend()
        torch.testing.assert_close(loss, whole.detach(), rtol=0, atol=1e-12)
    for a, b in zip(*(model.parameters() for model in models), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("options", [{"rho": 0.0}, {"start": 10**9}], ids=str)
def test_without_radius_or_before_the_start_it_is_the_base_optimizer_bit_for_bit(base, options):
    make, base_options = BASES[base]
    model, plain = network(), network()
    optimizer = GCSAM(model.parameters(), make, **options, **base_options)
    inner = make(plain.parameters(), **{name.removeprefix("base_"): value for name, value in base_options.items()})
    for batch in batches(8):
        by_closure(model, optimizer, batch)
        one_pass(plain, inner, *batch)
        inner.step()
    assert same(model.parameters(), plain.parameters())
    assert optimizer.gradient_evaluations == (16 if "rho" in options else 8)


@pytest.mark.parametrize("kind", [SAM, GCSAM])
def test_with_all_levers_off_a_step_is_exactly_two_passes(kind):
    model, calls = network(), []
    optimizer = kind(model.parameters())
    model.register_forward_hook(lambda *_: calls.append("forward"))
    model[0].weight.register_hook(lambda _: calls.append("backward"))
    for batch in batches(3):
        by_closure(model, optimizer, batch)
    assert calls == ["forward", "backward"] * 6
    assert (optimizer.steps, optimizer.ascents, optimizer.skipped, optimizer.gradient_evaluations) == (3, 3, 0, 6)


@pytest.mark.parametrize("norm", ["centralized", "raw"])
@pytest.mark.parametrize("adaptive", [False, True])
def test_radius_and_share_are_those_of_the_perturbation(norm, adaptive):
    model = network()
    groups = [{"params": model[:3].parameters()}, {"params": model[3:].parameters(), "rho": 0.2}]
    optimizer = GCSAM(groups, torch.optim.SGD, 0.05, norm=norm, adaptive=adaptive, lr=0.1)
    assert optimizer.last_radius.isnan()
    assert optimizer.centralized_share.isnan()
    before = weights_of(model)
    one_pass(model, optimizer, *batches(1)[0])
    raw = [p.grad.clone() for p in model.parameters()]
    optimizer.ascend()
    moved = nn.utils.parameters_to_vector(weights_of(model)) - nn.utils.parameters_to_vector(before)
    assert float(optimizer.last_radius) == pytest.approx(float(moved.norm()), rel=1e-10)
    means = [
        g.flatten(1).mean(1).view(-1, *[1] * (g.dim() - 1)) if g.dim() > 1 and g[0].numel() > 1 else 0 for g in raw
    ]
    projected = [g - mean for g, mean in zip(raw, means, strict=True)]
    share = nn.utils.parameters_to_vector(projected).norm() / nn.utils.parameters_to_vector(raw).norm()
    assert float(optimizer.centralized_share) == pytest.approx(float(share), rel=1e-10)
    assert share < 0.999


def test_share_is_one_where_nothing_is_centralized():
    model = network()
    optimizer = SAM(model.parameters())
    by_closure(model, optimizer, batches(1)[0])
    assert float(optimizer.centralized_share) == pytest.approx(1, abs=1e-12)
    assert float(optimizer.last_radius) == pytest.approx(0.05, rel=1e-12)


def test_a_copy_of_the_model_does_not_share_what_the_ascent_saved():
    model = network()
    optimizer = GCSAM(model.parameters())
    by_closure(model, optimizer, batches(1)[0])
    other, twin = copy.deepcopy((model, optimizer))
    one_pass(model, optimizer, *batches(1)[0])
    before = weights_of(other)
    optimizer.ascend()
    twin.restore()
    assert same(other.parameters(), before)


def test_the_radius_of_a_large_weight_is_exact():
    # Adding up 20 million equal squares in float32, one after the other, is 0.5% off.
    weight = nn.Parameter(torch.zeros(20_000, 1_000))
    optimizer = SAM([weight], torch.optim.SGD, rho=0.05, lr=0.1)
    weight.grad = torch.full_like(weight, 0.01)
    optimizer.ascend()
    # All elements have moved by the same step, whose square times their number is the squared length of e.
    step = weight.detach()[0, 0].double()
    assert bool((weight == weight[0, 0]).all())
    torch.testing.assert_close(step * weight.numel() ** 0.5, torch.tensor(0.05).double(), rtol=1e-4, atol=0)
