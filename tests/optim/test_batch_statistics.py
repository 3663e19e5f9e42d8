"""BatchNorm counts the pass at w, once, and no buffer remembers the pass at w + e."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from medgcsam.optim import GCSAM, SAM, frozen_statistics


def network(**norm_options) -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3, **norm_options), nn.Flatten(), nn.Linear(48, 2))
    model[3] = nn.utils.parametrizations.spectral_norm(model[3])
    return model


def buffers(model):
    return {name: b.clone() for name, b in model.named_buffers()}


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("form", ["closure", "two steps"])
def test_buffers_after_a_step_are_those_of_one_plain_forward_at_w(form, momentum):
    model = network(momentum=momentum)
    twin = copy.deepcopy(model)
    optimizer = SAM(model.parameters(), torch.optim.SGD, rho=1.0, lr=0.1)
    images = torch.randn(5, 1, 6, 6)

    def closure():
        optimizer.zero_grad()
        loss = model(images).square().mean()
        loss.backward()
        return loss

    twin(images)
    if form == "closure":
        optimizer.step(closure, model=model)
    else:
        closure()
        optimizer.ascend()
        with frozen_statistics(model):
            closure()
        optimizer.descend()
    assert int(model[1].num_batches_tracked) == 1
    expected = buffers(twin)
    assert all(torch.equal(b, expected[name]) for name, b in buffers(model).items())


def test_without_the_model_the_second_pass_is_counted():
    model = network()
    optimizer = SAM(model.parameters(), torch.optim.SGD, rho=1.0, lr=0.1)
    images = torch.randn(5, 1, 6, 6)

    def closure():
        optimizer.zero_grad()
        loss = model(images).square().mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    assert int(model[1].num_batches_tracked) == 2


def test_block_gives_training_outputs_and_undoes_nan_and_exceptions():
    model = network()
    images = torch.randn(5, 1, 6, 6)
    expected = copy.deepcopy(model)(images)
    before = buffers(model)
    with frozen_statistics(model):
        torch.testing.assert_close(model(images), expected)

    def failing_pass():
        with frozen_statistics(model):
            model(images * torch.nan)
            raise KeyError

    with pytest.raises(KeyError):
        failing_pass()
    assert all(torch.equal(b, before[name]) for name, b in buffers(model).items())


def test_a_buffer_that_is_replaced_and_not_written_is_given_back_too():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("passes", torch.zeros(()))

        def forward(self, images):
            self.passes = self.passes + 1
            return images

    model = nn.Sequential(nn.Linear(2, 2), Counting())
    optimizer = GCSAM(model.parameters(), lr=0.1)
    kept = model[1].passes

    def closure():
        optimizer.zero_grad()
        loss = model(torch.ones(1, 2)).square().sum()
        loss.backward()
        return loss

    with frozen_statistics(model):
        model(torch.ones(1, 2))
    assert model[1].passes is kept
    optimizer.step(closure, model=model)
    assert float(model[1].passes) == 1


def test_layers_in_evaluation_mode_and_no_model_cost_nothing():
    model = network().eval()
    with frozen_statistics(model):
        model[1].running_mean.add_(1)  # what someone does on purpose to a layer that is not training is not undone
    assert model[1].running_mean.eq(1).all()
    with frozen_statistics(None):
        pass
