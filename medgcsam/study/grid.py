"""The finished runs of a study as arrays over seeds and folds, and means over complete blocks of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from medgcsam.study.cases import Measures
from medgcsam.study.readers import Mean, mean_over_seeds
from medgcsam.study.replicates import fold_replicates
from medgcsam.study.results import Result, task_of

Cell = tuple[str, int, int]
"""Setting, seed, fold."""


@dataclass(frozen=True)
class Grid:
    """Metrics of every finished run on its test cases (row 0) and on bootstrap samples of patients (the other rows)."""

    measures: Measures
    """Of the task; columns of the numbers are its names."""
    results: dict[Cell, Result]
    numbers: dict[Cell, np.ndarray]
    """(1 + B, metrics) of each run; rows of one fold are about the same patients."""
    baseline: dict[int, np.ndarray] = field(default_factory=dict)
    """The same of the sanity baseline, per fold; it does not depend on the seed."""

    @classmethod
    def of(cls, results: Sequence[Result], *, replicates: int, seed: int) -> Grid:
        """Compute all numbers, fold by fold."""
        measures = task_of(results[0].metrics).MEASURES
        grid = cls(measures, {(result.setting, result.seed, result.fold): result for result in results}, {})
        for fold in sorted({result.fold for result in results}):
            members = [result for result in results if result.fold == fold]
            found, baseline = fold_replicates(members, replicates=replicates, seed=seed)
            grid.numbers.update(
                {(result.setting, result.seed, fold): part for result, part in zip(members, found, strict=True)}
            )
            if baseline is not None:
                grid.baseline[fold] = baseline
        return grid

    @property
    def metrics(self) -> list[str]:
        """The metrics that there are, the primary one first."""
        known = np.isfinite([part[0] for part in self.numbers.values()]).any(axis=0)
        names = zip(self.measures.names, known, strict=True)
        return [name for name, some in names if some or name not in self.measures.optional]

    @property
    def settings(self) -> list[str]:
        """In the order of the study."""
        return list(dict.fromkeys(setting for setting, _, _ in self.results))

    @property
    def baseline_methods(self) -> dict[int, str]:
        """What the sanity baseline of each fold is, in words."""
        first = {result.fold: result for result in reversed(self.results.values())}
        return {fold: first[fold].metrics.get("baseline", {}).get("method", "") for fold in sorted(self.baseline)}

    def cells(self, setting: str) -> list[tuple[int, int]]:
        """Seeds and folds of the finished runs of a setting."""
        return sorted((seed, fold) for name, seed, fold in self.results if name == setting)

    def block(self, *settings: str) -> tuple[list[int], list[int]]:
        """Seeds and folds such that every one of the settings has finished every combination.

        Folds are all those of the study; a seed that lacks one of them in one of the settings is left out, as a mean
        over other folds would be about other patients.
        """
        folds = sorted({fold for _, _, fold in self.results})
        seeds = sorted({seed for _, seed, _ in self.results})
        complete = [
            seed for seed in seeds if all((name, seed, fold) in self.results for name in settings for fold in folds)
        ]
        return complete, folds

    def value(self, setting: str, seed: int, fold: int, metric: str) -> float:
        """A metric of one run on its test cases."""
        return float(self.numbers[setting, seed, fold][0, self.measures.names.index(metric)])

    def best_epoch(self, setting: str, seed: int, fold: int) -> int | None:
        """The epoch whose weights were tested."""
        return self.results[setting, seed, fold].metrics.get("selection", {}).get("epoch")

    def sharpness(self, setting: str, seed: int, fold: int) -> float | None:
        """How far the validation loss rises at the tested weights; None where the run did not measure it."""
        return (self.results[setting, seed, fold].metrics.get("sharpness") or {}).get("value")

    def cost(self, setting: str, seed: int, fold: int) -> dict[str, Any]:
        """Seconds and gradient evaluations of the training of one run."""
        cost = self.results[setting, seed, fold].metrics["cost"]
        return {key: cost[key] for key in ("seconds", "gradient_evaluations")}

    def cost_ratio(self, a: str, b: str, seeds: Sequence[int], folds: Sequence[int]) -> dict[str, float | None]:
        """Cost of a over that of b, over the same seeds and folds."""
        ratios: dict[str, float | None] = {}
        for key in ("seconds", "gradient_evaluations"):
            top, bottom = (sum(self.cost(name, seed, fold)[key] for seed in seeds for fold in folds) for name in (a, b))
            ratios[key] = top / bottom if bottom else None
        return ratios

    def counts(self, folds: Sequence[int]) -> tuple[int, int]:
        """Labelled test patients and images of the folds; a patient is in the test partition of one fold only."""
        patients = images = 0
        for fold in folds:
            tested = next(result for result in self.results.values() if result.fold == fold).tested
            labelled = np.isfinite(tested.labels).reshape(len(tested.labels), -1).any(axis=1)
            patients += len(np.unique(tested.patients[labelled]))
            images += int(labelled.sum())
        return patients, images

    def mean(self, setting: str, metric: str, seeds: Sequence[int], folds: Sequence[int]) -> Mean:
        """Mean of a metric over seeds and folds."""
        return self._mean(self._per_seed(setting, metric, seeds, folds))

    def mean_difference(self, a: str, b: str, metric: str, seeds: Sequence[int], folds: Sequence[int]) -> Mean:
        """Mean of the difference a - b, paired by patient within seed and fold."""
        return self._mean(self._per_seed(a, metric, seeds, folds) - self._per_seed(b, metric, seeds, folds))

    def beyond_baseline(self, setting: str, metric: str, seeds: Sequence[int], folds: Sequence[int]) -> Mean:
        """Mean of the difference setting - sanity baseline, paired by patient within fold; all folds must have one."""
        beside = np.mean([self.baseline[fold][:, self.measures.names.index(metric)] for fold in folds], axis=0)
        return self._mean(self._per_seed(setting, metric, seeds, folds) - beside[:, None])

    def baseline_mean(self, metric: str) -> Mean:
        """Mean of the sanity baseline over its folds; only patients are random in it."""
        column = self.measures.names.index(metric)
        return self._mean(np.mean([part[:, column] for part in self.baseline.values()], axis=0)[:, None])

    def _per_seed(self, setting: str, metric: str, seeds: Sequence[int], folds: Sequence[int]) -> np.ndarray:
        """(1 + B, seeds), averaged over folds: in each row patients are drawn anew within every fold."""
        column = self.measures.names.index(metric)
        return np.stack(
            [np.mean([self.numbers[setting, seed, fold][:, column] for fold in folds], axis=0) for seed in seeds],
            axis=1,
        )

    @staticmethod
    def _mean(per_seed: np.ndarray) -> Mean:
        return mean_over_seeds(per_seed[0], per_seed[1:])
