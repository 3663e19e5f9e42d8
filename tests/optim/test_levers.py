"""When the ascent is taken, on what part of the batch, with which random numbers; counters and refusals."""

from __future__ import annotations

from collections import namedtuple
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from medgcsam.optim import GCSAM, SAM, part_of_batch
from medgcsam.optim.levers import ascent_is_due, random_state, replayed

Batch = namedtuple("Batch", ["images", "labels"])


def test_schedule_of_ascents():
    assert [ascent_is_due(step, 0, 1) for step in range(3)] == [True] * 3
    assert [step for step in range(12) if ascent_is_due(step, 4, 3)] == [4, 7, 10]


def test_start_can_be_set_during_training():
    weight = nn.Parameter(torch.ones(2, 3))
    optimizer = GCSAM([weight], torch.optim.SGD, start=10**9, lr=0.1)
    calls = []

    def closure():
        calls.append(1)
        optimizer.zero_grad()
        loss = weight.pow(4).sum() + weight[0, 0]
        loss.backward()
        return loss

    optimizer.step(closure)
    assert (len(calls), optimizer.ascents) == (1, 0)
    optimizer.start = 1
    optimizer.step(closure)
    assert (len(calls), optimizer.ascents, optimizer.gradient_evaluations) == (3, 1, 3)


@pytest.mark.parametrize(("fraction", "expected"), [(0.25, 2), (0.26, 3), (1.0, 8), (0.01, 1), (0.5, 4)])
def test_part_of_batch_in_any_nesting(fraction, expected):
    images, labels = torch.arange(8.0), torch.arange(8)
    batch = {
        "pair": (images, [labels]),
        "named": Batch(images, labels),
        "name": "x",
        "count": 3,
        "scalar": torch.ones(()),
    }
    part = part_of_batch(batch, fraction)
    assert isinstance(part["named"], Batch)
    for tensor in (part["pair"][0], part["pair"][1][0], part["named"].images, part["named"].labels):
        assert tensor.tolist() == list(range(expected))
    assert part["pair"][0].data_ptr() == images.data_ptr()
    assert (part["name"], part["count"], float(part["scalar"])) == ("x", 3, 1.0)
    assert len(part_of_batch(torch.ones(30), 0.1)) == 3  # 0.1 * 30 is a little above 3 in floating point


@dataclass
class Sample:
    images: torch.Tensor
    names: list[str]


def test_arrays_dataclasses_and_lists_of_names_are_cut_too():
    batch = (np.arange(8), Sample(torch.arange(8), list("abcdefgh")))
    numbers, sample = part_of_batch(batch, 0.25)
    assert (numbers.tolist(), sample.images.tolist(), sample.names) == ([0, 1], [0, 1], ["a", "b"])


@pytest.mark.parametrize(
    ("batch", "error", "match"),
    [
        ([torch.ones(3, 8, 8), torch.ones(1, 5)], ValueError, "1 and 3 samples"),
        ((torch.ones(4), object()), TypeError, "object"),
        (nn.utils.rnn.pack_sequence([torch.ones(3), torch.ones(2)]), TypeError, "PackedSequence"),
    ],
    ids=["lengths", "object", "packed"],
)
def test_what_cannot_be_cut_is_refused(batch, error, match):
    with pytest.raises(error, match=match):
        part_of_batch(batch, 0.5)


def test_cost_counts_whole_samples():
    weight = nn.Parameter(torch.ones(3))
    optimizer = SAM([weight], ascent_fraction=0.25, lr=0.1)

    def closure(*micro_batches):
        optimizer.zero_grad()
        loss = sum((images @ weight).square().mean() for images in micro_batches)
        loss.backward()
        return loss

    whole = torch.randn(2, 3), torch.randn(3, 3)
    for _ in range(2):
        optimizer.step(
            lambda: closure(*whole), ascent_closure=lambda: closure(*(optimizer.ascent_part(part) for part in whole))
        )
    assert optimizer.gradient_evaluations == pytest.approx(2 * (1 + 2 / 5))  # one sample of each micro-batch


@pytest.mark.parametrize("fraction", [0, -0.5, 1.5])
def test_impossible_fraction(fraction):
    with pytest.raises(ValueError, match=r"\(0, 1\]"):
        part_of_batch(torch.ones(4), fraction)


