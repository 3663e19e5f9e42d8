"""NIfTI-1 and NIfTI-2 in one file, plain or gzipped, with scaling applied and geometry in mm."""

from __future__ import annotations

import gzip
import math
from io import BytesIO
from typing import BinaryIO

import nibabel
import numpy as np

from medgcsam.errors import DataError
from medgcsam.imaging.faults import MAX_VOXELS, check_finite, check_size, faults_of
from medgcsam.imaging.image import Image

MILLIMETRES = {"mm": 1.0, "meter": 1000.0, "micron": 0.001, "unknown": 1.0}
AXES_SWAPPED = np.eye(4)[:, [1, 0, 2, 3]]


def read_nifti(data: bytes, where: str) -> Image:
    """Values (float32, scl_slope and scl_inter applied), unit ``raw``.

    A 3-D file is (1, i, j, k), a 4-D file (time, i, j, k). A 2-D file is a picture: its first axis i runs along the
    columns, as every writer of pictures has it, so it becomes (1, row, column) = (1, j, i), and its affine follows.
    The affine is the sform, else the qform, else None; spacing and affine are converted to mm (no unit is read as mm).
    Raises DataError for truncated files, NaN, complex or colour values, and more than four axes.
    """
    values, header = _decode(data, where)
    scale = MILLIMETRES[header.get_xyzt_units()[0]]
    spacing = [float(zoom) * scale for zoom in header.get_zooms()[:3]]
    oriented = int(header["sform_code"]) > 0 or int(header["qform_code"]) > 0
    affine = np.diag([scale, scale, scale, 1.0]) @ header.get_best_affine() if oriented else None
    if affine is not None and not (np.isfinite(affine).all() and abs(np.linalg.det(affine)) > 1e-12):
        raise DataError(f"{where} has an affine that is singular or not finite; repair its sform and qform.")
    if values.ndim == 2:
        values, spacing = values.T, spacing[::-1]
        affine = affine @ AXES_SWAPPED if affine is not None else None
    values = np.moveaxis(values, -1, 0) if values.ndim == 4 else values[None]
    if not all(math.isfinite(step) and step > 0 for step in spacing):
        spacing = None
    source = {"kind": "nifti", "stored_type": header.get_data_dtype().name, "space_unit": header.get_xyzt_units()[0]}
    array = np.array(values, dtype=np.float32, order="C")
    check_finite(array, where)
    return Image(array=array, unit="raw", affine=affine, spacing=tuple(spacing) if spacing else None, source=source)


def _decode(data: bytes, where: str) -> tuple[np.ndarray, nibabel.Nifti1Header]:
    """Scaled values with the file's own axes (two to four), and the header."""
    stream: BinaryIO = BytesIO(data)
    with faults_of(where, "NIfTI"):
        if data[:2] == b"\x1f\x8b":
            stream = gzip.GzipFile(fileobj=stream)
        start = stream.read(544)
        kind = nibabel.Nifti2Image if start[4:7] == b"n+2" else nibabel.Nifti1Image
        header = kind.header_class.from_fileobj(BytesIO(start), check=False)
        shape, dtype = header.get_data_shape(), header.get_data_dtype()
    if dtype.kind not in "iuf":
        raise DataError(f"{where} holds {dtype} values; save real numbers, one channel per file.")
    check_size(shape, where, limit=MAX_VOXELS)
    while len(shape) > 2 and len(shape) != 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) not in (2, 3, 4):
        raise DataError(f"{where} has {len(shape)} axes; save an image of two or three, and time as the fourth.")
    # What the header promises bounds what is unpacked; anything behind it only has to be sound, not kept.
    offset, size = int(header.get_data_offset()), math.prod(shape) * dtype.itemsize
    if not 348 <= offset < 2**24:
        raise DataError(f"{where} says that its voxels begin at byte {offset}, which cannot be; export it again.")
    with faults_of(where, "NIfTI"):
        body = start + stream.read(max(0, offset + size - len(start)))
        while isinstance(stream, gzip.GzipFile) and stream.read(2**20):
            pass  # the checksum of gzip stands at the end
        if len(body) < offset + size:
            raise DataError(f"{where} is truncated, {len(body):,} of {offset + size:,} bytes; export it again.")
        stored = np.frombuffer(body, dtype, count=math.prod(shape), offset=offset).reshape(shape, order="F")
        slope, intercept = header.get_slope_inter()
    if slope in (None, 1.0) and intercept in (None, 0.0):
        return stored, header
    return stored * float(slope if slope is not None else 1.0) + float(intercept or 0.0), header
