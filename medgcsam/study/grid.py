"""The finished runs of a study as arrays over seeds and folds, and means over complete blocks of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from medgcsam.study.cases import Measures
from medgcsam.study.folds import Support, as_totals, over_folds
from medgcsam.study.readers import Mean, mean_over_seeds
from medgcsam.study.replicates import fold_replicates
from medgcsam.study.results import Result, task_of

Cell = tuple[str, int, int]
"""Setting, seed, fold."""


@dataclass(frozen=True)
class Grid:
    """Metrics of every finished run on its test cases (row 0) and on bootstrap samples of patients (the other rows)."""

    measures: Measures
    """Of the task; the metrics of the numbers are its names."""
    results: dict[Cell, Result]
    numbers: dict[Cell, np.ndarray]
    """Totals (1 + B, metrics, parts, 2) of each run, see ``folds``; rows of one fold are about the same patients."""
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
                {
                    (result.setting, result.seed, fold): as_totals(part)
                    for result, part in zip(members, found, strict=True)
                }
            )
            if baseline is not None:
                grid.baseline[fold] = as_totals(baseline)
        return grid

    @property
    def metrics(self) -> list[str]:
        """The metrics that there are, the primary one first."""
        known = np.any([(part[0, ..., 1] > 0).any(axis=1) for part in self.numbers.values()], axis=0)
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
        return self._value(self.numbers[setting, seed, fold], metric)

    def baseline_value(self, fold: int, metric: str) -> float:
        """A metric of the sanity baseline on the test cases of a fold."""
        return self._value(self.baseline[fold], metric)

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

    def support(self, metric: str, folds: Sequence[int]) -> Support:
        """What a metric rests on in these folds."""
        column, behind, sizes = self.measures.names.index(metric), [], []
        for fold in folds:
            cell = next(cell for cell in self.results if cell[2] == fold)
            result, has = self.results[cell], self.numbers[cell][0, column, :, 1] > 0
            behind.append(np.where(has, task_of(result.metrics).patients_behind(result.tested)[column], 0.0))
            sizes.append(len(np.unique(result.tested.patients)))
        parts = next(iter(self.results.values())).metrics.get("structures") or [""]
        return Support(folds, parts, np.stack(behind), np.array(sizes, dtype=np.float64))

    def mean(self, setting: str, metric: str, seeds: Sequence[int], folds: Sequence[int]) -> Mean:
        """Mean of a metric over seeds and folds."""
        return self._mean(self._per_seed(setting, metric, seeds, folds), metric, folds)

    def mean_difference(self, a: str, b: str, metric: str, seeds: Sequence[int], folds: Sequence[int]) -> Mean:
        """Mean of the difference a - b, paired by patient within seed and fold."""
        between = self._per_seed(a, metric, seeds, folds) - self._per_seed(b, metric, seeds, folds)
        return self._mean(between, metric, folds)

    def beyond_baseline(self, setting: str, metric: str, seeds: Sequence[int], folds: Sequence[int]) -> Mean:
        """Mean of the difference setting - sanity baseline, paired by patient within fold; all folds must have one."""
        beside = self._over_folds([self.baseline[fold] for fold in folds], metric)
        return self._mean(self._per_seed(setting, metric, seeds, folds) - beside[:, None], metric, folds)

    def baseline_mean(self, metric: str) -> Mean:
        """Mean of the sanity baseline over its folds; only patients are random in it."""
        folds = sorted(self.baseline)
        return self._mean(self._over_folds([self.baseline[fold] for fold in folds], metric)[:, None], metric, folds)

    def _per_seed(self, setting: str, metric: str, seeds: Sequence[int], folds: Sequence[int]) -> np.ndarray:
        """(1 + B, seeds, parts), averaged over folds: in each row patients are drawn anew within every fold."""
        found = [self._over_folds([self.numbers[setting, seed, fold] for fold in folds], metric) for seed in seeds]
        return np.stack(found, axis=1)

    def _over_folds(self, totals: Sequence[np.ndarray], metric: str) -> np.ndarray:
        column = self.measures.names.index(metric)
        return over_folds([one[:, column] for one in totals])

    def _value(self, totals: np.ndarray, metric: str) -> float:
        parts = self._over_folds([totals[:1]], metric)[0]
        known = np.isfinite(parts)
        return float(parts[known].mean()) if known.any() else np.nan

    def _mean(self, per_seed: np.ndarray, metric: str, folds: Sequence[int]) -> Mean:
        """Mean over seeds of the mean over the parts that any fold has.

        A bootstrap sample in which no patient of any fold shows a structure is left out, as if drawn again.
        """
        support = self.support(metric, folds)
        parts = per_seed[:, :, support.usable]
        if not parts.shape[2]:
            return mean_over_seeds(np.full(parts.shape[1], np.nan), np.empty((0, parts.shape[1])))
        drawn = parts[1:][self._drawn(metric, folds)]
        variances = np.var(drawn.mean(axis=1), axis=0, ddof=1)
        df = support.degrees_of_freedom(variances)
        mean = mean_over_seeds(parts[0].mean(axis=1), drawn.mean(axis=2), patients_df=df)
        few = support.too_few()
        return replace(mean, variance=np.nan, df=np.nan, reason=few) if few else mean

    def _drawn(self, metric: str, folds: Sequence[int]) -> np.ndarray:
        """(B,) whether a bootstrap sample has a patient of every part that the sample has."""
        column = self.measures.names.index(metric)
        cells = [next(cell for cell in self.numbers if cell[2] == fold) for fold in folds]
        weights = np.sum([self.numbers[cell][:, column, :, 1] for cell in cells], axis=0)
        return (weights[1:][:, weights[0] > 0] > 0).all(axis=1)
