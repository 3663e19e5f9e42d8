"""The job of classification: from images to probabilities, whatever the number of classes and findings."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import torch
from torch import nn

from medgcsam.config import Config
from medgcsam.journal import Journal
from medgcsam.networks import build_network
from medgcsam.pipeline.augment import Augment
from medgcsam.pipeline.batches import Batches
from medgcsam.pipeline.cases import Cases, prepare_cases
from medgcsam.pipeline.store import Store
from medgcsam.run_folder import RunFolder, read_table, write_table
from medgcsam.scoring import Question, metrics_document, predictions_table
from medgcsam.training import checkpoint
from medgcsam.training.baseline import METHOD, baseline_probabilities
from medgcsam.training.inference import mean_loss, predict_logits
from medgcsam.training.optimizers import check_groups
from medgcsam.training.selection import auroc
from medgcsam.training.sharpness import probed_rows, validation_sharpness
from medgcsam.training.stepper import Stepper
from medgcsam.training.tasks import Loss, Task
from medgcsam.training.trainer import Material


class Classification:
    """Cases, network and loss of a classification, and what is written of its result; see ``jobs.Job``."""

    measure = "auroc"
    plan = None

    def __init__(
        self, config: Config, *, output: Path, cache: Path, device: torch.device, journal: Journal, smoke: bool
    ) -> None:
        check_groups(
            config.optimizer, partial(build_network, config.network, channels=config.image.channels, outputs=2)
        )
        self.config, self.device = config, device
        self.cases: Cases = prepare_cases(config, output=output, cache=cache, journal=journal, smoke=smoke)
        self.task = Task.of(config.task, self.cases.classes, self.cases.positive)

    def data_facts(self) -> dict[str, Any]:
        """What provenance.json says of the data besides the data set's own facts."""
        return {"positive": self.cases.positive, "classes": list(self.cases.classes)}

    def network(self) -> nn.Module:
        """The untrained network; its weights come from torch's global generator."""
        return build_network(self.config.network, channels=self.config.image.channels, outputs=self.task.outputs)

    def batches(self) -> Batches:
        """The training images, augmented."""
        return self._batches(
            self.cases.rows("train"), self.config.training.batch_size, seed=self.config.training.seed,
            augment=Augment(self.config.augment), shuffle=True,
        )  # fmt: skip

    def material(self, network: nn.Module, stepper: Stepper, batches: Batches) -> Material:
        """What the trainer trains."""
        training, cases = self.config.training, self.cases
        loss = self.task.loss(
            cases.targets[cases.rows("train")], class_weights=training.class_weights,
            label_smoothing=training.label_smoothing, device=self.device,
        )  # fmt: skip
        validating = self._batches(cases.rows("validation"), _inference_size(training.batch_size))
        measured = None
        if (rows := self.probed()) is not None:
            # Its pass is in fp32: twice the memory of the passes of training where those are in half precision.
            size = training.batch_size if training.precision == "fp32" else -(-training.batch_size // 2)
            probe = self._batches(rows, size)
            measured = partial(
                validation_sharpness, network, probe, loss, radius=training.sharpness_radius, device=self.device
            )
        validate = partial(self._validate, network, validating, loss)
        return Material(network, stepper, batches, loss, self.device, validate, self.measure, measured)

    def probed(self) -> np.ndarray | None:
        """The validation rows that sharpness is measured on; None where it is not."""
        training = self.config.training
        return probed_rows(self.cases.rows("validation"), training.sharpness_radius, training.sharpness_images)

    def test(self, run: RunFolder, journal: Journal) -> None:
        """Predict validation and, for the only time, test cases with the selected weights; so does the baseline."""
        cases, rows = self.cases, self.cases.rows("validation", "test")
        network = load_selected(run, self.config, self.task, self.device)
        probabilities = predict_store(network, cases.store, rows, cases.targets, self.config, self.task, self.device)
        write_table(run.predictions, self._predictions(rows, probabilities))
        if self.config.evaluation.baseline:
            probabilities = baseline_probabilities(
                cases.store.images, cases.targets, train=cases.rows("train"), validation=cases.rows("validation"),
                classes=self.task.outputs,
            )  # fmt: skip
            write_table(run.baseline, self._predictions(rows, probabilities[rows]))

    def numbers(self, run: RunFolder) -> dict[str, Any]:
        """The part of metrics.json that comes from predictions."""
        return metrics_document(
            read_table(run.predictions),
            question_of(self.task, patients=self.cases.dataset.patients),
            self.config.evaluation,
            baseline=read_table(run.baseline) if self.config.evaluation.baseline else None,
            baseline_method=METHOD,
        )

    def _batches(self, rows: np.ndarray, size: int, **options: Any) -> Batches:
        return Batches(
            self.cases.store, rows, self.cases.targets[rows], batch_size=size, device=self.device,
            memory=self.config.pipeline.memory, **options,
        )  # fmt: skip

    def _validate(self, network: nn.Module, batches: Batches, loss: Loss) -> dict[str, Any]:
        logits, rows = predict_logits(network, batches, device=self.device, precision=self.config.training.precision)
        targets = self.cases.targets[rows]
        probabilities = self.task.probabilities(torch.from_numpy(logits)).numpy()
        return {
            "validation_loss": mean_loss(logits, targets, loss, self.device),
            "validation_auroc": auroc(self.task, targets, probabilities),
        }

    def _predictions(self, rows: np.ndarray, probabilities: np.ndarray) -> pandas.DataFrame:
        return predictions_table(
            self.cases.table.iloc[rows],
            cases=self.cases.names("case", rows),
            patients=self.cases.names("patient", rows),
            partitions=list(self.cases.split.partition.iloc[rows]),
            probabilities=probabilities,
            classes=self.cases.classes,
        )


def question_of(task: Task, *, patients: str) -> Question:
    """The question that predictions answer, for scoring."""
    return Question(task.kind, task.classes, task.positive, patients == "known")


def load_selected(run: RunFolder, config: Config, task: Task, device: torch.device) -> nn.Module:
    """The network of a run with the weights of its selected epoch."""
    network = build_network(config.network, channels=config.image.channels, outputs=task.outputs)
    network.load_state_dict(checkpoint.load(run.best_checkpoint)["network"])
    return network.to(device)


def predict_store(
    network: nn.Module, store: Store, rows: np.ndarray, targets: np.ndarray, config: Config, task: Task,
    device: torch.device,
) -> np.ndarray:  # fmt: skip
    """Probabilities float32 (n, classes) for ``rows`` of a store whose rows have ``targets``."""
    batches = Batches(
        store, rows, targets[rows], batch_size=_inference_size(config.training.batch_size),
        device=device, memory=config.pipeline.memory,
    )  # fmt: skip
    logits, _ = predict_logits(network, batches, device=device, precision=config.training.precision)
    return task.probabilities(torch.from_numpy(logits)).numpy()


def _inference_size(batch_size: int) -> int:
    """Images per batch where no gradient is kept."""
    return max(64, 2 * batch_size)
