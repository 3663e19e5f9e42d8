"""The threshold of a decision: chosen on the validation patients, then frozen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from medgcsam.errors import ConfigError
from medgcsam.evaluation.patients import patient_codes

RULES = ("youden", "sensitivity", "specificity")
FALLBACK = 0.5


def choose_operating_point(
    labels: np.ndarray,
    probabilities: np.ndarray,
    patients: np.ndarray,
    *,
    rule: str = "youden",
    target: float | None = None,
    chosen_on: str = "validation",
) -> dict[str, Any]:
    """Choose the threshold of one binary decision: positive means probability >= threshold.

    labels: (n,) 0/1, NaN = unlabelled and left out; probabilities: (n,) of the positive class; patients: (n,). Images
    count equally, as they do in the sensitivity and specificity that are reported.

    rule: "youden" maximises sensitivity + specificity (of equals, the highest sensitivity); "sensitivity" takes the
    highest threshold whose sensitivity reaches target, "specificity" the lowest whose specificity does. Thresholds
    lie half-way between neighbouring probabilities. Without both classes nothing can be chosen: the threshold is then
    0.5, the rule "none", and "reason" says why. A multi-class task needs none: the decision is the largest
    probability.

    Returns {"threshold", "rule", "target", "chosen_on", "sensitivity", "specificity", "n_patients", "n_images",
    "n_events"}. Raises ConfigError on an unknown rule or a target outside (0, 1].
    """
    _check(rule, target)
    labels, probabilities = np.asarray(labels, dtype=np.float64), np.asarray(probabilities, dtype=np.float64)
    labelled = ~np.isnan(labels)
    positive, scores = labels[labelled] > 0, probabilities[labelled]
    counts = {
        "n_patients": patient_codes(np.asarray(patients)[labelled])[1],
        "n_images": len(positive),
        "n_events": int(positive.sum()),
    }
    if positive.all() or not positive.any():
        missing = "negative" if positive.any() else "positive"
        point = {"threshold": FALLBACK, "rule": "none", "target": None, "chosen_on": chosen_on}
        point |= {"sensitivity": None, "specificity": None, **counts}
        return point | {"reason": f"no {missing} case in {chosen_on}, so the threshold is {FALLBACK} by default"}
    thresholds, sensitivity, specificity = _candidates(positive, scores)
    if rule == "youden":
        best = int(np.argmax(np.round(sensitivity + specificity, 12)))
    elif rule == "sensitivity":
        best = int(np.flatnonzero(sensitivity >= target - 1e-12)[-1])
    else:
        best = int(np.flatnonzero(specificity >= target - 1e-12)[0])
    return {
        "threshold": float(thresholds[best]),
        "rule": rule,
        "target": target,
        "chosen_on": chosen_on,
        "sensitivity": float(sensitivity[best]),
        "specificity": float(specificity[best]),
        **counts,
    }


def choose_operating_points(
    labels: np.ndarray,
    probabilities: np.ndarray,
    patients: np.ndarray,
    *,
    classes: Sequence[str],
    rule: str = "youden",
    target: float | None = None,
    chosen_on: str = "validation",
) -> dict[str, dict[str, Any]]:
    """One operating point per class of a multi-label task. labels, probabilities: (n, k), NaN labels masked."""
    labels, probabilities = np.asarray(labels, dtype=np.float64), np.asarray(probabilities)
    options = {"rule": rule, "target": target, "chosen_on": chosen_on}
    return {
        name: choose_operating_point(labels[:, column], probabilities[:, column], patients, **options)
        for column, name in enumerate(classes)
    }


def _candidates(positive: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Thresholds in rising order, from all positive to none, with their sensitivities and specificities."""
    distinct = np.unique(scores)
    middle = (distinct[1:] + distinct[:-1]) / 2
    # Half-way between neighbouring floats rounds to one of them; it must not be the lower one.
    middle = np.where(middle > distinct[:-1], middle, distinct[1:])
    top = (distinct[-1] + 1) / 2 if distinct[-1] < 1 else np.nextafter(1.0, 2.0)
    thresholds = np.r_[min(0.0, distinct[0]), middle, max(top, np.nextafter(distinct[-1], 2.0))]
    positives, negatives = np.sort(scores[positive]), np.sort(scores[~positive])
    sensitivity = 1 - np.searchsorted(positives, thresholds, "left") / len(positives)
    specificity = np.searchsorted(negatives, thresholds, "left") / len(negatives)
    return thresholds, sensitivity, specificity


def _check(rule: str, target: float | None) -> None:
    if rule not in RULES:
        raise ConfigError(f"Unknown operating point rule {rule!r}: use one of {', '.join(RULES)}.")
    if rule != "youden" and (target is None or not 0 < target <= 1):
        raise ConfigError(f"The operating point rule {rule!r} needs a target above 0 and at most 1, not {target}.")
