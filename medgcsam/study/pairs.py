"""The pairs of a comparison: every two settings, and every setting and the sanity baseline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from medgcsam.config import Config
from medgcsam.evaluation.intervals import Interval
from medgcsam.study.entries import budget, method, number
from medgcsam.study.grid import Grid
from medgcsam.study.plan import BASELINE, optimizer_settings
from medgcsam.study.readers import Mean
from medgcsam.study.verdict import UNTESTED, beyond_sentence, holm, verdict, verdict_sentence

PRIMARY = (("gcsam", "adam"), ("gcsam", "sam"))
"""The primary family, on the primary metric; all other pairs and metrics are exploratory."""


def setting_pairs(grid: Grid, config: Config, margins: Sequence[float]) -> list[dict[str, Any]]:
    """Every pair of settings with every metric; the primary family first.

    margins: `compare.margin` as it was when runs began; a verdict says where it was changed since.
    """
    # Also settings whose runs all failed: a family does not shrink after the fact.
    order = list(optimizer_settings(config))
    found = [(later, earlier) for k, earlier in enumerate(order) for later in order[k + 1 :]]
    # gcsam is always the one that has to prove itself.
    found = [(b, a) if b == "gcsam" else (a, b) for a, b in found]
    found.sort(key=lambda pair: PRIMARY.index(pair) if pair in PRIMARY else len(PRIMARY))
    numbers = {pair: grid.block(*pair) for pair in found}
    means = {
        (pair, metric): grid.mean_difference(*pair, metric, *numbers[pair])
        for pair in found
        for metric in grid.metrics
        if numbers[pair][0]
    }
    family = [pair for pair in PRIMARY if pair in found]
    p_values = [_p_value(means.get((pair, grid.measures.primary))) for pair in family]
    adjusted = dict(zip(family, holm(p_values), strict=True))
    return [
        _pair(pair, metric, means.get((pair, metric)), adjusted, numbers[pair], grid, config, margins)
        for metric in grid.metrics
        for pair in found
    ]


def baseline_pairs(grid: Grid, config: Config, margins: Sequence[float]) -> list[dict[str, Any]]:
    """Every setting minus the sanity baseline on the primary metric, exploratory; none where a fold has no baseline."""
    metric, pairs = grid.measures.primary, []
    for name in grid.settings:
        block = seeds, folds = grid.block(name)
        if any(fold not in grid.baseline for fold in folds):
            return []
        mean = grid.beyond_baseline(name, metric, seeds, folds) if seeds else None
        pairs.append(_pair((name, BASELINE), metric, mean, {}, block, grid, config, margins))
    return pairs


def _p_value(mean: Mean | None) -> float:
    """A single seed says nothing about training again, so it is no test of two ways to train."""
    return mean.p_value() if mean is not None and mean.seeds > 1 else np.nan


def _pair(
    pair: tuple[str, str],
    metric: str,
    mean: Mean | None,
    adjusted: dict[tuple[str, str], float],
    block: tuple[list[int], list[int]],
    grid: Grid,
    config: Config,
    margins: Sequence[float],
) -> dict[str, Any]:
    primary = pair in adjusted and metric == grid.measures.primary
    family = "primary" if primary else "exploratory"
    head: dict[str, Any] = {"a": pair[0], "b": pair[1], "metric": metric, "family": family}
    if mean is None:
        none = dict.fromkeys(("difference", "low", "high", "p", "p_holm"))
        whom = "this setting" if pair[1] == BASELINE else "both settings"
        reason = f"no seed finished on all folds for {whom}"
        text = f"inconclusive: {reason}"
        return head | none | {"verdict": "inconclusive", "text": text, "method": "none", "reason": reason}
    confidence = config.evaluation.confidence
    alpha = 1 - confidence
    p, p_holm = _p_value(mean), adjusted[pair] if primary else np.nan
    margin = config.compare.margin if metric == grid.measures.primary else None
    interval, inner = mean.interval(confidence), mean.interval(1 - 2 * alpha)
    less = metric in grid.measures.losses
    word = verdict(mean.value, p_holm if primary else p, inner, alpha=alpha, margin=margin, less_is_better=less)
    told = _told(pair, word if mean.seeds > 1 else UNTESTED, block, grid, config, margin)
    if mean.seeds == 1 and np.isfinite(interval.low):
        told["text"] += " (the interval is of patients only)"
    if margin is not None and any(before != margin for before in margins):
        told["text"] += " (the margin was changed after the runs began)"
    paired = "fold" if pair[1] == BASELINE else "seed and fold"
    found = head | {
        "difference": number(mean.value),
        "low": number(interval.low),
        "high": number(interval.high),
        "p": number(p),
        "p_holm": number(p_holm),
        "verdict": word,
        "text": told.pop("text"),
        "equivalence": _equivalence(inner, alpha, margin),
        "n_seeds": mean.seeds,
        "sd_seeds": number(mean.sd_seeds),
        **told,
        "method": f"{method(metric, mean, block[1], grid, config)}; paired by patient within {paired}"
        + ("; Holm over the primary family" if primary else "; exploratory, not corrected for many comparisons"),
    }
    reason = interval.reason or ("one seed is no test of two ways to train" if mean.seeds == 1 else "")
    return found | ({"reason": reason} if reason else {})


def _told(
    pair: tuple[str, str],
    word: str,
    block: tuple[list[int], list[int]],
    grid: Grid,
    config: Config,
    margin: float | None,
) -> dict[str, Any]:
    """The verdict in words, and between settings its price; the sanity baseline has none."""
    if pair[1] == BASELINE:
        return {"text": beyond_sentence(word, margin=margin)}
    cost = grid.cost_ratio(*pair, *block)
    passes = cost["gradient_evaluations"]
    return {
        "text": verdict_sentence(word, budget=budget(config), gradient_evaluations=passes, margin=margin),
        "cost": cost,
    }


def _equivalence(inner: Interval, alpha: float, margin: float | None) -> dict[str, Any] | None:
    if margin is None:
        return None
    level = round(1 - 2 * alpha, 6)
    return {"margin": margin, "confidence": level, "low": number(inner.low), "high": number(inner.high)}
