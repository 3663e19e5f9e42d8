"""NIfTI-1 and NIfTI-2, plain, gzipped or as a pair of files, with scaling applied and geometry in mm.

Choices, each recorded in ``Image.source``:

- Orientation: where sform and qform are both set and name the same grid, the sform; where only one is set, that one;
  where both are set and differ, neither is believed unless the caller names one.
- Without either there is a spacing but no affine: the "method 1" of the standard invents a direction.
- The spacing is that of the affine; pixdim is used only where there is no affine.
- A fourth axis (time), or a fifth (vectors) with no fourth, becomes the channels.
"""

from __future__ import annotations

import math
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from medgcsam.errors import DataError
from medgcsam.imaging.faults import MAX_VOXELS, check_size, faults_of
from medgcsam.imaging.formats.voxels import Sibling, as_image, real_array, unpack
from medgcsam.imaging.image import Image

MILLIMETRES = {"mm": 1.0, "meter": 1000.0, "micron": 0.001, "unknown": 1.0}
SPACE_BITS = {0: "unknown", 1: "meter", 2: "mm", 3: "micron"}
SAME_GRID = 0.1
"""Two affines are one grid where no corner of the image moves by more than this part of the smallest voxel edge.
Quaternions in float32 err by up to 0.0003 rad near a half turn, so an exact comparison would refuse sound files."""
HEADER_BYTES = 544


def read_nifti(
    data: bytes,
    where: str,
    *,
    volume: int | None = None,
    orientation: str = "refuse",
    irregular: str = "refuse",
    sibling: Sibling | None = None,
) -> Image:
    """Values (float32, scl_slope and scl_inter applied), unit ``raw``.

    A 3-D file is (1, i, j, k), a 4-D file (time, i, j, k), or (1, i, j, k) of the one ``volume`` (0-based). A 2-D file
    is a picture: its first axis i runs along the columns, so it becomes (1, row, column) = (1, j, i).
    orientation: what to believe where sform and qform differ: ``refuse``, ``sform`` or ``qform``.
    irregular: ``refuse``, ``resample`` or ``keep`` for sheared axes, see ``voxels.as_image``.
    sibling: reads the .img of a .hdr; without it such a pair is refused.
    Raises DataError for truncated files, superfluous bytes, NaN, complex or colour values, and more than four axes.
    """
    with faults_of(where, "NIfTI"):
        header, pair = _header(_first_bytes(data), where)
        shape, dtype = header.get_data_shape(), header.get_data_dtype()
        offset, scaling = _offset(header, where, pair=pair), _scaling(header, where)
    shape, channel_axis = _axes(shape, where)
    if dtype.kind not in "iuf":
        name = "colours (RGB)" if dtype.names else "complex numbers" if dtype.kind == "c" else f"{dtype} values"
        raise DataError(f"{where} holds {name}; save real numbers, one channel per file.")
    check_size(shape, where, limit=MAX_VOXELS)
    size = math.prod(shape) * dtype.itemsize
    if pair:
        name = _pixel_file(where)
        if sibling is None or name is None:
            raise DataError(f"{where} is the header of a .hdr and .img pair; convert it to one .nii file.")
        data = sibling(name, offset + size + size // 500 + 2**16)  # gzip adds less than that to what it cannot pack
    packed = data[:2] == b"\x1f\x8b"
    body = unpack(data, "gzip" if packed else "raw", size, where, skip=offset)
    with faults_of(where, "NIfTI"):
        affine, spacing, facts = _geometry(header, shape, where, orientation=orientation)
    source = {"kind": "nifti", "stored_type": dtype.name} | facts
    return as_image(
        real_array(body, dtype, shape), where, channel_axis=channel_axis, affine=affine, spacing=spacing,
        source=source, scaling=scaling, volume=volume, irregular=irregular,
    )  # fmt: skip


def neighbour(data: bytes, where: str) -> str | None:
    """Name of the .img file of a .hdr; None where the voxels follow the header. Raises DataError."""
    with faults_of(where, "NIfTI"):
        return _pixel_file(where) if _header(_first_bytes(data), where)[1] else None


def promised(data: bytes, where: str) -> int | None:
    """Bytes of a whole file by its first ones; None where that cannot be told before it is unpacked."""
    if data[:2] == b"\x1f\x8b":
        return None
    with faults_of(where, "NIfTI"):
        header, pair = _header(_first_bytes(data), where)
        size = math.prod(header.get_data_shape()) * header.get_data_dtype().itemsize
        return HEADER_BYTES if pair else _offset(header, where, pair=pair) + size


def _first_bytes(data: bytes) -> bytes:
    if data[:2] == b"\x1f\x8b":
        return zlib.decompressobj(wbits=31).decompress(data[: 2**16], HEADER_BYTES)
    return data[:HEADER_BYTES]


def _header(start: bytes, where: str) -> tuple[nibabel.Nifti1Header, bool]:
    """(header, whether the voxels lie in a file of their own)."""
    if start[4:8] in (b"n+2\0", b"ni2\0"):
        return nibabel.Nifti2Header.from_fileobj(BytesIO(start), check=False), start[4:8] == b"ni2\0"
    if start[344:348] not in (b"n+1\0", b"ni1\0"):
        raise DataError(
            f"{where} is an Analyze 7.5 header, which does not say left from right; "
            "convert it to NIfTI with a program that knows where it is from."
        )
    return nibabel.Nifti1Header.from_fileobj(BytesIO(start), check=False), start[344:348] == b"ni1\0"


def _offset(header: nibabel.Nifti1Header, where: str, *, pair: bool) -> int:
    """First byte of the voxels."""
    offset, least = float(header["vox_offset"]), 0 if pair else int(header["sizeof_hdr"]) + 4
    if offset != int(offset) or not least <= offset < 2**24:
        raise DataError(f"{where} says that its voxels begin at byte {offset:g}, which cannot be; export it again.")
    return int(offset)


def _scaling(header: nibabel.Nifti1Header, where: str) -> tuple[float, float]:
    """(slope, intercept); a slope of 0, or NaN as nibabel writes it, means that nothing is scaled."""
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0 or math.isnan(slope):
        return 1.0, 0.0
    if not (math.isfinite(slope) and math.isfinite(intercept)):
        raise DataError(f"{where} has the scaling {slope:g} x + {intercept:g}, which is not finite; export it again.")
    return slope, intercept


def _axes(shape: tuple[int, ...], where: str) -> tuple[tuple[int, ...], int | None]:
    """Shape with the empty axes behind the third taken off, and which axis is the channels."""
    while len(shape) > 2 and len(shape) != 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) == 5 and shape[3] == 1:
        shape = (*shape[:3], shape[4])
    if len(shape) not in (2, 3, 4):
        raise DataError(f"{where} has {len(shape)} axes; save an image of two or three, and time as the fourth.")
    return shape, 3 if len(shape) == 4 else None


