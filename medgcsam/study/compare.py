"""From the finished runs of a study to comparison.json: every setting, every pair, with what it rests on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas

from medgcsam.config import Config
from medgcsam.evaluation.intervals import Interval
from medgcsam.run_folder import SCHEMA, RunFolder
from medgcsam.study.grid import Grid
from medgcsam.study.plan import BASELINE, PlannedRun, optimizer_settings
from medgcsam.study.readers import Mean
from medgcsam.study.replicates import LOSSES, METRICS
from medgcsam.study.results import read_result
from medgcsam.study.verdict import holm, verdict, verdict_sentence

PRIMARY = (("gcsam", "adam"), ("gcsam", "sam"))
"""The primary family, on the primary metric; all other pairs and metrics are exploratory."""
PRIMARY_METRIC = METRICS[0]


def compare_runs(
    finished: Sequence[tuple[PlannedRun, RunFolder]],
    config: Config,
    *,
    failed: Iterable[tuple[PlannedRun, Exception]] = (),
) -> dict[str, Any]:
    """The content of comparison.json.

    Args:
        finished: runs of one study and where they lie; at least one.
        config: of the study: `compare.margin` and the `evaluation` section.
        failed: runs that came to no end, and why; the comparison leaves them out and names them.

    Scores of different models are never pooled into one ROC: a metric is computed per run, paired by patient within
    seed and fold, and averaged over seeds and folds. What the intervals rest on is told in `readers` and in "method".

    Raises:
        DataError: runs of one fold are about different cases, or a file is damaged.
    """
    results = [read_result(planned, run) for planned, run in finished]
    grid = Grid.of(results, replicates=config.evaluation.replicates, seed=config.evaluation.seed)
    facts = results[0].metrics
    margins = sorted({result.margin for result in results if result.margin is not None})
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "name": config.name,
        "task": facts["task"],
        "classes": facts["classes"],
        "positive": facts["positive"],
        "title": facts.get("title", ""),
        "notes": facts.get("notes", ""),
        "synthetic": facts["synthetic"],
        "patients": facts["patients"],
        "seeds": sorted({result.seed for result in results}),
        "folds": sorted({result.fold for result in results}),
        "primary_metric": PRIMARY_METRIC,
        "budget": _budget(config),
        "confidence": config.evaluation.confidence,
        "margin": config.compare.margin,
        "margin_before": margins,
        "failed": [
            {"setting": run.setting, "seed": run.seed, "fold": run.fold, "error": str(error)} for run, error in failed
        ],
    }
    settings = {name: _setting(name, grid, config) for name in grid.settings}
    if grid.baseline:
        settings[BASELINE] = _baseline(grid, config)
    return document | {"settings": settings, "pairs": _pairs(grid, config, margins)}


def runs_table(document: dict[str, Any]) -> pandas.DataFrame:
    """The content of runs.csv: one line per finished run."""
    lines = [
        {"setting": name} | run for name, setting in document["settings"].items() for run in setting.get("runs", [])
    ]
    columns = ("setting", "seed", "fold", *METRICS, "seconds", "gradient_evaluations", "best_epoch", "sharpness")
    return pandas.DataFrame(lines, columns=list(columns))


def _setting(name: str, grid: Grid, config: Config) -> dict[str, Any]:
    seeds, folds = grid.block(name)
    runs = [
        {"seed": seed, "fold": fold}
        | {metric: _number(grid.value(name, seed, fold, metric)) for metric in METRICS}
        | {**grid.cost(name, seed, fold), "best_epoch": grid.best_epoch(name, seed, fold)}
        | {"sharpness": grid.sharpness(name, seed, fold)}
        for seed, fold in grid.cells(name)
    ]
    cost = {key: _number(np.mean([run[key] for run in runs])) for key in ("seconds", "gradient_evaluations")}
    if not seeds:
        return {"runs": runs, "cost": cost, "reason": "no seed finished on all folds, so there is no mean"}
    entries = {metric: _entry(metric, grid.mean(name, metric, seeds, folds), folds, grid, config) for metric in METRICS}
    return entries | {"runs": runs, "cost": cost}


def _entry(
    metric: str, mean: Mean, folds: Sequence[int], grid: Grid, config: Config, *, fixed: bool = False
) -> dict[str, Any]:
    scale = "log" if metric in LOSSES else "logit"
    limits = mean.interval_of_loss if metric in LOSSES else mean.interval_of_share
    interval = limits(config.evaluation.confidence)
    patients, images = grid.counts(folds)
    entry = {
        "value": _number(mean.value),
        "low": _number(interval.low),
        "high": _number(interval.high),
        "sd_seeds": _number(mean.sd_seeds),
        "n_seeds": mean.seeds,
        "n_patients": patients,
        "n_images": images,
        "method": f"{_method(mean, folds, config, fixed=fixed)}; {scale} scale",
    }
    return entry | ({"reason": interval.reason} if interval.reason else {})


def _baseline(grid: Grid, config: Config) -> dict[str, Any]:
    folds = sorted(grid.baseline)
    entries = {
        metric: _entry(metric, grid.baseline_mean(metric), folds, grid, config, fixed=True) for metric in METRICS
    }
    per_fold = [
        {"fold": fold} | {metric: _number(grid.baseline[fold][0, k]) for k, metric in enumerate(METRICS)}
        for fold in folds
    ]
    return entries | {"method": grid.baseline_method, "folds": per_fold}


def _pairs(grid: Grid, config: Config, margins: Sequence[float]) -> list[dict[str, Any]]:
    """Every pair of settings with every metric; the primary family first."""
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
        for metric in METRICS
        if numbers[pair][0]
    }
    family = [pair for pair in PRIMARY if pair in found]
    p_values = [_p_value(means.get((pair, PRIMARY_METRIC))) for pair in family]
    adjusted = dict(zip(family, holm(p_values), strict=True))
    return [
        _pair(pair, metric, means.get((pair, metric)), adjusted, numbers[pair], grid, config, margins)
        for metric in METRICS
        for pair in found
    ]


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
    primary = pair in adjusted and metric == PRIMARY_METRIC
    family = "primary" if primary else "exploratory"
    head: dict[str, Any] = {"a": pair[0], "b": pair[1], "metric": metric, "family": family}
    seeds, folds = block
    if mean is None:
        none = dict.fromkeys(("difference", "low", "high", "p", "p_holm"))
        reason = "no seed finished on all folds for both settings"
        text = f"inconclusive: {reason}"
        return head | none | {"verdict": "inconclusive", "text": text, "method": "none", "reason": reason}
    confidence = config.evaluation.confidence
    alpha = 1 - confidence
    p, p_holm = _p_value(mean), adjusted[pair] if primary else np.nan
    margin = config.compare.margin if metric == PRIMARY_METRIC else None
    interval, inner = mean.interval(confidence), mean.interval(1 - 2 * alpha)
    word = verdict(
        mean.value, p_holm if primary else p, inner, alpha=alpha, margin=margin, less_is_better=metric in LOSSES
    )
    cost = grid.cost_ratio(*pair, seeds, folds)
    text = verdict_sentence(
        word, budget=_budget(config), gradient_evaluations=cost["gradient_evaluations"], margin=margin
    )
    if margin is not None and any(before != margin for before in margins):
        text += " (the margin was changed after the runs began)"
    entry = head | {
        "difference": _number(mean.value),
        "low": _number(interval.low),
        "high": _number(interval.high),
        "p": _number(p),
        "p_holm": _number(p_holm),
        "verdict": word,
        "text": text,
        "equivalence": _equivalence(inner, alpha, margin),
        "n_seeds": mean.seeds,
        "sd_seeds": _number(mean.sd_seeds),
        "cost": cost,
        "method": f"{_method(mean, folds, config)}; paired by patient within seed and fold"
        + ("; Holm over the primary family" if primary else "; exploratory, not corrected for many comparisons"),
    }
    reason = interval.reason or ("one seed is no test of two ways to train" if mean.seeds == 1 else "")
    return entry | ({"reason": reason} if reason else {})


def _equivalence(inner: Interval, alpha: float, margin: float | None) -> dict[str, Any] | None:
    if margin is None:
        return None
    level = round(1 - 2 * alpha, 6)
    return {"margin": margin, "confidence": level, "low": _number(inner.low), "high": _number(inner.high)}


def _method(mean: Mean, folds: Sequence[int], config: Config, *, fixed: bool = False) -> str:
    """What the interval rests on, in words."""
    over = f"mean over {len(folds)} folds" if len(folds) > 1 else "one fold"
    bootstrap = f"bootstrap over patients stratified by class, {config.evaluation.replicates} replicates"
    if fixed:
        return f"{over}, no random seed; {bootstrap}, normal interval"
    if mean.seeds == 1:
        return f"one seed, {over}; {bootstrap}, normal interval: patients only, nothing is known about other seeds"
    df = f"t with {mean.df:.1f} degrees of freedom (Hillis)" if np.isfinite(mean.df) else "normal interval"
    return (
        f"mean over {mean.seeds} seeds, {over}; seeds as readers (Obuchowski-Rockette), covariance between seeds from "
        f"{bootstrap}; {df}; training sets held fixed"
    )


def _budget(config: Config) -> str:
    """What the settings of this study have in common."""
    return "equal epochs" if config.training.patience is None else "equal largest epochs (early stopping)"


def _number(value: Any) -> float | int | None:
    """A number as JSON has it: what is not finite becomes null."""
    return float(value) if np.isfinite(value) else None
