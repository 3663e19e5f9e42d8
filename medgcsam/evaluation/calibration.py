"""Do probabilities mean what they say: reliability bins, ECE, and recalibration fitted on validation cases."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_softmax, logsumexp

from medgcsam.errors import ConfigError
from medgcsam.evaluation.intervals import wilson
from medgcsam.evaluation.logistic import CLIP, calibration_in_the_large, calibration_line, clipped_logit
from medgcsam.evaluation.patients import effective_n, patient_codes, patient_sums

BINNINGS = ("equal_mass", "equal_width")


def bin_numbers(probabilities: np.ndarray, *, bins: int = 10, binning: str = "equal_mass") -> np.ndarray:
    """Bin of each probability in [0, 1]: (n,) integers from 0. Equal probabilities always share a bin.

    binning: "equal_mass" (edges at quantiles; ties may leave fewer bins) or "equal_width" (edges at 0, 1/bins, ...).
    """
    probabilities = np.asarray(probabilities, dtype=np.float64)
    if binning == "equal_width":
        return np.minimum((probabilities * bins).astype(int), bins - 1)
    if binning != "equal_mass":
        raise ConfigError(f"Unknown binning {binning!r}: use one of {', '.join(BINNINGS)}.")
    if len(probabilities) == 0:
        return np.zeros(0, dtype=int)
    ordered = np.sort(probabilities)
    first = np.searchsorted(ordered, probabilities, "left")
    last = np.searchsorted(ordered, probabilities, "right") - 1
    return np.minimum((first + last) * bins // (2 * len(ordered)), bins - 1)


def expected_calibration_error(
    labels: np.ndarray, probabilities: np.ndarray, *, bins: int = 10, binning: str = "equal_mass"
) -> float:
    """Mean distance between predicted and observed frequency over bins, weighted by their images; in [0, 1].

    labels: (n,) 0/1, whether the event came; probabilities: (n,) its predicted probability. It is biased upwards in
    small samples and a bootstrap of it is wrong, hence no interval anywhere.
    """
    which = bin_numbers(probabilities, bins=bins, binning=binning)
    gap = np.bincount(which, weights=np.asarray(labels, dtype=np.float64) - probabilities)
    return float(np.abs(gap).sum() / len(which))


def reliability_bins(
    labels: np.ndarray,
    probabilities: np.ndarray,
    patients: np.ndarray,
    *,
    bins: int = 10,
    binning: str = "equal_mass",
    confidence: float = 0.95,
) -> list[dict[str, Any]]:
    """Points of a reliability diagram, empty bins left out.

    labels: (n,) 0/1; probabilities: (n,) of the event; patients: (n,). Each point: least and greatest probability in
    it, numbers of images and patients, mean predicted and observed frequency, Wilson limits of the latter with the
    effective n.
    """
    labels, probabilities = np.asarray(labels, dtype=np.float64), np.asarray(probabilities, dtype=np.float64)
    codes, n_patients = patient_codes(patients)
    which = bin_numbers(probabilities, bins=bins, binning=binning)
    points = []
    for number in np.unique(which):
        inside = which == number
        columns = np.stack([labels[inside], np.ones(inside.sum())], axis=1)
        successes, totals = patient_sums(columns, codes[inside], n_patients).T
        observed = float(labels[inside].mean())
        limits = wilson(observed, effective_n(successes, totals), confidence=confidence)
        points.append(
            {
                "from": float(probabilities[inside].min()),
                "to": float(probabilities[inside].max()),
                "n_images": int(inside.sum()),
                "n_patients": int((totals > 0).sum()),
                "predicted": float(probabilities[inside].mean()),
                "observed": observed,
                "low": limits.low,
                "high": limits.high,
            }
        )
    return points


def fit_temperature(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Temperature, 0.05 to 20, that maximises the likelihood of softmax(log p / T) on validation cases (Guo 2017).

    labels: (n,) class numbers; probabilities: (n, k), or (n,) of the positive class with labels 0/1. 1.0 without cases.
    """
    logs = _logs(probabilities)
    labels = np.asarray(labels, dtype=int)
    if len(labels) == 0:
        return 1.0

    def loss(log_temperature: float) -> float:
        return -float(log_softmax(logs / np.exp(log_temperature), axis=1)[np.arange(len(labels)), labels].mean())

    return float(np.exp(minimize_scalar(loss, bounds=(np.log(0.05), np.log(20.0)), method="bounded").x))


