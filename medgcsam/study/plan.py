"""The runs of a study: every setting with every seed on every fold, each a configuration of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from medgcsam.config import Config, OptimizerConfig
from medgcsam.config.optimizer import effective
from medgcsam.errors import ConfigError
from medgcsam.run_folder import RunFolder

BASELINE = "baseline"
"""What comparison.json calls the sanity baseline; no setting may be called so."""


@dataclass(frozen=True)
class PlannedRun:
    """One run of a study; its configuration says everything."""

    config: Config

    @property
    def setting(self) -> str:
        """Name of the optimizer setting."""
        return self.config.setting

    @property
    def seed(self) -> int:
        """Training seed."""
        return self.config.training.seed

    @property
    def fold(self) -> int:
        """Fold that is tested on."""
        return self.config.split.fold

    @property
    def folder(self) -> RunFolder:
        """Where the run lies once it has begun."""
        return RunFolder.of(Path(self.config.output.folder), self.config.name, self.setting, self.seed, self.fold)

    def __str__(self) -> str:
        return f"{self.setting}, seed {self.seed}, fold {self.fold}"


def plan_runs(config: Config, *, smoke: bool = False) -> list[PlannedRun]:
    """All runs of the study, seed by seed and fold by fold, so that what is finished early can already be paired.

    ``smoke`` plans every setting once, with the first seed on the first fold.

    Raises:
        ConfigError: there are fewer than two settings, or one has a name that is taken.
    """
    settings = optimizer_settings(config)
    if len(settings) < 2:
        raise ConfigError(
            f"compare.optimizers: a comparison needs two settings or more, but there is only {', '.join(settings)}; "
            "name another, such as `sam: {}`, or delete the key to compare adam, sam and gcsam."
        )
    if BASELINE in settings:
        raise ConfigError(
            f"compare.optimizers.{BASELINE}: this name is taken by the sanity baseline; call the setting otherwise."
        )
    seeds = config.compare.seeds
    folds = (config.split.fold,) if config.compare.folds is None else config.compare.folds
    if smoke:
        seeds, folds = seeds[:1], folds[:1]
    return [
        PlannedRun(_one(config, optimizer, seed, fold))
        for seed in seeds
        for fold in folds
        for optimizer in settings.values()
    ]


def optimizer_settings(config: Config) -> Mapping[str, OptimizerConfig]:
    """The settings of `compare.optimizers` by name; where it is empty, the base alone, and SAM and GCSAM over it.

    The base is that of the optimizer section. Adam and AdamW alone are called `adam`, others by their own name.
    """
    if config.compare.optimizers:
        return config.compare.optimizers
    optimizer = config.optimizer
    base = optimizer.base_name
    plain = "adam" if base == "adamw" else base
    return {
        plain: _derived(optimizer, base, base, plain),
        "sam": _derived(optimizer, "sam", base, "sam"),
        "gcsam": _derived(optimizer, "gcsam", base, "gcsam"),
    }


def _derived(optimizer: OptimizerConfig, name: str, base: str, setting: str) -> OptimizerConfig:
    changed = {"name": name, "base": base, "setting": setting}
    return effective(OptimizerConfig.model_validate(optimizer.model_dump() | changed))


def _one(config: Config, optimizer: OptimizerConfig, seed: int, fold: int) -> Config:
    return config.model_copy(
        update={
            "optimizer": optimizer,
            "training": config.training.model_copy(update={"seed": seed}),
            "split": config.split.model_copy(update={"fold": fold}),
        }
    )
