"""How thick the slabs are for which the planes of a segmentation or of contours stand."""

from __future__ import annotations

import numpy as np

from medgcsam.imaging.geometry import base_step

MAX_STEP = 10.0
"""Planes further apart than this, in mm, are not taken as neighbours, unless the file says how far neighbours are."""


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
