"""Section `compare`: the settings that a comparison trains, and how often."""

from __future__ import annotations

from pydantic import Field

from medgcsam.config.base import Name, Natural, Positive, Section
from medgcsam.config.optimizer import OptimizerConfig


class CompareConfig(Section):
    """The settings that a comparison trains, and how often; all pairs share their splits and seeds."""

    optimizers: dict[Name, OptimizerConfig] = Field(
        default_factory=dict,
        description="`{setting: keys of the optimizer section that differ}`; a setting called like an optimizer "
        "is that optimizer.",
    )
    seeds: tuple[Natural, ...] = Field((0, 1, 2), min_length=1, description="Training seeds; three are the least.")
    folds: tuple[Natural, ...] | None = Field(
        None, min_length=1, description="Folds to run, such as [0, 1, 2, 3, 4]; empty: only `split.fold`."
    )
    margin: Positive = Field(
        0.01,
        description="Largest difference in AUC or Dice that would not matter; named before the comparison is run.",
    )
