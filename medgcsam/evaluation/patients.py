"""Which images belong together: patient codes, strata of patients, and the effective number of cases."""

from __future__ import annotations

import numpy as np

from medgcsam.errors import DataError

SMALLEST_STRATUM = 10
"""Strata with fewer patients are merged: resampling s patients among themselves understates the variance by 1/s."""


def patient_codes(patients: np.ndarray) -> tuple[np.ndarray, int]:
    """Number the patients 0 ... P-1 in the order in which they come first.

    Not in the order of their identifiers: these may be hashes, and a bootstrap must not depend on their salt.

    patients: (n,) identifiers of any one type, one per image. Returns codes (n,) of integers, and P.
    Raises DataError where an identifier is missing.
    """
    patients = np.asarray(patients)
    if patients.ndim != 1:
        raise DataError(f"The patients must be one identifier per image, a vector; their shape is {patients.shape}.")
    if patients.dtype.kind == "f":
        missing = np.isnan(patients)
    elif patients.dtype.kind in "OUS":
        missing = np.array([value is None or value != value or str(value) == "" for value in patients], dtype=bool)
    else:
        missing = np.zeros(len(patients), dtype=bool)
    if missing.any():
        raise DataError(
            f"{int(missing.sum())} of {len(patients)} images have no patient identifier (first: image number "
            f"{int(missing.argmax())}): complete the patient column."
        )
    if patients.dtype.kind == "O":
        patients = patients.astype(str)
    _, first, codes = np.unique(patients, return_index=True, return_inverse=True)
    order = np.empty(len(first), dtype=np.int64)
    order[np.argsort(first)] = np.arange(len(first))
    return order[codes.reshape(-1)], len(first)


def patient_sums(columns: np.ndarray, codes: np.ndarray, n_patients: int) -> np.ndarray:
    """Sum each column over the images of each patient. columns: (n, m). Returns (P, m)."""
    columns = np.asarray(columns, dtype=np.float64)
    return np.stack([np.bincount(codes, weights=column, minlength=n_patients) for column in columns.T], axis=1)


def patient_strata(indicators: np.ndarray, codes: np.ndarray, n_patients: int) -> np.ndarray:
    """Group patients by the set of classes that their images show, so that no bootstrap replicate lacks a class.

    indicators: (n, k) True where image i shows class j (for a binary task the columns are "negative" and "positive",
    and the strata are then negative, positive and both). Sets with fewer than SMALLEST_STRATUM patients join the
    stratum of the rarest class they show. Returns (P,) stratum numbers.
    """
    shown = patient_sums(np.asarray(indicators), codes, n_patients) > 0
    rarity = shown.sum(axis=0)
    rows, which, sizes = np.unique(shown, axis=0, return_inverse=True, return_counts=True)
    for row, size in zip(rows, sizes, strict=True):
        if size < SMALLEST_STRATUM and row.sum() > 1:
            rarest = min(np.flatnonzero(row), key=lambda j: (rarity[j], j))
            row[:] = False
            row[rarest] = True
    _, merged = np.unique(rows, axis=0, return_inverse=True)
    return merged.reshape(-1)[which.reshape(-1)]


def effective_n(successes: np.ndarray, totals: np.ndarray) -> float:
    """Number of independent cases that a proportion over clustered images is worth.

    successes, totals: (P,) per patient. The design effect is the variance of the ratio estimator over patients
    divided by the binomial one (Rao and Scott 1992), kept between 1 and its value under complete correlation within
    patients, sum m^2 / sum m. Where the proportion is 0 or 1 the correlation cannot be estimated and the latter,
    cautious, is taken.
    """
    totals = np.asarray(totals, dtype=np.float64)
    used = totals > 0
    totals, successes = totals[used], np.asarray(successes, dtype=np.float64)[used]
    n, n_patients = totals.sum(), len(totals)
    worst = (totals**2).sum() / n
    rate = successes.sum() / n
    if rate in (0.0, 1.0) or n_patients < 2:
        return float(n / worst)
    variance = n_patients / (n_patients - 1) * ((successes - rate * totals) ** 2).sum() / n**2
    effect = variance / (rate * (1 - rate) / n)
    return float(n / np.clip(effect, 1.0, worst))
