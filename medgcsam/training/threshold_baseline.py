"""The simple baseline of segmentation: everything above (or below) one fixed value is the structure.

A network that does not beat it has learnt little that needs a network. It sees the same split: the value and its side
are those with the best mean Dice over the training patients, and then stay for all others.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

METHOD = "best fixed threshold of the training patients"
CANDIDATES = 2000
_SAMPLES = 20_000
_SLAB = 2**22

Case = tuple[int, str, np.ndarray, np.ndarray]
"""row, patient, values (c, *spatial) and reference label (1 or S, *spatial), both on the original grid."""


@dataclass(frozen=True)
class Threshold:
    """The rule for one structure.

    structure: its name. number: its number, from 1. value: the threshold, in the unit of the values. direction:
    ``above``: values of at least ``value`` belong to the structure; ``below``: those under it. dice: mean over the
    training patients that have the structure, of whom there are ``patients``. Without any, the structure is never
    found: ``value`` is infinite and ``dice`` NaN.
    """

    structure: str
    number: int
    value: float
    direction: str
    dice: float
    patients: int

    def __str__(self) -> str:
        if not self.patients:
            return f"{self.structure}: in no training patient"
        sign = ">=" if self.direction == "above" else "<"
        return f"{self.structure} {sign} {self.value:.4g} (training Dice {self.dice:.3f}, {self.patients} patients)"


def threshold_table(
    cases: Iterable[Case], structures: Sequence[str], *, overlapping: bool = False, candidates: int = CANDIDATES
) -> list[Threshold]:
    """The best threshold of each structure, over training cases.

    ``cases`` is gone over twice, one case in memory at a time: once for the quantiles of the values inside and outside
    the structures, which are the thresholds tried, then once for the Dice of each of them, both above and below. Of
    several images of a patient the mean counts; images without the structure say nothing and are left out, as they are
    of the metric ``dice``. Values that are not finite belong to no structure. Ties go to above, then to the lower
    value.

    Args:
        cases: an iterable that begins anew each time (a list, or an object with ``__iter__``), of (row, patient, values
            (c, *spatial), reference). Of the values the first channel counts. The reference holds class numbers
            (1, *spatial), or with ``overlapping`` one channel of 0 and 1 for each structure.
        structures: names, numbered from 1.
        candidates: about as many thresholds are tried for each structure.

    Raises:
        ValueError: ``cases`` can be gone over only once.
    """
    if iter(cases) is cases:
        raise ValueError("cases is gone over twice, so it cannot be a generator; give a list or an object")
    grids = _grids(cases, len(structures), overlapping, candidates)
    sums = [np.zeros((2, len(grid))) for grid in grids]
    patients: list[dict[str, tuple[np.ndarray, int]]] = [{} for _ in structures]
    for _, patient, values, reference in cases:
        flat = np.asarray(values)[0].reshape(-1)
        for position, grid in enumerate(grids):
            inside = _inside(reference, position, overlapping)
            if not inside.any() or not len(grid):
                continue
            total, images = patients[position].get(patient, (np.zeros((2, len(grid))), 0))
            patients[position][patient] = (total + _dice_curves(flat, inside, grid), images + 1)
    for position, own in enumerate(patients):
        for total, images in own.values():
            sums[position] += total / images / len(own)
    return [
        _best(name, position + 1, grids[position], sums[position], len(patients[position]))
        for position, name in enumerate(structures)
    ]


def threshold_label(values: np.ndarray, thresholds: Sequence[Threshold], *, overlapping: bool = False) -> np.ndarray:
    """What the thresholds find in ``values`` (c, *spatial).

    Returns int16 class numbers (1, *spatial), or with ``overlapping`` uint8 0 and 1 (S, *spatial). A voxel that several
    rules claim gets the number of the structure whose rule has the best training Dice, the first of equals: a rule that
    finds little but noise must not spoil the others.
    """
    plane = np.asarray(values)[0]
    found = [_found(plane, threshold) for threshold in thresholds]
    if overlapping:
        return np.stack(found).astype(np.uint8)
    label = np.zeros((1, *plane.shape), np.int16)
    claims = [(t, mask) for t, mask in zip(thresholds, found, strict=True) if t.patients]
    for threshold, mask in sorted(reversed(claims), key=lambda claim: claim[0].dice):  # the best is painted last
        label[0][mask] = threshold.number
    return label


def _found(plane: np.ndarray, threshold: Threshold) -> np.ndarray:
    if not threshold.patients:
        return np.zeros(plane.shape, bool)
    found = plane >= threshold.value if threshold.direction == "above" else plane < threshold.value
    return found & np.isfinite(plane)


def _inside(reference: np.ndarray, position: int, overlapping: bool) -> np.ndarray:
    """Voxels of one structure, flat."""
    reference = np.asarray(reference)
    mask = reference[position] > 0 if overlapping else reference[0] == position + 1
    return mask.reshape(-1)


def _grids(cases: Iterable[Case], structures: int, overlapping: bool, candidates: int) -> list[np.ndarray]:
    """Thresholds to try for each structure, ascending float64: quantiles of the values inside, and of all values.

    Each image of a structure counts alike, so that one large volume does not take all of them.
    """
    inside: list[list[np.ndarray]] = [[] for _ in range(structures)]
    anywhere: list[list[np.ndarray]] = [[] for _ in range(structures)]
    levels = np.linspace(0, 1, 1 + max(2, candidates // 2))
    for _, _, values, reference in cases:
        flat = np.asarray(values)[0].reshape(-1)
        every = _quantiles(flat[:: max(1, len(flat) // _SAMPLES)], levels)
        for position in range(structures):
            mask = _inside(reference, position, overlapping)
            if mask.any():
                own = flat[mask]
                inside[position].append(_quantiles(own[:: max(1, len(own) // _SAMPLES)], levels))
                anywhere[position].append(every)
    return [
        np.unique(np.concatenate([_quantiles(np.concatenate(part), levels) for part in (own, every)]))
        if own
        else np.zeros(0)
        for own, every in zip(inside, anywhere, strict=True)
    ]


def _quantiles(values: np.ndarray, levels: np.ndarray) -> np.ndarray:
    values = values[np.isfinite(values)].astype(np.float64)
    if not len(values):
        return np.zeros(0)
    return np.quantile(values, levels, method="inverted_cdf")  # values that occur


def _dice_curves(flat: np.ndarray, inside: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Dice (2, thresholds) of "at least" and of "under" each threshold of ``grid``."""
    counts = np.zeros((2, len(grid) + 1))  # inside and all, between neighbouring thresholds
    for start in range(0, len(flat), _SLAB):
        part, own = flat[start : start + _SLAB], inside[start : start + _SLAB]
        finite = np.isfinite(part)
        place = np.searchsorted(grid, part[finite], side="right")
        counts[0] += np.bincount(place[own[finite]], minlength=len(grid) + 1)
        counts[1] += np.bincount(place, minlength=len(grid) + 1)
    under = counts.cumsum(axis=1)[:, :-1]
    above = counts.sum(axis=1, keepdims=True) - under
    size = int(inside.sum())
    return np.stack([2 * hit / (every + size) for hit, every in (above, under)])


def _best(structure: str, number: int, grid: np.ndarray, dice: np.ndarray, patients: int) -> Threshold:
    if not patients:
        return Threshold(structure, number, math.inf, "above", math.nan, 0)
    side, place = np.unravel_index(int(np.argmax(np.round(dice, 12))), dice.shape)
    direction = ("above", "below")[int(side)]
    return Threshold(structure, number, float(grid[place]), direction, float(dice[side, place]), patients)
