"""From the finished runs of a study to comparison.json: every setting, every pair, with what it rests on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas

from medgcsam.config import Config
from medgcsam.run_folder import SCHEMA, RunFolder
from medgcsam.study.entries import budget, entry, number
from medgcsam.study.grid import Grid
from medgcsam.study.pairs import baseline_pairs, setting_pairs
from medgcsam.study.plan import BASELINE, PlannedRun
from medgcsam.study.results import read_result

_OF_THE_TASK = ("classes", "positive", "structures", "nsd_tolerance", "empty_rule")


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

    A metric is computed per run, paired by patient within seed and fold, and averaged over seeds and folds. Scores of
    different models are never pooled, as into one ROC. Every pair of settings has every metric; every setting minus the
    sanity baseline has the primary one. What an interval rests on is told in `readers` and in its "method".

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
        **{key: facts[key] for key in _OF_THE_TASK if key in facts},
        "title": facts.get("title", ""),
        "notes": facts.get("notes", ""),
        "synthetic": facts["synthetic"],
        "patients": facts["patients"],
        "seeds": sorted({result.seed for result in results}),
        "folds": sorted({result.fold for result in results}),
        "primary_metric": grid.measures.primary,
        "metrics": {
            name: {"words": grid.measures.words[name], "less_is_better": name in grid.measures.losses}
            for name in grid.metrics
        },
        "budget": budget(config),
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
    pairs = setting_pairs(grid, config, margins) + baseline_pairs(grid, config, margins)
    return document | {"settings": settings, "pairs": pairs}


def runs_table(document: dict[str, Any]) -> pandas.DataFrame:
    """The content of runs.csv: one line per finished run."""
    lines = [
        {"setting": name} | run for name, setting in document["settings"].items() for run in setting.get("runs", [])
    ]
    cost = ("seconds", "gradient_evaluations", "best_epoch", "sharpness")
    return pandas.DataFrame(lines, columns=["setting", "seed", "fold", *document["metrics"], *cost])


def _setting(name: str, grid: Grid, config: Config) -> dict[str, Any]:
    seeds, folds = grid.block(name)
    runs = [
        {"seed": seed, "fold": fold}
        | {metric: number(grid.value(name, seed, fold, metric)) for metric in grid.metrics}
        | {**grid.cost(name, seed, fold), "best_epoch": grid.best_epoch(name, seed, fold)}
        | {"sharpness": grid.sharpness(name, seed, fold)}
        for seed, fold in grid.cells(name)
    ]
    cost = {key: number(np.mean([run[key] for run in runs])) for key in ("seconds", "gradient_evaluations")}
    if not seeds:
        return {"runs": runs, "cost": cost, "reason": "no seed finished on all folds, so there is no mean"}
    means = {metric: grid.mean(name, metric, seeds, folds) for metric in grid.metrics}
    return {metric: entry(metric, mean, folds, grid, config) for metric, mean in means.items()} | {
        "runs": runs,
        "cost": cost,
    }


def _baseline(grid: Grid, config: Config) -> dict[str, Any]:
    folds = sorted(grid.baseline)
    means = {metric: grid.baseline_mean(metric) for metric in grid.metrics}
    entries = {metric: entry(metric, mean, folds, grid, config, fixed=True) for metric, mean in means.items()}
    per_fold = [
        {"fold": fold} | {metric: number(grid.baseline_value(fold, metric)) for metric in grid.metrics}
        for fold in folds
    ]
    methods = grid.baseline_methods
    method = methods[folds[0]]
    if len(set(methods.values())) > 1:
        per_fold = [line | {"method": methods[line["fold"]]} for line in per_fold]
        method = f"{method.partition(': ')[0]}, made anew in each fold"
    return entries | {"method": method, "folds": per_fold}
