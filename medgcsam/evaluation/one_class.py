"""All metrics of one yes-or-no question: a class against the rest, at image level with patients as clusters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from medgcsam.evaluation.bootstrap import PatientBootstrap, Replicates, Statistic, statistic_of_sums
from medgcsam.evaluation.calibration import expected_calibration_error, log_losses
from medgcsam.evaluation.intervals import Interval, bca, mean_interval, no_interval, ratio_interval, wilson
from medgcsam.evaluation.logistic import calibration_in_the_large, calibration_line, clipped_logit
from medgcsam.evaluation.patients import effective_n, patient_strata, patient_sums
from medgcsam.evaluation.ranking import Ranking, auroc_with_interval

RATES = ("sensitivity", "specificity", "ppv", "npv", "accuracy")
SUM_METRICS = (*RATES, "lr_positive", "lr_negative", "balanced_accuracy", "brier", "log_loss")
COLUMNS = ("auroc", "auprc", *SUM_METRICS, "calibration_slope", "calibration_intercept")
OF_ONE_CLASS = ("auroc", "sensitivity", "specificity", "lr_positive", "lr_negative", "balanced_accuracy")
"""The others change with prevalence, which the strata hold fixed: their interval is for the class mix at hand."""
FEWEST_DISCORDANT = 5
"""A rate with fewer patients than this on either side counts as at the boundary: its bootstrap is too coarse."""

Entry = dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """How intervals are made; the same for all metrics of a partition."""

    replicates: int = 2000
    seed: int = 0
    confidence: float = 0.95
    bins: int = 10
    note: str = ""
    """Appended to every method, such as "patients unknown"."""


@dataclass(frozen=True)
class OneClass:
    """Labelled images of one question: labels, decisions (n,) bool, probabilities (n,), codes (n,) of P patients."""

    labels: np.ndarray
    probabilities: np.ndarray
    decisions: np.ndarray
    codes: np.ndarray
    n_patients: int

    def alone(self) -> OneClass:
        """The same images with their own patients only, numbered anew."""
        present, codes = np.unique(self.codes, return_inverse=True)
        return OneClass(self.labels, self.probabilities, self.decisions, codes.reshape(-1), len(present))

    def counts(self) -> dict[str, int]:
        """Patients, images and events (images of the class)."""
        patients = len(np.unique(self.codes))
        return {"n_patients": patients, "n_images": len(self.labels), "n_events": int(self.labels.sum())}


def entry(value: float, interval: Interval, method: str, counts: dict[str, int], reason: str = "") -> Entry:
    """One metric as metrics.json holds it: what is not finite becomes null, and "reason" says why."""
    numbers = {"value": value, "low": interval.low, "high": interval.high}
    result: Entry = {name: float(number) if np.isfinite(number) else None for name, number in numbers.items()}
    result |= {**counts, "method": method}
    if None in (result["value"], result["low"], result["high"]):
        why = reason if result["value"] is None and reason else interval.reason or reason
        result["reason"] = why or "cannot be computed from these cases"
    return result


def class_statistic(question: OneClass, *, calibration: bool = True) -> Statistic:
    """Statistic of patient weights (b, P) that gives (b, len(COLUMNS)); without calibration its two columns are NaN."""
    ranking = Ranking.of(question.labels, question.probabilities, question.codes)
    rates = statistic_of_sums(_sum_columns(question), question.codes, question.n_patients, _rates_of_sums)
    logits = clipped_logit(question.probabilities)
    start, shift = (0.0, 1.0), 0.0
    if calibration and len(logits):
        # The replicates' fits lie close to the sample's: starting there saves half of the steps.
        fitted = np.r_[calibration_line(question.labels, logits)[0], calibration_in_the_large(question.labels, logits)]
        if np.isfinite(fitted).all():
            start, shift = (float(fitted[0]), float(fitted[1])), float(fitted[2])

    def statistic(weights: np.ndarray) -> np.ndarray:
        fits = np.full((len(weights), 2), np.nan)
        if calibration:
            images = np.take(weights, question.codes, axis=1)
            fits[:, 0] = calibration_line(question.labels, logits, images, start=start)[:, 1]
            fits[:, 1] = calibration_in_the_large(question.labels, logits, images, start=shift)
        return np.concatenate([ranking.auroc_and_auprc(weights), rates(weights), fits], axis=1)

    return statistic


def class_metrics(question: OneClass, settings: Settings) -> dict[str, Entry]:
    """All of COLUMNS and "ece" for one question, each with its interval. Keys carry no class suffix."""
    counts = question.counts()
    if len(question.labels) == 0:
        nothing = no_interval("no labelled image")
        return {name: entry(np.nan, nothing, "none", counts) for name in (*COLUMNS, "ece")}
    question = question.alone()
    strata = patient_strata(np.stack([~question.labels, question.labels], axis=1), question.codes, question.n_patients)
    bootstrap = PatientBootstrap(strata, len(question.labels), settings.replicates, settings.seed)
    found = bootstrap.run(class_statistic(question))
    result = {}
    for column, name in enumerate(COLUMNS):
        value, interval, method = _with_interval(name, column, found, question, settings)
        result[name] = entry(value, interval, method + settings.note, counts, _reason(name, question))
    error = expected_calibration_error(question.labels, question.probabilities, bins=settings.bins)
    result["ece"] = ece_entry(error, counts, settings)
    return result


def ece_entry(error: float, counts: dict[str, int], settings: Settings, what: str = "") -> Entry:
    """Entry of an expected calibration error, which has no interval by design."""
    method = f"{what}{settings.bins} bins of equal mass{settings.note}"
    why = "no interval by design: a bootstrap of a calibration error is biased"
    return entry(error, no_interval(why), method, counts)


def bootstrap_interval(name: str, found: Replicates, column: int, settings: Settings) -> tuple[float, Interval, str]:
    """Estimate, BCa interval and method of one column of the replicates, which holds the metric called name."""
    value = float(found.estimate[column])
    method = f"bootstrap over patients stratified by class, {settings.replicates} replicates, BCa"
    method += "" if name in OF_ONE_CLASS else "; at the class mix of these cases"
    if not np.isfinite(value):
        return value, no_interval(""), "none"
    interval = bca(
        value,
        found.values[:, column],
        found.left_out[:, column],
        strata=found.left_out_strata,
        confidence=settings.confidence,
    )
    return value, interval, method


def rate_interval(successes: np.ndarray, totals: np.ndarray, settings: Settings) -> tuple[Interval, bool, str]:
    """Wilson interval of a proportion from (P,) counts per patient; whether it is at the boundary; the method."""
    n = effective_n(successes, totals)
    interval = wilson(successes.sum() / totals.sum(), n, confidence=settings.confidence)
    discordant = min((successes > 0).sum(), (totals - successes > 0).sum())
    method = f"Wilson with effective n {n:.1f} (fewer than {FEWEST_DISCORDANT} patients differ)"
    return interval, bool(discordant < FEWEST_DISCORDANT), method


def _with_interval(
    name: str, column: int, found: Replicates, question: OneClass, settings: Settings
) -> tuple[float, Interval, str]:
    if name == "auroc" and question.labels.any() and not question.labels.all():
        return auroc_with_interval(
            question.labels, question.probabilities, question.codes, confidence=settings.confidence
        )
    if name in (*RATES, "lr_positive", "lr_negative", "balanced_accuracy"):
        interval, method = _boundary_interval(name, question, settings)
        if interval is not None:
            return float(found.estimate[column]), interval, method
    return bootstrap_interval(name, found, column, settings)


def _boundary_interval(name: str, question: OneClass, settings: Settings) -> tuple[Interval | None, str]:
    """Interval that does not rest on the bootstrap, where a rate behind the metric is at the boundary; else None."""
    hit, yes = question.decisions == question.labels, question.labels
    subsets = {
        "sensitivity": yes,
        "specificity": ~yes,
        "ppv": question.decisions,
        "npv": ~question.decisions,
        "accuracy": np.ones(len(yes), dtype=bool),
    }
    rates: dict[str, tuple[float, Interval, bool, str]] = {}
    for rate in (name,) if name in RATES else ("sensitivity", "specificity"):
        subset = subsets[rate]
        if not subset.any():
            return None, ""
        sums = patient_sums(np.stack([subset & hit, subset], axis=1), question.codes, question.n_patients)
        interval, boundary, method = rate_interval(sums[:, 0], sums[:, 1], settings)
        rates[rate] = (float(hit[subset].mean()), interval, boundary, method)
    if not any(boundary for _, _, boundary, _ in rates.values()):
        return None, ""
    if name in RATES:
        return rates[name][1], rates[name][3]
    (sensitivity, of_sensitivity, _, _), (specificity, of_specificity, _, _) = rates.values()
    method = "MOVER from Wilson limits of sensitivity and specificity with effective n"
    if name == "balanced_accuracy":
        return mean_interval(sensitivity, of_sensitivity, specificity, of_specificity), method
    if name == "lr_positive":
        return ratio_interval(sensitivity, of_sensitivity, 1 - specificity, _complement(of_specificity)), method
    return ratio_interval(1 - sensitivity, _complement(of_sensitivity), specificity, of_specificity), method


def _complement(interval: Interval) -> Interval:
    return Interval(1 - interval.high, 1 - interval.low)


def _sum_columns(question: OneClass) -> np.ndarray:
    yes, called, p = question.labels, question.decisions, question.probabilities
    columns = [yes & called, ~yes & called, yes & ~called, ~yes & ~called, (p - yes) ** 2, log_losses(yes, p)]
    return np.stack([np.asarray(column, dtype=np.float64) for column in columns], axis=1)


def _rates_of_sums(sums: np.ndarray) -> np.ndarray:
    """SUM_METRICS in their order from weighted sums of the columns that _sum_columns gives."""
    hits, alarms, misses, passes, squares, losses = sums.T
    total = hits + alarms + misses + passes
    with np.errstate(invalid="ignore", divide="ignore"):
        sensitivity, specificity = hits / (hits + misses), passes / (passes + alarms)
        ppv, npv = hits / (hits + alarms), passes / (passes + misses)
        # From the counts, as 1 - 0.9 is not exactly 0.1 and a denominator of zero must be zero.
        positive = sensitivity / (alarms / (passes + alarms))
        negative = (misses / (hits + misses)) / specificity
        rates = [sensitivity, specificity, ppv, npv, (hits + passes) / total, positive, negative]
        rates += [(sensitivity + specificity) / 2, squares / total, losses / total]
    return np.stack(rates, axis=1)


def _reason(name: str, question: OneClass) -> str:
    """Why a metric has no value."""
    needs_positive = {"auroc", "auprc", "sensitivity", "lr_positive", "lr_negative", "balanced_accuracy"}
    needs_negative = {"auroc", "specificity", "lr_positive", "lr_negative", "balanced_accuracy"}
    calibration = name.startswith("calibration_")
    if not question.labels.any() and (name in needs_positive or calibration):
        return "no positive case"
    if question.labels.all() and (name in needs_negative or calibration):
        return "no negative case"
    reasons = {
        "ppv": "no case was called positive",
        "npv": "no case was called negative",
        "lr_positive": "no false positive, so the ratio is infinite",
        "lr_negative": "no negative case was called negative, so the ratio is infinite",
        "calibration_slope": "the classes are separated or all probabilities are equal, so the slope is not finite",
    }
    return reasons.get(name, "")
