"""The slices of one DICOM series become one volume: decoded, rescaled, sorted along their normal and joined.

Every slice is rescaled with its own slope and intercept, in float64, and stored as float32. What the slices must have
in common and do not have is refused by name; which irregular geometry can be resampled, ``geometry.py`` says.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

from medgcsam.errors import DataError
from medgcsam.imaging.dicom import series as s
from medgcsam.imaging.dicom.alike import (
    MONOCHROME,
    check_alike,
    check_one_kind,
    differing,
    first_number,
    modality_lut,
    rescale_of,
    without_copies,
    without_localisers,
)
from medgcsam.imaging.dicom.channels import channels_of
from medgcsam.imaging.dicom.cross_section import CT, PET, check_gray, is_hounsfield
from medgcsam.imaging.dicom.facts import facts_of
from medgcsam.imaging.dicom.file import open_dataset, stored_pixels
from medgcsam.imaging.dicom.header import EXPLICIT, IMPLICIT, PIXEL_DATA
from medgcsam.imaging.dicom.pet import SAME, TRACERS, pet_scale
from medgcsam.imaging.dicom.presentation import palette_colours, to_modality
from medgcsam.imaging.dicom.series import Series, Slice
from medgcsam.imaging.faults import MAX_VOXELS, check_finite, check_size, faults_of
from medgcsam.imaging.geometry import Plane, Stack, levels_of, stack_planes
from medgcsam.imaging.image import Image, Reference
from medgcsam.imaging.regrid import regridded

EXACT_IN_FLOAT32 = 2**23
TRACERS_TAG = tag_for_keyword(TRACERS)
PET_TAGS = tuple(
    tag_for_keyword(keyword)
    for keyword in (*SAME, "AcquisitionDate", "AcquisitionTime", "FrameReferenceTime", "ActualFrameDuration")
)
"""What the unit of PET depends on and may differ between slices."""


def volume_of(
    series: Series, where: str, *, irregular: str = "refuse", pet: str = "suv", volume: int | None = None
) -> Image:
    """The volume of a series of two or more single-frame files: (1, i, j, k), or (3, i, j, k) in colour.

    Where several files lie at each position, (channels, i, j, k) by ``channels.channels_of``, or of these the one
    ``volume`` (0-based); ``reference`` is that of the first channel.

    Unit ``HU`` for CT, ``SUV`` or ``Bq/ml`` for PET (see ``pet.py``), ``display`` for colours, else ``raw``
    (rescaled). With ``irregular="resample"`` localisers and second copies of a slice are left out, and what
    ``geometry.stack_planes`` can repair is repaired; all of it is recorded in ``source``. Raises DataError.
    """
    facts: dict[str, Any] = {}
    slices = without_localisers(series.slices, where, irregular, facts)
    slices = without_copies(slices, where, irregular, facts)
    check_alike(slices, where)
    with faults_of(where, "DICOM"):
        table, told, stack = _stacked(slices, where, irregular, volume)
        channels = [[slices[n] for n in row[stack.order]] for row in table]
        for channel in channels:
            check_one_kind(channel, where)
        slices = [one for channel in channels for one in channel]
        first = slices[0].dataset or open_dataset(slices[0].data(), slices[0].item.name)
        array, unit, how = _filled(slices, first, where, pet, channels=len(channels))
        facts = facts_of(first) | {"spacing_source": "PixelSpacing"} | dict(stack.facts) | told | facts | how
        facts["voi"] = "none"
    if stack.resampling is not None:
        array, outside = regridded(array, stack.resampling)
        facts["voxels_outside"] = outside
    check_finite(array, where)
    if series.others:
        facts["other_files"] = series.others
    if differs := differing(slices, told=facts.get("channels_by", "")):
        facts["differing"] = differs
    reference = _reference(channels[0], first)
    return Image(array=array, unit=unit, affine=stack.affine, spacing=stack.spacing, source=facts, reference=reference)


def _stacked(
    slices: Sequence[Slice], where: str, irregular: str, volume: int | None
) -> tuple[np.ndarray, dict[str, Any], Stack]:
    """(slice of each channel and position, what tells channels apart, the grid of one). Raises DataError."""
    if any(first_number(one.header.text(s.FRAMES), 1.0) > 1 for one in slices):
        raise DataError(f"{where} is a series of {len(slices)} multi-frame objects; name one of the files.")
    if any("MOSAIC" in one.header.text(s.IMAGE_TYPE).upper() for one in slices):
        raise DataError(f"{where} mixes mosaics and slices; split it into one series for each.")
    planes = [_plane(one) for one in slices]
    missing = [one.item.name for one, plane in zip(slices, planes, strict=True) if plane is None]
    if len(missing) == len(slices):
        raise DataError(f"{where} holds {len(slices)} images without a position in space; name one of the files.")
    if missing:
        raise DataError(f"{missing[0]} has no position in space, as others of its series have; leave it out.")
    levels = levels_of(planes, where)
    table, told = channels_of(levels, lambda n, keyword: s.telling(slices[n], keyword), where, volume=volume)
    check_size((table.size, *planes[0].shape), where, limit=MAX_VOXELS)
    header = slices[table[0, 0]].header
    thickness, step = (first_number(header.text(tag), None) for tag in (s.THICKNESS, s.BETWEEN))
    stack = stack_planes([planes[n] for n in table[0]], where, thickness=thickness, step=step, irregular=irregular)
    return table, told, stack


def _plane(one: Slice) -> Plane | None:
    """The plane of a slice, None where it has no position; ``geometry.stack_planes`` checks its numbers."""
    header = one.header
    shape = (header.short(s.ROWS) or 0, header.short(s.COLUMNS) or 0)
    check_size(shape, one.item.name)
    directions, spacing = _numbers(header.text(s.ORIENTATION)), _numbers(header.text(s.PIXEL_SPACING))
    position = [first_number(part, float("nan")) for part in header.text(s.POSITION).split("\\")]
    if (len(position), len(directions), len(spacing)) != (3, 6, 2):
        return None
    return Plane(np.array(position), np.array(directions[:3]), np.array(directions[3:]), spacing, shape)


@lru_cache(maxsize=64)
def _numbers(text: str) -> tuple[float, ...]:
    """The numbers of a DS element that most slices of a series share."""
    return tuple(first_number(part, float("nan")) for part in text.split("\\"))


def _filled(
    slices: Sequence[Slice], first: Dataset, where: str, pet: str, *, channels: int
) -> tuple[np.ndarray, str, dict[str, Any]]:
    """(channels, column, row, slice) of sorted slices, a view of slices stored one after the other; unit; facts."""
    header = slices[0].header
    rows, columns = header.short(s.ROWS), header.short(s.COLUMNS)
    if header.text(s.PHOTOMETRIC) not in MONOCHROME:
        if channels > 1:
            raise DataError(f"{where} holds {channels} volumes in colours; name one by #volume=0, or split it.")
        colours = np.empty((3, len(slices), rows, columns), np.float32)
        for k, one in enumerate(slices):
            colours[:, k] = _colours(one)
        return colours.transpose(0, 3, 2, 1), "display", {}
    unit, factor, facts = _unit(slices, first, where, pet)
    check_gray(header.text(s.PHOTOMETRIC), s.class_of(header), unit, where)
    buffer = np.empty((len(slices), rows, columns), np.float32)
    padded = []
    for k, one in enumerate(slices):
        stored, ds = _stored(one)
        if stored.shape != (rows, columns):
            raise DataError(f"{one.item.name} holds pixels of shape {stored.shape}; export it again.")
        _rescale(stored, one, ds, factor, buffer[k])
        mask = _padding(stored, one)
        if mask is not None:
            padded.append((k, mask))
    if padded:
        facts["padding_voxels"] = _pad(buffer, padded)
    return buffer.reshape(channels, -1, rows, columns).transpose(0, 3, 2, 1), unit, facts


def _unit(slices: Sequence[Slice], first: Dataset, where: str, pet: str) -> tuple[str, float, dict[str, Any]]:
    """(unit, factor behind the rescale, facts) of a monochrome series."""
    kind, said = modality_lut(slices, where)
    facts: dict[str, Any] = {"modality_lut": kind}
    if kind == "rescale":
        rescales = {rescale_of(one) for one in slices}
        facts["rescale"] = rescales.pop() if len(rescales) == 1 else "one per slice"
    sop = s.class_of(slices[0].header)
    if sop in PET:
        unit, factor, how = pet_scale(_pet_datasets(slices, first), where, pet=pet)
        return unit, factor, facts | how
    return ("HU" if sop in CT and is_hounsfield(kind, said) else "raw"), 1.0, facts


def _pet_datasets(slices: Sequence[Slice], first: Dataset) -> list[Dataset]:
    """The first slice, and of the others what ``pet_scale`` asks them, once for each that differs."""
    if any(one.dataset is not None for one in slices):
        return [first, *(other.dataset or open_dataset(other.data(), other.item.name) for other in slices[1:])]
    found: dict[tuple[bytes, ...], Dataset] = {}
    tracers = {slices[0].header.raw(TRACERS_TAG): first.get(TRACERS)}
    for one in slices[1:]:
        tracer = one.header.raw(TRACERS_TAG)
        key = (tracer, *(one.header.raw(tag) for tag in PET_TAGS))
        if key not in found:
            found[key] = _light_dataset(one, PET_TAGS)
            if tracer not in tracers:
                tracers[tracer] = open_dataset(one.data(), one.item.name).get(TRACERS)
            if tracers[tracer]:
                setattr(found[key], TRACERS, tracers[tracer])
    return [first, *found.values()]


def _light_dataset(one: Slice, tags: Sequence[int]) -> Dataset:
    """Some elements of a slice, converted when they are asked for."""
    header, ds = one.header, {}
    for tag in tags:
        if tag in header.elements:
            vr, start, length = header.elements[tag]
            ds[BaseTag(tag)] = RawDataElement(
                BaseTag(tag), vr.decode("ascii") or None, length, header.raw(tag), start, not vr, True
            )
    return Dataset(ds)


def _stored(one: Slice) -> tuple[np.ndarray, Dataset | None]:
    """Stored values (rows, columns[, 3]), read in place where they are plain, else by pydicom; and what it parsed."""
    header, native = one.header, None
    if one.dataset is None and header.syntax in (IMPLICIT, EXPLICIT) and not header.raw(s.MODALITY_LUT):
        native = _native(one)
    if native is not None:
        return native, None
    with faults_of(one.item.name, "DICOM"):
        ds = one.dataset or open_dataset(one.data(), one.item.name)
        return stored_pixels(ds, one.item.name), ds


def _native(one: Slice) -> np.ndarray | None:
    """Uncompressed gray pixels of 8 or 16 bits, their unused bits set as pydicom sets them; None for all others."""
    header = one.header
    rows, columns, allocated, stored, high, sign = (
        header.short(tag) for tag in (s.ROWS, s.COLUMNS, s.ALLOCATED, s.STORED, s.HIGH_BIT, s.SIGN)
    )
    _, start, length = header.elements[PIXEL_DATA]
    plain = allocated in (8, 16) and stored and stored <= allocated and high == stored - 1 and sign in (0, 1)
    if not plain or header.short(s.SAMPLES) != 1 or header.text(s.PHOTOMETRIC) not in MONOCHROME:
        return None
    size = rows * columns * allocated // 8
    if length not in (size, size + size % 2):
        return None
    dtype = np.dtype(f"<{'ui'[sign]}{allocated // 8}")
    array = np.frombuffer(one.data(), dtype, rows * columns, start).reshape(rows, columns)
    if stored < allocated:
        array = array << (allocated - stored) >> (allocated - stored)
    return array.astype(dtype.newbyteorder("="), copy=False)


def _rescale(stored: np.ndarray, one: Slice, ds: Dataset | None, factor: float, out: np.ndarray) -> None:
    """Values of the modality times ``factor`` into ``out`` (rows, columns) float32."""
    if ds is not None and ds.get("ModalityLUTSequence"):
        values = to_modality(stored, ds, one.item.name)[0]
        out[...] = values * factor
        return
    slope, intercept = rescale_of(one) or (1.0, 0.0)
    whole = intercept == int(intercept) and abs(intercept) < EXACT_IN_FLOAT32
    if (slope, factor) == (1.0, 1.0) and whole and stored.dtype.itemsize <= 2:
        np.add(stored, np.float32(intercept), out=out)  # both and their sum are whole numbers that float32 holds
        return
    values = stored.astype(np.float64)
    values *= slope
    values += intercept
    if factor != 1.0:
        values *= factor
    out[...] = values


def _padding(stored: np.ndarray, one: Slice) -> np.ndarray | None:
    """True where a pixel is padding (PS3.3 C.7.5.1.1.2), its value read as these bits are; None where none is."""
    first, last = one.header.short(s.PADDING), one.header.short(s.PADDING_LIMIT)
    if first is None:
        return None
    low, high = sorted(int(np.array(v).astype(stored.dtype)) for v in (first, first if last is None else last))
    mask = stored == low if low == high else (stored >= low) & (stored <= high)
    return mask if mask.any() else None


def _pad(buffer: np.ndarray, padded: Sequence[tuple[int, np.ndarray]]) -> int:
    """Padding never exceeds the smallest true value of the volume; number of voxels that are padding."""
    masks = dict(padded)
    least = min(
        (buffer[k][~masks[k]] if k in masks else buffer[k]).min(initial=np.inf) for k in range(len(buffer))
    )  # fmt: skip
    if np.isfinite(least):
        for k, mask in padded:
            buffer[k][mask] = np.minimum(buffer[k][mask], least)
    return int(sum(mask.sum() for _, mask in padded))


def _colours(one: Slice) -> np.ndarray:
    """Display values (3, rows, columns) in 0..1."""
    stored, ds = _stored(one)
    white = 2 ** int(ds.BitsStored) - 1
    if one.header.text(s.PHOTOMETRIC) == "PALETTE COLOR":
        stored, white = palette_colours(stored, ds, one.item.name)
    if stored.ndim != 3:
        raise DataError(
            f"{one.item.name} is in colours of the kind {s.said(one.header.text(s.PHOTOMETRIC))}; save it as RGB."
        )
    return np.moveaxis(stored, -1, 0).astype(np.float32) / np.float32(white)


def _reference(slices: Sequence[Slice], first: Dataset) -> Reference:
    header = slices[0].header
    return Reference(
        study_uid=header.text(s.STUDY), series_uid=header.text(s.SERIES),
        frame_of_reference_uid=header.text(s.FRAME_OF_REFERENCE), sop_class_uid=s.class_of(header),
        sop_instance_uids=tuple(one.header.text(s.SOP_INSTANCE) for one in slices),
        files=tuple(one.item.name for one in slices), patient_id=str(first.get("PatientID") or "").strip(),
    )  # fmt: skip
