"""Averages over classes, and metrics of a multi-class task as a whole, from one joint bootstrap over patients."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from medgcsam.evaluation.bootstrap import PatientBootstrap, Replicates, statistic_of_sums
from medgcsam.evaluation.calibration import expected_calibration_error
from medgcsam.evaluation.intervals import no_interval
from medgcsam.evaluation.one_class import (
    COLUMNS,
    RATES,
    Entry,
    OneClass,
    Settings,
    bootstrap_interval,
    class_statistic,
    ece_entry,
    entry,
    rate_interval,
)
from medgcsam.evaluation.patients import patient_strata, patient_sums

AVERAGED = ("auroc", "auprc", *RATES, "balanced_accuracy", "brier", "log_loss")
"""Means of likelihood ratios and of calibration lines over classes mean nothing, so these stay per class."""
WHOLE = ("accuracy", "brier", "log_loss")


def multilabel_averages(
    questions: Mapping[str, OneClass], by_class: Mapping[str, Mapping[str, Entry]], n_images: int, settings: Settings
) -> dict[str, Entry]:
    """Unweighted means over the classes that have a value.

    questions, by_class: per class name, what class_metrics takes and gives; n_images: images with any label.
    """
    n_patients = next(iter(questions.values())).n_patients
    codes = np.concatenate([question.codes for question in questions.values()])
    # A patient's stratum follows from the labels that any of its images shows, so that rare labels are always drawn.
    shown = np.zeros((len(codes), len(questions)), dtype=bool)
    start = 0
    for column, question in enumerate(questions.values()):
        shown[start : start + len(question.labels), column] = question.labels
        start += len(question.labels)
    patients = np.arange(n_patients)
    strata = patient_strata(patient_sums(shown, codes, n_patients) > 0, patients, n_patients)
    counts = _counts(questions, n_images)
    result = _averages(AVERAGED, questions, strata, counts, settings)
    errors = [found["ece"]["value"] for found in by_class.values() if found["ece"]["value"] is not None]
    error = float(np.mean(errors)) if errors else np.nan
    result["ece"] = ece_entry(error, counts, settings, f"mean over {len(errors)} classes; ")
    return result


def multiclass_averages(
    labels: np.ndarray, probabilities: np.ndarray, questions: Mapping[str, OneClass], settings: Settings
) -> dict[str, Entry]:
    """Means over classes against the rest; accuracy, Brier score, log loss and ECE of the whole.

    labels: (n,) class numbers; probabilities: (n, k).
    """
    first = next(iter(questions.values()))
    codes, n_patients = first.codes, first.n_patients
    truth = labels[:, None] == np.arange(probabilities.shape[1])
    strata = patient_strata(truth, codes, n_patients)
    names = tuple(name for name in AVERAGED if name not in (*WHOLE, "balanced_accuracy"))
    counts = _counts(questions, len(labels))
    result = _averages(names, questions, strata, counts, settings)
    # For more than two classes "balanced accuracy" is by custom the mean sensitivity.
    result["balanced_accuracy"] = dict(result["sensitivity"])
    right = probabilities.argmax(axis=1) == labels
    squares = ((probabilities - truth) ** 2).sum(axis=1)
    losses = -np.log(np.clip(probabilities[truth], 1e-15, 1.0))
    columns = np.stack([right, squares, losses, np.ones(len(labels))], axis=1)
    statistic = statistic_of_sums(columns, codes, n_patients, lambda sums: sums[:, :3] / sums[:, 3:])
    found = PatientBootstrap(strata, len(labels), settings.replicates, settings.seed).run(statistic)
    for column, name in enumerate(WHOLE):
        value, interval, method = bootstrap_interval(name, found, column, settings)
        if name == "accuracy":
            sums = patient_sums(columns[:, [0, 3]], codes, n_patients)
            of_rate, boundary, how = rate_interval(sums[:, 0], sums[:, 1], settings)
            interval, method = (of_rate, how) if boundary else (interval, method)
        result[name] = entry(value, interval, method + settings.note, counts)
    error = expected_calibration_error(right, probabilities.max(axis=1), bins=settings.bins)
    result["ece"] = ece_entry(error, counts, settings, "of the largest probability; ")
    return result


def _averages(
    names: tuple[str, ...],
    questions: Mapping[str, OneClass],
    strata: np.ndarray,
    counts: dict[str, int],
    settings: Settings,
) -> dict[str, Entry]:
    chosen = [COLUMNS.index(name) for name in names]
    statistics = {
        name: class_statistic(question, calibration=False)
        for name, question in questions.items()
        if len(question.labels)
    }
    if not statistics:
        return {name: entry(np.nan, no_interval("no labelled image"), "none", counts) for name in names}
    whole = np.ones((1, len(strata)))
    usable = np.stack([np.isfinite(statistic(whole)[0, chosen]) for statistic in statistics.values()])

    def statistic(weights: np.ndarray) -> np.ndarray:
        values = np.zeros((len(weights), len(chosen)))
        for one, used in zip(statistics.values(), usable, strict=True):
            values[:, used] += one(weights)[:, chosen][:, used]
        with np.errstate(invalid="ignore"):
            return values / usable.sum(axis=0)

    size = max(len(question.labels) for question in questions.values())
    found = PatientBootstrap(strata, size, settings.replicates, settings.seed).run(statistic)
    return {
        name: _average_entry(name, column, found, usable[:, column], list(statistics), len(questions), counts, settings)
        for column, name in enumerate(names)
    }


def _average_entry(
    name: str,
    column: int,
    found: Replicates,
    used: np.ndarray,
    names: list[str],
    n_classes: int,
    counts: dict[str, int],
    settings: Settings,
) -> Entry:
    value, interval, method = bootstrap_interval(name, found, column, settings)
    over = f"mean over {n_classes} classes"
    if used.sum() < n_classes:
        without = [label for label, one in zip(names, used, strict=True) if not one]
        over = f"mean over {int(used.sum())} of {n_classes} classes"
        over += f" (no value for {', '.join(without)})" if without else ""
    return entry(value, interval, f"{over}; {method}{settings.note}", counts, "no class has a value")


def _counts(questions: Mapping[str, OneClass], n_images: int) -> dict[str, int]:
    """Patients and images with any label, and the events of the rarest class that has any."""
    codes = np.concatenate([question.codes for question in questions.values()])
    events = [int(question.labels.sum()) for question in questions.values()]
    return {
        "n_patients": len(np.unique(codes)),
        "n_images": n_images,
        "n_events": min((count for count in events if count), default=0),
    }
