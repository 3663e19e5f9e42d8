"""Connected components of a segmentation: the largest alone, where the validation cases are better off with it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np
from scipy import ndimage


@dataclass(frozen=True)
class ComponentChoice:
    """Whether one structure keeps its largest component alone, and the mean Dice on validation that says so.

    ``dice_all``, ``dice_largest``: over ``patients`` patients with the structure in the reference; None without any.
    """

    largest: bool
    dice_all: float | None
    dice_largest: float | None
    patients: int


def largest_component(mask: np.ndarray) -> np.ndarray:
    """The largest connected component of a mask (*spatial), as a boolean array; of equal ones the first in order.

    Voxels that share a face, an edge or a corner are connected: 8 neighbours in 2-D, 26 in 3-D.
    """
    mask = np.asarray(mask, dtype=bool)
    result = np.zeros_like(mask)
    box = _bounding_box(mask)
    if box is None:
        return result
    labels, count = ndimage.label(mask[box], structure=np.ones((3,) * mask.ndim))
    result[box] = labels == 1 if count == 1 else labels == 1 + np.bincount(labels.ravel())[1:].argmax()
    return result


def keep_largest(label: np.ndarray, structures: Collection[int], *, overlapping: bool) -> np.ndarray:
    """A copy of ``label`` in which each of ``structures`` (numbers from 1) is reduced to its largest component.

    ``label``: numbers (1, *spatial), or if overlapping 0/1 (structures, *spatial). What is left out becomes 0.
    """
    result = np.array(label)
    for number in structures:
        if overlapping:
            result[number - 1] = largest_component(label[number - 1])
        else:
            mask = label == number
            result[mask & ~largest_component(mask[0])] = 0
    return result


def choose_components(
    cases: Iterable[tuple[Any, np.ndarray, np.ndarray]], structures: Sequence[str], *, overlapping: bool
) -> dict[str, ComponentChoice]:
    """Decide for each structure whether the largest component alone gives a strictly higher mean Dice.

    ``cases``: (patient, reference, predicted) of the validation cases, labels as ``keep_largest`` takes them; read one
    at a time. A patient with several cases counts once. As in the metric itself, cases without the structure in the
    reference do not enter the mean: there, nothing that is removed could become right, since a component always stays.
    """
    found: dict[str, dict[Any, list[tuple[float, float]]]] = {name: {} for name in structures}
    for patient, reference, predicted in cases:
        if np.shape(reference) != np.shape(predicted):
            raise ValueError(f"a reference of {np.shape(reference)} and a prediction of {np.shape(predicted)}")
        for number, name in enumerate(structures, start=1):
            wanted = np.asarray(reference[number - 1] if overlapping else reference[0] == number, dtype=bool)
            given = np.asarray(predicted[number - 1] if overlapping else predicted[0] == number, dtype=bool)
            if wanted.any():
                pair = _dice(wanted, given), _dice(wanted, largest_component(given))
                found[name].setdefault(patient, []).append(pair)
    return {name: _choice(patients) for name, patients in found.items()}


def _choice(patients: dict[Any, list[tuple[float, float]]]) -> ComponentChoice:
    if not patients:
        return ComponentChoice(False, None, None, 0)
    means = [tuple(fmean(values) for values in zip(*pairs, strict=True)) for pairs in patients.values()]
    every, largest = (fmean(values) for values in zip(*means, strict=True))
    return ComponentChoice(largest > every, every, largest, len(patients))


def _dice(wanted: np.ndarray, given: np.ndarray) -> float:
    return 2 * np.count_nonzero(wanted & given) / (np.count_nonzero(wanted) + np.count_nonzero(given))


def _bounding_box(mask: np.ndarray) -> tuple[slice, ...] | None:
    """The smallest box around a mask; None where it is empty."""
    box = []
    for axis in range(mask.ndim):
        others = tuple(other for other in range(mask.ndim) if other != axis)
        hits = np.flatnonzero(mask.any(axis=others))
        if not len(hits):
            return None
        box.append(slice(int(hits[0]), int(hits[-1]) + 1))
    return tuple(box)
