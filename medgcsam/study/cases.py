"""What a task has to say to a comparison: its metrics, and the test cases of a run with what was made of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas

from medgcsam.errors import DataError
from medgcsam.run_folder import read_table


@dataclass(frozen=True)
class Measures:
    """The metrics that a comparison of one task makes."""

    words: Mapping[str, str]
    """Name -> what a table calls it; the first is the primary metric."""
    losses: tuple[str, ...]
    """Those of which less is better."""
    optional: tuple[str, ...] = ()
    """Those that are left out where no case has them."""
    bootstrap: str = ""
    """How patients are drawn, in words."""

    @property
    def names(self) -> tuple[str, ...]:
        """All of them."""
        return tuple(self.words)

    @property
    def primary(self) -> str:
        """The metric that the primary family and the margin are about."""
        return self.names[0]


@dataclass(frozen=True)
class Cases:
    """The n test cases of a run."""

    cases: np.ndarray
    """(n,) hashes."""
    patients: np.ndarray
    """(n,) hashes."""
    labels: np.ndarray
    """What the reference says, (n,) or (n, k), NaN where it says nothing; as the task has it."""
    answers: np.ndarray
    """What was made of them, (n, ...) float64; as the task has it."""


def read_test_cases(path: Path) -> pandas.DataFrame:
    """The lines of a table of cases that are about the test partition.

    Raises:
        DataError: the table is absent or damaged, or there is none.
    """
    table = read_table(path)
    table = table[table["partition"] == "test"]
    if table.empty:
        raise DataError(f"{path}: there is no test case in it; run the study anew with --restart.")
    return table
