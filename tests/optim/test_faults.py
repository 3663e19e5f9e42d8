"""What published SAM implementations get wrong: exactness, missing gradients, failing passes, half precision.

The faults with files of their own: statistics of BatchNorm (test_batch_statistics, test_norm_layers), state
(test_state, test_schedulers), mixed precision and stale autocast caches (test_amp), DistributedDataParallel
(test_distributed), pitfalls of centralization (test_centralization, test_layers), closures (test_forms, test_errors).
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from medgcsam.optim import GCSAM, SAM


def network(dtype=torch.float32) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2)).to(dtype)


def closure_for(model, optimizer, calls=None):
    torch.manual_seed(1)
    images, targets = torch.randn(6, 1, 6, 6), torch.randint(0, 2, (6,))

    def closure():
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(images), targets)
        loss.backward()
        if calls is not None:
            calls.append([p.detach().clone() for p in model.parameters()])
        return loss

    return closure


def copies(tensors):
    return [t.detach().clone() for t in tensors]


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("kind", [SAM, GCSAM])
def test_the_way_back_is_exact_and_in_place(kind):
    model = network()
    optimizer = kind(model.parameters(), torch.optim.SGD, rho=0.37, lr=0.0)
    before, addresses = copies(model.parameters()), [p.data_ptr() for p in model.parameters()]
    closure = closure_for(model, optimizer)
    for _ in range(20):
        optimizer.step(closure)
    assert same(model.parameters(), before)
    assert [p.data_ptr() for p in model.parameters()] == addresses


@pytest.mark.parametrize("kind", [SAM, GCSAM])
def test_second_pass_sees_weights_exactly_rho_away_and_first_loss_comes_back(kind):
    model, calls = network(), []
    optimizer = kind(model.parameters(), torch.optim.SGD, rho=0.37, lr=0.1)
    closure = closure_for(model, optimizer, calls)
    expected = closure().item()
    calls.clear()
    assert optimizer.step(closure).item() == expected
    assert len(calls) == 2
    squares = [(a.double() - b.double()).square().sum() for a, b in zip(*calls, strict=True)]
    assert math.sqrt(sum(squares)) == pytest.approx(0.37, rel=1e-5)


class Broken(Exception):
    pass


@pytest.mark.parametrize("error", [Broken, KeyboardInterrupt])
def test_weights_come_back_when_the_second_pass_raises(error):
    model = network()
    optimizer = GCSAM(model.parameters(), lr=0.1)
    inner = closure_for(model, optimizer)
    inner()
    before, calls = copies(model.parameters()), []

    def closure():
        calls.append(1)
        loss = inner()
        if len(calls) == 2:
            assert not same(model.parameters(), before)
            raise error
        return loss

    with pytest.raises(error):
        optimizer.step(closure)
    assert same(model.parameters(), before)
    assert not optimizer.state
    optimizer.step(inner)  # and training can go on
    assert not same(model.parameters(), before)


def test_restore_gives_up_an_ascent():
    model = network()
    optimizer = SAM(model.parameters(), lr=0.1)
    before = copies(model.parameters())
    closure_for(model, optimizer)()
    assert optimizer.ascend() is True
    assert not same(model.parameters(), before)
    optimizer.restore()
    assert same(model.parameters(), before)
    with pytest.raises(RuntimeError, match="ascend"):
        optimizer.descend()


@pytest.mark.parametrize("missing_in", [1, 2])
def test_parameter_without_gradient_in_one_pass(missing_in):
    torch.manual_seed(0)
    steady, optional = nn.Parameter(torch.randn(3, 4)), nn.Parameter(torch.randn(3, 4))
    optimizer = GCSAM([steady, optional], torch.optim.SGD, rho=0.5, lr=0.1)
    before, seen = optional.detach().clone(), []

    def closure():
        optimizer.zero_grad()
        seen.append(optional.detach().clone())
        loss = steady.pow(2).sum()
        if len(seen) != missing_in:
            loss = loss + optional.pow(3).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    moved = not torch.equal(seen[1], before)
    assert moved == (missing_in == 2)
    # Without a gradient in the second pass there is no step either; without one in the first, a plain step.
    expected = before if missing_in == 2 else before - 0.1 * 3 * before.square()
    torch.testing.assert_close(optional.detach(), expected)
    assert torch.equal(optional.detach(), before) == (missing_in == 2)


@pytest.mark.parametrize("value", [0.0, math.inf, math.nan])
@pytest.mark.parametrize("kind", [SAM, GCSAM])
@pytest.mark.parametrize("adaptive", [False, True])
def test_zero_or_nonfinite_norm_moves_nothing(kind, adaptive, value):
    model = network()
    optimizer = kind(model.parameters(), torch.optim.SGD, adaptive=adaptive, lr=0.1)
    before = copies(model.parameters())
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    model[4].weight.grad[0, 3] = value
    optimizer.ascend()
    assert same(model.parameters(), before)
    assert optimizer.last_radius == 0
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    optimizer.descend()
    torch.testing.assert_close(list(copies(model.parameters())), [b - 0.1 for b in before])


@pytest.mark.parametrize(
    "options", [{}, {"norm": "raw"}, {"adaptive": True}, {"adaptive": True, "norm": "raw"}], ids=str
)
@pytest.mark.parametrize("size", [1e-15, 1e-12, 1e-7, 1.0, 1e7, 1e12, 1e15])
def test_radius_is_exact_for_gradients_of_any_size_without_an_epsilon(size, options):
    """In float32 to 1e-6; weights begin at zero, so that they become e itself."""
    generator = torch.Generator().manual_seed(0)
    weights = [nn.Parameter(torch.zeros(shape)) for shape in ((40, 30), (70,), (5, 4, 3, 3))]
    raw = [torch.randn(w.shape, generator=generator) + 0.3 for w in weights]
    whole = nn.utils.parameters_to_vector(raw).norm()
    for w, g in zip(weights, raw, strict=True):
        w.grad = g * (size / whole)
    exact = [w.grad.double() for w in weights]
    optimizer = GCSAM(weights, torch.optim.SGD, rho=0.05, eta=0.5, **options)
    optimizer.ascend()
    means = [g.flatten(1).mean(1).view(-1, *[1] * (g.dim() - 1)) if g.dim() > 1 else 0 for g in exact]
    projected = nn.utils.parameters_to_vector([g - mean for g, mean in zip(exact, means, strict=True)])
    divisor = nn.utils.parameters_to_vector(exact).norm() if "norm" in options else projected.norm()
    expected = projected * (0.05 * (0.5 if "adaptive" in options else 1.0) / divisor)
    found = nn.utils.parameters_to_vector(weights).detach().double()
    assert float((found - expected).norm() / expected.norm()) < 1e-6
    assert float(optimizer.last_radius) == pytest.approx(float(expected.norm()), rel=1e-6)


@pytest.mark.parametrize("size", [1e-44, 1e-30, 1e25, 3e38])
def test_gradients_beyond_what_float32_can_square_move_nothing(size):
    weight = nn.Parameter(torch.randn(4, 3))
    before = weight.detach().clone()
    optimizer = GCSAM([weight], torch.optim.SGD, rho=0.05, lr=0.1)
    weight.grad = torch.full((4, 3), size) * torch.tensor([1.0, -1.0, 0.5])
    assert optimizer.ascend() is True
    assert torch.equal(weight, before)
    assert optimizer.last_radius == 0


def test_weights_do_not_drift_over_many_steps_though_they_move_in_each():
    model, seen = network(), []
    optimizer = GCSAM(model.parameters(), torch.optim.SGD, rho=0.37, lr=0.0)
    before, closure = copies(model.parameters()), closure_for(model, optimizer, seen)
    for _ in range(100):
        optimizer.step(closure)
    assert same(model.parameters(), before)
    assert all(
        same(first, before) and not same(second, before) for first, second in zip(seen[::2], seen[1::2], strict=True)
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_weights_are_refused(dtype):
    with pytest.raises(TypeError, match="float32"):
        GCSAM(network(dtype).parameters())
    model = network()
    optimizer = SAM(model.parameters())
    model.to(dtype)
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    with pytest.raises(TypeError, match="too coarse"):
        optimizer.ascend()
    frozen = network(dtype).requires_grad_(False)
    SAM([*frozen.parameters(), nn.Parameter(torch.ones(2))])  # what is not trained may be in any type


def test_complex_weights_are_refused():
    with pytest.raises(TypeError, match="Complex"):
        SAM([nn.Parameter(torch.ones(2, dtype=torch.complex64))])


def test_float32_and_float64_weights_share_one_norm():
    single, double = nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(4, dtype=torch.float64))
    optimizer = SAM([single, double], torch.optim.SGD, rho=0.6, lr=0.1)
    single.grad, double.grad = torch.tensor([3.0, 0.0, 0.0]), torch.tensor([0.0, 4.0, 0.0, 0.0], dtype=torch.float64)
    optimizer.ascend()
    torch.testing.assert_close(single.detach(), torch.tensor([0.36, 0.0, 0.0]))
    torch.testing.assert_close(double.detach()[1], torch.tensor(0.48, dtype=torch.float64))


def test_sparse_gradients_are_refused_and_weights_stay():
    table = nn.Embedding(5, 3, sparse=True)
    optimizer = GCSAM(table.parameters(), torch.optim.SGD, lr=0.1)
    before = table.weight.detach().clone()

    def closure():
        optimizer.zero_grad()
        loss = table(torch.tensor([1, 2])).square().sum()
        loss.backward()
        return loss

    with pytest.raises(RuntimeError, match="sparse=False"):
        optimizer.step(closure)
    assert torch.equal(table.weight, before)


@pytest.mark.parametrize("layout", ["channels_last", "slice", "transposed_gradient", "unit_axes"])
def test_any_memory_layout_gives_the_same_numbers(layout):
    torch.manual_seed(0)
    plain = nn.Parameter(torch.randn(6, 4, 3, 3))
    gradient = torch.randn(6, 4, 3, 3)
    if layout == "channels_last":
        odd = nn.Parameter(plain.detach().clone().to(memory_format=torch.channels_last))
        own = gradient.clone().to(memory_format=torch.channels_last)
    elif layout == "slice":
        odd = nn.Parameter(torch.randn(6, 8, 3, 3)[:, ::2])
        odd.data.copy_(plain.detach())
        own = gradient.clone()
    elif layout == "transposed_gradient":
        odd, own = nn.Parameter(plain.detach().clone()), gradient.transpose(2, 3).contiguous().transpose(2, 3)
    else:
        plain, gradient = nn.Parameter(torch.randn(6, 1, 1, 5)), torch.randn(6, 1, 1, 5)
        odd, own = nn.Parameter(plain.detach().clone()), gradient.as_strided((6, 1, 1, 5), (5, 7, 3, 1)).clone()
    expected, found = GCSAM([plain], rho=0.3), GCSAM([odd], rho=0.3)
    before = odd.detach().clone()
    plain.grad, odd.grad = gradient.clone(), own
    expected.ascend()
    found.ascend()
    assert not torch.equal(odd, before)
    torch.testing.assert_close(odd.detach(), plain.detach())
    found.restore()
    assert torch.equal(odd, before)


def test_an_inplace_move_is_seen_by_autograd():
    model = network()
    optimizer = SAM(model.parameters(), lr=0.1)
    loss = model(torch.randn(2, 1, 6, 6)).square().mean()
    loss.backward(retain_graph=True)
    optimizer.ascend()
    with pytest.raises(RuntimeError, match="inplace"):
        loss.backward()
