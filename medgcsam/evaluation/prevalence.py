"""Predictive values where the finding is as frequent as it is in practice, not as in the test set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def predictive_values_at(
    prevalence: float, lr_positive: Mapping[str, Any], lr_negative: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """PPV and NPV at a prevalence in (0, 1), from the entries of the likelihood ratios.

    By Bayes' theorem PPV = 1 / (1 + (1 - q) / (q LR+)) and NPV = 1 / (1 + q LR- / (1 - q)) with q the prevalence; both
    are monotone in the ratio, so the ends of its interval give the ends of theirs (the prevalence taken as known).
    A ratio without a finite value because no image was called wrongly is infinite.
    """
    odds = prevalence / (1 - prevalence)
    positive = {key: _share(_number(lr_positive, key) * odds) for key in ("value", "low", "high")}
    rising = {key: _share_of_inverse(_number(lr_negative, key) * odds) for key in ("value", "low", "high")}
    negative = {"value": rising["value"], "low": rising["high"], "high": rising["low"]}
    entries = {}
    for name, source, numbers in (("ppv", lr_positive, positive), ("npv", lr_negative, negative)):
        method = f"Bayes' theorem at prevalence {prevalence:g} from the likelihood ratio ({source['method']})"
        counts = {key: source[key] for key in ("n_patients", "n_images", "n_events")}
        entries[f"{name}_at_prevalence"] = {**numbers, **counts, "prevalence": prevalence, "method": method}
        if None in numbers.values():
            entries[f"{name}_at_prevalence"]["reason"] = source.get("reason", "the likelihood ratio has no value")
    return entries


def _number(entry: Mapping[str, Any], key: str) -> float:
    """The number; infinity where only it is missing beside a finite lower end; not a number where all are."""
    if entry[key] is not None:
        return float(entry[key])
    return float("inf") if entry["low"] is not None and key != "low" else float("nan")


def _share(odds: float) -> float | None:
    if odds != odds:
        return None
    return 1.0 if odds == float("inf") else odds / (1 + odds)


def _share_of_inverse(odds: float) -> float | None:
    return None if odds != odds else 1 / (1 + odds)
