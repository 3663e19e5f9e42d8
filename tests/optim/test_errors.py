"""Mistakes in the midst of training: a sentence that says what is wrong and what to do, and no trace is left.

Each mistake is made between two steps of one training; the weights, the state and all later steps must be, bit for bit,
those of a twin that never made it.
"""

from __future__ import annotations

import copy
import pickle
import re
from typing import Any

import pytest
import torch
from torch import nn

from medgcsam.optim import GCSAM


class Training:
    """A small network with an embedding, whose gradient can be made sparse."""

    def __init__(self, make=torch.optim.AdamW, **options):
        torch.manual_seed(0)
        self.table, self.linear = nn.Embedding(6, 4), nn.Linear(4, 3)
        self.model = nn.Sequential(self.table, self.linear)
        self.optimizer = GCSAM(self.model.parameters(), make, rho=0.3, lr=0.05, **options)

    def loss(self, step: int = 0) -> torch.Tensor:
        rows = torch.tensor([[step % 6, 1, 2], [3, 4, (step + 2) % 6]])
        return (self.model(rows) - 1).square().mean()

    def backward(self, step: int = 0) -> torch.Tensor:
        self.optimizer.zero_grad()
        loss = self.loss(step)
        loss.backward()
        return loss

    def step(self, step: int) -> None:
        if self.optimizer.ascent == "momentum" or self.optimizer.ascent_fraction == 1:
            self.optimizer.step(lambda: self.backward(step))
        else:
            self.optimizer.step(lambda: self.backward(step), ascent_closure=lambda: self.backward(step + 1))

    def everything(self) -> list[torch.Tensor]:
        moments = [v for state in self.optimizer.state.values() for v in state.values()]
        return [t.detach().clone() for t in (*self.model.parameters(), *moments)]


def no_closure(training):
    training.backward()
    training.optimizer.step()


def descend_without_ascend(training):
    training.backward()
    training.optimizer.descend()


def ascend_without_gradients(training):
    training.optimizer.zero_grad()
    training.optimizer.ascend()


def descend_without_gradients(training):
    training.backward()
    training.optimizer.ascend()
    training.optimizer.zero_grad()
    training.optimizer.descend()


def closure_returns_a_loss_only(training):
    def closure():
        training.optimizer.zero_grad()
        return training.loss()

    training.optimizer.step(closure)


def closure_forgets_zero_grad_and_backward(training):
    training.optimizer.zero_grad()
    training.optimizer.step(training.loss)


def second_pass_without_backward(training):
    calls = []

    def closure():
        calls.append(1)
        return training.backward() if len(calls) == 1 else training.loss()

    training.optimizer.step(closure)


def sparse_first_pass(training):
    training.table.sparse = True
    try:
        training.step(0)
    finally:
        training.table.sparse = False


def sparse_second_pass(training):
    calls = []

    def closure():
        calls.append(1)
        training.table.sparse = len(calls) == 2
        return training.backward()

    try:
        training.optimizer.step(closure)
    finally:
        training.table.sparse = False


def sparse_where_no_ascent_is_due(training):
    start, training.optimizer.start = training.optimizer.start, 10**9
    try:
        sparse_first_pass(training)
    finally:
        training.optimizer.start = start


def ascend_twice(training):
    training.backward()
    training.optimizer.ascend()
    try:
        training.optimizer.ascend()
    finally:
        training.optimizer.restore()


def closure_between_ascend_and_descend(training):
    training.backward()
    training.optimizer.ascend()
    try:
        training.step(0)
    finally:
        training.optimizer.restore()


def saved_in_the_midst(training):
    training.backward()
    training.optimizer.ascend()
    try:
        training.optimizer.state_dict()
    finally:
        training.optimizer.restore()


def copied_in_the_midst(training):
    training.backward()
    training.optimizer.ascend()
    try:
        copy.deepcopy(training.optimizer)
    finally:
        training.optimizer.restore()


def pickled_in_the_midst(training):
    training.backward()
    training.optimizer.ascend()
    try:
        pickle.dumps(training.optimizer)
    finally:
        training.optimizer.restore()


def ascent_closure_missing(training):
    training.optimizer.step(training.backward)


def momentum_ascent_after_the_pass(training):
    training.backward()
    training.optimizer.ascend()


def half_precision(training, dtype=torch.float16):
    full = [p.data for p in training.linear.parameters()]
    for p in training.linear.parameters():
        p.grad = None
        p.data = p.data.to(dtype)
    try:
        for p in training.linear.parameters():
            p.grad = torch.ones_like(p)
        training.optimizer.ascend()
    finally:
        for p, data in zip(training.linear.parameters(), full, strict=True):
            p.grad = None
            p.data = data


def bfloat16(training):
    half_precision(training, torch.bfloat16)


