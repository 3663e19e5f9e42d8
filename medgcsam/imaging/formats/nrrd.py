"""NRRD (teem.sourceforge.net/nrrd/format.html), attached or with its voxels in a second file of the same folder.

Choices, each recorded in ``Image.source``:

- Orientation only from ``space directions`` and ``space origin`` in an anatomical space (RAS, LAS, LPS); a file with
  ``spacings`` alone, or in a space that is not the patient's, has a spacing and no affine.
- The one axis without direction (or, without directions, of a kind that is not space) becomes the channels.
- No ``space units`` are read as mm.
- Refused by name: text encodings, colours and matrices, lists of data files, a line skip.
"""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np

from medgcsam.errors import DataError
from medgcsam.imaging.faults import MAX_VOXELS, check_size, faults_of, said
from medgcsam.imaging.formats.voxels import Sibling, as_image, real_array, unpack
from medgcsam.imaging.image import Image

MAX_HEADER = 2**20
INTEGERS = {"dimension": "0", "byte skip": "0", "line skip": "0"}
TYPES = {
    "i1": "signed char, int8, int8_t",
    "u1": "uchar, unsigned char, uint8, uint8_t",
    "i2": "short, short int, signed short, signed short int, int16, int16_t",
    "u2": "ushort, unsigned short, unsigned short int, uint16, uint16_t",
    "i4": "int, signed int, int32, int32_t",
    "u4": "uint, unsigned int, uint32, uint32_t",
    "i8": "longlong, long long, long long int, signed long long, signed long long int, int64, int64_t",
    "u8": "ulonglong, unsigned long long, unsigned long long int, uint64, uint64_t",
    "f4": "float",
    "f8": "double",
}
CODES = {name: code for code, names in TYPES.items() for name in names.split(", ")}
ENCODINGS = {"raw": "raw", "gzip": "gzip", "gz": "gzip", "bzip2": "bzip2", "bz2": "bzip2"}
SPACES = {
    "right-anterior-superior": "RAS", "left-anterior-superior": "LAS", "left-posterior-superior": "LPS",
    "ras": "RAS", "las": "LAS", "lps": "LPS", "rast": "RAS", "last": "LAS", "lpst": "LPS",
}  # fmt: skip
TO_RAS = {"RAS": (1.0, 1.0, 1.0), "LAS": (-1.0, 1.0, 1.0), "LPS": (-1.0, -1.0, 1.0)}
SPACE_KINDS = ("domain", "space")
CHANNEL_KINDS = ("list", "time", "vector", "point", "normal", "covariant-vector", "scalar", "stub", "???", "none", "")
MILLIMETRES = {"mm": 1.0, "millimeter": 1.0, "millimeters": 1.0, "cm": 10.0, "m": 1000.0, "um": 0.001, "µm": 0.001}


def read_nrrd(
    data: bytes, where: str, *, volume: int | None = None, irregular: str = "refuse", sibling: Sibling | None = None
) -> Image:
    """Stored numbers (float32), unit ``raw``: (1 or channels, i, j, k), or (channels, row, column) = (c, j, i).

    volume: the one channel to take (0-based); irregular: see ``voxels.as_image``; sibling: reads the data file of a
    detached header, which is refused without it. ``source["segments"]`` holds the names of a 3D Slicer segmentation.
    Raises DataError for anything odd, truncated or superfluous.
    """
    with faults_of(where, "NRRD"):
        fields, pairs, body = _parsed(data, where)
        sizes = [int(n) for n in _needed(fields, "sizes", where).split()]
        dtype, encoding = _type(fields, where)
        axes, skip, lines = (int(fields.get(key, default)) for key, default in INTEGERS.items())
    if len(sizes) != axes:
        raise DataError(f"{where} states {axes} axes and {len(sizes)} sizes; export it again.")
    check_size(sizes, where, limit=MAX_VOXELS)
    with faults_of(where, "NRRD"):
        channel_axis, affine, spacing, facts = _geometry(fields, sizes, where)
    size = math.prod(sizes) * dtype.itemsize
    if "data file" in fields:
        limit = skip + size + 1 if encoding == "raw" and skip >= 0 else -1
        body = _data_file(fields["data file"], where, sibling, limit)
    if skip == -1 and encoding == "raw":  # the standard: the voxels are the last bytes of the file
        skip = max(0, len(body) - size)
    elif skip < 0 or lines != 0:
        raise DataError(f"{where} skips lines or bytes in a way that is not read; save it with plain raw or gzip.")
    body = unpack(body, encoding, size, where, skip=skip)
    facts = {"kind": "nrrd", "stored_type": dtype.name} | facts | _segments(pairs)
    return as_image(
        real_array(body, dtype, sizes), where, channel_axis=channel_axis, affine=affine, spacing=spacing,
        source=facts, volume=volume, irregular=irregular,
    )  # fmt: skip


