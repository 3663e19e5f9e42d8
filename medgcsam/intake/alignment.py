"""How alike two pictures are once one is laid over the other: a crop, another size and another contrast taken off."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable

import numpy as np

PIXELS_AT_ONCE = 12 * 48 * 48
"""Pixels of the first pictures of the pairs that are worked on together: so few that no array is larger than what the
processor's cache holds and memory is used again instead of being asked for anew."""
COARSE = 24
"""Rows and columns of the pictures that are aligned first."""
COARSE_STEPS, FINE_STEPS = 3, 2
PROMISING = 0.8
"""Pairs that are less alike than this after the coarse steps are not aligned further; copies reach at least 0.87."""
DETAIL = 2.0
"""Structures wider than about this many pixels are taken out before comparing: all chests share them."""
FAINT = 0.5
"""Root mean square of the fine structure, in gray levels, below which there is nothing to compare."""
SMALLEST_OVERLAP = 0.6
"""Share of the first picture that the second must cover."""


def similarity(
    first: np.ndarray, second: np.ndarray, spread: Callable[[Callable, Iterable, Iterable], Iterable] = map
) -> np.ndarray:
    """Correlation of the fine structure of pairs of pictures after the best alignment.

    Each pair is aligned by shift and scale along rows and columns (what cropping and resizing do; no rotation, no
    flip) together with brightness and contrast, by Gauss-Newton steps (Lucas and Kanade, IJCAI 1981) from coarse to
    fine. Then both are high-pass filtered, so that what all pictures of one kind have in common does not count.

    Args:
        first: pictures (pairs, size, size), any number type; ``size`` is a multiple of COARSE.
        second: the same, one for each of ``first``.
        spread: as ``map``; that of a pool of threads works on several batches at a time.

    Returns:
        float32 (pairs,) in -1..1: about 1 for copies; 0 where the pair cannot be laid over each other.
    """
    if not len(first):
        return np.zeros(0, np.float32)
    batch = max(1, PIXELS_AT_ONCE // first[0].size)
    parts = ([pictures[start : start + batch] for start in range(0, len(first), batch)] for pictures in (first, second))
    return np.concatenate(list(spread(_similarity, *parts)))


def _similarity(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    pairs = [picture.astype(np.float32) for picture in (first, second)]
    coarse = [_reduced(picture) for picture in pairs]
    start = np.tile(np.float32([0, 1, 0, 1]), (len(first), 1))
    # A crop lies inside the other picture; which of the two it is shows in the direction that fits better.
    tried = []
    for fixed, moving in (coarse, coarse[::-1]):
        warp = _align(fixed, moving, start, blur=1.0, steps=COARSE_STEPS)
        tried.append((warp, _correlation(fixed, moving, warp, detail=DETAIL)))
    (warp, there), (reverse, back) = tried
    turned = back > there
    result = np.zeros(len(first), np.float32)
    rows = np.flatnonzero(np.maximum(there, back) >= PROMISING)
    if len(rows):
        swap = turned[rows, None, None]
        fixed, moving = (np.where(swap, pairs[1 - i][rows], pairs[i][rows]) for i in (0, 1))
        warp = _align(fixed, moving, np.where(turned[:, None], reverse, warp)[rows], blur=0.7, steps=FINE_STEPS)
        result[rows] = _correlation(fixed, moving, warp, detail=DETAIL)
    return result


def _reduced(pictures: np.ndarray) -> np.ndarray:
    """Means over squares of pixels, COARSE rows and columns of them."""
    step = pictures.shape[1] // COARSE
    rows = sum(pictures[:, start::step] for start in range(step))
    return sum(rows[:, :, start::step] for start in range(step)) * np.float32(1 / step**2)


def _align(fixed: np.ndarray, moving: np.ndarray, warp: np.ndarray, *, blur: float, steps: int) -> np.ndarray:
    """The warp (pairs, 4), row shift, row scale, column shift, column scale in half pictures, that fits best."""
    size = fixed.shape[1]
    fixed, moving = _standardised(_blurred(fixed, blur)), _standardised(_blurred(moving, blur))
    slope_rows, slope_columns = (np.gradient(moving, axis=axis) * np.float32((size - 1) / 2) for axis in (1, 2))
    along = np.linspace(-1, 1, size, dtype=np.float32)
    for _ in range(steps):
        rows, columns, inside = _sampling(warp, size)
        warped, down, right = (rows @ values @ columns for values in (moving, slope_rows, slope_columns))
        parts = (down, down * along[:, None], right, right * along, warped, np.ones_like(warped))
        slopes = (np.stack(parts, axis=1) * inside[:, None]).reshape(len(fixed), 6, -1)
        normal = slopes @ slopes.transpose(0, 2, 1)
        damping = 1e-4 * np.trace(normal, axis1=1, axis2=2) / 6 + 1e-6
        target = slopes @ (fixed * inside).reshape(len(fixed), -1, 1)
        solution = np.linalg.solve(normal + damping[:, None, None] * np.eye(6, dtype=np.float32), target)[..., 0]
        # fixed = gain * (warped + slopes . step) + offset, solved for (gain * step, gain, offset)
        step = solution[:, :4] / np.maximum(solution[:, 4:5], 0.2)
        warp = warp + np.clip(step, -0.1, 0.1)
        warp[:, 0::2] = np.clip(warp[:, 0::2], -0.3, 0.3)
        warp[:, 1::2] = np.clip(warp[:, 1::2], 0.7, 1.4)
    return warp


def _standardised(pictures: np.ndarray) -> np.ndarray:
    """Each of mean 0 and variance 1: brightness and contrast start near their solution, hardly damped."""
    centred = pictures - pictures.mean((1, 2), keepdims=True)
    return centred / np.maximum(centred.std((1, 2), keepdims=True), 1e-3)


def _sampling(warp: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Matrices that resample rows and columns linearly, and 1 where the second picture has pixels, else 0."""
    along, half = np.linspace(-1, 1, size, dtype=np.float32), np.float32((size - 1) / 2)
    rows, columns = ((warp[:, i : i + 1] + warp[:, i + 1 : i + 2] * along + 1) * half for i in (0, 2))
    covered = [(places >= 0) & (places <= size - 1) for places in (rows, columns)]
    inside = (covered[0][:, :, None] & covered[1][:, None, :]).astype(np.float32)
    index = np.arange(size, dtype=np.float32)
    weights = [np.maximum(0, 1 - np.abs(places.clip(0, size - 1)[..., None] - index)) for places in (rows, columns)]
    return weights[0], weights[1].transpose(0, 2, 1), inside


def _correlation(fixed: np.ndarray, moving: np.ndarray, warp: np.ndarray, *, detail: float) -> np.ndarray:
    rows, columns, inside = _sampling(warp, fixed.shape[1])
    weight = np.maximum(_blurred(inside, detail), 1e-3)
    left, right = (
        (values - _blurred(values * inside, detail) / weight) * inside for values in (fixed, rows @ moving @ columns)
    )
    energy = np.sqrt((left * left).sum((1, 2)) * (right * right).sum((1, 2)))
    enough = (energy > FAINT**2 * inside.sum((1, 2))) & (inside.mean((1, 2)) >= SMALLEST_OVERLAP)
    return np.where(enough, (left * right).sum((1, 2)) / np.maximum(energy, 1e-6), 0).astype(np.float32)


def _blurred(pictures: np.ndarray, sigma: float) -> np.ndarray:
    matrix = _gaussian(pictures.shape[1], sigma)
    return matrix @ pictures @ matrix.T


@functools.cache
def _gaussian(size: int, sigma: float) -> np.ndarray:
    """(size, size): blurs a line of pixels, the first and the last of which go on beyond the border."""
    distance = np.arange(-size, size + 1)
    weights = np.exp(-0.5 * (distance / sigma) ** 2)
    matrix = np.zeros((size, size))
    for row in range(size):
        np.add.at(matrix[row], (row + distance).clip(0, size - 1), weights / weights.sum())
    return matrix.astype(np.float32)
