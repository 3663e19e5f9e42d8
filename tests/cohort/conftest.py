"""Small cohorts to split and to read."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest


@pytest.fixture
def write_csv(tmp_path: Path) -> Callable[..., Path]:
    """Write lines as manifest.csv and give its path."""

    def write(*lines: str, name: str = "manifest.csv") -> Path:
        path = tmp_path / name
        path.write_text("\n".join(lines) + "\n", "utf-8")
        return path

    return write


def _cohort(labels: Sequence[Sequence[str]]) -> pd.DataFrame:
    """One patient per entry, one image per label."""
    rows = [
        {"image": f"/x/{patient}-{number}.png", "patient_id": f"P{patient:03d}", "label": label}
        for patient, own in enumerate(labels)
        for number, label in enumerate(own)
    ]
    table = pd.DataFrame(rows, dtype=str)
    table["case"] = table["image"].str.removeprefix("/x/")
    table["line"] = [str(number + 2) for number in range(len(table))]
    return table


@pytest.fixture
def cohort() -> Callable[[Sequence[Sequence[str]]], pd.DataFrame]:
    """Make a table from the labels of each patient's images."""
    return _cohort


@pytest.fixture
def ninety(cohort) -> pd.DataFrame:
    """90 patients: 50 healthy, 30 ill, 10 with images of both, one to three images each."""
    random = np.random.default_rng(5)
    kinds = [["well"]] * 50 + [["ill"]] * 30
    labels = [kind * int(random.integers(1, 4)) for kind in kinds] + [["well", "ill"]] * 10
    return cohort([labels[index] for index in random.permutation(90)])


@pytest.fixture
def name_of() -> Callable[[str], str]:
    """A stand-in for salted hashes."""
    return lambda value: hashlib.sha256(f"salt{value}".encode()).hexdigest()[:16]
