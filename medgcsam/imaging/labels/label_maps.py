"""Masks of whole numbers, from pictures and from volumes of any format, as structures named by their numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from medgcsam.errors import DataError
from medgcsam.imaging.formats.raster import Decoded, decode_raster
from medgcsam.imaging.formats.voxels import AXES_SWAPPED
from medgcsam.imaging.image import Image
from medgcsam.imaging.labels.resample import grid_of, index_map, place, same_grid
from medgcsam.imaging.labels.structures import MAX_NUMBER, Structures, label_of, of_map

MAX_CLASSES = 64
"""More distinct values than this in a picture are gray levels, not class numbers."""
KEPT = ("empty", "outside", "structures_lost")
FULL = (1, 255, 4095, 65535)
"""The value beside 0 of binary masks that were exported as DICOM images."""


def of_picture(data: bytes, where: str, *, kind: str, like: Image) -> Structures:
    """A PNG or TIFF of any mode; see ``read.read_label``.

    A palette of grays alone counts by its grays, as the same picture without a palette does; one that is all black says
    nothing, so its indices count as grays. Of a coloured palette the indices are the class numbers, and the background
    0 must be black or transparent.
    """
    picture = decode_raster(data, where, kind=kind)
    if picture.palette is not None and not picture.palette.any():
        picture = replace(picture, palette=None)
    gray = picture.palette is None or bool((picture.palette == picture.palette[:, :1]).all())
    if picture.palette is not None:
        picture = _grays(picture, where) if gray else _colours(picture, where)
    values = _single_channel(picture, where)
    if picture.mode == "L" and picture.bits < 8:
        values = values // (255 // (2**picture.bits - 1))  # Pillow spreads 2 and 4 bits over 0..255
    white = 255 if values.dtype == np.uint8 else 2**picture.bits - 1
    distinct = np.unique(values)
    if binary := gray and set(distinct.tolist()) <= {0, white}:
        values = values > 0
    elif len(distinct) > MAX_CLASSES:
        raise DataError(f"{where} has {len(distinct)} gray levels, too many for classes; save the mask unblurred.")
    found = _of_values(values, None, where, like=like, facts={"kind": kind, "mode": picture.mode})
    return replace(found, white=white) if binary else found


def of_volume(mask: Image, where: str, *, like: Image, by_index: bool = False) -> Structures:
    """A NIfTI, NRRD or MetaImage label map, or a series of DICOM images that is one.

    The names of the segments of a 3D Slicer segmentation are kept, and its layers may overlap.
    by_index: whether a volume that does not say how it lies may be laid onto an image that does, voxel by voxel.
    Raises DataError for such a volume otherwise: programs store rows, columns and slices in different orders.
    """
    if mask.affine is None and like.affine is not None and mask.array.ndim == 4 and not by_index:
        raise DataError(
            f"{where} does not say how it lies in space, and its image does; save it with the image's orientation, "
            'or ask for orientation="index" to lay it on voxel by voxel.'
        )
    segments = mask.source.get("segments")
    facts = {key: value for key, value in mask.source.items() if key != "segments"}
    if segments:
        return _of_layers(mask, segments, where, like=like, facts=facts)
    if mask.array.shape[0] != 1:
        raise DataError(f"{where} has {mask.array.shape[0]} channels; save the mask as one channel of class numbers.")
    values, white = mask.array[0], 1
    if facts.get("kind") == "dicom":
        distinct = np.unique(values)
        if len(distinct) <= 2 and distinct[0] in (0, *FULL) and distinct[-1] in (0, *FULL):
            values, white = values > 0, int(distinct[-1]) or 1
    return replace(_of_values(values, mask.affine, where, like=like, facts=facts), white=white)


def _of_layers(mask: Image, segments: Any, where: str, *, like: Image, facts: Mapping[str, Any]) -> Structures:
    """One structure per segment: the voxels of its value in its layer."""
    if max(layer for layer, _, _ in segments) >= len(mask.array):
        raise DataError(f"{where} names a segment in a layer that it does not have; export it again.")
    layers = [_on_axes(layer, mask.affine, like) for layer in mask.array]
    to_grid, facts = _to_grid(*layers[0], where, like=like, facts=facts)
    values = [value for _, value, _ in segments]
    single = len(mask.array) == 1 and len(set(values)) == len(values) and min(values) > 0
    return Structures(
        names=tuple(name for _, _, name in segments),
        numbers=tuple(values) if single else tuple(range(1, len(segments) + 1)),
        place=lambda n, grid: place(layers[segments[n][0]][0] == segments[n][1], to_grid, grid),
        facts=facts,
    )


def _grays(picture: Decoded, where: str) -> Decoded:
    """The picture with the grays of its palette looked up."""
    gray = np.zeros(256, np.uint8)
    gray[: len(picture.palette)] = picture.palette[:, 0]
    seen = picture.samples[..., 0][picture.samples[..., -1] > 0] if picture.samples.shape[-1] == 2 else picture.samples
    used = np.unique(seen)
    if len(np.unique(gray[used])) < len(used):
        raise DataError(f"{where} has a palette with the same gray for several numbers; save it without a palette.")
    samples = picture.samples.copy()
    samples[..., 0] = gray[samples[..., 0]]
    return replace(picture, samples=samples)


def _colours(picture: Decoded, where: str) -> Decoded:
    """The picture as it is, whose number 0 is the background."""
    samples = picture.samples
    if picture.palette[0].any() and (samples.shape[-1] == 1 or (samples[..., -1][samples[..., 0] == 0] > 0).any()):
        raise DataError(
            f"{where} does not say what is background, because colour 0 of its palette is neither black nor "
            "transparent; save the mask as gray PNG."
        )
    return picture


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


def _of_values(
    values: np.ndarray, affine: np.ndarray | None, where: str, *, like: Image, facts: Mapping[str, Any]
) -> Structures:
    """Numbers (row, column) or (i, j, k) with their affine, as whole numbers on the axes of ``like``."""
    numbers = values
    if values.dtype.kind == "f":
        numbers = np.rint(values)
        if np.abs(numbers - values).max() > 1e-4:
            raise DataError(f"{where} has values that are not class numbers; save the mask as whole numbers from 0.")
    if numbers.min() < 0 or numbers.max() > MAX_NUMBER:
        raise DataError(f"{where} has values that are not class numbers; save the mask as whole numbers from 0.")
    numbers, affine = _on_axes(numbers.astype(np.int16), affine, like)
    to_grid, facts = _to_grid(numbers, affine, where, like=like, facts=facts)
    return of_map(numbers, to_grid, grid_of(like), facts)


def _on_axes(values: np.ndarray, affine: np.ndarray | None, like: Image) -> tuple[np.ndarray, np.ndarray | None]:
    """Three axes in the order of the grid of ``like``: (row, column, 1) for a picture, else (column, row, slice)."""
    wanted_picture, picture = len(like.spatial_shape) == 2, values.ndim == 2
    values = values[..., None] if picture else values
    if wanted_picture != picture:
        values, affine = values.swapaxes(0, 1), affine @ AXES_SWAPPED if affine is not None else None
    return values, affine


def _to_grid(
    values: np.ndarray, affine: np.ndarray | None, where: str, *, like: Image, facts: Mapping[str, Any]
) -> tuple[np.ndarray, dict[str, Any]]:
    """Index map to the grid of ``like``, and how it was found; without a place in space the sizes must agree."""
    grid = grid_of(like)
    if affine is None or grid.affine is None:
        if values.shape != grid.shape:
            sizes = ["x".join(str(n) for n in _shown(shape, like)) for shape in (values.shape, grid.shape)]
            raise DataError(f"{where} is a mask of {sizes[0]} for an image of {sizes[1]}; resample it to the image.")
        return np.eye(4), dict(facts) | {"label_grid": "not checked"}
    to_grid = index_map(affine, grid)
    return to_grid, dict(facts) | {"label_grid": "same" if same_grid(to_grid, values.shape, grid) else "other"}


def _shown(shape: tuple[int, ...], like: Image) -> tuple[int, ...]:
    return shape[:2] if len(like.spatial_shape) == 2 and shape[2] == 1 else shape


def to_grid(label: Image, like: Image) -> Image:
    """A label (class numbers, or a channel of 0 and 1 per structure) on the grid of ``like``; see ``resample.py``.

    This brings a segmentation that was predicted on resampled voxels back onto the original ones. What lies outside of
    ``like`` is cut off; ``source`` says the largest share of a class that was (outside), and which classes were smaller
    than half a voxel (structures_lost). Raises DataError where one of the two has no place in space and their sizes
    differ.
    """
    if len(label.array) == 1:
        found = _of_values(label.array[0], label.affine, "the label", like=like, facts=label.source)
        result = label_of(found, "the label", like=like, names=None, overlapping=False, max_outside=None)
        source = dict(label.source) | {key: result.source[key] for key in KEPT if key in result.source}
        return Image(array=result.array, unit="label", affine=like.affine, spacing=like.spacing, source=source)
    parts = [to_grid(replace(label, array=channel[None]), like) for channel in label.array]
    array = np.concatenate([part.array for part in parts])
    source = dict(label.source) | {"empty": not array.any()}
    if any(outside := [part.source.get("outside", 0.0) for part in parts]):
        source["outside"] = max(outside)
    if lost := tuple(str(n) for n, part in enumerate(parts, start=1) if "structures_lost" in part.source):
        source["structures_lost"] = lost
    return Image(array=array, unit="label", affine=like.affine, spacing=like.spacing, source=source)
