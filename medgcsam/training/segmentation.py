"""The job of segmentation: from pictures or volumes to the outlines of structures on the grid of each file."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from medgcsam.config import Config
from medgcsam.journal import Journal
from medgcsam.networks import build_segmentation_network
from medgcsam.pipeline.augment_patches import AugmentPatches
from medgcsam.pipeline.patches import PatchBatches
from medgcsam.pipeline.plan import Plan, stages_of
from medgcsam.pipeline.segmentation_cases import SegmentationCases, prepare_segmentation
from medgcsam.run_folder import RunFolder, read_json, read_table
from medgcsam.scoring_segmentation import segmentation_document
from medgcsam.training import checkpoint
from medgcsam.training.device import autocast, memory_errors
from medgcsam.training.losses import SegmentationLoss
from medgcsam.training.optimizers import check_groups
from medgcsam.training.segmented import segment_partitions
from medgcsam.training.sharpness import probed_rows, validation_sharpness
from medgcsam.training.sliding_window import sliding_window
from medgcsam.training.stepper import Stepper
from medgcsam.training.tasks import Loss
from medgcsam.training.trainer import Material

VALIDATION_OVERLAP = 0.25
"""Of windows after each epoch, when only a comparison of epochs is wanted."""


class Segmentation:
    """Cases, network and loss of a segmentation, and what is written of its result; see ``jobs.Job``.

    ``config`` is the planned one: numbers in place of ``auto``.
    """

    measure = "dice"
    baseline_method = ""

    def __init__(
        self,
        config: Config,
        *,
        output: Path,
        cache: Path,
        device: torch.device,
        journal: Journal,
        smoke: bool,
        begun: Plan | None = None,
    ) -> None:
        self.cases: SegmentationCases = prepare_segmentation(
            config, output=output, cache=cache, journal=journal, smoke=smoke, begun=begun, accept=_check_network
        )
        self.config, self.plan, self.device = self.cases.config, self.cases.plan, device

    @property
    def outputs(self) -> int:
        """Channels of the network's output."""
        return outputs_of(self.cases.structures, overlapping=self.cases.overlapping)

    def data_facts(self) -> dict[str, Any]:
        """What provenance.json says of the data besides the data set's own facts."""
        return {"structures": list(self.cases.structures), "overlapping": self.cases.overlapping}

    def network(self) -> nn.Module:
        """The untrained network; its weights come from torch's global generator."""
        return network_of(self.config, outputs=self.outputs)

    def batches(self) -> PatchBatches:
        """Patches of the training images, augmented."""
        config = self.config
        augment = AugmentPatches(config.augment, patch=config.patches.size, spacing=config.image.spacing)
        return self._patches(
            self.cases.rows("train"), config.training.batch_size, per_image=config.patches.per_image, augment=augment,
            shuffle=True,
        )  # fmt: skip

    def material(self, network: nn.Module, stepper: Stepper, batches: PatchBatches) -> Material:
        """What the trainer trains."""
        training, rows = self.config.training, self.cases.rows("validation")
        loss = SegmentationLoss(
            training.loss, overlapping=self.cases.overlapping, deep_supervision=self.config.network.deep_supervision
        )
        fixed = self._patches(rows, training.batch_size, per_image=1, shuffle=False)
        measured = None
        if (probed := self.probed()) is not None:
            probe = self._patches(probed, training.batch_size, per_image=1, shuffle=False)
            measured = partial(
                validation_sharpness, network, probe, loss, radius=training.sharpness_radius, device=self.device,
                total=len(probed),
            )  # fmt: skip
        validate = partial(self._validate, network, fixed, loss, rows)
        return Material(network, stepper, batches, loss, self.device, validate, self.measure, measured)

    def probed(self) -> np.ndarray | None:
        """The validation rows that sharpness is measured on, one patch of each; None where it is not."""
        training = self.config.training
        return probed_rows(self.cases.rows("validation"), training.sharpness_radius, training.sharpness_images)

    def test(self, run: RunFolder, journal: Journal) -> None:
        """Segment validation and, for the only time, test cases with the selected weights; so does the baseline."""
        network = self.network()
        network.load_state_dict(checkpoint.load(run.best_checkpoint)["network"])
        self.baseline_method = segment_partitions(
            self.cases, network.to(self.device), run, device=self.device, journal=journal
        )

    def numbers(self, run: RunFolder) -> dict[str, Any]:
        """The part of metrics.json that comes from cases.csv."""
        baseline = read_table(run.baseline) if self.config.evaluation.baseline else None
        return segmentation_document(
            read_table(run.cases),
            self.config.evaluation,
            structures=self.cases.structures,
            patients_known=self.cases.dataset.patients == "known",
            baseline=baseline,
            baseline_method=self.baseline_method,
        ) | {"components": read_json(run.components)}

    def _patches(self, rows: np.ndarray, size: int, *, per_image: int, **options: Any) -> PatchBatches:
        config, cases = self.config, self.cases
        return PatchBatches(
            cases.store, rows, patch=config.patches.size, batch_size=size, per_image=per_image,
            structures=cases.structures, overlapping=cases.overlapping, foreground=config.patches.foreground,
            device=self.device, seed=config.training.seed, memory=config.pipeline.memory, **options,
        )  # fmt: skip

    def _validate(self, network: nn.Module, fixed: PatchBatches, loss: Loss, rows: np.ndarray) -> dict[str, Any]:
        network.eval()
        return {
            "validation_loss": self._mean_loss(network, fixed, loss),
            "validation_dice": self._mean_dice(network, rows),
        }

    def _mean_loss(self, network: nn.Module, fixed: PatchBatches, loss: Loss) -> float:
        """Over one patch of each validation image, the same after every epoch."""
        total, count = 0.0, 0
        with torch.inference_mode(), memory_errors("validation"):
            for images, targets, _ in fixed.epoch(0):
                with autocast(self.device, self.config.training.precision):
                    logits = network(images)
                total += float(loss(logits, targets)) * len(images)
                count += len(images)
        return total / count

    def _mean_dice(self, network: nn.Module, rows: np.ndarray) -> float | None:
        """Mean over structures of the mean over patients of Dice on the network's grid; None where none is there."""
        patients = self.cases.table["patient_id"].to_numpy()
        found: list[dict[str, list[float]]] = [{} for _ in self.cases.structures]
        for row in rows:
            probabilities = sliding_window(
                [network], self.cases.store.image(row), patch=self.config.patches.size, overlap=VALIDATION_OVERLAP,
                outputs=self.outputs, device=self.device, precision=self.config.training.precision,
                overlapping=self.cases.overlapping, intensity=self.cases.store.intensity,
            )  # fmt: skip
            label = self.cases.store.label(row)
            for number, (predicted, reference) in enumerate(self._pairs(probabilities, label)):
                if size := int(reference.sum()):
                    dice = 2 * int((predicted & reference).sum()) / (size + int(predicted.sum()))
                    found[number].setdefault(patients[row], []).append(dice)
        means = [np.mean([np.mean(values) for values in each.values()]) for each in found if each]
        return float(np.mean(means)) if means else None

    def _pairs(self, probabilities: np.ndarray, label: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """Predicted and reference voxels (bool) of each structure."""
        if self.cases.overlapping:
            return [(channel > 0.5, truth > 0) for channel, truth in zip(probabilities, label, strict=True)]
        numbers = probabilities.argmax(0)
        return [(numbers == k, label[0] == k) for k in range(1, self.outputs)]


def outputs_of(structures: Sequence[str], *, overlapping: bool) -> int:
    """Channels of a network's output: one per structure, and one for the background unless they overlap."""
    return len(structures) + (not overlapping)


def _check_network(config: Config, structures: Sequence[str]) -> None:
    """Raise ConfigError for a network that cannot be built, or of which the groups of the optimizer name nothing."""
    network = network_of(config, outputs=outputs_of(structures, overlapping=config.data.overlapping))
    check_groups(config.optimizer, lambda: network)


def network_of(config: Config, *, outputs: int) -> nn.Module:
    """The untrained segmentation network of a planned configuration."""
    found = stages_of(config)
    return build_segmentation_network(
        config.network,
        dimensions=config.image.dimensions,
        channels=config.image.channels,
        outputs=outputs,
        patch=config.patches.size,
        kernels=[kernel for kernel, _ in found],
        strides=[stride for _, stride in found],
    )
