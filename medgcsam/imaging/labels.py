"""Masks of class numbers from pictures and NIfTI, checked against the grid of their image."""

from __future__ import annotations

import numpy as np

from medgcsam.errors import DataError
from medgcsam.imaging.image import Image
from medgcsam.imaging.nifti import read_nifti
from medgcsam.imaging.raster import Decoded, decode_raster

MAX_CLASSES = 64
"""More distinct values than this in a picture are gray levels, not class numbers."""
GRID_TOLERANCE = 1e-3
"""Largest difference, in mm per index or mm of origin, between two affines that still are the same grid."""


def label_from_raster(data: bytes, where: str, *, kind: str, like: Image) -> Image:
    """A mask from PNG or TIFF; a palette's indices are the class numbers. See ``read_label``."""
    picture = decode_raster(data, where, kind=kind)
    values = _single_channel(picture, where)
    if picture.mode == "L" and picture.bits < 8:
        values = values // (255 // (2**picture.bits - 1))  # Pillow spreads 2 and 4 bits over 0..255
    white = 255 if values.dtype == np.uint8 else 2**picture.bits - 1
    distinct = np.unique(values)
    if picture.palette is None and set(distinct.tolist()) <= {0, white}:
        values = values > 0
    elif len(distinct) > MAX_CLASSES:
        raise DataError(f"{where} has {len(distinct)} gray levels, too many for classes; save the mask unblurred.")
    # A picture is (row, column); a one-slice volume is (i, j, 1) = (column, row, 1).
    over_slice = len(like.spatial_shape) == 3 and like.spatial_shape[2] == 1
    array = values.T[..., None] if over_slice else values
    return _label(array, where, like=like, affine=None, source={"kind": kind, "mode": picture.mode})


def label_from_nifti(data: bytes, where: str, *, like: Image) -> Image:
    """A mask from NIfTI, on the same affine as its image where both have one. See ``read_label``."""
    mask = read_nifti(data, where)
    if mask.array.shape[0] != 1:
        raise DataError(f"{where} has {mask.array.shape[0]} channels; save the mask as one channel of class numbers.")
    array = mask.array[0]
    if len(like.spatial_shape) == 2 and array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0].T
        return _label(array, where, like=like, affine=None, source=mask.source)
    if len(like.spatial_shape) == 3 and array.ndim == 2 and like.spatial_shape[2] == 1:
        array = array.T[..., None]
        return _label(array, where, like=like, affine=None, source=mask.source)
    return _label(array, where, like=like, affine=mask.affine, source=mask.source)


def _single_channel(picture: Decoded, where: str) -> np.ndarray:
    """(row, column) from a mask of any mode: equal colours become one channel, transparent pixels are background."""
    samples = picture.samples
    if picture.mode == "1":
        return samples[..., 0].astype(np.uint8) * np.uint8(255)
    if samples.shape[-1] in (2, 4):
        samples = np.where(samples[..., -1:] > 0, samples[..., :-1], 0)
    if (samples != samples[..., :1]).any():
        raise DataError(f"{where} is coloured and only class numbers are read; save the mask as gray or palette PNG.")
    return samples[..., 0]


def _label(array: np.ndarray, where: str, *, like: Image, affine: np.ndarray | None, source: object) -> Image:
    if array.shape != like.spatial_shape:
        sizes = ["x".join(str(n) for n in shape) for shape in (array.shape, like.spatial_shape)]
        raise DataError(f"{where} is a mask of {sizes[0]} for an image of {sizes[1]}; resample it to the image.")
    off = 0.0 if affine is None or like.affine is None else float(np.abs(affine - like.affine).max())
    if off > GRID_TOLERANCE:
        raise DataError(f"{where} lies {off:.3g} mm away from its image in space; resample the mask to the image.")
    numbers = np.rint(array.astype(np.float64))
    if np.abs(numbers - array).max() > 1e-4 or numbers.min() < 0 or numbers.max() > np.iinfo(np.int16).max:
        raise DataError(f"{where} has values that are not class numbers; save the mask as whole numbers from 0.")
    numbers = np.ascontiguousarray(numbers.astype(np.int16)[None])
    return Image(array=numbers, unit="label", affine=like.affine, spacing=like.spacing, source=dict(source))
