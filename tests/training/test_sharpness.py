"""Sharpness of every optimizer's training: recorded, measured on fixed validation images, and without a trace."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from medgcsam.errors import Interrupted
from medgcsam.journal import Journal
from medgcsam.run_folder import RunFolder, read_json, read_json_lines
from medgcsam.training import checkpoint, train
from medgcsam.training.sharpness import evenly_spread, validation_sharpness
from medgcsam.training.stepper import Stepper
from medgcsam.training.tasks import Task


def run_of(config, **options) -> RunFolder:
    return RunFolder(train(config, journal=Journal(quiet=True), **options))


def test_probed_images_are_evenly_spread_and_in_order() -> None:
    rows = np.arange(100, 110)
    assert evenly_spread(rows, None) is rows
    assert evenly_spread(rows, 10) is rows
    assert evenly_spread(rows, 5).tolist() == [100, 102, 104, 106, 108]
    for count in range(1, 10):
        chosen = evenly_spread(rows, count)
        assert len(set(chosen)) == count == len(chosen)
        assert list(chosen) == sorted(chosen)


@pytest.mark.parametrize("name", ["adam", "sgd", "sam", "gcsam"])
def test_every_optimizer_records_it(config, name) -> None:
    run = run_of(config((f"optimizer.name={name}", "training.sharpness_radius=0.02", "training.sharpness_images=12")))
    history = read_json_lines(run.history)
    assert all(record["sharpness"] > 0 for record in history)
    assert all(record["sharpness_seconds"] > 0 for record in history)
    metrics = read_json(run.metrics)
    assert metrics["sharpness"]["radius"] == 0.02
    assert metrics["sharpness"]["value"] in [record["sharpness"] for record in history]
    assert metrics["cost"]["seconds"] == pytest.approx(sum(record["seconds"] for record in history), abs=2e-3)


def test_measuring_changes_nothing_else(config) -> None:
    ends = []
    for radius in ("0.05", "null"):
        run = run_of(config((f"training.sharpness_radius={radius}",)), restart=True)
        weights = checkpoint.load(run.best_checkpoint)["network"]
        losses = [(r["train_loss"], r["validation_loss"], r.get("sharpness")) for r in read_json_lines(run.history)]
        ends.append((weights, losses, run.predictions.read_bytes(), read_json(run.metrics)["sharpness"]))
    (measured, with_it, some, value), (plain, without, others, nothing) = ends
    assert [record[:2] for record in with_it] == [record[:2] for record in without]
    assert all(record[2] is None for record in without)
    assert some == others
    assert nothing is None
    assert value["value"] > 0
    assert all(torch.equal(measured[name], plain[name]) for name in plain)


def test_it_is_the_rise_along_the_gradient_of_the_whole_partition() -> None:
    """Two batches of unequal size, BatchNorm and dropout, against autograd on all images at once."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(64, 2)
    )
    network(torch.randn(16, 1, 6, 6))
    images, targets = torch.randn(10, 1, 6, 6), torch.randint(0, 2, (10,))

    class TwoBatches:
        def __init__(self):
            self.targets = targets

        def epoch(self, number):
            yield images[:7], targets[:7], None
            yield images[7:], targets[7:], None

    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = torch.get_rng_state()
    loss = nn.functional.cross_entropy
    rise = validation_sharpness(network.train(), TwoBatches(), loss, radius=0.3, device=torch.device("cpu"))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(p.grad is None for p in network.parameters())
    network.eval().double()
    weights = list(network.parameters())
    here = loss(network(images.double()), targets)
    gradients = torch.autograd.grad(here, weights)
    size = torch.sqrt(sum(g.square().sum() for g in gradients))
    with torch.no_grad():
        for w, g in zip(weights, gradients, strict=True):
            w.add_(0.3 * g / size)
        there = loss(network(images.double()), targets)
    assert rise == pytest.approx((there - here).item(), rel=1e-4)


def test_a_loss_that_is_no_number_has_no_sharpness() -> None:
    network = nn.Linear(2, 2)

    class Bad:
        targets = torch.tensor([0])

        def epoch(self, number):
            yield torch.full((1, 2), torch.nan), torch.tensor([0]), None

    assert (
        validation_sharpness(network, Bad(), nn.functional.cross_entropy, radius=0.1, device=torch.device("cpu"))
        is None
    )


def test_a_resumed_run_records_the_same_sharpness(config, monkeypatch) -> None:
    whole = [record["sharpness"] for record in read_json_lines(run_of(config()).history)]
    original, calls = Stepper.observations, []

    def stop(self):
        calls.append(1)
        if len(calls) == 2:
            raise Interrupted("stopped")
        return original(self)

    monkeypatch.setattr(Stepper, "observations", stop)
    with pytest.raises(Interrupted):
        run_of(config(), restart=True)
    monkeypatch.undo()
    assert [record["sharpness"] for record in read_json_lines(run_of(config()).history)] == whole


def test_unknown_entries_of_findings_weigh_nothing() -> None:
    """Batches with few known entries count by those, so that L is the recorded validation loss."""
    torch.manual_seed(0)
    network, images = nn.Linear(3, 2), torch.randn(6, 3)
    targets = torch.tensor([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0], [torch.nan, 0.0], [torch.nan, torch.nan], [1.0, 0.0]])
    loss = Task.of("multilabel", ("a", "b"), None).loss(
        targets.numpy(), class_weights="none", label_smoothing=0.0, device=torch.device("cpu")
    )

    class Parts:
        def __init__(self, size):
            self.targets, self.size = targets, size

        def epoch(self, number):
            for start in range(0, 6, self.size):
                yield images[start : start + self.size], targets[start : start + self.size], None

    rises = [
        validation_sharpness(network, Parts(size), loss, radius=0.5, device=torch.device("cpu")) for size in (6, 3, 1)
    ]
    assert rises[1:] == pytest.approx([rises[0]] * 2, rel=1e-5)


def test_it_ignores_the_precision_around_it() -> None:
    torch.manual_seed(0)
    network, images, targets = nn.Linear(3, 2), torch.randn(6, 3), torch.randint(0, 2, (6,))
    kinds = []

    class Whole:
        def __init__(self):
            self.targets = targets

        def epoch(self, number):
            yield images, targets, None

    def loss(logits, wanted):
        kinds.append(logits.dtype)
        return nn.functional.cross_entropy(logits, wanted)

    options = {"radius": 0.5, "device": torch.device("cpu")}
    alone = validation_sharpness(network, Whole(), loss, **options)
    before = torch.backends.cudnn.allow_tf32
    with torch.autocast("cpu", torch.bfloat16):
        assert validation_sharpness(network, Whole(), loss, **options) == alone
    assert set(kinds) == {torch.float32}
    assert torch.backends.cudnn.allow_tf32 == before


def test_images_on_record_are_those_measured(config) -> None:
    few = read_json(run_of(config(("training.epochs=1", "training.sharpness_images=5"))).metrics)
    everyone = read_json(run_of(config(("training.epochs=1", "training.sharpness_images=null", "name=all"))).metrics)
    assert few["sharpness"]["images"] == 5
    assert everyone["sharpness"]["images"] == everyone["partitions"]["validation"]["auroc"]["n_images"]
