"""The plain PyTorch example trains, goes on from a checkpoint, and counts its passes."""

from __future__ import annotations

import argparse
import importlib.util
from types import ModuleType

import pytest
import torch


@pytest.fixture(scope="module")
def example(repository) -> ModuleType:
    file = repository / "docs" / "examples" / "plain_pytorch.py"
    spec = importlib.util.spec_from_file_location("plain_pytorch", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def arguments(**changed) -> argparse.Namespace:
    options = {"form": "closure", "precision": "fp32", "late": 1.0, "device": "cpu", "checkpoints": None, "seed": 0}
    return argparse.Namespace(**{**options, **changed})


def same_weights(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    """Weights and BatchNorm statistics, bit for bit."""
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


@pytest.mark.slow
def test_it_prints_both_optimizers_with_their_cost(example, capsys) -> None:
    results = example.main(["--device", "cpu", "--epochs", "4", "--equal-cost"])
    steps = 19 * 4  # 1200 images in batches of 64
    assert results["gcsam"][1] == results["adamw"][1] == 2 * steps
    assert min(reached for reached, _ in results.values()) > 0.9  # chance is 0.1
    printed = capsys.readouterr().out
    assert "adamw" in printed
    assert "152" in printed


def test_both_forms_give_the_same_weights(example) -> None:
    closure, _, passes = example.train("gcsam", arguments(), 2)
    two_steps, _, passes_too = example.train("gcsam", arguments(form="two-steps"), 2)
    assert same_weights(closure, two_steps)
    assert passes == passes_too == 2 * 38


def test_late_ascent_costs_what_it_says(example) -> None:
    _, _, passes = example.train("gcsam", arguments(late=0.5), 2)
    assert passes == 38 + 19


@pytest.mark.parametrize("name", ["gcsam", "adamw"])
@pytest.mark.parametrize("form", ["closure", "two-steps"])
def test_an_interrupted_run_goes_on_to_the_same_weights(example, name, form, tmp_path, monkeypatch) -> None:
    through, _, passes = example.train(name, arguments(form=form), 3)
    folder = arguments(form=form, checkpoints=tmp_path)
    save, calls = example.save, []

    def save_and_stop(*all_of_it) -> None:
        save(*all_of_it)
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(example, "save", save_and_stop)
    with pytest.raises(KeyboardInterrupt):
        example.train(name, folder, 3)
    resumed, _, passes_too = example.train(name, folder, 3)
    assert len(calls) == 3  # the second run trained one epoch
    assert same_weights(through, resumed)
    assert passes == passes_too


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("form", ["closure", "two-steps"])
def test_mixed_precision_stays_near_float32(example, precision, form) -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    plain, _, _ = example.train("gcsam", arguments(device=device), 1)
    mixed, reached, passes = example.train("gcsam", arguments(precision=precision, form=form, device=device), 1)
    assert reached > 0.6
    assert passes == 38
    weights = [torch.cat([p.detach().flatten() for p in model.parameters()]) for model in (plain, mixed)]
    assert 0 < (weights[0] - weights[1]).norm() / weights[0].norm() < 0.05


def test_no_batch_is_counted_twice(example) -> None:
    model, _, _ = example.train("gcsam", arguments(), 1)
    assert int(model[1].num_batches_tracked) == 19