def test_ascent_fraction_counts_its_cost_and_wants_its_closure():
    weight = nn.Parameter(torch.ones(3))
    optimizer = SAM([weight], ascent_fraction=0.25, lr=0.1)
    sizes = []

    def closure(images):
        optimizer.zero_grad()
        sizes.append(len(images))
        loss = (images @ weight).square().mean()
        loss.backward()
        return loss

    images = torch.randn(8, 3)
    with pytest.raises(ValueError, match="ascent_closure"):
        optimizer.step(lambda: closure(images))
    optimizer.step(lambda: closure(images), ascent_closure=lambda: closure(optimizer.ascent_part(images)))
    assert sizes == [2, 8]
    assert optimizer.gradient_evaluations == 1.25


@pytest.mark.parametrize("replay", [True, False])
def test_dropout_can_be_replayed_in_the_second_pass(replay):
    torch.manual_seed(0)
    weight, drop, masks = nn.Parameter(torch.ones(64)), nn.Dropout(0.5), []
    optimizer = SAM([weight], replay_random=replay, lr=0.1)

    def closure():
        optimizer.zero_grad()
        dropped = drop(torch.ones(64))
        masks.append(dropped)
        loss = (weight * dropped).square().sum()
        loss.backward()
        return loss

    for _ in range(2):
        optimizer.step(closure)
    assert torch.equal(masks[0], masks[1]) == replay
    assert torch.equal(masks[2], masks[3]) == replay
    assert not torch.equal(masks[0], masks[2])


def test_replaying_leaves_no_trace():
    torch.manual_seed(3)
    state = random_state([torch.device("cpu")])
    first = torch.rand(4)
    with replayed(state):
        again = torch.rand(4)
        torch.rand(100)
    after = torch.rand(4)
    torch.manual_seed(3)
    assert torch.equal(first, again)
    assert torch.equal(torch.cat([first, after]), torch.rand(8))


class Replica(nn.Linear):
    """Stands in for DistributedDataParallel: remembers whether a pass ran under no_sync."""

    synchronized = True

    @contextmanager
    def no_sync(self):
        self.synchronized = False
        try:
            yield
        finally:
            self.synchronized = True


@pytest.mark.parametrize("synchronize", [False, True])
def test_first_pass_of_a_replica_is_local_unless_asked(synchronize):
    model, seen = Replica(3, 1), []
    optimizer = SAM(model.parameters(), synchronize_ascent=synchronize, every=2, lr=0.1)

    def closure():
        optimizer.zero_grad()
        seen.append(model.synchronized)
        loss = model(torch.ones(2, 3)).sum()
        loss.backward()
        seen.append(model.synchronized)
        return loss

    optimizer.step(closure, model=model)
    optimizer.step(closure, model=model)
    assert seen == [synchronize] * 2 + [True] * 4


def test_momentum_ascent_goes_before_the_forward_pass():
    weight = nn.Parameter(torch.tensor([3.0, 4.0]))
    optimizer = SAM([weight], torch.optim.SGD, rho=0.5, ascent="momentum", lr=0.1, momentum=0.9)
    weight.grad = torch.tensor([3.0, 4.0])
    with pytest.raises(RuntimeError, match="before the forward pass"):
        optimizer.ascend()
    optimizer.zero_grad()
    assert optimizer.ascend() is False
    weight.grad = torch.tensor([3.0, 4.0])
    optimizer.descend()  # no momentum yet: a plain step
    torch.testing.assert_close(weight.detach(), torch.tensor([2.7, 3.6]))
    optimizer.zero_grad()
    moment = optimizer.state[weight]["momentum_buffer"].clone()
    optimizer.ascend()
    torch.testing.assert_close(weight.detach(), torch.tensor([2.7 - 0.3, 3.6 - 0.4]))
    assert torch.equal(optimizer.state[weight]["momentum_buffer"], moment)
    optimizer.restore()
    assert (optimizer.ascents, optimizer.gradient_evaluations) == (1, 1)


def test_momentum_ascent_over_a_base_without_momentum_says_so():
    weight = nn.Parameter(torch.ones(2))
    optimizer = SAM([weight], torch.optim.Adagrad, ascent="momentum", lr=0.1)

    def closure():
        optimizer.zero_grad()
        loss = weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    with pytest.raises(RuntimeError, match="Adagrad"):
        optimizer.step(closure)