# Mistake, options, error, what is wrong, what to do.
MISTAKES: list[tuple[Any, dict[str, Any], type[Exception], str, str]] = [
    (no_closure, {}, RuntimeError, r"step\(\) needs a closure", r"call ascend\(\) before"),
    (descend_without_ascend, {}, RuntimeError, "needs a closure", r"call ascend\(\) before"),
    (ascend_without_gradients, {}, RuntimeError, "No parameter has a gradient to ascend", r"call backward\(\)"),
    (descend_without_gradients, {}, RuntimeError, "No parameter has a gradient to descend", r"call backward\(\)"),
    (closure_returns_a_loss_only, {}, RuntimeError, "No parameter has a gradient to ascend", r"call backward\(\)"),
    (closure_returns_a_loss_only, {"start": 99}, RuntimeError, "No parameter has a gradient", r"call backward\(\)"),
    (
        closure_returns_a_loss_only,
        {"ascent": "momentum"},
        RuntimeError,
        "No parameter has a grad",
        r"call backward\(\)",
    ),
    (closure_forgets_zero_grad_and_backward, {}, RuntimeError, "No parameter has a gradient", r"call backward\(\)"),
    (second_pass_without_backward, {}, RuntimeError, "No parameter has a gradient to desc", r"call backward\(\)"),
    (sparse_first_pass, {}, RuntimeError, "sparse gradient", "sparse=False"),
    (sparse_first_pass, {"ascent_fraction": 0.5}, RuntimeError, "sparse gradient", "sparse=False"),
    (ascend_twice, {}, RuntimeError, "twice in a row", r"descend\(\) or restore\(\)"),
    (closure_between_ascend_and_descend, {}, RuntimeError, "between ascend", r"descend\(\) or restore\(\)"),
    (saved_in_the_midst, {}, RuntimeError, "cannot be saved between", "away from w"),
    (copied_in_the_midst, {}, RuntimeError, "cannot be copied between", "away from w"),
    (pickled_in_the_midst, {}, RuntimeError, "cannot be copied between", "away from w"),
    (ascent_closure_missing, {"ascent_fraction": 0.5}, ValueError, "ascent_fraction is 0.5", r"ascent_closure"),
    (momentum_ascent_after_the_pass, {"ascent": "momentum"}, RuntimeError, "momentum", r"before the forward pass"),
    (half_precision, {}, TypeError, "float16 are too coarse", "keep the weights in float32"),
    (bfloat16, {}, TypeError, "bfloat16 are too coarse", "use torch.autocast"),
]
SPARSE_LATER = [
    (sparse_first_pass, {"centralize": "both", "start": 99}, RuntimeError, "sparse gradient", "sparse=False"),
    (sparse_second_pass, {}, RuntimeError, "sparse gradient", "sparse=False"),
    (sparse_where_no_ascent_is_due, {}, RuntimeError, "sparse gradient", "sparse=False"),
    (sparse_second_pass, {"skip_nonfinite": True}, RuntimeError, "sparse gradient", "sparse=False"),
    (sparse_second_pass, {"make": torch.optim.SGD}, RuntimeError, "sparse gradient", "sparse=False"),
]


def name_of(value: Any) -> str | None:
    return value.__name__ if callable(value) else str(value) if isinstance(value, dict) else ""


def check(mistake, options, error, wrong, remedy):
    training, twin = Training(**options), Training(**options)
    for own in (training, twin):
        own.step(0)
        own.step(1)
    before = training.everything()
    with pytest.raises(error, match=wrong) as caught:
        mistake(training)
    assert re.search(remedy, str(caught.value)), caught.value
    assert str(caught.value).endswith((".", "?"))
    assert all(torch.equal(a, b) for a, b in zip(before, training.everything(), strict=True))
    assert training.optimizer.steps == 2
    for step in (2, 3):
        training.step(step)
        twin.step(step)
    assert all(torch.equal(a, b) for a, b in zip(twin.everything(), training.everything(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(before, training.everything(), strict=True))


@pytest.mark.parametrize(("mistake", "options", "error", "wrong", "remedy"), MISTAKES, ids=name_of)
def test_a_mistake_says_what_is_wrong_and_what_to_do_and_leaves_no_trace(mistake, options, error, wrong, remedy):
    check(mistake, options, error, wrong, remedy)


@pytest.mark.parametrize(("mistake", "options", "error", "wrong", "remedy"), SPARSE_LATER, ids=name_of)
def test_sparse_gradients_after_the_first_pass_are_refused_as_clearly(mistake, options, error, wrong, remedy):
    check(mistake, options, error, wrong, remedy)


def test_gradients_are_on_inside_a_closure_even_where_they_are_off_around_the_step():
    training, twin = Training(), Training()
    with torch.no_grad():
        training.step(0)
        assert not torch.is_grad_enabled()
    twin.step(0)
    assert all(torch.equal(a, b) for a, b in zip(twin.everything(), training.everything(), strict=True))


@pytest.mark.parametrize("failing_call", [1, 2])
@pytest.mark.parametrize("options", [{}, {"ascent": "momentum"}, {"every": 2}], ids=str)
def test_a_closure_that_raises_leaves_no_trace(options, failing_call):
    training, twin, calls = Training(**options), Training(**options), []
    for own in (training, twin):
        own.step(0)
        own.step(1)
    before = training.everything()

    def closure():
        calls.append(1)
        training.backward(5)
        if len(calls) == min(failing_call, 1 if training.optimizer.ascent == "momentum" else 2):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        training.optimizer.step(closure)
    assert all(torch.equal(a, b) for a, b in zip(before, training.everything(), strict=True))
    for own in (training, twin):
        own.step(2)
    assert all(torch.equal(a, b) for a, b in zip(twin.everything(), training.everything(), strict=True))


def test_a_base_that_raises_leaves_the_weights_at_w():
    class Failing(torch.optim.SGD):
        def step(self, closure=None):
            raise ArithmeticError

    training = Training(Failing)
    before = training.everything()
    with pytest.raises(ArithmeticError):
        training.step(0)
    assert all(torch.equal(a, b) for a, b in zip(before, training.everything(), strict=True))
    training.optimizer.state_dict()
