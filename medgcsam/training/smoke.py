"""The trial of a configuration: one epoch on few cases, under a name of its own."""

from __future__ import annotations

from medgcsam.config import Config


def smoke_config(config: Config) -> Config:
    """``config`` for a trial run: everything that a full run does, once, with numbers that mean nothing."""
    training = config.training.model_copy(update={"epochs": 1, "patience": None, "select": "loss"})
    evaluation = config.evaluation.model_copy(update={"replicates": 100})
    optimizer = config.optimizer.model_copy(update={"start": 0.0})
    schedule = config.schedule.model_copy(update={"warmup_epochs": min(1.0, config.schedule.warmup_epochs)})
    changed = {"training": training, "evaluation": evaluation, "optimizer": optimizer, "schedule": schedule}
    return config.model_copy(update={"name": f"{config.name}-smoke", **changed})
