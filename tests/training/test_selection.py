"""The validation AUROC is scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from medgcsam.training.selection import auroc
from medgcsam.training.tasks import Task


def test_binary_and_multiclass() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 200)
    scores = rng.dirichlet(np.ones(3), 200).round(1)
    assert auroc(Task.of("classification", ("a", "b", "c"), None), labels, scores) == pytest.approx(
        np.mean([roc_auc_score(labels == k, scores[:, k]) for k in range(3)])
    )
    task = Task.of("classification", ("a", "b"), "a")
    assert auroc(task, labels % 2, scores[:, :2]) == pytest.approx(roc_auc_score(labels % 2 == 0, scores[:, 0]))


def test_multilabel_leaves_unknown_and_one_sided_classes_out() -> None:
    rng = np.random.default_rng(1)
    targets = rng.integers(0, 2, (100, 3)).astype(np.float32)
    targets[rng.random((100, 3)) < 0.3] = np.nan
    targets[:, 2] = np.nan_to_num(targets[:, 2]) * 0
    scores = rng.random((100, 3))
    task = Task.of("multilabel", ("a", "b", "c"), None)
    known = ~np.isnan(targets)
    expected = [roc_auc_score(targets[known[:, k], k], scores[known[:, k], k]) for k in range(2)]
    assert auroc(task, targets, scores) == pytest.approx(np.mean(expected))
    assert auroc(task, np.full((4, 3), np.nan), np.ones((4, 3))) is None
