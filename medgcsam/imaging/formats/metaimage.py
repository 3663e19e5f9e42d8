"""MetaImage (.mha, or .mhd with its voxels in a second file of the same folder), as ITK writes it.

Choices, each recorded in ``Image.source``:

- Row n of TransformMatrix is the direction of axis n, and Offset the position of the first voxel, both LPS in mm, as
  ITK reads them. A file without either has a spacing and no affine.
- Several values per voxel (ElementNumberOfChannels), or a fourth axis, become the channels.
- Refused by name: text voxels, lists of files, a matrix that mixes space and time, objects that are not images.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from medgcsam.errors import DataError
from medgcsam.imaging.faults import MAX_VOXELS, check_size, faults_of, said
from medgcsam.imaging.formats.voxels import Sibling, as_image, real_array, unpack
from medgcsam.imaging.geometry import RAS_FROM_LPS
from medgcsam.imaging.image import Image

MAX_HEADER = 2**16
TYPES = {
    "MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4", "MET_UINT": "u4",
    "MET_LONG_LONG": "i8", "MET_ULONG_LONG": "u8", "MET_FLOAT": "f4", "MET_DOUBLE": "f8",
}  # fmt: skip
# MET_LONG is four bytes in the files of some machines and eight in those of others.
SAME = {
    "Position": "Offset", "Origin": "Offset", "Rotation": "TransformMatrix", "Orientation": "TransformMatrix",
    "ElementByteOrderMSB": "BinaryDataByteOrderMSB",
}  # fmt: skip


def read_metaimage(
    data: bytes, where: str, *, volume: int | None = None, irregular: str = "refuse", sibling: Sibling | None = None
) -> Image:
    """Stored numbers (float32), unit ``raw``: (1 or channels, i, j, k), or (channels, row, column) = (c, j, i).

    volume: the one channel to take (0-based); irregular: see ``voxels.as_image``; sibling: reads the data file of an
    .mhd header, which is refused without it. Raises DataError for anything odd, truncated or superfluous.
    """
    with faults_of(where, "MetaImage"):
        fields, body = _parsed(data, where)
        sizes = [int(n) for n in _needed(fields, "DimSize", where).split()]
        channels, axes = int(fields.get("ElementNumberOfChannels", "1")), int(_needed(fields, "NDims", where))
        dtype = _type(fields, where)
        skip = int(fields.get("HeaderSize", "0"))
    _refuse(fields, where)
    while len(sizes) > 3 and sizes[-1] == 1 and axes == len(sizes):
        sizes, axes = sizes[:-1], axes - 1
    if len(sizes) != axes or axes not in (2, 3, 4) or (axes == 4 and channels != 1):
        raise DataError(f"{where} has {axes} axes, sizes {sizes} and {channels} channels; save two or three axes.")
    check_size([channels, *sizes], where, limit=MAX_VOXELS)
    with faults_of(where, "MetaImage"):
        affine, spacing, facts = _geometry(fields, axes, where)
    name, packed = fields["ElementDataFile"], _yes(fields, "CompressedData", where)
    if name.upper() != "LOCAL":
        limit = -1 if packed or skip < 0 else skip + channels * math.prod(sizes) * dtype.itemsize + 1
        body = _data_file(name, where, sibling, limit)
    shape, channel_axis = ([channels, *sizes], 0) if channels > 1 else (sizes, 3 if axes == 4 else None)
    size = math.prod(shape) * dtype.itemsize
    if skip == -1 and not packed:  # ITK: the voxels are the last bytes of the file
        skip = max(0, len(body) - size)
    elif skip < 0 or (skip and packed):
        raise DataError(f"{where} has a HeaderSize of {skip}, which is not read; save it again, uncompressed.")
    encoding = "raw" if not packed else "gzip" if body[:2] == b"\x1f\x8b" else "zlib"
    stored = real_array(unpack(body, encoding, size, where, skip=skip), dtype, shape)
    return as_image(
        stored, where, channel_axis=channel_axis, affine=affine, spacing=spacing,
        source={"kind": "metaimage", "stored_type": dtype.name} | facts, volume=volume, irregular=irregular,
    )  # fmt: skip


def neighbour(data: bytes, where: str) -> str | None:
    """Name of the file that holds the voxels of an .mhd header; None where they follow. Raises DataError."""
    with faults_of(where, "MetaImage"):
        name = _parsed(data, where)[0]["ElementDataFile"]
        return None if name.upper() == "LOCAL" else name


def promised(data: bytes, where: str) -> int | None:
    """Bytes of a whole file by its first ones; None where that cannot be told before it is unpacked."""
    with faults_of(where, "MetaImage"):
        fields, body = _parsed(data, where)
        header, skip = len(data) - len(body), int(fields.get("HeaderSize", "0"))
        if fields["ElementDataFile"].upper() != "LOCAL":
            return header
        if skip < 0 or _yes(fields, "CompressedData", where):
            return None
        sizes = [int(n) for n in _needed(fields, "DimSize", where).split()]
        values = math.prod(sizes) * int(fields.get("ElementNumberOfChannels", "1"))
        return header + skip + values * _type(fields, where).itemsize


def _parsed(data: bytes, where: str) -> tuple[dict[str, str], bytes]:
    """(fields, what follows the line of ElementDataFile, which is the last of the header)."""
    fields: dict[str, str] = {}
    position = 0
    while "ElementDataFile" not in fields:
        end = data.find(b"\n", position, MAX_HEADER)
        if end < 0 and 0 <= position < len(data) < MAX_HEADER:
            end = len(data)  # the last line of a header of its own may lack its end
        if end < 0:
            raise DataError(f"{where} has a MetaImage header without ElementDataFile; export it again.")
        line, position = data[position:end].decode("utf-8").strip(), end + 1
        key, mark, value = (part.strip() for part in line.partition("="))
        key = SAME.get(key, key)
        if line and (not mark or key in fields):
            raise DataError(f"{where} has the line {line[:40]!r}, which is no field or repeats one; repair it.")
        if line:
            fields[key] = value
    return fields, data[position:]


def _needed(fields: dict[str, str], key: str, where: str) -> str:
    if key not in fields:
        raise DataError(f"{where} is a MetaImage file that does not say its {key}; export it again.")
    return fields[key]


def _yes(fields: dict[str, str], key: str, where: str, *, default: str = "False") -> bool:
    value = fields.get(key, default).lower()
    if value not in ("true", "false", "1", "0"):
        raise DataError(f"{where} says {key} = {said(value)}, expected True or False; repair it.")
    return value in ("true", "1")


def _type(fields: dict[str, str], where: str) -> np.dtype:
    name = _needed(fields, "ElementType", where).upper().removesuffix("_ARRAY")
    if name not in TYPES:
        raise DataError(f"{where} holds values of the type {said(name)}; save whole or floating-point numbers.")
    if TYPES[name][1] != "1":
        _needed(fields, "BinaryDataByteOrderMSB", where)
    return np.dtype((">" if _yes(fields, "BinaryDataByteOrderMSB", where) else "<") + TYPES[name])


def _refuse(fields: dict[str, str], where: str) -> None:
    if fields.get("ObjectType", "Image") != "Image":
        raise DataError(f"{where} is a MetaIO {said(fields['ObjectType'])} object, not an image; leave it out.")
    if not _yes(fields, "BinaryData", where, default="True"):
        raise DataError(f"{where} holds its voxels as text, which is not read; save it as binary data.")


def _geometry(
    fields: dict[str, str], axes: int, where: str
) -> tuple[np.ndarray | None, list[float] | None, dict[str, Any]]:
    """(affine in mm or None, spacing of the spatial axes or None, facts)."""

    def numbers(key: str) -> np.ndarray | None:
        return np.array([float(part) for part in fields[key].split()]) if key in fields else None

    spacing, matrix, offset = numbers("ElementSpacing"), numbers("TransformMatrix"), numbers("Offset")
    facts: dict[str, Any] = {"spacing_source": "ElementSpacing" if spacing is not None else "none"}
    facts["orientation_source"] = "none"
    if "AnatomicalOrientation" in fields:
        facts["anatomical_orientation"] = fields["AnatomicalOrientation"][:4]
    given = int(fields["NDims"])
    for values, count in ((spacing, given), (matrix, given**2), (offset, given)):
        if values is not None and len(values) != count:
            raise DataError(f"{where} gives {len(values)} numbers of geometry where {count} belong; export it again.")
    if spacing is None:
        return None, None, facts
    space = min(axes, 3)
    if matrix is None or offset is None or space != 3:
        return None, spacing[:space].tolist(), facts
    matrix = matrix.reshape(given, given)
    rest = matrix - np.eye(given)
    if np.abs(rest[3:]).any() or np.abs(rest[:, 3:]).any():
        raise DataError(f"{where} has a TransformMatrix that mixes space and time; save its volumes one by one.")
    affine = np.eye(4)
    affine[:3, :3] = matrix[:3, :3].T * spacing[:3]
    affine[:3, 3] = offset[:3]
    return RAS_FROM_LPS @ affine, spacing[:3].tolist(), facts | {"orientation_source": "TransformMatrix"}


def _data_file(name: str, where: str, sibling: Sibling | None, limit: int) -> bytes:
    if name.split()[:1] == ["LIST"] or "%" in name:
        raise DataError(f"{where} keeps its voxels in several files; save it as one MetaImage file.")
    if sibling is None:
        raise DataError(f"{where} is a MetaImage header without its voxels, not read from here; save it as one .mha.")
    return sibling(name, limit)
