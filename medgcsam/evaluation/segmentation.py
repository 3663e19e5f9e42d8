"""One case and one structure in numbers: overlap, surfaces, size, parts, and what is said where a mask is empty."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.ndimage import generate_binary_structure, label

from medgcsam.errors import DataError
from medgcsam.evaluation.surfaces import bounding_box, surface_distances

STATUSES = ("ok", "missed", "false_positive", "both_empty")
NUMBERS = (
    "dice", "nsd", "hd95", "asd", "reference_size", "predicted_size", "size_error",
    "lesions_reference", "lesions_found", "lesions_false",
)  # fmt: skip
EMPTY_RULE = (
    "Reference and prediction empty: right, left out of both Dice means and counted. Reference empty, prediction not: "
    "a false positive, counted, left out of dice, 0 in dice_with_empty. Reference present, prediction empty: missed, "
    "counted, Dice 0, NSD 0, HD95 and average surface distance the image diagonal."
)


def case_metrics(
    reference: np.ndarray,
    predicted: np.ndarray,
    *,
    spacing: Sequence[float] | None,
    tolerance: float,
    unit: str | None = None,
) -> dict[str, Any]:
    """Compare the predicted mask of a structure with its reference.

    Dice (1945) counts voxels. NSD, HD95 and average surface distance follow Nikolov et al. 2018 (arXiv 1809.04430), as
    ``surfaces`` says. A volume of one slice is measured as the picture that it is.

    Args:
        reference, predicted: bool or 0 and 1, (row, column) or (i, j, k), of one shape, on the grid of the image.
        spacing: mm per axis, or None where it is unknown: everything is then in pixels.
        tolerance: distance of two surfaces that does not matter to NSD, in mm, or pixels where the spacing is unknown.
        unit: of the spacing, "mm" or "px" (a spacing of which only the proportions are known); None: "mm" if there is
            a spacing.

    Returns:
        ``status``: one of STATUSES.
        ``dice``, ``nsd``: 0 to 1. ``hd95``, ``asd``: in ``unit``. Of "missed" Dice and NSD are 0 and both distances are
        the image diagonal; of "false_positive" Dice is 0 and the others are NaN; of "both_empty" all are NaN.
        ``reference_size``, ``predicted_size``, ``size_error`` (predicted - reference): in ``size_unit``, which is "ml"
        of volumes and "mm2" of pictures, without mm "voxels" and "px".
        ``lesions_reference``: connected parts (8 neighbours in 2-D, 26 in 3-D) of the reference; ``lesions_found``:
        those of them that the prediction touches; ``lesions_false``: parts of the prediction that touch no reference.

    Raises:
        DataError: shapes differ or are neither 2-D nor 3-D; spacing, unit or tolerance are no sensible numbers.
    """
    reference, predicted = np.asarray(reference, dtype=bool), np.asarray(predicted, dtype=bool)
    unit = unit or ("px" if spacing is None else "mm")
    scale = _checked(reference, predicted, spacing, tolerance, unit)
    counts = np.array([np.count_nonzero(reference), np.count_nonzero(predicted)])
    status = _status(*counts)
    size_unit, factor = _size_unit(scale, unit)
    sizes = counts * factor
    kept = _axes(reference.shape)
    box = bounding_box(reference, predicted)
    flat = tuple(box[axis] if axis in kept else 0 for axis in range(reference.ndim))
    diagonal = float(np.linalg.norm(np.array(reference.shape)[kept] * scale[kept]))
    pair = reference[flat], predicted[flat]
    return {
        "status": status,
        **_agreement(*pair, counts, scale[kept], tolerance, diagonal, status),
        "reference_size": float(sizes[0]),
        "predicted_size": float(sizes[1]),
        "size_error": float(sizes[1] - sizes[0]),
        "unit": unit,
        "size_unit": size_unit,
        **_parts(*pair),
    }


def _checked(
    reference: np.ndarray, predicted: np.ndarray, spacing: Sequence[float] | None, tolerance: float, unit: str
) -> np.ndarray:
    """The spacing as float64 per axis, 1 where it is unknown."""
    if reference.shape != predicted.shape or reference.ndim not in (2, 3) or 0 in reference.shape:
        raise DataError(
            f"The reference mask has the shape {reference.shape} and the predicted one {predicted.shape}: both must be "
            "on one grid of two or three axes."
        )
    if unit not in ("mm", "px"):
        raise DataError(f"Surface distances are in mm or px, not {unit!r}: name one of them.")
    scale = np.ones(reference.ndim) if spacing is None else np.asarray(spacing, dtype=np.float64)
    if scale.shape != (reference.ndim,) or not (np.isfinite(scale) & (scale > 0)).all():
        raise DataError(f"The spacing {spacing} must be {reference.ndim} numbers above 0, one per axis of the mask.")
    if not (np.isfinite(tolerance) and tolerance >= 0):
        raise DataError(f"The tolerance of NSD must be a distance of at least 0, not {tolerance}.")
    return scale


def _status(in_reference: int, in_predicted: int) -> str:
    if in_reference and in_predicted:
        return "ok"
    if in_reference:
        return "missed"
    return "false_positive" if in_predicted else "both_empty"


def _size_unit(scale: np.ndarray, unit: str) -> tuple[str, float]:
    """The unit of sizes, and the size of one voxel in it."""
    if unit == "px":
        return ("px" if len(scale) == 2 else "voxels"), 1.0
    return ("mm2", float(scale.prod())) if len(scale) == 2 else ("ml", float(scale.prod()) / 1000)


def _axes(shape: tuple[int, ...]) -> list[int]:
    """The axes that have an extent; two at least."""
    long = [axis for axis, n in enumerate(shape) if n > 1]
    flat = [axis for axis, n in enumerate(shape) if n == 1]
    return sorted(long + flat[: max(0, 2 - len(long))])


def _agreement(
    reference: np.ndarray,
    predicted: np.ndarray,
    counts: np.ndarray,
    scale: np.ndarray,
    tolerance: float,
    diagonal: float,
    status: str,
) -> dict[str, float]:
    if status == "missed":
        return {"dice": 0.0, "nsd": 0.0, "hd95": diagonal, "asd": diagonal}
    if status != "ok":
        dice = 0.0 if status == "false_positive" else np.nan
        return {"dice": dice, "nsd": np.nan, "hd95": np.nan, "asd": np.nan}
    found = surface_distances(reference, predicted, scale)
    return {
        "dice": float(2 * np.count_nonzero(reference & predicted) / counts.sum()),
        "nsd": found.within(tolerance),
        "hd95": found.hausdorff(),
        "asd": found.average(),
    }


def _parts(reference: np.ndarray, predicted: np.ndarray) -> dict[str, int]:
    neighbours = generate_binary_structure(reference.ndim, reference.ndim)
    (in_reference, known), (in_predicted, called) = (label(mask, neighbours) for mask in (reference, predicted))
    both = reference & predicted
    return {
        "lesions_reference": int(known),
        "lesions_found": len(np.unique(in_reference[both])),
        "lesions_false": int(called) - len(np.unique(in_predicted[both])),
    }
