"""What the readers of NIfTI, NRRD and MetaImage share: exact unpacking, neighbouring files, numbers, axes, geometry.

A file must hold exactly the bytes that its header promises. Fewer is a truncated file, more is a header that does not
belong to the voxels; both would give a picture, and the wrong one.
"""

from __future__ import annotations

import bz2
import math
import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medgcsam.errors import DataError, MachineError
from medgcsam.imaging.faults import check_finite, check_size, faults_of, said
from medgcsam.imaging.image import Image
from medgcsam.imaging.sources import check_unpacked

Sibling = Callable[..., bytes]
"""(name of a file in the same folder[, limit]) -> its bytes, or the first ``limit`` of them; raises DataError."""

MAX_SIBLING_BYTES = 2**33
MAX_BYTES, RATIO_FROM = 2**32, 2**30
"""Voxels as stored: 4 GiB, and from 1 GiB on the ratio of a bomb counts: empty masks of that size are not met."""
MAX_MEMBERS, BYTES_PER_MEMBER = 10_000, 2**12
"""So many parts of a gzip or bzip2 file may unpack to next to nothing; block-wise gzip has 64 KiB in each."""
MAX_SHEAR_DEGREES = 0.5
"""Axes further from right angles than this are refused: distances computed from the spacing would be wrong."""
MIN_STEP, MAX_STEP = 1e-5, 1e4
"""Voxel edges in mm that are believed: from a hundredth of a micron to ten metres."""
MAX_OFFSET = 1e6
EDGE = 1e-3
"""Voxels that lie outside by less than this part of a step are rounding, and inside."""
CHUNK = 2**20
WINDOW_BITS = {"gzip": 31, "zlib": 15}
AXES_SWAPPED = np.eye(4)[:, [1, 0, 2, 3]]


def sibling_reader(path: str | Path) -> Sibling:
    """Reader of plain files that lie in the folder of ``path``; a name with folders or a link out of it is refused."""
    folder = Path(os.path.realpath(Path(path).parent))

    def read(name: str, limit: int = -1) -> bytes:
        plain, name = name.removeprefix("./"), said(name, at_most=80)
        if not plain or plain in (".", "..") or any(mark in plain for mark in "/\\\0"):
            raise DataError(f"{path} keeps its voxels in {name!r}, outside its own folder; put both into one folder.")
        try:
            file = Path(os.path.realpath(folder / plain))
            if file.parent != folder:
                raise DataError(f"{path} keeps its voxels in {name!r}, a link out of its folder; copy the file there.")
            if not file.is_file():
                raise DataError(f"{path} needs the file {name!r} beside it, which is not there; copy both together.")
            if file.stat().st_size > MAX_SIBLING_BYTES:
                raise DataError(f"{path} keeps its voxels in {name!r}, which is too large; crop or resample it.")
            with open(file, "rb") as stream:
                return stream.read(limit)
        except MemoryError as error:
            raise MachineError(f"{path} does not fit into memory; use a machine with more of it.") from error
        except OSError as error:
            raise DataError(f"{path} needs {name!r}, which cannot be opened ({error.strerror}); copy both.") from error

    return read


def check_voxel_bytes(size: int, where: str) -> None:
    """Refuse more than MAX_BYTES of stored voxels."""
    if size > MAX_BYTES:
        raise DataError(f"{where} says that its voxels are {size:,} bytes, over the limit of {MAX_BYTES:,}; crop it.")


def unpack(data: bytes, encoding: str, size: int, where: str, *, skip: int = 0) -> memoryview:
    """Exactly ``size`` bytes after ``skip`` unpacked ones. Encoding ``raw``, ``gzip``, ``zlib`` or ``bzip2``.

    No more than the promised size and one chunk is ever held, whatever the packed bytes would unpack to.
    """
    total, whole = skip + size, data
    check_voxel_bytes(size, where)
    if encoding != "raw":
        check_unpacked(where, max(1, len(data)), size, limit=MAX_BYTES, ratio_from=RATIO_FROM)
        whole = bytearray()
        with faults_of(where, encoding):
            for part in _unpacked(data, encoding):
                whole += part
                if len(whole) > total:
                    break
    if len(whole) < total:
        raise DataError(f"{where} is truncated, {max(0, len(whole) - skip):,} of {size:,} bytes; export it again.")
    if len(whole) > total:
        raise DataError(f"{where} holds more voxels than the {size:,} bytes that its header says; export it again.")
    return memoryview(whole)[skip:]


