"""Logistic regression of the outcome on the logit of the prediction, for many weightings of the images at once."""

from __future__ import annotations

import numpy as np
from scipy.special import expit, logit

CLIP = 1e-6
"""Probabilities are kept this far from 0 and 1 before a logit: a softmax in float32 rounds to 0 and 1 exactly."""

MOST_STEPS = 60
CONVERGED = 1e-5
"""Newton's error is about the square of its last step."""


def clipped_logit(probabilities: np.ndarray) -> np.ndarray:
    """Logit of probabilities in [0, 1], clipped to +-13.8."""
    return logit(np.clip(np.asarray(probabilities, dtype=np.float64), CLIP, 1 - CLIP))


def calibration_line(
    labels: np.ndarray,
    logits: np.ndarray,
    weights: np.ndarray | None = None,
    *,
    start: tuple[float, float] = (0.0, 1.0),
) -> np.ndarray:
    """Maximum-likelihood intercept and slope of logit P(label) = intercept + slope * logit: (b, 2).

    labels: (n,) 0/1; logits: (n,); weights: (b, n), one fit per row (None: one row of ones). The slope is infinite
    where the classes are separated, the row NaN where a class has no weight or all logits are equal.
    """
    labels = np.asarray(labels, dtype=np.float64)
    weights = np.ones((1, len(labels))) if weights is None else weights
    line = np.tile(np.asarray(start, dtype=np.float64), (len(weights), 1))
    rows = np.arange(len(weights))
    for _ in range(8):
        if len(rows) == 0:
            return line
        chosen = weights[rows] if len(rows) < len(weights) else weights
        change, sound = _newton_step(labels, logits, chosen, line[rows])
        line[rows] += change
        rows = rows[~(sound & (np.abs(change).max(axis=1) < CONVERGED))]
    line[rows] = _careful_line(labels, logits, weights[rows])
    return line


def calibration_in_the_large(
    labels: np.ndarray, logits: np.ndarray, weights: np.ndarray | None = None, *, start: float = 0.0
) -> np.ndarray:
    """Intercept with the slope held at 1: by how many logits the predictions are too low on average: (b,).

    Arguments as in calibration_line. Infinite where one class only has weight.
    """
    labels = np.asarray(labels, dtype=np.float64)
    weights = np.ones((1, len(labels))) if weights is None else weights
    positives, total = weights @ labels, weights.sum(axis=1)
    shift = np.where(positives <= 0, -np.inf, np.where(positives >= total, np.inf, start))
    rows = np.flatnonzero(np.isfinite(shift))
    for _ in range(MOST_STEPS):
        if len(rows) == 0:
            return shift
        chosen = weights[rows] if len(rows) < len(weights) else weights
        predicted = expit(logits + shift[rows, None])
        gradient = positives[rows] - np.einsum("bi,bi->b", chosen, predicted)
        predicted *= 1 - predicted
        # The expected count is monotone in the shift, so steps of at most 2 cannot run away for long.
        change = np.clip(gradient / np.maximum(np.einsum("bi,bi->b", chosen, predicted), 1e-12), -2.0, 2.0)
        shift[rows] += change
        rows = rows[np.abs(change) >= CONVERGED]
    shift[rows] = np.nan
    return shift


def _careful_line(labels: np.ndarray, logits: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The fit of rows where plain Newton steps wander: they may have no finite one, or need the likelihood watched."""
    line = np.zeros((len(weights), 2))
    direction = _separation(labels, logits, weights)
    line[np.isnan(direction)] = np.nan
    line[np.isinf(direction), 0] = np.nan
    line[np.isinf(direction), 1] = direction[np.isinf(direction)]
    rows = np.flatnonzero(direction == 0)
    for _ in range(MOST_STEPS):
        if len(rows) == 0:
            return line
        change, _ = _newton_step(labels, logits, weights[rows], line[rows])
        change = _halved(labels, logits, weights[rows], line[rows], change)
        line[rows] += change
        rows = rows[np.abs(change).max(axis=1) >= CONVERGED]
    line[rows] = np.nan
    return line


def _separation(labels: np.ndarray, logits: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """0 where a finite fit exists, +-inf where the classes are separated, NaN where there is nothing to fit."""
    order = np.argsort(logits, kind="stable")
    ordered = logits[order]
    present = np.take(weights, order, axis=1) > 0
    ends = []
    for wanted in (labels[order] > 0, labels[order] <= 0):
        used = present & wanted
        none = ~used.any(axis=1)
        low = ordered[used.argmax(axis=1)]
        high = ordered[len(ordered) - 1 - used[:, ::-1].argmax(axis=1)]
        low[none] = high[none] = np.nan
        ends.append((low, high))
    (positive_low, positive_high), (negative_low, negative_high) = ends
    result = np.zeros(len(weights))
    result[positive_low >= negative_high] = np.inf
    result[positive_high <= negative_low] = -np.inf
    flat = (positive_low == positive_high) & (negative_low == negative_high) & (positive_low == negative_low)
    result[flat | np.isnan(positive_low) | np.isnan(negative_low)] = np.nan
    return result


def _newton_step(
    labels: np.ndarray, logits: np.ndarray, weights: np.ndarray, line: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """One Newton step per row, (b, 2), and whether its curvature is sound: (b,)."""
    predicted = expit(line[:, :1] + line[:, 1:] * logits)
    both = np.stack([np.ones_like(logits), logits], axis=1)
    weighted = weights * predicted
    gradient = weights @ (both * labels[:, None]) - weighted @ both
    weighted *= 1 - predicted
    h00, h01, h11 = (weighted @ np.stack([np.ones_like(logits), logits, logits**2], axis=1)).T
    determinant = h00 * h11 - h01**2
    sound = determinant > 1e-9 * h00 * h11
    g0, g1 = gradient.T
    change = np.stack([h11 * g0 - h01 * g1, h00 * g1 - h01 * g0], axis=1) / np.maximum(determinant, 1e-300)[:, None]
    # A saturated fit has next to no curvature and would throw the step far out.
    return change / np.maximum(1.0, np.abs(change).max(axis=1, keepdims=True) / 5.0), sound


def _halved(
    labels: np.ndarray, logits: np.ndarray, weights: np.ndarray, line: np.ndarray, change: np.ndarray
) -> np.ndarray:
    """Halve each row's step until its likelihood does not fall."""

    def likelihood(at: np.ndarray) -> np.ndarray:
        eta = at[:, :1] + at[:, 1:] * logits
        return (weights * (labels * eta - np.logaddexp(0.0, eta))).sum(axis=1)

    before = likelihood(line)
    for _ in range(30):
        worse = likelihood(line + change) < before - 1e-10 * np.abs(before)
        if not worse.any():
            break
        change[worse] /= 2
    return change
