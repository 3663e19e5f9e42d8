"""A network's probabilities for rows of a store, and the selection score computed from them."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from medgcsam.journal import Advance
from medgcsam.pipeline.batches import Batches
from medgcsam.training.device import autocast, memory_errors
from medgcsam.training.tasks import Loss


def predict_logits(
    network: nn.Module, batches: Batches, *, device: torch.device, precision: str, advance: Advance | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Logits float32 (n, classes) and the store rows (n,) they belong to, in the order of ``batches``.

    The network is put into evaluation mode and left there.
    """
    network.eval()
    logits, rows = [], []
    with torch.inference_mode(), memory_errors("prediction"):
        for done, (images, _, batch_rows) in enumerate(batches.epoch(0), start=1):
            with autocast(device, precision):
                output = network(images)
            logits.append(output.float().cpu())
            rows.append(np.asarray(batch_rows))
            if advance:
                advance(done, len(batches))
    return torch.cat(logits).numpy(), np.concatenate(rows)


def mean_loss(logits: np.ndarray, targets: np.ndarray, loss: Loss, device: torch.device) -> float:
    """The loss over all given cases at once."""
    return float(loss(torch.from_numpy(logits).to(device), torch.from_numpy(targets).to(device)))
