"""Metrics of each run on its test cases and on bootstrap samples of patients, the same for all runs of a fold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from medgcsam.evaluation.bootstrap import PatientBootstrap, Statistic, statistic_of_sums
from medgcsam.evaluation.one_class import COLUMNS, OneClass, class_statistic
from medgcsam.evaluation.patients import patient_codes, patient_strata, patient_sums
from medgcsam.study.results import Result, check_paired

METRICS = ("auroc", "auprc", "brier", "log_loss")
LOSSES = ("brier", "log_loss")
"""Metrics of which less is better."""
_CHOSEN = [COLUMNS.index(name) for name in METRICS]


def fold_replicates(
    results: Sequence[Result], *, replicates: int, seed: int
) -> tuple[list[np.ndarray], np.ndarray | None]:
    """Metrics on the sample and on patient bootstrap samples, for all runs of one fold.

    Args:
        results: runs of one fold, tested on the same cases.
        replicates: number B of bootstrap samples.
        seed: of the bootstrap; folds have different patients, so each draws from a stream of its own.

    Returns:
        Per run, and for the sanity baseline (None where a run has none), an array (1 + B, METRICS): first the sample.
        Row by row all are about the same patients.

    Raises:
        DataError: the runs are not about the same cases.
    """
    first = results[0]
    for other in results[1:]:
        check_paired(first, other)
    codes, n_patients = patient_codes(first.patients)
    statistics = [_statistic(result.probabilities, first, codes, n_patients) for result in results]
    if first.baseline is not None:
        statistics.append(_statistic(first.baseline, first, codes, n_patients))
    stream = int(np.random.SeedSequence([seed, first.fold]).generate_state(1)[0])
    bootstrap = PatientBootstrap(_strata(first, codes, n_patients), len(codes), replicates, stream)
    ones = np.ones((1, n_patients))
    parts = [[statistic(ones)] for statistic in statistics]
    for weights in bootstrap.draws():
        for part, statistic in zip(parts, statistics, strict=True):
            part.append(statistic(weights))
    found = [np.concatenate(part) for part in parts]
    return (found[:-1], found[-1]) if first.baseline is not None else (found, None)


def _strata(result: Result, codes: np.ndarray, n_patients: int) -> np.ndarray:
    """Patients by the set of classes that their images show, as metrics.json's own bootstrap has them."""
    if result.metrics["task"] != "multilabel":
        return patient_strata(result.labels[:, None] == np.arange(len(result.metrics["classes"])), codes, n_patients)
    shown = patient_sums(np.nan_to_num(result.labels) > 0, codes, n_patients) > 0
    return patient_strata(shown, np.arange(n_patients), n_patients)


def _statistic(probabilities: np.ndarray, result: Result, codes: np.ndarray, n_patients: int) -> Statistic:
    """Patient weights (b, P) -> (b, METRICS), each metric as metrics.json defines it for this task."""
    task, labels = result.metrics["task"], result.labels
    if task == "binary":
        column = _positive_column(result.metrics)
        one = _against_the_rest(labels == column, probabilities[:, column], codes, n_patients)
        return lambda weights: one(weights)[:, _CHOSEN]
    questions = []
    for column in range(probabilities.shape[1]):
        truth = labels[:, column] if task == "multilabel" else labels == column
        used = np.isfinite(truth)
        if used.any():
            questions.append(_against_the_rest(truth[used] > 0, probabilities[used, column], codes[used], n_patients))
    mean = _mean_over_classes(questions, n_patients)
    if task == "multilabel":
        return mean
    truth = labels[:, None] == np.arange(probabilities.shape[1])
    squares = ((probabilities - truth) ** 2).sum(axis=1)
    losses = -np.log(np.clip(probabilities[truth], 1e-15, 1.0))
    columns = np.stack([squares, losses, np.ones(len(labels))], axis=1)
    whole = statistic_of_sums(columns, codes, n_patients, lambda sums: sums[:, :2] / sums[:, 2:])
    return lambda weights: np.concatenate([mean(weights)[:, :2], whole(weights)], axis=1)


def _positive_column(metrics: Mapping[str, Any]) -> int:
    return metrics["classes"].index(metrics["positive"] or metrics["classes"][-1])


def _against_the_rest(labels: np.ndarray, scores: np.ndarray, codes: np.ndarray, n_patients: int) -> Statistic:
    return class_statistic(OneClass(labels, scores, scores >= 0.5, codes, n_patients), calibration=False)


def _mean_over_classes(questions: Sequence[Statistic], n_patients: int) -> Statistic:
    """Unweighted mean over the classes that have the metric on the sample."""
    ones = np.ones((1, n_patients))
    usable = np.array([np.isfinite(question(ones)[0, _CHOSEN]) for question in questions]).reshape(-1, len(METRICS))

    def statistic(weights: np.ndarray) -> np.ndarray:
        values = np.zeros((len(weights), len(METRICS)))
        for question, used in zip(questions, usable, strict=True):
            values[:, used] += question(weights)[:, _CHOSEN][:, used]
        with np.errstate(invalid="ignore"):
            return values / usable.sum(axis=0)

    return statistic
