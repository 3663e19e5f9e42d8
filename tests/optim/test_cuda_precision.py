"""On a CUDA device: float16 with a scaler, bfloat16, random numbers of the device, checkpoints, statistics.

Needs torch, pytest and ``medgcsam.optim`` only: ``pytest --noconftest tests/optim/test_cuda_precision.py``.
"""

from __future__ import annotations

import io

import pytest
import torch
from torch import nn

from medgcsam.optim import GCSAM, SAM

pytestmark = pytest.mark.gpu
if not torch.cuda.is_available():
    pytest.skip("needs a CUDA device", allow_module_level=True)
DEVICE = torch.device("cuda", 0)
FORMS = ["closure", "descend", "scaler.step"]
BASES = {
    "SGD": (torch.optim.SGD, {"lr": 0.05, "momentum": 0.9}),
    "AdamW": (torch.optim.AdamW, {"lr": 0.01}),
    "AdamW, fused": (torch.optim.AdamW, {"lr": 0.01, "fused": True}),
}


def network(*middle: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 16), *middle, nn.Tanh(), nn.Linear(16, 3)).to(DEVICE)


def inputs_of(step: int) -> torch.Tensor:
    return torch.randn(16, 5, generator=torch.Generator().manual_seed(step)).to(DEVICE)


def everything(model, optimizer) -> list[torch.Tensor]:
    moments = [v for state in optimizer.state.values() for v in state.values() if isinstance(v, torch.Tensor)]
    return [t.detach().clone() for t in (*model.parameters(), *moments)]


def same(a, b) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def one_pass(model, optimizer, inputs) -> torch.Tensor:
    optimizer.zero_grad()
    loss = (model(inputs) - inputs[:, :3]).float().square().mean()
    loss.backward()
    return loss


def scaled_step(form, model, optimizer, scaler, step, bad_passes=()) -> None:
    inputs, calls = inputs_of(step), []

    def scaled_pass():
        calls.append(1)
        optimizer.zero_grad()
        with torch.autocast(DEVICE.type, torch.float16):
            outputs = model(inputs)
        loss = (outputs.float() - inputs[:, :3]).square().mean()
        scaler.scale(loss * (torch.inf if len(calls) in bad_passes else 1.0)).backward()
        return loss

    if form == "closure":
        optimizer.step(scaled_pass, scaler=scaler)
    else:
        scaled_pass()
        if optimizer.ascend():
            scaled_pass()
        if form == "descend":
            optimizer.descend(scaler=scaler)
        else:
            scaler.step(optimizer)
    scaler.update()


def scaler_of(scale: float) -> torch.amp.GradScaler:
    return torch.amp.GradScaler(DEVICE.type, init_scale=scale, growth_interval=1000)


@pytest.mark.parametrize("bad_passes", [(1,), (2,), (1, 2)], ids=str)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("base", BASES)
def test_float16_overflow_in_either_pass_leaves_weights_and_state_bit_equal(base, form, bad_passes):
    make, base_options = BASES[base]
    model, scaler = network(), scaler_of(1024.0)
    optimizer = GCSAM(model.parameters(), make, **base_options)
    for step in range(3):
        scaled_step(form, model, optimizer, scaler, step)
    before, scale = everything(model, optimizer), scaler.get_scale()
    scaled_step(form, model, optimizer, scaler, 3, bad_passes)
    assert same(before, everything(model, optimizer))
    assert optimizer.skipped == 1
    if form != "scaler.step" or 2 in bad_passes:  # documented: that form cannot tell the scaler of the first pass
        assert scaler.get_scale() == scale / 2
    scaled_step(form, model, optimizer, scaler, 4)
    assert optimizer.skipped == 1
    after = [p.detach() for p in model.parameters()]
    assert not any(torch.equal(a, b) for a, b in zip(after, before[: len(after)], strict=True))