def _pixel_file(where: str) -> str | None:
    """x.img for x.hdr, x.img.gz for x.hdr.gz; None for a header of another name."""
    name = Path(where).name
    for end, other in ((".hdr", ".img"), (".hdr.gz", ".img.gz")):
        if name.lower().endswith(end):
            return name[: -len(end)] + other
    return None


def _geometry(
    header: nibabel.Nifti1Header, shape: tuple[int, ...], where: str, *, orientation: str
) -> tuple[np.ndarray | None, list[float], dict[str, Any]]:
    """(affine in mm or None, spacing by pixdim in mm, facts)."""
    unit = SPACE_BITS.get(int(header["xyzt_units"]) & 7)
    if unit is None:
        raise DataError(f"{where} gives its lengths in a unit that NIfTI does not know; repair xyzt_units.")
    scale = MILLIMETRES[unit]
    spacing = [float(step) * scale for step in header["pixdim"][1:4]][: min(len(shape), 3)]
    sform = np.asarray(header.get_sform(), dtype=float) if int(header["sform_code"]) > 0 else None
    qform = _qform(header) if int(header["qform_code"]) > 0 else None
    facts: dict[str, Any] = {"space_unit": unit}
    affine, facts["orientation_source"] = (sform, "sform") if sform is not None else (qform, "qform")
    if sform is not None and qform is not None:
        moved = _moved(sform, qform, shape)
        if moved > SAME_GRID:
            if orientation not in ("sform", "qform"):
                raise DataError(
                    f"{where} has an sform and a qform that differ by up to {moved:.3g} voxels; "
                    "repair the file, or say which one holds."
                )
            affine = {"sform": sform, "qform": qform}[orientation]
            facts |= {"orientation_source": orientation, "orientation_conflict_voxels": round(moved, 3)}
    if affine is None:
        return None, spacing, facts | {"orientation_source": "none", "spacing_source": "pixdim"}
    facts["spacing_source"] = facts["orientation_source"]
    return np.diag([scale, scale, scale, 1.0]) @ affine, spacing, facts


def _qform(header: nibabel.Nifti1Header) -> np.ndarray:
    """The affine of the quaternion; one that is no rotation gives NaN, which agrees with no sform and is refused."""
    if float(header["pixdim"][0]) == 0:
        header["pixdim"][0] = 1  # the standard: a qfac of 0 is read as 1
    try:
        return np.asarray(header.get_qform(coded=False), dtype=float)
    except (ValueError, nibabel.spatialimages.HeaderDataError):
        return np.full((4, 4), np.nan)


def _moved(sform: np.ndarray, qform: np.ndarray, shape: tuple[int, ...]) -> float:
    """Largest distance between the two positions of a corner of the image, in edges of the smallest voxel."""
    size = (*shape[:3], 1)[:3]
    corners = np.array([[i, j, k, 1.0] for i in (0, size[0] - 1) for j in (0, size[1] - 1) for k in (0, size[2] - 1)])
    with np.errstate(all="ignore"):
        apart = np.linalg.norm((corners @ (sform - qform).T)[:, :3], axis=1).max()
        edge = np.linalg.norm(sform[:3, : min(len(shape), 3)], axis=0).min()
        return float(apart / edge) if np.isfinite(apart) and edge > 0 else math.inf
