"""What is learnt: from labels to targets, from logits to a loss and to probabilities."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Task:
    """A classification task.

    ``kind`` is "binary" or "multiclass" (exactly one class per image; targets int64 (n,), softmax over classes) or
    "multilabel" (any number of classes; targets float32 (n, classes) with NaN where unknown, one sigmoid per class).
    """

    kind: str
    classes: tuple[str, ...]
    positive: str | None = None

    @classmethod
    def of(cls, task: str, classes: tuple[str, ...], positive: str | None) -> Task:
        """The task of a configuration: "classification" with two classes is binary."""
        if task == "multilabel":
            return cls("multilabel", classes)
        if len(classes) == 2:
            return cls("binary", classes, positive or classes[-1])
        return cls("multiclass", classes)

    @property
    def outputs(self) -> int:
        """Number of logits of the network: one per class."""
        return len(self.classes)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Probabilities in float32 of logits (n, classes)."""
        logits = logits.float()
        return torch.sigmoid(logits) if self.kind == "multilabel" else torch.softmax(logits, dim=1)

    def loss(self, targets: np.ndarray, *, class_weights: str, label_smoothing: float, device: torch.device) -> Loss:
        """The training loss, a mean over the images of a batch in float32.

        Cross-entropy, or binary cross-entropy averaged over the known entries for multi-label. ``targets`` are those
        of the training partition: "balanced" weights a class by n / (classes * n_class), or in multi-label the
        positives by negatives / positives, capped at 20 so that a rare finding does not rule the gradient.
        """
        weights = None
        if class_weights == "balanced":
            weights = torch.from_numpy(balanced_weights(targets, self.outputs)).to(device)
        if self.kind == "multilabel":
            return _MaskedBinaryCrossEntropy(weights, label_smoothing)
        # The mean is over images and not over weights (torch's "mean"), so that the gradients of the parts of a batch
        # add up to that of the whole; balanced weights have mean 1 over the training images anyway.
        entropy = nn.CrossEntropyLoss(weight=weights, label_smoothing=label_smoothing, reduction="none")
        return lambda logits, wanted: entropy(logits.float(), wanted).mean()


def terms(targets: Tensor) -> Tensor:
    """How many terms the mean of a loss runs over: images or patches, or the known entries of (n, classes), at least 1.

    Losses of batches, each times its share of all terms, add up to the loss of all cases at once.
    """
    if targets.dim() != 2:
        return torch.tensor(max(1, len(targets)))
    return (~torch.isnan(targets)).sum().clamp(min=1)


class _MaskedBinaryCrossEntropy:
    """Mean binary cross-entropy over the entries of (n, classes) targets that are not NaN; 0 where none is known."""

    def __init__(self, positive_weight: Tensor | None, label_smoothing: float) -> None:
        self.positive_weight = positive_weight
        self.label_smoothing = label_smoothing

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        known = ~torch.isnan(targets)
        wanted = torch.where(known, targets, torch.zeros_like(targets))
        wanted = wanted * (1 - self.label_smoothing) + self.label_smoothing / 2
        losses = functional.binary_cross_entropy_with_logits(
            logits.float(), wanted, pos_weight=self.positive_weight, reduction="none"
        )
        return (losses * known).sum() / known.sum().clamp(min=1)


def balanced_weights(targets: np.ndarray, classes: int) -> np.ndarray:
    """Class weights (classes,) float32 from training targets; see ``Task.loss``. A class without cases weighs 1."""
    if targets.ndim == 1:
        counts = np.bincount(targets, minlength=classes)
        weights = len(targets) / (classes * np.maximum(counts, 1))
        return np.where(counts > 0, weights, 1.0).astype(np.float32)
    positives = np.nansum(targets, axis=0)
    negatives = np.sum(~np.isnan(targets), axis=0) - positives
    weights = np.where(positives > 0, negatives / np.maximum(positives, 1), 1.0)
    return np.clip(weights, 1 / 20, 20).astype(np.float32)