@pytest.mark.parametrize("form", FORMS[:2])
def test_float16_scale_that_is_too_large_comes_down_by_itself(form):
    model, scaler = network(), scaler_of(2.0**40)
    optimizer = SAM(model.parameters(), lr=0.01)
    start, skipped = [p.detach().clone() for p in model.parameters()], 0
    while optimizer.skipped == skipped:
        assert same(start, [p.detach() for p in model.parameters()])
        skipped += 1
        assert skipped < 40
        scaled_step(form, model, optimizer, scaler, skipped)
    assert optimizer.skipped > 5
    assert scaler.get_scale() == 2.0 ** (40 - optimizer.skipped)
    assert not same(start, [p.detach() for p in model.parameters()])
    assert float(optimizer.last_radius) == pytest.approx(0.05, rel=1e-5)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("base", BASES)
def test_scaled_float32_training_equals_unscaled_training(base, form):
    """Without autocast and with a power of two for the scale, scaling changes no bit of a gradient."""
    make, base_options = BASES[base]
    ends = []
    for scale in (1.0, 2.0**10):
        model, scaler = network(), scaler_of(scale)
        optimizer = GCSAM(model.parameters(), make, max_norm=0.5, **base_options)
        for step in range(8):

            def scaled_pass(model=model, optimizer=optimizer, scaler=scaler, inputs=inputs_of(step)):
                optimizer.zero_grad()
                loss = (model(inputs) - inputs[:, :3]).square().mean()
                scaler.scale(loss).backward()
                return loss

            if form == "closure":
                optimizer.step(scaled_pass, scaler=scaler)
            else:
                scaled_pass()
                optimizer.ascend()
                scaled_pass()
                optimizer.descend(scaler=scaler) if form == "descend" else scaler.step(optimizer)
            scaler.update()
        assert optimizer.skipped == 0
        ends.append(nn.utils.parameters_to_vector(model.parameters()).detach())
    torch.testing.assert_close(ends[0], ends[1], rtol=0, atol=1e-6)


def test_bfloat16_autocast_trains_with_an_exact_radius():
    model = network()
    optimizer = SAM(model.parameters(), torch.optim.SGD, rho=0.05, lr=0.1)
    losses = []
    for step in range(40):

        def closure(inputs=inputs_of(step % 4)):
            optimizer.zero_grad()
            with torch.autocast(DEVICE.type, torch.bfloat16):
                outputs = model(inputs)
            loss = (outputs.float() - inputs[:, :3]).square().mean()
            loss.backward()
            return loss.detach()

        losses.append(float(optimizer.step(closure)))
        assert float(optimizer.last_radius) == pytest.approx(0.05, rel=1e-5)
    assert sum(losses[-4:]) < sum(losses[:4]) / 2


@pytest.mark.parametrize("form", ["closure", "two steps"])
def test_an_autocast_region_around_both_passes_serves_no_stale_weights(form):
    model, inputs, seen = network(), inputs_of(0), []
    optimizer = SAM(model.parameters(), torch.optim.SGD, rho=5.0, lr=0.0)

    def closure():
        optimizer.zero_grad()
        outputs = model(inputs)
        first, second = model[0], model[-1]
        hidden = torch.tanh(nn.functional.linear(inputs, first.weight.detach(), first.bias.detach()))
        seen.append((outputs.detach(), nn.functional.linear(hidden, second.weight.detach(), second.bias.detach())))
        loss = outputs.float().square().mean()
        loss.backward()
        return loss

    with torch.autocast(DEVICE.type, torch.bfloat16):
        for _ in range(2):
            if form == "closure":
                optimizer.step(closure)
            else:
                closure()
                optimizer.ascend()
                closure()
                optimizer.descend()
        closure()
    assert all(torch.equal(used, right) for used, right in seen)
    assert not torch.equal(seen[0][0], seen[1][0])
    assert torch.equal(seen[0][0], seen[4][0])


def test_the_ascent_alone_can_run_in_bfloat16():
    model, types = network(), []
    model.register_forward_hook(lambda module, inputs, outputs: types.append(outputs.dtype))
    optimizer = GCSAM(model.parameters(), ascent_precision="bf16", lr=0.01)
    for step in range(2):
        optimizer.step(lambda step=step: one_pass(model, optimizer, inputs_of(step)))
    assert types == [torch.bfloat16, torch.float32] * 2
    assert float(optimizer.last_radius) == pytest.approx(0.05, rel=1e-5)