def _unpacked(data: bytes, encoding: str) -> Iterator[bytes]:
    """Chunks of at most CHUNK bytes; raises at a wrong checksum or a missing end. Several gzip members count as one."""
    engine, members, produced = None, 0, 0
    for start in range(0, len(data), CHUNK):
        piece = data[start : start + CHUNK]
        while piece:
            if engine is None or engine.eof:
                piece = piece.lstrip(b"\0")  # padding behind the end
                if not piece:
                    break
                members += 1
                if members > MAX_MEMBERS + produced // BYTES_PER_MEMBER:
                    raise ValueError("it is cut into too many parts")
                engine = bz2.BZ2Decompressor() if encoding == "bzip2" else zlib.decompressobj(WINDOW_BITS[encoding])
            part = engine.decompress(piece, CHUNK)
            produced += len(part)
            yield part
            while encoding == "bzip2" and not (engine.eof or engine.needs_input):
                yield engine.decompress(b"", CHUNK)
            piece = engine.unused_data if engine.eof else getattr(engine, "unconsumed_tail", b"")
    if engine is None or not engine.eof:
        raise ValueError("its packed bytes end too early")


def real_array(body: bytes | memoryview, dtype: np.dtype, shape: Sequence[int]) -> np.ndarray:
    """Read-only array of the file's own axes, the first one fastest."""
    return np.frombuffer(body, dtype, count=math.prod(shape)).reshape(tuple(shape), order="F")


def as_image(
    stored: np.ndarray,
    where: str,
    *,
    channel_axis: int | None,
    affine: np.ndarray | None,
    spacing: Sequence[float] | None,
    source: Mapping[str, Any],
    scaling: tuple[float, float] = (1.0, 0.0),
    volume: int | None = None,
    irregular: str = "refuse",
) -> Image:
    """The Image of an array in the file's axes: (1 or channels, i, j, k), or (channels, row, column) = (c, j, i).

    stored: two or three spatial axes in the order i, j(, k), and one channel axis where ``channel_axis`` says.
    affine: (i, j, k) to RAS+ in mm, or None; spacing: mm along i, j(, k), used and needed only without an affine.
    volume: the one channel to take (0-based), or None for all.
    irregular: axes that are not at right angles are refused (``refuse``), resampled and recorded (``resample``), or
        left to a caller that goes by the affine alone (``keep``).
    """
    stored = np.moveaxis(stored, channel_axis, 0) if channel_axis is not None else stored[None]
    facts = dict(source)
    if volume is not None:
        if not 0 <= volume < len(stored):
            raise DataError(f"{where} has no volume {volume}, only 0 to {len(stored) - 1}; correct the selector.")
        facts |= {"volume": volume, "volumes": len(stored)}
        stored = stored[volume : volume + 1]
    affine, spacing = _checked(affine, spacing, where)
    array = _scaled(stored, scaling)
    check_finite(array, where)
    if array.ndim == 3:  # a picture: i runs along the columns, as every writer of pictures has it
        array = np.ascontiguousarray(array.swapaxes(1, 2))
        affine = affine @ AXES_SWAPPED if affine is not None else None
        spacing = spacing[1::-1] if spacing is not None else None
    elif affine is not None and (off := shear_degrees(affine)) > MAX_SHEAR_DEGREES:
        if irregular == "refuse":
            raise DataError(
                f"{where} has axes {off:.1f} degrees away from right angles (sheared); resample it to right angles."
            )
        facts["geometry"] = f"sheared by {off:.1f} degrees, kept"
        if irregular == "resample":
            array, affine = at_right_angles(array, affine, where)
            spacing = tuple(np.linalg.norm(affine[:3, :3], axis=0).tolist())
            facts["geometry"] = f"resampled: axes were sheared by {off:.1f} degrees"
    return Image(array=array, unit="raw", affine=affine, spacing=spacing, source={"geometry": "regular"} | facts)


