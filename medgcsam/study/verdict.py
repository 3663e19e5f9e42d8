"""What may be said about a difference: Holm's correction, equivalence within a margin, and the verdict in words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medgcsam.evaluation.intervals import Interval

BETTER, WORSE, EQUIVALENT, INCONCLUSIVE = "better", "worse", "equivalent", "inconclusive"
UNTESTED = "not tested, as there is one seed"
"""In words, where the verdict is inconclusive because no test was made, whatever the interval says."""


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p-values (1979, Scand J Stat 6:65) of one family, in the given order.

    A test that could not be made (NaN) keeps its place in the family, as if its p were 1, and stays NaN.
    """
    p = np.array([1.0 if np.isnan(value) else value for value in p_values])
    order = np.argsort(p, kind="stable")
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return [np.nan if np.isnan(value) else float(new) for value, new in zip(p_values, adjusted, strict=True)]


def verdict(
    difference: float, p: float, inner: Interval, *, alpha: float, margin: float | None, less_is_better: bool = False
) -> str:
    """One of better, worse, equivalent, inconclusive.

    Args:
        difference: a - b.
        p: two-sided, adjusted where the pair belongs to a family; NaN: no test, hence inconclusive.
        inner: interval of level 1 - 2 alpha: wholly within the margin, it is two one-sided tests at alpha (TOST).
        alpha: level of the tests.
        margin: largest difference that does not matter; None: none was set, and equivalence is never claimed.
        less_is_better: of a loss.

    A difference that is proven, but proven to be within the margin too, is equivalent: it does not matter.
    """
    if not np.isfinite(p):
        return INCONCLUSIVE
    if margin is not None and -margin < inner.low and inner.high < margin:
        return EQUIVALENT
    if p >= alpha:
        return INCONCLUSIVE
    return WORSE if (difference < 0) != less_is_better else BETTER


def verdict_sentence(word: str, *, budget: str, gradient_evaluations: float | None, margin: float | None) -> str:
    """The verdict with the budget and the price it was reached at."""
    if word == EQUIVALENT:
        word = f"{word} within {margin:g}"
    at = f"{word}; at {budget}" if word == UNTESTED else f"{word} at {budget}"
    if gradient_evaluations is None:
        return at
    times = f"{gradient_evaluations:.2f}"
    return f"{at}, with {'as many' if times == '1.00' else f'{times} times the'} gradient evaluations"


def beyond_sentence(word: str, *, margin: float | None) -> str:
    """The verdict on a setting beside the sanity baseline."""
    if word == UNTESTED:
        return word
    if word == EQUIVALENT:
        return f"equivalent within {margin:g} to the sanity baseline"
    return f"{word} {'against' if word == INCONCLUSIVE else 'than'} the sanity baseline"
