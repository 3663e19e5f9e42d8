"""Agreement of predicted and reference sizes: bias and limits of agreement over patients."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

FEWEST_PATIENTS = 3
METHOD = "Bland and Altman (Lancet 1986): mean difference over patients, plus and minus 1.96 standard deviations"


@dataclass(frozen=True)
class Agreement:
    """Predicted and reference size of a structure, one point per patient (mean over the patient's images).

    ``mean`` (n,) of both, ``difference`` (n,) predicted minus reference; ``bias`` the mean difference, ``low`` and
    ``high`` 1.96 standard deviations around it (Bland and Altman, Lancet 1986).
    """

    mean: np.ndarray
    difference: np.ndarray
    bias: float
    low: float
    high: float


def agreement_of(reference: np.ndarray, predicted: np.ndarray, patients: np.ndarray) -> Agreement | None:
    """Agreement of sizes (n,) of n images whose reference shows the structure, in any unit that they share.

    patients: (n,) of anything that can be sorted. None with fewer than FEWEST_PATIENTS, whose spread says nothing.
    """
    names, codes, counts = np.unique(patients, return_inverse=True, return_counts=True)
    if len(names) < FEWEST_PATIENTS:
        return None
    before, after = (np.bincount(codes, weights=sizes) / counts for sizes in (reference, predicted))
    difference = after - before
    bias, spread = float(difference.mean()), 1.96 * float(difference.std(ddof=1))
    return Agreement((before + after) / 2, difference, bias, bias - spread, bias + spread)
