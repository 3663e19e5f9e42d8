"""The patient bootstrap: one engine that resamples patients, never images, for any statistic of weighted images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from medgcsam.evaluation.patients import patient_sums

Statistic = Callable[[np.ndarray], np.ndarray]
"""Takes patient weights (b, P), returns m numbers per row (b, m); may give NaN where a row leaves it undefined."""


@dataclass(frozen=True)
class Replicates:
    """What the engine found: m statistics on the sample, on every replicate, and with patients left out."""

    estimate: np.ndarray
    """(m,) on the sample itself."""
    values: np.ndarray
    """(B, m) on the bootstrap replicates."""
    left_out: np.ndarray
    """(G, m) with one patient (in large samples one group of patients) left out."""
    left_out_strata: np.ndarray
    """(G,) stratum of the patient left out."""


@dataclass(frozen=True)
class PatientBootstrap:
    """Draws patients with replacement within strata; all images of a patient move together.

    A replicate is a row of patient weights: how often each patient was drawn. Two calls with equal strata and
    seed see the same replicates, whatever the chunk size, so differences between two models are paired by
    construction.
    """

    strata: np.ndarray
    """(P,) stratum number of each patient."""
    n_images: int
    """Width of the image weights that the statistic makes; it only sets how many replicates go into a chunk."""
    replicates: int = 2000
    seed: int = 0
    chunk_bytes: int = 2 * 2**20
    """Bound on one array of image weights; a statistic holds a handful of them at a time."""
    most_left_out: int = 500
    """With more patients than this the jackknife leaves out groups of patients; its cubes average out."""

    def run(self, statistic: Statistic) -> Replicates:
        """Evaluate the statistic on the sample, on all replicates, and with each patient left out."""
        ones = np.ones((1, len(self.strata)))
        left_out, strata = [], []
        for weights, stratum in self.leave_out():
            left_out.append(statistic(weights))
            strata.append(stratum)
        estimate = statistic(ones)[0]
        return Replicates(
            estimate=estimate,
            values=np.concatenate([statistic(weights) for weights in self.draws()]),
            left_out=np.concatenate(left_out) if left_out else np.empty((0, len(estimate))),
            left_out_strata=np.concatenate(strata) if strata else np.empty(0, dtype=int),
        )

    def draws(self) -> Iterator[np.ndarray]:
        """Yield the replicates in chunks of patient weights (b, P), whole numbers held as float64."""
        members = self._members()
        children = np.random.SeedSequence(self.seed).spawn(len(members))
        generators = [np.random.default_rng(child) for child in children]
        for start in range(0, self.replicates, self._rows()):
            rows = min(self._rows(), self.replicates - start)
            weights = np.empty((rows, len(self.strata)))
            for patients, generator in zip(members, generators, strict=True):
                size = len(patients)
                drawn = generator.integers(0, size, size=(rows, size))
                drawn += np.arange(rows)[:, None] * size
                weights[:, patients] = np.bincount(drawn.ravel(), minlength=rows * size).reshape(rows, size)
            yield weights

    def leave_out(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield patient weights (b, P) with one patient at zero, and the strata (b,) of these patients.

        The others of its stratum are weighted up to the stratum's size, as the replicates keep these sizes too
        (Davison and Hinkley 1997, section 5.3.2). A patient alone in its stratum is in every replicate and is never
        left out.
        """
        groups, strata = self._left_out_groups()
        for start in range(0, len(groups), self._rows()):
            chunk = groups[start : start + self._rows()]
            weights = np.ones((len(chunk), len(self.strata)))
            for row, group in zip(weights, chunk, strict=True):
                peers = self.strata == self.strata[group[0]]
                size = peers.sum()
                row[peers] = size / (size - len(group))
                row[group] = 0.0
            yield weights, strata[start : start + self._rows()]

    def _left_out_groups(self) -> tuple[list[np.ndarray], np.ndarray]:
        generator = np.random.default_rng(self.seed)
        groups: list[np.ndarray] = []
        strata: list[int] = []
        for stratum, patients in enumerate(self._members()):
            if len(patients) < 2:
                continue
            count = len(patients)
            if len(self.strata) > self.most_left_out:
                count = max(2, round(self.most_left_out * len(patients) / len(self.strata)))
                patients = generator.permutation(patients)
            groups.extend(np.array_split(patients, min(count, len(patients))))
            strata.extend([stratum] * (len(groups) - len(strata)))
        return groups, np.array(strata, dtype=int)

    def _members(self) -> list[np.ndarray]:
        return [np.flatnonzero(self.strata == stratum) for stratum in np.unique(self.strata)]

    def _rows(self) -> int:
        return max(1, self.chunk_bytes // (8 * max(self.n_images, len(self.strata), 1)))


def statistic_of_sums(columns: np.ndarray, codes: np.ndarray, n_patients: int, function: Statistic) -> Statistic:
    """Make a statistic out of a function of weighted sums over images: one matrix product per chunk.

    columns: (n, m) what to sum; function: sums (b, m) -> numbers (b, any). Means, Brier scores and all rates are of
    this kind.
    """
    sums = patient_sums(columns, codes, n_patients)
    return lambda weights: function(weights @ sums)
