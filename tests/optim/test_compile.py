"""A compiled model: the same losses and weights as in eager mode, and one graph for both passes of all steps."""

from __future__ import annotations

import os
import shutil

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend

from medgcsam.optim import GCSAM, SAM, frozen_statistics

STEPS = 5
INDUCTOR = pytest.param(
    "inductor",
    marks=[
        pytest.mark.slow,
        pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs g++ on a CPU"),
        pytest.mark.skipif("MEDGCSAM_INDUCTOR" not in os.environ, reason="set MEDGCSAM_INDUCTOR=1; 10 to 20 seconds"),
    ],
)


@pytest.fixture(autouse=True)
def own_compiler():
    """No graph of one test counts in another."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.SiLU(), nn.Flatten(), nn.Linear(16, 2))


def batches() -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(STEPS, 8, 1, 4, 4, generator=generator)
    return list(zip(images, torch.randint(0, 2, (STEPS, 8), generator=generator), strict=True))


def train(called: nn.Module, optimizer: GCSAM, data, *, form: str) -> list[float]:
    """Losses of one step per batch; ``called`` is the model, compiled or not."""
    losses = []
    for images, labels in data:

        def closure(images=images, labels=labels):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(called(images), labels)
            loss.backward()
            return loss

        if form == "closure":
            losses.append(optimizer.step(closure, model=called).item())
        else:
            losses.append(closure().item())
            if optimizer.ascend():
                with frozen_statistics(called):
                    closure()
            optimizer.descend()
    return losses


CASES = [
    (GCSAM, {"every": 2}, "closure"),
    (GCSAM, {"start": 2, "adaptive": True, "max_norm": 0.5}, "closure"),
    (GCSAM, {"norm": "raw", "every": 2}, "two steps"),
    (SAM, {"ascent": "momentum"}, "closure"),
    (SAM, {"replay_random": True, "skip_nonfinite": True}, "closure"),
]


@pytest.mark.parametrize("backend", ["aot_eager", INDUCTOR])
@pytest.mark.parametrize(("kind", "options", "form"), CASES, ids=str)
def test_compiled_model_gives_the_losses_of_eager_mode_and_compiles_once(kind, options, form, backend):
    eager, model = network(), network()
    expected = train(eager, kind(eager.parameters(), rho=0.2, lr=0.05, **options), batches(), form=form)
    counter = CompileCounterWithBackend(backend)
    called = torch.compile(model, backend=counter, fullgraph=True)
    optimizer = kind(model.parameters(), rho=0.2, lr=0.05, **options)
    found = train(called, optimizer, batches()[:1], form=form)
    assert counter.frame_count == 1
    with torch._dynamo.config.patch(error_on_recompile=True):
        found += train(called, optimizer, batches()[1:], form=form)
    assert counter.frame_count == 1
    assert found == pytest.approx(expected, rel=1e-5)
    assert len(set(found)) == STEPS
    for (name, ours), theirs in zip(model.state_dict().items(), eager.state_dict().values(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5, msg=name)
    assert int(model[1].num_batches_tracked) == STEPS


def test_the_compiled_graph_reads_the_moved_weights():
    """A graph that had the weights of the first pass inside would give the same gradient twice."""
    model = network()
    called = torch.compile(model, backend="aot_eager", fullgraph=True)
    optimizer, losses = SAM(model.parameters(), torch.optim.SGD, rho=1.0, lr=0.0), []
    images, labels = batches()[0]

    def closure():
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(called(images), labels)
        loss.backward()
        losses.append(loss.item())
        return loss

    optimizer.step(closure, model=called)
    closure()
    assert losses[1] > losses[0] + 1e-3
    assert losses[2] == losses[0]
