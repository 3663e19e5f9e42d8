"""Classification metrics with patient-level intervals, in the form of one partition of metrics.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from medgcsam.errors import ConfigError, DataError
from medgcsam.evaluation.averages import multiclass_averages, multilabel_averages
from medgcsam.evaluation.intervals import no_interval
from medgcsam.evaluation.one_class import RATES, Entry, OneClass, Settings, class_metrics, entry
from medgcsam.evaluation.patients import patient_codes, patient_sums
from medgcsam.evaluation.ranking import auroc_with_interval

TASKS = ("binary", "multiclass", "multilabel")


def classification_metrics(
    labels: np.ndarray,
    probabilities: np.ndarray,
    patients: np.ndarray,
    *,
    classes: Sequence[str],
    task: str,
    positive: str | None = None,
    operating_point: Mapping[str, Any] | None = None,
    replicates: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
    bins: int = 10,
    patients_known: bool = True,
) -> dict[str, Entry]:
    """Every classification metric of one partition of one trained network.

    labels: (n,) numbers of classes, or for "multilabel" (n, k) of 0, 1 and NaN = unlabelled, masked class by class.
    probabilities: (n, k) in the order of classes, in [0, 1]; for "binary" also (n,) of the positive class. patients:
    (n,) identifiers; each is a cluster. patients_known=False where none exist and every image stands for a patient:
    the methods then say so, and auroc_patient is null. positive: the positive class of a binary task (default: the
    last one). operating_point: what choose_operating_point gave on validation (binary) or choose_operating_points
    (multi-label); None means 0.5, and the method says so. Multi-class decisions are the largest probability.

    Returns name -> {"value", "low", "high", "n_patients", "n_images", "n_events", "method"} and "reason" wherever a
    number is null; no NaN, no infinity. n_images are all labelled images of the class, n_events those that show it
    (of an average: of its rarest class). Binary: auroc, auprc, sensitivity, specificity, ppv, npv, accuracy,
    lr_positive, lr_negative, balanced_accuracy, brier, log_loss, calibration_slope, calibration_intercept (slope held
    at 1), ece, and auroc_patient: over the patients whose label is constant, each with the mean of its images'
    probabilities. Other tasks: the same with _CLASS against the rest, and under the plain names unweighted means over
    the classes that have a value, where a mean has a meaning. Multi-class balanced_accuracy is
    the mean sensitivity, and accuracy, brier (sum over classes),
    log_loss and ece (of the largest probability) are of the whole.

    Raises ConfigError (task, positive, operating point), DataError (shapes, labels, probabilities, identifiers).
    """
    labels, probabilities = _checked(labels, probabilities, classes=classes, task=task)
    codes, n_patients = patient_codes(patients)
    if len(codes) != len(labels):
        raise DataError(f"There are {len(labels)} labels but {len(codes)} patient identifiers: give one per image.")
    note = "" if patients_known else "; patients unknown, each image counts as one"
    settings = Settings(replicates=replicates, seed=seed, confidence=confidence, bins=bins, note=note)
    if task == "binary":
        scores, column = _positive_scores(probabilities, classes, positive)
        threshold, chosen = _threshold(operating_point)
        question = OneClass(labels == column, scores, scores >= threshold, codes, n_patients)
        result = class_metrics(question, settings)
        _say_threshold(result, chosen)
        result["auroc_patient"] = _patient_auroc(question, settings, patients_known=patients_known)
        return result
    if task == "multiclass":
        decided = probabilities.argmax(axis=1)
        questions = {
            name: OneClass(labels == column, probabilities[:, column], decided == column, codes, n_patients)
            for column, name in enumerate(classes)
        }
        return multiclass_averages(labels, probabilities, questions, settings) | _per_class(questions, settings)
    questions, choices = _multilabel_questions(labels, probabilities, codes, n_patients, classes, operating_point)
    by_class = {name: class_metrics(question, settings) for name, question in questions.items()}
    for name, chosen in choices.items():
        _say_threshold(by_class[name], chosen)
    any_label = int((~np.isnan(labels)).any(axis=1).sum())
    result = multilabel_averages(questions, by_class, any_label, settings)
    _say_threshold(result, all(choices.values()))
    return result | {f"{metric}_{name}": value for name, found in by_class.items() for metric, value in found.items()}


def _per_class(questions: Mapping[str, OneClass], settings: Settings) -> dict[str, Entry]:
    found = {name: class_metrics(question, settings) for name, question in questions.items()}
    return {f"{metric}_{name}": value for name, metrics in found.items() for metric, value in metrics.items()}


def _positive_scores(probabilities: np.ndarray, classes: Sequence[str], positive: str | None) -> tuple[np.ndarray, int]:
    """Probabilities (n,) of the positive class, and its number."""
    positive = classes[-1] if positive is None else positive
    if positive not in classes:
        raise ConfigError(f"The positive class {positive!r} is not one of the classes {', '.join(classes)}.")
    column = list(classes).index(positive)
    return (probabilities if probabilities.ndim == 1 else probabilities[:, column]), column


def _multilabel_questions(
    labels: np.ndarray,
    probabilities: np.ndarray,
    codes: np.ndarray,
    n_patients: int,
    classes: Sequence[str],
    operating_point: Mapping[str, Any] | None,
) -> tuple[dict[str, OneClass], dict[str, bool]]:
    """One question per class over its labelled images, and whether its threshold was chosen."""
    unknown = sorted(set(operating_point or {}) - set(classes))
    if unknown:
        raise ConfigError(
            f"The operating point of a multi-label task is one per class, but {unknown[0]!r} is no class: "
            f"the classes are {', '.join(classes)}."
        )
    questions, chosen = {}, {}
    for column, name in enumerate(classes):
        used = ~np.isnan(labels[:, column])
        scores = probabilities[used, column]
        threshold, chosen[name] = _threshold((operating_point or {}).get(name))
        questions[name] = OneClass(labels[used, column] > 0, scores, scores >= threshold, codes[used], n_patients)
    return questions, chosen


def _threshold(operating_point: Mapping[str, Any] | None) -> tuple[float, bool]:
    """The frozen threshold, and whether it was chosen on data."""
    if operating_point is None:
        return 0.5, False
    threshold = operating_point.get("threshold")
    if not isinstance(threshold, int | float) or not np.isfinite(threshold):
        raise ConfigError(f"The operating point needs a number as its threshold, not {threshold!r}.")
    return float(threshold), operating_point.get("rule") != "none"


def _say_threshold(metrics: dict[str, Entry], chosen: bool) -> None:
    """Name the default threshold in every metric that rests on it."""
    decided = (*RATES, "lr_positive", "lr_negative", "balanced_accuracy")
    for name in () if chosen else set(decided) & set(metrics):
        metrics[name]["method"] += "; threshold 0.5 by default, not chosen"


def _patient_auroc(question: OneClass, settings: Settings, *, patients_known: bool) -> Entry:
    columns = np.stack([np.ones(len(question.labels)), question.labels, question.probabilities], axis=1)
    images, positives, scores = patient_sums(columns, question.codes, question.n_patients).T
    constant = (positives == 0) | (positives == images)
    labels, scores = positives[constant] > 0, scores[constant] / images[constant]
    counts = {
        "n_patients": int(constant.sum()),
        "n_images": int(images[constant].sum()),
        "n_events": int(labels.sum()),
    }
    method = "patient level, mean probability of a patient's images; DeLong's variance, logit scale"
    if not constant.all():
        method += f"; {int((~constant).sum())} patients with both labels left out"
    if not patients_known:
        return entry(np.nan, no_interval("patients are unknown"), method, counts)
    if labels.all() or not labels.any():
        return entry(np.nan, no_interval("patients with a constant label are of one class only"), method, counts)
    value, interval, found = auroc_with_interval(labels, scores, np.arange(len(labels)), confidence=settings.confidence)
    return entry(value, interval, method.replace("DeLong's variance, logit scale", found.partition("; ")[2]), counts)


def _checked(
    labels: np.ndarray, probabilities: np.ndarray, *, classes: Sequence[str], task: str
) -> tuple[np.ndarray, np.ndarray]:
    labels, probabilities = np.asarray(labels), np.asarray(probabilities, dtype=np.float64)
    if task not in TASKS:
        raise ConfigError(f"Unknown task {task!r}: use one of {', '.join(TASKS)}.")
    if task == "binary" and len(classes) != 2:
        raise ConfigError(f"A binary task has two classes, not {len(classes)}: name two, or use task multiclass.")
    if len(labels) == 0:
        raise DataError("There is no image to evaluate: the partition is empty.")
    shape = (len(labels), len(classes))
    if probabilities.shape != shape and not (task == "binary" and probabilities.shape == shape[:1]):
        raise DataError(f"Probabilities must be one per image and class, {shape}, not {probabilities.shape}.")
    if not np.isfinite(probabilities).all():
        bad = int((~np.isfinite(probabilities)).reshape(len(labels), -1).any(axis=1).sum())
        raise DataError(f"{bad} of {len(labels)} images have a probability that is not a number: did training diverge?")
    if probabilities.min() < -1e-6 or probabilities.max() > 1 + 1e-6:
        raise DataError("Probabilities must lie between 0 and 1: apply softmax or sigmoid to the outputs first.")
    if task == "multilabel":
        labels = labels.astype(np.float64)
        if labels.shape != shape or not np.isin(labels[~np.isnan(labels)], (0.0, 1.0)).all():
            raise DataError(f"Multi-label labels must be {shape} of 0, 1 or NaN (unlabelled), not {labels.shape}.")
    elif labels.shape != shape[:1] or not np.isin(labels, np.arange(len(classes))).all():
        raise DataError(f"Labels must be {shape[0]} class numbers from 0 to {len(classes) - 1}, one per image.")
    return labels, np.clip(probabilities, 0.0, 1.0)
