"""What a run does is a job: of classification or of segmentation. What both must be able to do, and which is which."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from medgcsam.config import Config
from medgcsam.journal import Journal
from medgcsam.pipeline.plan import Plan
from medgcsam.run_folder import RunFolder
from medgcsam.training.stepper import Stepper
from medgcsam.training.trainer import Material


class Job(Protocol):
    """Cases, network and loss of a task, and what is written of its result.

    ``config``: the configuration with all numbers that the data decide, ``plan``: which, and why.
    ``cases``: with dataset, table, store, split,
    ``rows`` and ``fingerprints``. ``measure``: what history.jsonl calls ``validation_...``, such as "auroc".
    """

    config: Config
    cases: Any
    plan: Any
    measure: str

    def data_facts(self) -> dict[str, Any]:
        """What provenance.json says of the data besides the data set's own facts."""

    def network(self) -> nn.Module:
        """The untrained network; its weights come from torch's global generator."""

    def batches(self) -> Any:
        """The training batches."""

    def material(self, network: nn.Module, stepper: Stepper, batches: Any) -> Material:
        """What the trainer trains."""

    def probed(self) -> np.ndarray | None:
        """The validation rows that sharpness is measured on; None where it is not."""

    def test(self, run: RunFolder, journal: Journal) -> None:
        """Predict validation and, for the only time, test cases with the selected weights; so does the baseline."""

    def numbers(self, run: RunFolder) -> dict[str, Any]:
        """The part of metrics.json that comes from predictions."""


def open_job(
    config: Config,
    *,
    output: Path,
    cache: Path,
    device: torch.device,
    journal: Journal,
    smoke: bool,
    begun: Plan | None = None,
) -> Job:
    """The job of a configuration, its data read and checked. ``begun``: the plan of a segmentation that goes on.

    Raises:
        MedgcsamError: whatever is wrong with configuration or data; no run has been touched by then.
    """
    if config.task == "segmentation":
        from medgcsam.training.segmentation import Segmentation

        return Segmentation(
            config, output=output, cache=cache, device=device, journal=journal, smoke=smoke, begun=begun
        )
    from medgcsam.training.classification import Classification

    return Classification(config, output=output, cache=cache, device=device, journal=journal, smoke=smoke)
