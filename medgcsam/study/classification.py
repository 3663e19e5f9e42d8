"""Classification in a comparison: predictions.csv, and its metrics as functions of patient weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from medgcsam.cohort import encode_labels
from medgcsam.evaluation.bootstrap import PatientBootstrap, Statistic, statistic_of_sums
from medgcsam.evaluation.one_class import COLUMNS, OneClass, class_statistic
from medgcsam.evaluation.patients import patient_strata, patient_sums
from medgcsam.run_folder import RunFolder
from medgcsam.study.cases import Cases, Measures, read_test_cases

MEASURES = Measures(
    words={"auroc": "AUROC", "auprc": "AUPRC", "brier": "Brier", "log_loss": "log loss"},
    losses=("brier", "log_loss"),
    bootstrap="bootstrap over patients stratified by class",
)
_CHOSEN = [COLUMNS.index(name) for name in MEASURES.names]


def read_run(run: RunFolder, metrics: Mapping[str, Any], *, baseline: bool = False) -> Cases:
    """Test cases from predictions.csv, or baseline.csv: labels int64 (n,), or float (n, classes) with NaN where unknown
    of multi-label tasks; answers (n, classes) probabilities."""
    table, classes = read_test_cases(run.baseline if baseline else run.predictions), metrics["classes"]
    task = "multilabel" if metrics["task"] == "multilabel" else "classification"
    return Cases(
        cases=table["case"].to_numpy(str),
        patients=table["patient"].to_numpy(str),
        labels=encode_labels(table["label"], classes, task),
        answers=table[[f"p_{name}" for name in classes]].to_numpy(np.float64),
    )


def draws(
    cases: Cases, metrics: Mapping[str, Any], codes: np.ndarray, n_patients: int, *, replicates: int, seed: int
) -> Iterator[np.ndarray]:
    """Patient weights (b, P), stratified by the set of classes that a patient's images show, as in metrics.json."""
    if metrics["task"] == "multilabel":
        shown = patient_sums(np.nan_to_num(cases.labels) > 0, codes, n_patients) > 0
        strata = patient_strata(shown, np.arange(n_patients), n_patients)
    else:
        strata = patient_strata(cases.labels[:, None] == np.arange(len(metrics["classes"])), codes, n_patients)
    return PatientBootstrap(strata, len(codes), replicates, seed).draws()


def statistic(
    answers: np.ndarray, cases: Cases, metrics: Mapping[str, Any], codes: np.ndarray, n_patients: int
) -> Statistic:
    """Patient weights (b, P) -> (b, MEASURES), each metric as metrics.json defines it for this task."""
    task, labels = metrics["task"], cases.labels
    if task == "binary":
        column = _positive_column(metrics)
        one = _against_the_rest(labels == column, answers[:, column], codes, n_patients)
        return lambda weights: one(weights)[:, _CHOSEN]
    questions = []
    for column in range(answers.shape[1]):
        truth = labels[:, column] if task == "multilabel" else labels == column
        used = np.isfinite(truth)
        if used.any():
            questions.append(_against_the_rest(truth[used] > 0, answers[used, column], codes[used], n_patients))
    mean = _mean_over_classes(questions, n_patients)
    if task == "multilabel":
        return mean
    truth = labels[:, None] == np.arange(answers.shape[1])
    squares = ((answers - truth) ** 2).sum(axis=1)
    losses = -np.log(np.clip(answers[truth], 1e-15, 1.0))
    columns = np.stack([squares, losses, np.ones(len(labels))], axis=1)
    whole = statistic_of_sums(columns, codes, n_patients, lambda sums: sums[:, :2] / sums[:, 2:])
    return lambda weights: np.concatenate([mean(weights)[:, :2], whole(weights)], axis=1)


def patients_behind(cases: Cases) -> np.ndarray:
    """(MEASURES, 1), infinite: the variance of these metrics counts as known, however many patients there are."""
    return np.full((len(MEASURES.names), 1), np.inf)


def _positive_column(metrics: Mapping[str, Any]) -> int:
    return metrics["classes"].index(metrics["positive"] or metrics["classes"][-1])


def _against_the_rest(labels: np.ndarray, scores: np.ndarray, codes: np.ndarray, n_patients: int) -> Statistic:
    return class_statistic(OneClass(labels, scores, scores >= 0.5, codes, n_patients), calibration=False)


def _mean_over_classes(questions: Sequence[Statistic], n_patients: int) -> Statistic:
    """Unweighted mean over the classes that have the metric on the sample."""
    ones, width = np.ones((1, n_patients)), len(_CHOSEN)
    usable = np.array([np.isfinite(question(ones)[0, _CHOSEN]) for question in questions]).reshape(-1, width)

    def statistic(weights: np.ndarray) -> np.ndarray:
        values = np.zeros((len(weights), width))
        for question, used in zip(questions, usable, strict=True):
            values[:, used] += question(weights)[:, _CHOSEN][:, used]
        with np.errstate(invalid="ignore"):
            return values / usable.sum(axis=0)

    return statistic