@pytest.mark.parametrize("replay", [True, False])
def test_dropout_on_the_device_can_be_replayed_and_leaves_no_trace(replay):
    model, drop, masks = network(), nn.Dropout(0.5), []
    optimizer = GCSAM(model.parameters(), replay_random=replay, lr=0.01)
    inputs = inputs_of(0)

    def closure():
        optimizer.zero_grad()
        masks.append(drop(torch.ones(16, 3, device=DEVICE)))
        loss = (model(inputs) * masks[-1]).square().mean()
        loss.backward()
        return loss

    torch.manual_seed(11)
    for _ in range(2):
        optimizer.step(closure)
    after = torch.rand(5, device=DEVICE)
    assert torch.equal(masks[0], masks[1]) == replay
    assert torch.equal(masks[2], masks[3]) == replay
    assert not torch.equal(masks[0], masks[2])
    torch.manual_seed(11)
    for _ in range(2 if replay else 4):
        drop(torch.ones(16, 3, device=DEVICE))
    assert torch.equal(after, torch.rand(5, device=DEVICE))


@pytest.mark.parametrize("value", [0.0, torch.inf, torch.nan])
@pytest.mark.parametrize("adaptive", [False, True])
def test_zero_or_nonfinite_norm_moves_nothing(adaptive, value):
    model = network()
    optimizer = GCSAM(model.parameters(), torch.optim.SGD, adaptive=adaptive, lr=0.1)
    before = [p.detach().clone() for p in model.parameters()]
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    model[0].weight.grad[1, 2] = value
    optimizer.ascend()
    assert same([p.detach() for p in model.parameters()], before)
    assert float(optimizer.last_radius) == 0
    optimizer.restore()


def test_running_statistics_on_the_device_count_the_first_pass_only():
    model, twin = network(nn.BatchNorm1d(16)), network(nn.BatchNorm1d(16))
    optimizer = GCSAM(model.parameters(), rho=1.0, lr=0.0)
    optimizer.step(lambda: one_pass(model, optimizer, inputs_of(0)), model=model)
    twin(inputs_of(0))
    for name, buffer in twin.named_buffers():
        assert torch.equal(dict(model.named_buffers())[name], buffer)
    assert int(model[1].num_batches_tracked) == 1


@pytest.mark.parametrize("place", ["cpu", None])
@pytest.mark.parametrize("base", BASES)
def test_resuming_from_a_checkpoint_changes_no_bit(base, place):
    make, base_options = BASES[base]
    # One elementwise layer: no choice of a matrix kernel comes between the two runs.
    model, other = nn.PReLU(5).to(DEVICE), nn.PReLU(5).to(DEVICE)

    def go_on(module, optimizer, first):
        for step in range(first, first + 4):

            def closure(inputs=inputs_of(step)):
                optimizer.zero_grad()
                loss = (module(inputs) - inputs.flip(0)).square().mean()
                loss.backward()
                return loss

            optimizer.step(closure)

    optimizer = GCSAM(model.parameters(), make, every=2, **base_options)
    go_on(model, optimizer, 0)
    buffer = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, buffer)
    buffer.seek(0)
    saved = torch.load(buffer, map_location=place, weights_only=True)
    twin = GCSAM(other.parameters(), make, **base_options)
    other.load_state_dict(saved["model"])
    twin.load_state_dict(saved["optimizer"])
    assert float(twin.last_radius) == float(optimizer.last_radius)
    go_on(model, optimizer, 4)
    go_on(other, twin, 4)
    assert same(everything(model, optimizer), everything(other, twin))


def test_weights_on_two_kinds_of_device_share_one_norm():
    here, there = nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(3, device=DEVICE))
    optimizer = SAM([here, there], torch.optim.SGD, rho=0.5, lr=0.1)
    here.grad, there.grad = torch.tensor([3.0, 0.0, 0.0]), torch.tensor([0.0, 4.0, 0.0], device=DEVICE)
    optimizer.ascend()
    torch.testing.assert_close(here.detach(), torch.tensor([0.3, 0.0, 0.0]))
    torch.testing.assert_close(there.detach().cpu(), torch.tensor([0.0, 0.4, 0.0]))
    here.grad, there.grad = torch.ones(3), torch.ones(3, device=DEVICE)
    optimizer.descend()
    torch.testing.assert_close(here.detach(), torch.full((3,), -0.1))
    torch.testing.assert_close(there.detach().cpu(), torch.full((3,), -0.1))
