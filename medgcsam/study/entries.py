"""One mean with its interval as comparison.json has it, and in words what the interval rests on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from medgcsam.config import Config
from medgcsam.study.grid import Grid
from medgcsam.study.readers import Mean


def entry(
    metric: str, mean: Mean, folds: Sequence[int], grid: Grid, config: Config, *, fixed: bool = False
) -> dict[str, Any]:
    """Value and interval of a metric of one setting; on the log scale for losses, else on the logit scale.

    fixed: of the sanity baseline, in which seeds play no part.
    """
    loss = metric in grid.measures.losses
    limits = mean.interval_of_loss if loss else mean.interval_of_share
    interval = limits(config.evaluation.confidence)
    support = grid.support(metric, folds)
    patients, images = grid.counts(support.heard)
    found = {
        "value": number(mean.value),
        "low": number(interval.low),
        "high": number(interval.high),
        "sd_seeds": number(mean.sd_seeds),
        "n_seeds": mean.seeds,
        "n_patients": patients,
        "n_images": images,
        "method": f"{method(metric, mean, folds, grid, config, fixed=fixed)}; {'log' if loss else 'logit'} scale",
    }
    if support.uneven:
        found["folds"] = support.words()
    return found | ({"reason": interval.reason} if interval.reason else {})


def method(metric: str, mean: Mean, folds: Sequence[int], grid: Grid, config: Config, *, fixed: bool = False) -> str:
    """What the interval rests on, in words."""
    over = grid.support(metric, folds).words()
    bootstrap = f"{grid.measures.bootstrap}, {config.evaluation.replicates} replicates"
    if fixed:
        return f"{over}, no random seed; {bootstrap}, {_distribution(mean)}"
    if mean.seeds == 1:
        basis = f"one seed, {over}; {bootstrap}, {_distribution(mean)}"
        return f"{basis}: patients only, nothing is known about other seeds"
    return (
        f"mean over {mean.seeds} seeds, {over}; seeds as readers (Obuchowski-Rockette), covariance between seeds from "
        f"{bootstrap}; {_distribution(mean, ' (Hillis)')}; training sets held fixed"
    )


def _distribution(mean: Mean, after: str = "") -> str:
    return f"t with {mean.df:.1f} degrees of freedom{after}" if np.isfinite(mean.df) else "normal interval"


def budget(config: Config) -> str:
    """What the settings of this study have in common."""
    return "equal epochs" if config.training.patience is None else "equal largest epochs (early stopping)"


def number(value: Any) -> float | int | None:
    """A number as JSON has it: what is not finite becomes null."""
    return float(value) if np.isfinite(value) else None
