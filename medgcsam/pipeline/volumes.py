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
    - foreground: cut to ``clip``, then (value - ``mean``) / ``std``; each one for all channels, or one per channel

    Channels are measurements of different things, so percentile and zscore take each by itself; red, green and blue of
    a picture (unit ``display``) are taken together.

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


def wrong_channels(found: int, unit: str, channels: int) -> str | None:
    """What is wrong with an image of ``found`` channels, in words that go on after "it"; None where it fits.

    Beside the number asked for, gray fits three channels (of a network that was made for colour), and a colour picture
    one.
    """
    if found == channels or (found, channels) == (1, 3) or (found == 3 and channels == 1 and unit == "display"):
        return None
    said = f"has {found} channel{'s or frames' * (found > 1)}, where image.channels is {channels}"
    one = "" if found == 1 else ", or name one of them in the manifest by '#volume=0'"
    return f"{said}; set image.channels to {found} if all images have as many{one}"


def _to_channels(image: Image, channels: int) -> np.ndarray:
    """Gray to three equal channels, a colour picture to its luminance."""
    array = image.array
    if wrong := wrong_channels(len(array), image.unit, channels):
        raise DataError(f"it {wrong}")
    if len(array) == channels:
        return array
    if len(array) == 1:
        return np.broadcast_to(array, (channels, *array.shape[1:]))
    return luminance(array)[None]


def luminance(colours: np.ndarray) -> np.ndarray:
    """(3, ...) red, green and blue as gray (...)."""
    return np.tensordot(np.float32(LUMINANCE), colours, (0, 0))


def _intensity(array: np.ndarray, unit: str, config: Any) -> Callable[[np.ndarray], np.ndarray]:
    """What to do with the values of any part of ``array``."""
    if config.intensity == "display":
        if unit != "display":
            raise DataError(f"its values ({unit}) have no display range, set image.intensity to foreground or zscore")
        return lambda values: values
    if config.intensity == "foreground":
        low, high = (-np.inf, np.inf) if config.clip is None else np.transpose(config.clip)
        return _linear(config.mean, config.std, low, high)
    together = unit == "display" or len(array) == 1 or array.strides[0] == 0  # colours; gray made three channels
    parts = [array[:1] if array.strides[0] == 0 else array] if together else [channel[None] for channel in array]
    if config.intensity == "percentile":
        low, high = np.transpose([_range(part) for part in parts])
        return _linear(low, np.where(high > low, high - low, 1.0), low, high)
    mean, std = np.transpose([_moments(part) for part in parts])
    return _linear(mean, std, -np.inf, np.inf)


def _range(values: np.ndarray) -> tuple[float, float]:
    low, high = (float(value) for value in np.percentile(values, PERCENTILES))
    if low == high:  # all but a few voxels are equal: their range is all there is
        low, high = float(values.min()), float(values.max())
    return low, high


def _moments(values: np.ndarray) -> tuple[float, float]:
    """Mean and deviation of what is not 0; 0 and 1 where all is."""
    used = values[values != 0]
    if not len(used):
        return 0.0, 1.0
    mean, std = float(used.mean(dtype=float)), float(used.std(dtype=float))
    return mean, std if std > 1e-8 * max(1.0, abs(mean)) else 1.0


def _linear(*rule: Any) -> Callable[[np.ndarray], np.ndarray]:
    """rule: mean, deviation, lowest and highest value, each a number or one per channel."""

    def scaled(values: np.ndarray) -> np.ndarray:
        each = (-1, *(1 for _ in values.shape[1:]))
        mean, std, low, high = (np.reshape(np.asarray(part, np.float32), each) for part in rule)
        values = values.clip(low, high)
        values -= mean
        values /= std
        return values.clip(-LARGEST, LARGEST, out=values)

    return scaled