def apply_temperature(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities after temperature scaling, in the shape given: (n, k), or (n,) of the positive class."""
    logs = _logs(probabilities) / temperature
    scaled = np.exp(logs - logsumexp(logs, axis=1, keepdims=True))
    return scaled[:, 1] if np.ndim(probabilities) == 1 else scaled


def fit_platt(labels: np.ndarray, probabilities: np.ndarray) -> tuple[float, float]:
    """Intercept and slope of Platt's logistic recalibration on validation cases, with his smoothed targets (1999).

    labels: (n,) 0/1; probabilities: (n,). The smoothing keeps the fit finite where the classes are separated. Without
    cases of both classes, or where all probabilities are equal, (0, 1): no change.
    """
    labels = np.asarray(labels, dtype=np.float64)
    positives, negatives = labels.sum(), (1 - labels).sum()
    if min(positives, negatives) < 1 or np.ptp(probabilities) == 0:
        return 0.0, 1.0
    target = np.where(labels > 0, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    # A fractional target is the same likelihood as a weighted positive and a weighted negative copy of the case.
    doubled = np.r_[np.ones(len(labels)), np.zeros(len(labels))]
    weights = np.r_[target, 1 - target][None]
    intercept, slope = calibration_line(doubled, np.tile(clipped_logit(probabilities), 2), weights)[0]
    return float(intercept), float(slope)


def apply_platt(probabilities: np.ndarray, line: tuple[float, float]) -> np.ndarray:
    """Probabilities (n,) of the positive class after Platt's recalibration by (intercept, slope)."""
    return expit(line[0] + line[1] * clipped_logit(probabilities))


def calibration_numbers(labels: np.ndarray, probabilities: np.ndarray, *, bins: int = 10) -> dict[str, float | None]:
    """Slope, intercept, Brier score, log loss and ECE of (n,) probabilities of the event; None where undefined."""
    labels, probabilities = np.asarray(labels, dtype=np.float64), np.asarray(probabilities, dtype=np.float64)
    logits = clipped_logit(probabilities)
    numbers = {
        "calibration_slope": calibration_line(labels, logits)[0, 1],
        "calibration_intercept": calibration_in_the_large(labels, logits)[0],
        "brier": np.mean((labels - probabilities) ** 2),
        "log_loss": log_losses(labels, probabilities).mean(),
        "ece": expected_calibration_error(labels, probabilities, bins=bins),
    }
    return {name: float(value) if np.isfinite(value) else None for name, value in numbers.items()}


def recalibration(
    validation_labels: np.ndarray,
    validation_probabilities: np.ndarray,
    test_labels: np.ndarray,
    test_probabilities: np.ndarray,
    *,
    method: str = "temperature",
    bins: int = 10,
) -> dict[str, Any]:
    """Calibration on test cases before and after a recalibration fitted on validation cases alone.

    All (n,): labels 0/1, probabilities of the event. method: "temperature" or "platt". Returns {"method",
    "parameters", "fitted_on", "before", "after"}, the last two as calibration_numbers gives them. Raises ConfigError
    on another method.
    """
    if method == "temperature":
        temperature = fit_temperature(validation_labels, validation_probabilities)
        parameters = {"temperature": temperature}
        after = apply_temperature(np.asarray(test_probabilities), temperature)
    elif method == "platt":
        line = fit_platt(validation_labels, validation_probabilities)
        parameters = {"intercept": line[0], "slope": line[1]}
        after = apply_platt(test_probabilities, line)
    else:
        raise ConfigError(f"Unknown recalibration {method!r}: use temperature or platt.")
    return {
        "method": method,
        "parameters": parameters,
        "fitted_on": "validation",
        "before": calibration_numbers(test_labels, test_probabilities, bins=bins),
        "after": calibration_numbers(test_labels, after, bins=bins),
    }


def log_losses(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Negative log-likelihood of each case (n,), natural logarithm, probabilities kept 1e-15 from 0 and 1."""
    kept = np.clip(probabilities, 1e-15, 1 - 1e-15)
    return -np.where(np.asarray(labels) > 0, np.log(kept), np.log1p(-kept))


def _logs(probabilities: np.ndarray) -> np.ndarray:
    probabilities = np.asarray(probabilities, dtype=np.float64)
    if probabilities.ndim == 1:
        probabilities = np.stack([1 - probabilities, probabilities], axis=1)
    return np.log(np.clip(probabilities, CLIP, 1.0))
