"""Siemens mosaics: all slices of one MR volume as tiles of one picture, taken apart again.

The number of tiles and the direction of the slices stand only in the vendor's CSA header (0029,xx10), so a mosaic
without it is refused. Layout and position: nibabel, "DICOM Orientation and Siemens mosaic" (doc/theory/dicom_mosaic).
"""

from __future__ import annotations

import math
import struct
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from medgcsam.errors import DataError
from medgcsam.imaging.dicom.presentation import number
from medgcsam.imaging.geometry import Plane

CSA = (0x0029, "SIEMENS CSA HEADER")
MAX_TILES = 1024


def is_mosaic(ds: Dataset) -> bool:
    """Whether ImageType says MOSAIC, which Siemens alone writes."""
    kinds = ds.get("ImageType") or ()
    return "MOSAIC" in ([kinds] if isinstance(kinds, str) else list(kinds))


def split_mosaic(stored: np.ndarray, ds: Dataset, where: str) -> tuple[np.ndarray, list[Plane]]:
    """Stored pixels (row, column) of a mosaic to its slices (slice, row, column) and where each of them lies.

    The square of tiles is filled row by row and padded with black tiles at its end. ImagePositionPatient is that of a
    picture as large as the mosaic about the centre of the first slice, so it is moved in by half the difference. The
    step is SpacingBetweenSlices along the SliceNormalVector of the CSA header. Raises DataError.
    """
    csa = _csa_values(ds, where)
    tiles, normal = _tiles(csa), _direction(csa, where)
    side = math.isqrt(max(tiles - 1, 0)) + 1
    rows, columns = stored.shape
    if not 1 <= tiles <= MAX_TILES or rows % side or columns % side:
        raise DataError(f"{where} is a Siemens mosaic of {tiles} slices in {rows}x{columns} pixels; export it again.")
    rows, columns = rows // side, columns // side
    slices = stored.reshape(side, rows, side, columns).transpose(0, 2, 1, 3).reshape(-1, rows, columns)[:tiles]
    return slices, _planes(ds, where, normal=normal, tiles=tiles, shape=(rows, columns))


def _planes(ds: Dataset, where: str, *, normal: np.ndarray, tiles: int, shape: tuple[int, int]) -> list[Plane]:
    step = number(ds, "SpacingBetweenSlices")
    try:
        spacing = tuple(float(v) for v in ds.PixelSpacing)
        along_row, along_column = np.asarray(ds.ImageOrientationPatient, dtype=float).reshape(2, 3)
        corner = np.asarray(ds.ImagePositionPatient, dtype=float).reshape(3)
    except (AttributeError, TypeError, ValueError) as error:
        raise DataError(f"{where} is a Siemens mosaic without position or orientation; export it again.") from error
    if step is None or step <= 0:
        raise DataError(f"{where} is a Siemens mosaic without SpacingBetweenSlices; export it as single slices.")
    if abs(abs(normal @ np.cross(along_row, along_column)) - 1) > 1e-3:
        raise DataError(f"{where} is a Siemens mosaic whose slices are not perpendicular to their stack; leave it out.")
    outside = (np.array([ds.Rows, ds.Columns]) - shape) / 2
    corner = corner + along_column * spacing[0] * outside[0] + along_row * spacing[1] * outside[1]
    return [
        Plane(
            position=corner + k * step * normal,
            along_row=along_row,
            along_column=along_column,
            spacing=spacing,
            shape=shape,
        )
        for k in range(tiles)
    ]


def _csa_values(ds: Dataset, where: str) -> dict[str, Any]:
    """Name -> values of the CSA image header."""
    try:
        header = ds.private_block(*CSA)[0x10].value
    except KeyError as error:
        raise DataError(
            f"{where} is a Siemens mosaic whose CSA header (0029,xx10) was removed, so its slices cannot be told; "
            "export it with private tags or as single slices."
        ) from error
    from nibabel.nicom.csareader import CSAReadError, read

    try:
        return {name: tag["items"] for name, tag in read(bytes(header))["tags"].items()}
    except (CSAReadError, struct.error, TypeError, ValueError, UnicodeError, KeyError, IndexError) as error:
        raise DataError(f"{where} is a Siemens mosaic with a damaged CSA header; export it again.") from error


def _tiles(csa: dict[str, Any]) -> int:
    values = csa.get("NumberOfImagesInMosaic") or [0]
    return int(values[0] or 0)


def _direction(csa: dict[str, Any], where: str) -> np.ndarray:
    """The unit vector from the first to the last slice."""
    values = csa.get("SliceNormalVector") or []
    if len(values) != 3 or not all(isinstance(v, float) and math.isfinite(v) for v in values):
        raise DataError(f"{where} is a Siemens mosaic whose CSA header has no SliceNormalVector; export it again.")
    return np.array(values, dtype=float)