def neighbour(data: bytes, where: str) -> str | None:
    """Name of the file that holds the voxels of a detached header; None where they follow. Raises DataError."""
    with faults_of(where, "NRRD"):
        return _parsed(data, where)[0].get("data file")


def promised(data: bytes, where: str) -> int | None:
    """Bytes of a whole file by its first ones; None where that cannot be told before it is unpacked."""
    with faults_of(where, "NRRD"):
        fields, _, body = _parsed(data, where)
        dtype, encoding = _type(fields, where)
        skip = int(fields.get("byte skip", "0"))
        if "data file" in fields:
            return len(data) - len(body)
        if encoding != "raw" or skip < 0:
            return None
        sizes = [int(n) for n in _needed(fields, "sizes", where).split()]
        return len(data) - len(body) + skip + math.prod(sizes) * dtype.itemsize


def _parsed(data: bytes, where: str) -> tuple[dict[str, str], dict[str, str], bytes]:
    """(fields in lower case, key/value pairs, what follows the empty line)."""
    fields: dict[str, str] = {}
    pairs: dict[str, str] = {}
    position = 0
    while True:
        end = data.find(b"\n", position, MAX_HEADER)
        if end < 0:
            if "data file" in fields and len(data) < MAX_HEADER and position >= len(data):
                return fields, pairs, b""  # a detached header may end without an empty line
            raise DataError(f"{where} has an NRRD header without end; export it again.")
        line, position = data[position:end].rstrip(b"\r").decode("utf-8"), end + 1
        if not line.strip():
            return fields, pairs, data[position:]
        if line.startswith(("#", "NRRD")):
            continue
        if ":=" in line:
            key, _, value = line.partition(":=")
            pairs[key] = value
            continue
        key, mark, value = line.partition(":")
        key = {"datafile": "data file", "byteskip": "byte skip", "lineskip": "line skip"}.get(key.strip().lower(), key)
        key = " ".join(key.strip().lower().split())
        if not mark or key in fields:
            raise DataError(f"{where} has the line {line[:40]!r}, which is no NRRD field or repeats one; repair it.")
        fields[key] = value.strip()


def _needed(fields: dict[str, str], key: str, where: str) -> str:
    if key not in fields:
        raise DataError(f"{where} is an NRRD file that does not say its {key}; export it again.")
    return fields[key]


def _type(fields: dict[str, str], where: str) -> tuple[np.dtype, str]:
    name, encoding = (" ".join(_needed(fields, key, where).lower().split()) for key in ("type", "encoding"))
    if name not in CODES:
        raise DataError(f"{where} holds values of the type {said(name)!r}; save whole or floating-point numbers.")
    if encoding not in ENCODINGS:
        raise DataError(f"{where} has the encoding {said(encoding)!r}, which is not read; save it as raw or gzip.")
    code, order = CODES[name], "<"
    if code[1] != "1":
        endian = _needed(fields, "endian", where).lower()
        if endian not in ("little", "big"):
            raise DataError(f"{where} has the byte order {said(endian)!r}; export it again.")
        order = "<" if endian == "little" else ">"
    return np.dtype(order + code), ENCODINGS[encoding]


def _geometry(
    fields: dict[str, str], sizes: list[int], where: str
) -> tuple[int | None, np.ndarray | None, list[float] | None, dict[str, Any]]:
    """(channel axis or None, affine in mm or None, spacing of the spatial axes in mm or None, facts)."""
    directions = _vectors(fields.get("space directions", ""))
    spatial, channel_axis, kind = _spatial_axes(fields, sizes, directions, where)
    units = [unit.strip().lower() for unit in re.findall(r'"([^"]*)"', fields.get("space units", ""))]
    scale = MILLIMETRES.get(units[0] or "mm") if units else 1.0
    if scale is None or len(set(units)) > 1:
        raise DataError(f"{where} has the space units {said(fields['space units'])}; save it in mm.")
    spacing = _spacing(fields, directions, spatial, scale)
    space = SPACES.get(fields.get("space", "").lower().removesuffix("-time"))
    affine = None
    if directions and space and "space origin" in fields:
        affine = _affine([directions[axis] for axis in spatial], fields, where, space=space) * scale
        affine[3, 3] = 1.0
    facts: dict[str, Any] = {
        "space": space or "none",
        "space_unit": (units[0] if units else "") or "unknown",
        "spacing_source": "space directions" if directions else "spacings" if spacing else "none",
        "orientation_source": "space directions" if affine is not None else "none",
    }
    return channel_axis, affine, spacing, facts | ({"channel_kind": kind} if channel_axis is not None else {})


