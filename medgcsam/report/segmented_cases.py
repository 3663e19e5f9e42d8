"""The test cases of cases.csv: one line per case and structure, in numbers, and what the figures draw of them."""

from __future__ import annotations

import numpy as np
import pandas as pd

from medgcsam.errors import DataError
from medgcsam.evaluation.agreement import Agreement, agreement_of
from medgcsam.report.facts import Facts

NUMBERS = ("dice", "nsd", "hd95", "asd", "reference_size", "predicted_size", "size_error")
_TEXTS = ("case", "patient", "partition", "structure", "status", "unit", "size_unit")


def lines_of_test(facts: Facts) -> pd.DataFrame | None:
    """The test partition of cases.csv, ``NUMBERS`` as float64 (NaN where empty); None where there is none.

    Raises:
        DataError: a column is missing, or holds something else than numbers.
    """
    if facts.cases is None:
        return None
    missing = [name for name in (*_TEXTS, *NUMBERS) if name not in facts.cases]
    if missing:
        raise DataError(f"cases.csv: the column {missing[0]!r} is missing; restore the file or run again.")
    table = facts.cases[facts.cases["partition"] == "test"].copy()
    for name in NUMBERS:
        try:
            table[name] = pd.to_numeric(table[name].replace("", None)).astype(np.float64)
        except ValueError as error:
            raise DataError(f"cases.csv: {name} is not a number ({error}); restore the file or run again.") from error
    return None if table.empty else table.reset_index(drop=True)


def with_reference(lines: pd.DataFrame, structure: str) -> pd.DataFrame:
    """The lines of a structure where the reference shows it, worst first: lowest Dice, then largest HD95."""
    found = lines[(lines["structure"] == structure) & lines["status"].isin(["ok", "missed"])]
    return found.sort_values(["dice", "hd95", "case"], ascending=[True, False, True], kind="stable")


def false_positives(lines: pd.DataFrame) -> pd.DataFrame:
    """The lines with a prediction where the reference is empty, largest first."""
    found = lines[lines["status"] == "false_positive"]
    return found.sort_values(["predicted_size", "case"], ascending=[False, True], kind="stable")


def worst_and_median(lines: pd.DataFrame, structure: str, *, worst: int, median: int) -> list[tuple[str, pd.Series]]:
    """("worst" or "median", line) of a structure: the worst, then those in the middle of the order not yet listed."""
    ordered = with_reference(lines, structure)
    first = min(worst, len(ordered))
    start = (len(ordered) - median + 1) // 2
    kinds = [("worst", k) for k in range(first)]
    kinds += [("median", k) for k in range(start, min(start + median, len(ordered))) if k >= first]
    return [(kind, ordered.iloc[k]) for kind, k in kinds]


def agreement(lines: pd.DataFrame, structure: str) -> Agreement | None:
    """Sizes of a structure where the reference shows it; None with too few patients."""
    own = with_reference(lines, structure).dropna(subset=["reference_size", "predicted_size"])
    sizes = (own[name].to_numpy(np.float64) for name in ("reference_size", "predicted_size"))
    return agreement_of(*sizes, own["patient"].to_numpy(str))
