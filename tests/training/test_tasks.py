"""Losses against torch's own, weights against scikit-learn's, and what masked entries do: nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch.nn import functional

from medgcsam.training.tasks import Task, balanced_weights

CPU = torch.device("cpu")
BINARY = Task.of("classification", ("no", "yes"), None)
FINDINGS = Task.of("multilabel", ("a", "b", "c"), None)


def test_kinds() -> None:
    assert (BINARY.kind, BINARY.positive) == ("binary", "yes")
    assert Task.of("classification", ("no", "yes"), "no").positive == "no"
    assert Task.of("classification", ("a", "b", "c"), None).kind == "multiclass"
    assert FINDINGS.outputs == 3


def test_balanced_weights_are_those_of_scikit_learn() -> None:
    labels = np.random.default_rng(0).choice(4, 300, p=[0.6, 0.2, 0.15, 0.05])
    expected = compute_class_weight("balanced", classes=np.arange(4), y=labels)
    assert np.allclose(balanced_weights(labels, 4), expected)
    assert balanced_weights(labels, 5)[4] == 1


def test_the_loss_of_a_batch_is_the_mean_of_the_losses_of_its_parts() -> None:
    labels = np.array([0] * 9 + [1] * 3)
    loss = BINARY.loss(labels, class_weights="balanced", label_smoothing=0.1, device=CPU)
    logits, targets = torch.randn(12, 2), torch.from_numpy(labels)
    parts = [loss(logits[i : i + 4], targets[i : i + 4]) for i in (0, 4, 8)]
    assert torch.allclose(loss(logits, targets), torch.stack(parts).mean())


def test_plain_loss_is_cross_entropy() -> None:
    logits, targets = torch.randn(20, 2), torch.randint(0, 2, (20,))
    loss = BINARY.loss(targets.numpy(), class_weights="none", label_smoothing=0.0, device=CPU)
    assert torch.allclose(loss(logits, targets), functional.cross_entropy(logits, targets))


def test_masked_entries_have_no_part_in_loss_and_gradient() -> None:
    targets = torch.tensor([[1.0, torch.nan, 0.0], [torch.nan] * 3, [0.0, 1.0, torch.nan]])
    loss = FINDINGS.loss(targets.numpy(), class_weights="none", label_smoothing=0.0, device=CPU)
    logits = torch.randn(3, 3, requires_grad=True)
    value = loss(logits, targets)
    value.backward()
    known = ~torch.isnan(targets)
    assert torch.allclose(value, functional.binary_cross_entropy_with_logits(logits[known], targets[known]))
    assert torch.equal(logits.grad != 0, known)
    nothing = loss(logits, torch.full((3, 3), torch.nan))
    assert nothing == 0


def test_positive_weights_are_capped() -> None:
    targets = np.zeros((1000, 2), np.float32)
    targets[0, 0] = 1
    targets[:500, 1] = 1
    assert balanced_weights(targets, 2).tolist() == [20, 1]


@pytest.mark.parametrize("task", [BINARY, FINDINGS])
def test_probabilities(task) -> None:
    values = task.probabilities(torch.randn(5, task.outputs, dtype=torch.bfloat16) * 30)
    assert values.dtype == torch.float32
    assert ((values >= 0) & (values <= 1)).all()
    if task is BINARY:
        assert torch.allclose(values.sum(dim=1), torch.ones(5))
