"""float16 training with a GradScaler: one unscaling, and an overflow in either pass changes nothing but the scale."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from medgcsam.optim import GCSAM, SAM

FORMS = ["closure", "descend", "scaler.step"]


class Run:
    """A network trained under a scaler on the CPU, whose loss can be made to overflow in chosen passes."""

    def __init__(self, form, make=torch.optim.AdamW, **options):
        torch.manual_seed(0)
        self.form = form
        self.model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2)).double()
        self.optimizer = GCSAM(self.model.parameters(), make, lr=0.01, **options)
        self.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=1000)

    def one_pass(self, step, bad):
        generator = torch.Generator().manual_seed(step)
        inputs = torch.randn(8, 4, generator=generator, dtype=torch.float64)
        self.optimizer.zero_grad()
        loss = self.model(inputs).square().mean()
        self.scaler.scale(loss).backward()
        if bad:
            self.model[0].weight.grad[1, 2] = torch.inf
        return loss

    def step(self, step=0, bad_passes=()):
        if self.form == "closure":
            calls = []

            def closure():
                calls.append(1)
                return self.one_pass(step, len(calls) in bad_passes)

            self.optimizer.step(closure, scaler=self.scaler)
        else:
            self.one_pass(step, 1 in bad_passes)
            if self.optimizer.ascend():
                self.one_pass(step, 2 in bad_passes)
            if self.form == "descend":
                self.optimizer.descend(scaler=self.scaler)
            else:
                self.scaler.step(self.optimizer)
        self.scaler.update()

    def everything(self):
        moments = [v for state in self.optimizer.state.values() for v in state.values()]
        return [t.detach().clone() for t in (*self.model.parameters(), *moments)]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "options", [{}, {"centralize": "both", "max_norm": 0.1}, {"every": 2}, {"fused": True}], ids=str
)
def test_scaled_training_equals_unscaled_training(form, options):
    scaled = Run(form, **options)
    plain = copy.deepcopy(scaled)
    plain.scaler = torch.amp.GradScaler("cpu", enabled=False)
    for step in range(12):
        scaled.step(step)
        plain.step(step)
    for a, b in zip(scaled.model.parameters(), plain.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(scaled.optimizer.last_radius, plain.optimizer.last_radius)
    assert scaled.optimizer.skipped == 0
    assert scaled.optimizer.steps == 12


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("bad_passes", [(1,), (2,), (1, 2)], ids=str)
def test_overflow_in_either_pass_leaves_weights_and_state_bit_equal(form, bad_passes):
    run = Run(form)
    for step in range(3):
        run.step(step)
    before, scale = run.everything(), run.scaler.get_scale()
    run.step(3, bad_passes)
    assert all(torch.equal(a, b) for a, b in zip(before, run.everything(), strict=True))
    assert run.optimizer.skipped == 1
    if form != "scaler.step" or 2 in bad_passes:  # documented: that form alone cannot tell the scaler of the first pass
        assert run.scaler.get_scale() == scale / 2
    run.step(4)
    assert not any(torch.equal(a, b) for a, b in zip(before, run.everything(), strict=True))


def test_overflow_where_no_ascent_is_due():
    run = Run("closure", every=2)
    run.step(0)
    before = run.everything()
    run.step(1, (1,))
    assert all(torch.equal(a, b) for a, b in zip(before, run.everything(), strict=True))
    assert run.optimizer.gradient_evaluations == 3


def test_gradients_unscaled_by_the_user_are_not_unscaled_again():
    run, twin = Run("descend"), Run("descend")
    run.one_pass(0, False)
    run.optimizer.ascend()
    run.one_pass(0, False)
    # The weights are still away from w here, which unscaling and clipping do not care about.
    run.scaler.unscale_(run.optimizer)
    nn.utils.clip_grad_norm_(run.model.parameters(), 1e6)
    run.scaler.step(run.optimizer)
    run.scaler.update()
    twin.step(0)
    for a, b in zip(run.model.parameters(), twin.model.parameters(), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("form", ["closure", "descend"])
def test_weights_come_back_when_the_scaler_refuses_the_step(form):
    run = Run(form)
    run.step(0)
    run.scaler.update = lambda: None
    run.step(1)
    before = run.everything()
    with pytest.raises(RuntimeError, match="since the last update"):
        run.step(2)
    assert all(torch.equal(a, b) for a, b in zip(before, run.everything(), strict=True))


def test_ascent_does_not_depend_on_the_loss_scale():
    ends = []
    for scale in (1.0, 2.0**16):
        run = Run("descend")
        run.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        run.one_pass(0, False)
        run.optimizer.ascend()
        ends.append(run.everything())
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))


@pytest.mark.parametrize("bad_passes", [(1,), (2,)], ids=str)
def test_skip_nonfinite_does_without_a_scaler(bad_passes):
    for skip in (True, False):
        run = Run("closure", skip_nonfinite=skip)
        run.scaler = torch.amp.GradScaler("cpu", enabled=False)
        run.step(0)
        before = run.everything()
        run.step(1, bad_passes)
        unchanged = all(torch.equal(a, b) for a, b in zip(before, run.everything(), strict=True))
        assert unchanged == skip
        assert run.optimizer.skipped == int(skip)


def test_bf16_autocast_gives_finite_steps_near_those_of_float32():
    ends = []
    for enabled in (False, True):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 1))
        optimizer = SAM(model.parameters(), torch.optim.SGD, rho=0.05, lr=0.1)
        inputs = torch.randn(32, 6)

        def closure(model=model, optimizer=optimizer, inputs=inputs, enabled=enabled):
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
                loss = (model(inputs) - inputs[:, :1]).square().mean()
            loss.backward()
            return loss

        losses = [optimizer.step(closure).item() for _ in range(30)]
        assert float(optimizer.last_radius) == pytest.approx(0.05, rel=1e-5)
        ends.append(losses)
    assert ends[1][-1] < ends[1][0] / 2
    assert ends[1] == pytest.approx(ends[0], abs=0.01)


class Recorder(nn.Linear):
    """A linear layer that remembers the type in which each pass was computed."""

    def __init__(self):
        super().__init__(6, 3)
        self.types = []

    def forward(self, inputs):
        outputs = super().forward(inputs)
        self.types.append(outputs.dtype)
        return outputs


@pytest.mark.parametrize("every", [1, 2])
def test_ascent_alone_can_run_in_bf16(every):
    torch.manual_seed(0)
    model = Recorder()
    optimizer = SAM(model.parameters(), ascent_precision="bf16", every=every, rho=0.05, lr=0.1)

    def closure():
        optimizer.zero_grad()
        loss = model(torch.ones(4, 6)).float().square().mean()
        loss.backward()
        assert all(p.grad.dtype == torch.float32 for p in model.parameters())
        return loss

    for _ in range(2):
        optimizer.step(closure)
        assert float(optimizer.last_radius) == pytest.approx(0.05, rel=1e-6)
    both = [torch.bfloat16, torch.float32]
    assert model.types == (both * 2 if every == 1 else [*both, torch.float32])
    assert optimizer.gradient_evaluations == len(model.types)
    assert not torch.is_autocast_enabled("cpu")


def test_bf16_ascent_is_the_step_at_the_point_that_bf16_points_to():
    torch.manual_seed(0)
    model, inputs = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2)), torch.randn(16, 6)
    twin = copy.deepcopy(model)
    optimizer = SAM(model.parameters(), torch.optim.SGD, ascent_precision="bf16", rho=0.5, lr=0.1)
    by_hand = SAM(twin.parameters(), torch.optim.SGD, rho=0.5, lr=0.1)

    def loss_of(network):
        return network(inputs).float().square().mean()

    def closure():
        optimizer.zero_grad()
        loss = loss_of(model)
        loss.backward()
        return loss

    optimizer.step(closure)
    with torch.autocast("cpu", torch.bfloat16):
        loss = loss_of(twin)
    loss.backward()
    by_hand.ascend()
    by_hand.zero_grad()
    loss_of(twin).backward()
    by_hand.descend()
    for a, b in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
    assert optimizer.state_dict()["sharpness"]["ascent_precision"] == "bf16"


def test_unknown_precision_of_the_ascent():
    with pytest.raises(ValueError, match="ascent_precision must be one of None, bf16"):
        SAM([nn.Parameter(torch.ones(2))], ascent_precision="fp16")


@pytest.mark.parametrize("form", ["closure", "two steps", "momentum"])
def test_an_autocast_region_around_both_passes_serves_no_stale_weights(form):
    """Fault 6: autocast caches the casts of weights until its region ends."""
    torch.manual_seed(0)
    model = nn.Linear(6, 3)
    options = {"ascent": "momentum"} if form == "momentum" else {}
    optimizer = SAM(model.parameters(), torch.optim.SGD, rho=2.0, lr=0.0, momentum=0.9, **options)
    inputs, seen = torch.randn(4, 6), []

    def closure():
        optimizer.zero_grad()
        outputs = model(inputs)
        seen.append((outputs.detach(), nn.functional.linear(inputs, model.weight.detach(), model.bias.detach())))
        loss = outputs.float().square().mean()
        loss.backward()
        return loss

    for _ in range(2):
        with torch.autocast("cpu", torch.bfloat16):
            if form == "two steps":
                closure()
                optimizer.ascend()
                closure()
                optimizer.descend()
            else:
                optimizer.step(closure)
            closure()
    # The weight detached is cast anew each time: it is what the pass should have used.
    assert all(torch.equal(used, right) for used, right in seen)
    assert len({float(used.sum()) for used, _ in seen}) > 1
