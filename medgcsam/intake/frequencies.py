"""The perceptual hash: low frequencies of a thumbnail, and how they change when the picture is shifted or scaled."""

from __future__ import annotations

import functools

import numpy as np

from medgcsam.intake.pictures import THUMBNAIL

ORDER = 8
COEFFICIENTS = ORDER * ORDER - 1
"""Low frequencies of the cosine transform (type II, orthonormal), without the mean."""
DAMPING = 1e-4
FLAT = 1.0
"""Root mean square, in gray levels, below which a picture shows nothing."""


def coefficients(thumbnails: np.ndarray) -> np.ndarray:
    """float32 (n, COEFFICIENTS) of thumbnails uint8 (n, THUMBNAIL, THUMBNAIL), of length 1, so that contrast does not
    count; zero for a flat picture."""
    cosines, *_ = _matrices()
    found = _flat(cosines @ thumbnails.astype(np.float32) @ cosines.T)
    return found * _inverse_length(found)


def slopes(thumbnails: np.ndarray) -> np.ndarray:
    """float32 (n, 4, COEFFICIENTS): change of the coefficients per pixel of shift along columns and rows, and per unit
    of scale (half a picture at its border) along columns and rows."""
    cosines, shift, scale = _matrices()
    pictures = thumbnails.astype(np.float32)
    along_rows, along_columns = pictures @ cosines.T, cosines @ pictures
    changed = (along_columns @ shift.T, shift @ along_rows, along_columns @ scale.T, scale @ along_rows)
    length = _inverse_length(_flat(cosines @ along_rows))
    return np.stack([_flat(part) * length for part in changed], axis=1)


def explained(
    first: tuple[np.ndarray, np.ndarray], second: tuple[np.ndarray, np.ndarray], mean: np.ndarray, deviation: np.ndarray
) -> np.ndarray:
    """How much of what makes two pictures special they share, but for a shift, a scale and another contrast.

    The tangent distance of Simard, LeCun and Denker (NIPS 1992), in standard deviations of the data set and with the
    slopes half way between both pictures, where they describe large steps best.

    Args:
        first, second: coefficients (pairs, COEFFICIENTS) and slopes (pairs, 4, COEFFICIENTS).
        mean, deviation: (COEFFICIENTS,) over the data set.

    Returns:
        (pairs,), at most 1: the share of their mean squared distance from ``mean`` that is no difference of theirs.
    """
    slope, middle = (first[1] + second[1]) / 2, (first[0] + second[0]) / 2
    directions = np.concatenate([slope, middle[:, None]], axis=1) / deviation
    difference = ((second[0] - first[0]) / deviation)[..., None]
    normal = directions @ directions.transpose(0, 2, 1)
    ridge = DAMPING * np.trace(normal, axis1=1, axis2=2) / 5 + 1e-9
    steps = np.linalg.solve(normal + ridge[:, None, None] * np.eye(5, dtype=np.float32), directions @ difference)
    rest = difference - directions.transpose(0, 2, 1) @ steps
    special = sum(np.square((one[0] - mean) / deviation).sum(1) for one in (first, second)) / 2
    return 1 - np.square(rest).sum((1, 2)) / np.maximum(special, 1e-9)


@functools.cache
def _matrices() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(ORDER, THUMBNAIL) each: the cosines, and the cosines of the slope and of the slope times the place (-1..1)."""
    places, orders = np.arange(THUMBNAIL), np.arange(ORDER)
    cosines = np.cos(np.pi * (places + 0.5) * orders[:, None] / THUMBNAIL) * np.sqrt(2 / THUMBNAIL)
    cosines[0] /= np.sqrt(2)
    slope = np.gradient(np.eye(THUMBNAIL), axis=0)
    scale = np.linspace(-1, 1, THUMBNAIL)[:, None] * slope
    return tuple(matrix.astype(np.float32) for matrix in (cosines, cosines @ slope, cosines @ scale))


def _inverse_length(found: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(found, axis=1, keepdims=True)
    return np.where(length >= FLAT * THUMBNAIL, 1 / np.maximum(length, 1e-6), 0).astype(np.float32)


def _flat(blocks: np.ndarray) -> np.ndarray:
    return blocks.reshape(len(blocks), -1)[:, 1:]
