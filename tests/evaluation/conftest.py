"""Made-up predictions with patients as clusters, for the tests of evaluation."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.special import expit

Cohort = tuple[np.ndarray, np.ndarray, np.ndarray]


def make_cohort(
    n_patients: int = 120,
    *,
    seed: int = 0,
    shift: float = 1.5,
    most_images: int = 3,
    mixed: float = 0.05,
    decimals: int = 9,
) -> Cohort:
    """labels, probabilities, patients, each (n,): 1 to most_images images per patient, scores correlated by 0.6."""
    generator = np.random.default_rng(seed)
    patients = np.repeat(np.arange(n_patients), generator.integers(1, most_images + 1, n_patients))
    labels = (generator.random(n_patients) < 0.35)[patients]
    labels = np.where(generator.random(len(labels)) < mixed, ~labels, labels)
    noise = np.sqrt(0.6) * generator.normal(size=n_patients)[patients]
    noise += np.sqrt(0.4) * generator.normal(size=len(labels))
    return labels.astype(int), np.round(expit(shift * labels + noise - 1), decimals), patients


@pytest.fixture
def cohort() -> Callable[..., Cohort]:
    return make_cohort