def _spatial_axes(
    fields: dict[str, str], sizes: list[int], directions: list[np.ndarray | None], where: str
) -> tuple[list[int], int | None, str]:
    """(the two or three axes of space, the axis of channels or None, its kind)."""
    kinds = [kind.lower() for kind in fields.get("kinds", "").split()]
    for known, name in ((directions, "space directions"), (kinds, "kinds")):
        if known and len(known) != len(sizes):
            raise DataError(f"{where} gives {len(known)} {name} for {len(sizes)} axes; export it again.")
    for kind in kinds:
        if kind not in SPACE_KINDS + CHANNEL_KINDS and not re.fullmatch("[234]-vector", kind):
            raise DataError(f"{where} has an axis of the kind {said(kind)!r} (colours, matrices); save plain channels.")
    spatial = list(range(len(sizes)))
    if directions:
        spatial = [axis for axis, vector in enumerate(directions) if vector is not None]
    elif kinds and len(sizes) > 2:
        spatial = [axis for axis, kind in enumerate(kinds) if kind in SPACE_KINDS]
    others = [axis for axis in range(len(sizes)) if axis not in spatial]
    if len(spatial) not in (2, 3) or len(others) > 1:
        raise DataError(
            f"{where} has {len(sizes)} axes and does not say which two or three of them are space; "
            "save it with space directions, and with one axis of channels at most."
        )
    if not others:
        return spatial, None, "none"
    return spatial, others[0], kinds[others[0]] if kinds else "none"


def _spacing(
    fields: dict[str, str], directions: list[np.ndarray | None], spatial: list[int], scale: float
) -> list[float] | None:
    if directions:
        return [float(np.linalg.norm(directions[axis])) * scale for axis in spatial]
    if "spacings" not in fields:
        return None
    steps = [float(step) * scale for step in fields["spacings"].split()]
    return [steps[axis] for axis in spatial]


def _affine(vectors: list[np.ndarray], fields: dict[str, str], where: str, *, space: str) -> np.ndarray:
    """Spatial index to RAS+, in the units of the file; of a picture the third direction is the normal, of length 1."""
    origin = _vectors(fields["space origin"])
    if any(len(vector) != 3 for vector in (*vectors, *(v for v in origin if v is not None))) or len(origin) != 1:
        raise DataError(f"{where} has directions and an origin that are not three numbers each; export it again.")
    if len(vectors) == 2:
        normal = np.cross(*vectors)
        vectors = [*vectors, normal / (np.linalg.norm(normal) or 1.0)]
    affine = np.eye(4)
    affine[:3, :3] = np.stack(vectors, axis=1)
    affine[:3, 3] = origin[0]
    return np.diag([*TO_RAS[space], 1.0]) @ affine


def _vectors(text: str) -> list[np.ndarray | None]:
    """``(1,0,0) none (0,1,0)`` -> arrays and None; a vector of NaN is none too."""
    found: list[np.ndarray | None] = []
    for word in re.findall(r"\([^()]*\)|\S+", text):
        if word.lower() == "none":
            found.append(None)
            continue
        if not word.startswith("("):
            raise ValueError(f"{word[:20]!r} is no vector")
        vector = np.array([float(part) for part in word[1:-1].split(",")])
        found.append(None if np.isnan(vector).all() else vector)
    return found


def _data_file(text: str, where: str, sibling: Sibling | None, limit: int) -> bytes:
    if text.split()[:1] == ["LIST"] or "%" in text:
        raise DataError(f"{where} keeps its voxels in several files; save it as one NRRD file.")
    if sibling is None:
        raise DataError(f"{where} is a detached NRRD header, which is not read from here; save it as one file.")
    return sibling(text, limit)


def _segments(pairs: dict[str, str]) -> dict[str, Any]:
    """Names of a 3D Slicer segmentation: one (layer, value, name) per segment."""
    segments = []
    for number in range(1000):
        name = pairs.get(f"Segment{number}_Name")
        if name is None:
            break
        layer = pairs.get(f"Segment{number}_Layer", "0").strip()
        value = pairs.get(f"Segment{number}_LabelValue", "1").strip()
        if layer.isdecimal() and value.isdecimal():
            segments.append((int(layer), int(value), name.strip()))
    return {"segments": segments} if segments else {}