def _checked(
    affine: np.ndarray | None, spacing: Sequence[float] | None, where: str
) -> tuple[np.ndarray | None, tuple[float, ...] | None]:
    """Affine and spacing, the spacing of the affine where there is one; absurd ones are refused."""
    if affine is not None:
        with np.errstate(all="ignore"):  # damaged numbers overflow to what is refused
            edges = np.linalg.norm(affine[:3, :3], axis=0)
            regular = np.isfinite(affine).all() and abs(np.linalg.det(affine[:3, :3])) > 1e-6 * np.prod(edges)
        if not regular:
            raise DataError(f"{where} has an affine that is singular or not finite; repair its orientation.")
        if np.abs(affine[:3, 3]).max() > MAX_OFFSET:
            raise DataError(f"{where} lies {np.abs(affine[:3, 3]).max():.3g} mm from the origin; repair its affine.")
        spacing = edges.tolist()
    elif spacing is not None and not all(math.isfinite(step) and step > 0 for step in spacing):
        return None, None
    if spacing is not None and not all(MIN_STEP <= step <= MAX_STEP for step in spacing):
        steps = " x ".join(f"{step:.3g}" for step in spacing)
        raise DataError(f"{where} says that its voxels are {steps} mm, which cannot be; repair its spacing or unit.")
    return affine, tuple(float(step) for step in spacing) if spacing is not None else None


def _scaled(stored: np.ndarray, scaling: tuple[float, float]) -> np.ndarray:
    """float32, C order; scaled in float64, one slab along the last axis at a time to spare memory."""
    array = np.empty(stored.shape, np.float32)
    slope, intercept = scaling
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is found by check_finite
        for slab in range(stored.shape[-1]):
            values = stored[..., slab]
            array[..., slab] = values if (slope, intercept) == (1.0, 0.0) else values * slope + intercept
    return array


def shear_degrees(affine: np.ndarray) -> float:
    """Largest deviation, in degrees, of the angles between the three axes from 90."""
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    cosines = [abs(float(axes[:, a] @ axes[:, b])) for a, b in ((0, 1), (0, 2), (1, 2))]
    return math.degrees(math.asin(min(1.0, max(cosines))))


def at_right_angles(array: np.ndarray, affine: np.ndarray, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Linear resampling of (channels, i, j, k) onto the grid that keeps axis i and the plane of i and j.

    The new grid covers the old one; what lies outside it becomes the smallest value of the channel. The step along
    each new axis is the distance between the old planes, so that no slice is skipped.
    """
    axes, triangle = np.linalg.qr(affine[:3, :3])
    axes, steps = axes * np.sign(np.diag(triangle)), np.abs(np.diag(triangle))
    shape = np.array(array.shape[1:])
    corners = np.stack(np.meshgrid(*[(0, n - 1) for n in shape], indexing="ij"), -1).reshape(-1, 3)
    there = (corners @ affine[:3, :3].T) @ axes / steps
    first = np.floor(there.min(0) + 1e-6)
    size = np.ceil(there.max(0) - 1e-6) - first + 1
    check_size([len(array), *size.astype(int).tolist()], where, limit=8 * array.size)
    new = np.eye(4)
    new[:3, :3] = axes * steps
    new[:3, 3] = affine[:3, 3] + new[:3, :3] @ first
    return _interpolated(array, np.linalg.inv(affine) @ new, tuple(size.astype(int))), new


def _interpolated(array: np.ndarray, back: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """(channels, *shape): linear interpolation at the old indices ``back @ new index``, slab by slab along k."""
    from scipy.ndimage import map_coordinates

    result = np.empty((len(array), *shape), np.float32)
    i, j = np.meshgrid(np.arange(shape[0]), np.arange(shape[1]), indexing="ij")
    last = np.array(array.shape[1:]).reshape(3, 1, 1) - 1
    for k in range(shape[2]):
        there = np.stack([back[a, 0] * i + back[a, 1] * j + back[a, 2] * k + back[a, 3] for a in range(3)])
        inside = ((there >= -EDGE) & (there <= last + EDGE)).all(0)
        for channel, values in enumerate(array):
            slab = map_coordinates(values, there, order=1, mode="nearest")
            result[channel, ..., k] = np.where(inside, slab, values.min())
    return result
