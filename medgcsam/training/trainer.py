"""The training loop: epochs of optimizer steps, validation, selection of the best epoch, checkpoints, resume."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from medgcsam.config import TrainingConfig
from medgcsam.errors import ConfigError, DataError, Interrupted
from medgcsam.journal import Journal, stopwatch
from medgcsam.run_folder import RunFolder, write_json_lines
from medgcsam.training import checkpoint
from medgcsam.training.device import memory_errors
from medgcsam.training.signals import StopSignal
from medgcsam.training.stepper import Stepper
from medgcsam.training.tasks import Loss

_EPOCH_SEED_STRIDE = 1_000_003
_SHOWN_AS = {"auroc": "AUROC", "dice": "Dice"}
_WITHOUT_SCORE = {
    "auroc": "no class has both positive and negative images",
    "dice": "no validation image holds any structure",
}


@dataclass
class Progress:
    """How far training has come; everything here is in the checkpoint."""

    epoch: int = 0
    best_epoch: int = 0
    best_score: float = -math.inf
    history: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Material:
    """What a training is made of."""

    network: nn.Module
    stepper: Stepper
    train: Any
    """Batches with a length and ``epoch(number)``."""
    loss: Loss
    device: torch.device
    validate: Callable[[], dict[str, Any]]
    """Gives what an epoch's record says of the validation cases: validation_loss and validation_MEASURE, or None."""
    measure: str = "auroc"
    sharpness: Callable[[], float | None] | None = None
    """None where it is not measured."""


class Trainer:
    """Trains ``material.network`` in place; ``fit`` returns how it went."""

    def __init__(self, material: Material, config: TrainingConfig, run: RunFolder, journal: Journal) -> None:
        self.material = material
        self.config = config
        self.run = run
        self.journal = journal
        self.progress = Progress()

    def fit(self) -> Progress:
        """Train from what ``take_up`` found, or from the start, to the last epoch or to early stopping.

        Raises:
            Interrupted: a signal came; the last checkpoint is that of the last finished epoch.
            ConfigError: the loss is no longer a number.
            MachineError: out of memory, or a checkpoint cannot be written.
        """
        if self.run.last_checkpoint.is_file():
            write_json_lines(self.run.history, self.progress.history)
        else:
            self._save()
        if self.progress.epoch:
            self.journal.say(f"Going on after epoch {self.progress.epoch} of {self.config.epochs}.")
        with StopSignal() as stop:
            while self.progress.epoch < self.config.epochs and not self._patience_is_over():
                self._epoch(self.progress.epoch + 1, stop)
        return self.progress

    def take_up(self) -> None:
        """Bring network, optimizer and progress to the last checkpoint; writes nothing.

        Raises:
            DataError: it is damaged, or of another network.
        """
        content = checkpoint.load(self.run.last_checkpoint, self.material.device)
        try:
            self.material.network.load_state_dict(content["network"])
            self.material.stepper.load_state_dict(content["stepper"])
            self.progress = Progress(**content["progress"])
        except (KeyError, TypeError, RuntimeError, ValueError) as error:
            raise DataError(
                f"{self.run.last_checkpoint}: it does not fit the configuration; begin anew with --restart."
            ) from error

    def _patience_is_over(self) -> bool:
        waited = self.progress.epoch - self.progress.best_epoch
        return self.config.patience is not None and self.progress.best_epoch > 0 and waited >= self.config.patience

    def _epoch(self, number: int, stop: StopSignal) -> None:
        with stopwatch() as seconds:
            record: dict[str, Any] = {"epoch": number, "lr": self.material.stepper.learning_rate}
            record |= self._train(number, stop)
            record |= self.material.validate()
            record["seconds"] = round(seconds(), 3)
        record |= self._sharpness()
        score = -record["validation_loss"] if self.config.select == "loss" else record[f"validation_{self._measure}"]
        if score is None:
            raise DataError(
                f"validation: {_WITHOUT_SCORE[self._measure]}; begin anew with training.select=loss and --restart."
            )
        record["best"] = score > self.progress.best_score
        self.progress.epoch = number
        self.progress.history.append(record)
        if record["best"]:
            self.progress.best_epoch, self.progress.best_score = number, score
            checkpoint.save(self.run.best_checkpoint, {"epoch": number, "network": self.material.network.state_dict()})
        self._save()
        write_json_lines(self.run.history, self.progress.history)
        self.journal.say(_epoch_line(record, self.config.epochs, self._measure))

    def _train(self, number: int, stop: StopSignal) -> dict[str, Any]:
        material = self.material
        material.network.train()
        torch.manual_seed(self.config.seed * _EPOCH_SEED_STRIDE + number)  # dropout: the same after a resume
        material.stepper.begin_epoch()
        total = torch.zeros((), device=material.device)
        images = 0
        steps = math.ceil(len(material.train) / self.config.accumulate)
        with self.journal.bar(f"epoch {number}/{self.config.epochs}") as advance, memory_errors(f"epoch {number}"):
            for done, group in enumerate(_grouped(material.train.epoch(number), self.config.accumulate), start=1):
                count = sum(len(batch[0]) for batch in group)
                total += material.stepper.step(material.network, material.loss, group) * count
                images += count
                advance(done, steps)
                if stop.name:
                    raise self._interrupted(stop.name)
        mean = float(total) / images
        if not math.isfinite(mean):
            raise ConfigError(
                f"epoch {number}: the training loss is no longer a number; lower optimizer.lr (now "
                f"{material.stepper.config.lr:g}), or set training.precision=fp32 if it was not."
            )
        return {"train_loss": mean} | material.stepper.observations()

    @property
    def _measure(self) -> str:
        return self.material.measure

    def _sharpness(self) -> dict[str, Any]:
        """Beside the epoch's seconds, which are those of training and validation alone."""
        if self.material.sharpness is None:
            return {}
        with stopwatch() as seconds:
            rise = self.material.sharpness()
            return {"sharpness": rise, "sharpness_seconds": round(seconds(), 3)}

    def _save(self) -> None:
        content = {
            "network": self.material.network.state_dict(),
            "stepper": self.material.stepper.state_dict(),
            "progress": vars(self.progress),
        }
        checkpoint.save(self.run.last_checkpoint, content)

    def _interrupted(self, signal: str) -> Interrupted:
        done = self.progress.epoch
        kept = f"epoch {done} of {self.config.epochs} is saved" if done else "no epoch was finished yet"
        return Interrupted(f"Stopped by {signal}: {kept}; run the same command again to go on.")


def _grouped(batches: Iterator[tuple], size: int) -> Iterator[list[tuple]]:
    """Lists of ``size`` consecutive batches; the last may be shorter."""
    group: list[tuple] = []
    for batch in batches:
        group.append(batch)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def _epoch_line(record: dict[str, Any], epochs: int, measure: str) -> str:
    value = record[f"validation_{measure}"]
    score = f"{_SHOWN_AS[measure]} {'   -  ' if value is None else f'{value:.4f}'}"
    return (
        f"epoch {record['epoch']:>{len(str(epochs))}}/{epochs}  loss {record['train_loss']:.4f}  "
        f"validation loss {record['validation_loss']:.4f}  {score}  "
        f"passes/step {record['passes_per_step']:.2f}  {record['seconds']:5.1f} s{'  best' if record['best'] else ''}"
    )
