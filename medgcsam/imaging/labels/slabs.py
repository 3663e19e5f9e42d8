"""How thick the slabs are for which the planes of a segmentation or of contours stand."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medgcsam.errors import DataError
from medgcsam.imaging.geometry import base_step

MAX_STEP = 10.0
"""Planes further apart than this, in mm, are not taken as neighbours, unless the file says how far neighbours are."""
SAME_STEP = 0.1
"""Two steps are one where they differ by no more than this part."""


@dataclass(frozen=True)
class Stated:
    """What a segmentation says of its frames, in mm or None: SpacingBetweenSlices and SliceThickness."""

    spacing: float | None
    thickness: float | None


def distinct(positions: np.ndarray, tolerance: float) -> np.ndarray:
    """Sorted positions in mm, those within ``tolerance`` of the one before taken as one."""
    ordered = np.sort(np.asarray(positions, dtype=float))
    return ordered[np.concatenate([[True], np.diff(ordered) > tolerance])] if len(ordered) else ordered


def slab_step(planes: np.ndarray, *, stated: float | None, usual: float) -> float:
    """Distance in mm of neighbouring planes.

    planes: sorted distinct positions in mm along the normal; structures need not be on all planes, so gaps are normal.
    stated: what the file says about it, or None. usual: the slice step of the image.

    The step that at least half of the neighbours have, where there are three planes or more; else what is stated;
    else the image's.
    """
    if len(planes) >= 3:
        gaps = np.diff(planes)
        step = base_step(gaps)
        even = (np.abs(gaps - step) <= 0.1 * step).mean() >= 0.5
        if even and step <= max(MAX_STEP, 1.1 * (stated or 0.0)):
            return step
    return stated or usual


def step_on_slices(
    planes: np.ndarray, stated: Stated, usual: float, where: str, *, own_pixels: bool
) -> tuple[float, dict[str, float]]:
    """(distance in mm of neighbouring frames that all lie on slices of the image, facts).

    planes: as in ``slab_step``. usual: the slice step of the image. own_pixels: whether the frames have the pixels of
        the image and refer to its series.

    The image's step, unless the file states a larger one: then that, where the frames lie at whole numbers of it. A
    thickness alone may be that of slices that overlap, so frames on the image's own pixels keep the image's step unless
    at least half of them lie as far apart as they are thick. Frames on neighbouring slices disprove a larger step; it
    is recorded as frame_step_stated_mm. Raises DataError for other frames that contradict what is stated.
    """
    larger = stated.spacing or stated.thickness
    if larger is None or larger <= (1 + SAME_STEP) * usual:
        return usual, {}
    if abs(larger / usual - round(larger / usual)) <= SAME_STEP:
        larger = round(larger / usual) * usual  # a rounded 2 mm that is 2.01 mm would drift over many slices
    gaps = np.diff(planes)
    steps = gaps / larger
    if _whole(steps):
        overlap = stated.spacing is None and own_pixels
        if overlap and (np.abs(steps - 1) <= SAME_STEP).sum() < max(2, 0.5 * len(gaps)):
            return usual, {"frame_step_stated_mm": round(larger, 3)}
        return larger, {}
    if gaps.min() <= (1 + SAME_STEP) * usual or (stated.spacing is None and own_pixels):
        return usual, {"frame_step_stated_mm": round(larger, 3)}
    other = gaps[np.abs(steps - np.rint(steps)).argmax()]
    raise DataError(
        f"{where} has frames {other:.4g} mm apart and says that they are {larger:.4g} mm apart; export it again."
    )


def step_between_slices(planes: np.ndarray, stated: Stated, usual: float) -> float:
    """The same for frames that do not lie on slices of the image: SpacingBetweenSlices where the frames lie at whole
    numbers of it and are not thicker than it (some scanners state the gap between slices), else ``slab_step``.
    """
    is_step = stated.spacing is not None and (1 + SAME_STEP) * stated.spacing >= (stated.thickness or 0.0)
    if is_step and _whole(np.diff(planes) / stated.spacing):
        return stated.spacing
    return slab_step(planes, stated=stated.spacing or stated.thickness, usual=usual)


def _whole(steps: np.ndarray) -> bool:
    return not len(steps) or bool(np.abs(steps - np.rint(steps)).max() <= SAME_STEP)
