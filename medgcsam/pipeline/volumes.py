"""The deterministic part for segmentation: one image, or its label, as the network gets it but for augmentation.

Worker processes import this module, so it imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from medgcsam.cohort.manifest import split_masks
from medgcsam.errors import DataError
from medgcsam.imaging import Image, read_image, read_label
from medgcsam.pipeline.grids import Grid, canonical, grid_for, resample, resample_label

LUMINANCE = (0.299, 0.587, 0.114)  # ITU-R BT.601, as in ``preprocess``
PERCENTILES = (0.5, 99.5)
LARGEST = 60_000.0
"""Prepared values beyond are cut: float16 ends at 65504."""


def prepare_volume(image: Image, config: Any) -> tuple[np.ndarray, Grid]:
    """An ``Image`` on the network's grid: float16 (channels, *grid.size), and the way back.

    config: the resolved ``image`` section. Axes are (row, column) with ``dimensions`` 2, else (i, j, k) in the closest
    canonical orientation; voxels have ``spacing``, or pictures without one fit into ``size``. Values by ``intensity``:

    - display: 0..1 as they are displayed
    - percentile: the image's 0.5th to 99.5th percentile become 0..1
    - zscore: mean 0 and deviation 1 over the image's voxels other than 0
    - foreground: cut to ``clip``, then (value - ``mean``) / ``std``

    Raises DataError for an image that ``grid_for`` refuses, for the wrong number of channels, and for ``display`` of
    values without a display range.
    """
    fit = None if config.spacing is not None else config.size
    grid = grid_for(image, dimensions=config.dimensions, spacing=config.spacing, fit=fit)
    array = _to_channels(image, int(config.channels))
    values = _intensity(array, image.unit, config)
    return resample(canonical(array, grid), grid.size, dtype=np.float16, values=values), grid


def prepare_label(label: np.ndarray, grid: Grid, *, structures: int, overlapping: bool) -> np.ndarray:
    """A label on the file's grid as uint8 on the network's: (1, *grid.size), or (structures, *grid.size)."""
    return resample_label(canonical(label, grid), grid.size, structures=structures, overlapping=overlapping)


def read_pair(
    image: str, masks: str, config: Any, names: Mapping[str, int], *, overlapping: bool
) -> tuple[Image, np.ndarray]:
    """An image, and its masks (references joined by ``|``) as one label on its grid.

    config: the ``image`` section. The label is int16, (1, *spatial) of numbers, or (structures, *spatial) of 0 and 1.
    Raises DataError, MachineError as ``read_image`` and ``read_label``.
    """
    read = read_image(image, irregular=config.irregular, pet=config.pet, orientation=config.orientation)
    references = split_masks(masks)
    label = read_label(
        references[0] if len(references) == 1 else references,
        read,
        names=names,
        overlapping=overlapping,
        irregular=config.irregular,
        orientation=config.orientation,
    )
    return read, label.array


def _to_channels(image: Image, channels: int) -> np.ndarray:
    """Gray to three equal channels, a colour picture to its luminance."""
    array = image.array
    if len(array) == channels:
        return array
    if len(array) == 1:
        return np.broadcast_to(array, (channels, *array.shape[1:]))
    if len(array) == 3 and channels == 1 and image.unit == "display":
        return np.tensordot(np.float32(LUMINANCE), array, (0, 0))[None]
    raise DataError(f"it has {len(array)} channels or frames, where image.channels is {channels}")


def _intensity(array: np.ndarray, unit: str, config: Any) -> Callable[[np.ndarray], np.ndarray]:
    """What to do with the values of any part of ``array``."""
    if config.intensity == "display":
        if unit != "display":
            raise DataError(f"its values ({unit}) have no display range, set image.intensity to foreground or zscore")
        return lambda values: values
    if config.intensity == "foreground":
        low, high = (-np.inf, np.inf) if config.clip is None else config.clip
        return _linear(config.mean, config.std, low, high)
    if config.intensity == "percentile":
        low, high = (float(value) for value in np.percentile(array, PERCENTILES))
        if low == high:  # all but a few voxels are equal: their range is all there is
            low, high = float(array.min()), float(array.max())
        return _linear(low, (high - low) or 1.0, low, high)
    used = array[array != 0]
    if not len(used):
        return lambda values: values
    mean, std = float(used.mean(dtype=float)), float(used.std(dtype=float))
    return _linear(mean, std if std > 1e-8 * max(1.0, abs(mean)) else 1.0, -np.inf, np.inf)


def _linear(mean: float, std: float, low: float, high: float) -> Callable[[np.ndarray], np.ndarray]:
    def scaled(values: np.ndarray) -> np.ndarray:
        values = values.clip(low, high)
        values -= np.float32(mean)
        values /= np.float32(std)
        return values.clip(-LARGEST, LARGEST, out=values)

    return scaled
