"""One DICOM object becomes an Image: a picture, a cine, or a volume where its pixels lie in the patient.

- Cross-sections (CT, MR, PET), enhanced and other multi-frame objects that say where each frame lies, and Siemens
  mosaics are volumes: (channels, column, row, slice), in ``HU``, ``SUV``, ``Bq/ml`` or ``raw``, with an affine.
- Everything else is pictures: (1 or 3, row, column), ``display``, see ``presentation.py``. Frames of a cine (US, XA,
  NM, secondary capture) are channels; of a colour cine red, green and blue of the first frame, then of the second.

Series of single slices are joined by ``series.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from medgcsam.errors import DataError
from medgcsam.imaging.dicom.channels import chosen_channel
from medgcsam.imaging.dicom.cross_section import is_section, section_values
from medgcsam.imaging.dicom.facts import class_name, facts_of, pixel_spacing, plane_of, reference_of
from medgcsam.imaging.dicom.file import LABELS, MONOCHROME, NOT_IMAGES, frame_count, open_dataset, stored_pixels
from medgcsam.imaging.dicom.functional_groups import frame_header, group_value, has_groups, has_windows_per_frame
from medgcsam.imaging.dicom.mosaic import is_mosaic, split_mosaic
from medgcsam.imaging.dicom.multiframe import (
    Keys,
    frame_keys,
    frame_planes,
    nuclear_planes,
    offset_planes,
    place_frames,
)
from medgcsam.imaging.dicom.presentation import number, palette_colours, to_display
from medgcsam.imaging.faults import MAX_VOXELS, check_finite, check_size, faults_of, said
from medgcsam.imaging.geometry import Plane
from medgcsam.imaging.image import Image
from medgcsam.imaging.regrid import regridded

VOLUME_CLASSES = ("Enhanced CT", "Enhanced MR", "Enhanced PET", "Enhanced US Volume", "X-Ray 3D", "Tomosynthesis")
COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT", "PALETTE COLOR")


def read_dicom(
    data: bytes | str | Path, where: str, *, irregular: str = "refuse", pet: str = "suv", volume: int | None = None
) -> Image:
    """Read one DICOM object, with or without preamble.

    irregular: ``refuse`` or ``resample`` frames that form no regular volume; see ``geometry.stack_planes``.
    pet: ``suv`` (body weight, where the header allows it) or ``stored``; see ``pet.pet_scale``.
    volume: the one channel (0-based) of an object that holds several volumes, or None for all.
    Raises DataError.
    """
    with faults_of(where, "DICOM"):  # all of it, because elements are parsed on access and may be damaged anywhere
        return image_of(open_dataset(data, where), where, irregular=irregular, pet=pet, volume=volume)


def image_of(
    ds: Dataset, where: str, *, irregular: str = "refuse", pet: str = "suv", volume: int | None = None
) -> Image:
    """The same from a data set that is open already; call it inside ``faults.faults_of``."""
    refuse_objects(ds, where)
    stored = stored_pixels(ds, where)
    if frame_count(ds) == 1:
        stored = stored[None]
    colour = str(ds.PhotometricInterpretation).strip() not in MONOCHROME
    located = _located(stored, ds, where, colour=colour)
    if located:
        pixels, planes, keys = located
        return _volume(pixels, planes, keys, ds, where, irregular=irregular, pet=pet, volume=volume)
    if volume is not None:
        raise DataError(f"{where} has no volumes to choose from; leave the choice out.")
    if is_section(ds) and not colour:
        return _unplaced_slice(stored, ds, where, pet=pet)
    return _colours(stored, ds, where) if colour else _pictures(stored, ds, where)


def refuse_objects(ds: Dataset, where: str) -> None:
    """Refuse, by name and before anything is decoded, what holds no pictures to learn from."""
    name = class_name(ds)
    if any(word in name for word in LABELS):
        raise DataError(f"{where} is a label and no image ({name}); give it as the mask of its image.")
    if any(word in name for word in NOT_IMAGES) or "FloatPixelData" in ds or "DoubleFloatPixelData" in ds:
        raise DataError(f"{where} is no image to learn from ({name}); leave it out.")
    if "PixelData" not in ds and name.endswith("Storage") and "Image" not in name:
        raise DataError(f"{where} is an object without pixels ({name}); leave it out.")
    parts = number(ds, "InConcatenationTotalNumber")
    if ds.get("ConcatenationUID") and parts != 1:
        raise DataError(
            f"{where} is one of {int(parts or 0) or 'several'} parts of an object ({name}); join them first."
        )
    photometric = str(ds.get("PhotometricInterpretation") or "").strip()
    if photometric and photometric not in (*MONOCHROME, *COLOURS):
        raise DataError(f"{where} is in colours of the kind {said(photometric)}, which are not read; save it as RGB.")
    kinds = ds.get("ImageType") or ()
    if is_section(ds) and "LOCALIZER" in ([kinds] if isinstance(kinds, str) else list(kinds)):
        raise DataError(f"{where} is a localiser image and no cross-section to learn from ({name}); leave it out.")
    tiled = str(ds.get("DimensionOrganizationType") or "").startswith("TILED")
    if tiled or ("Whole Slide" in name and (number(ds, "NumberOfFrames") or 1) > 1):
        raise DataError(f"{where} is a whole slide image cut into tiles ({name}), which is not read; export regions.")


def _located(
    stored: np.ndarray, ds: Dataset, where: str, *, colour: bool
) -> tuple[np.ndarray, Sequence[Plane], list[Keys]] | None:
    """(pixels (frame, row, column), plane of each, what tells apart those at one position), or None for pictures."""
    name, frames, keys = class_name(ds), frame_count(ds), []
    planes: Sequence[Plane] | None = None
    if has_groups(ds):
        planes, keys = frame_planes(ds, where), frame_keys(ds)
    elif name.startswith("Nuclear Medicine"):
        planes, keys = nuclear_planes(ds, where) or (None, [])
    elif frames > 1:
        planes = offset_planes(ds, where)
    elif is_section(ds) and not colour:
        if is_mosaic(ds):
            return *split_mosaic(stored[0], ds, where), []
        plane, _ = plane_of(ds, shape=stored.shape[1:3])
        planes = None if plane is None else [plane]
    volume = any(word in name for word in VOLUME_CLASSES) or (is_section(ds) and frames > 1)
    if volume and planes is None:
        raise DataError(
            f"{where} is a multi-frame object ({name}) that does not say where its frames lie; "
            "export it with its functional groups or as single slices."
        )
    if colour and (is_mosaic(ds) or (planes is not None and frames > 1)):
        raise DataError(f"{where} is a volume in colours ({name}), which is not read; export it in gray.")
    return None if planes is None or colour else (stored, planes, keys)


def _volume(
    pixels: np.ndarray,
    planes: Sequence[Plane],
    keys: list[Keys],
    ds: Dataset,
    where: str,
    *,
    irregular: str,
    pet: str,
    volume: int | None,
) -> Image:
    """Frames in the patient to (channels, column, row, slice)."""
    thickness, step = _stated_steps(ds)
    table, stack, geometry = place_frames(planes, keys, where, thickness=thickness, step=step, irregular=irregular)
    table, geometry = chosen_channel(table, geometry, where, volume=volume)
    check_size((*table.shape, *pixels.shape[1:]), where, limit=MAX_VOXELS)
    values, unit, facts = section_values(pixels, ds, where, pet=pet)
    array = np.ascontiguousarray(values[table].transpose(0, 3, 2, 1))
    spacing_source = "PixelSpacing" if has_groups(ds) else pixel_spacing(ds)[1]
    if stack.resampling is not None:
        array, geometry["voxels_outside"] = regridded(array, stack.resampling)
    source = facts_of(ds) | facts | geometry | {"spacing_source": spacing_source, "voi": "none"}
    numbers = table[0] + 1 if len(planes) > 1 and not is_mosaic(ds) else None
    if len(planes) == 1:
        source.pop("frames")
    reference = reference_of(ds, where, frames=numbers)
    return Image(array=array, unit=unit, affine=stack.affine, spacing=stack.spacing, source=source, reference=reference)


def _unplaced_slice(stored: np.ndarray, ds: Dataset, where: str, *, pet: str) -> Image:
    """A cross-section that does not say where it lies: a volume of one slice with its spacing at most."""
    values, unit, facts = section_values(stored, ds, where, pet=pet)
    in_plane, source = pixel_spacing(ds)
    spacing, geometry = None, {"spacing_source": source}
    if in_plane is not None:
        thickness, step = _stated_steps(ds)
        spacing = (in_plane[1], in_plane[0], thickness or step or 1.0)
        geometry["slice_step_source"] = (
            "SliceThickness" if thickness else "SpacingBetweenSlices" if step else "assumed 1 mm"
        )
        why = plane_of(ds, shape=stored.shape[1:3])[1]
        if "directions" in why:
            geometry["orientation_ignored"] = why
    array = np.ascontiguousarray(values.transpose(2, 1, 0)[None])
    source = facts_of(ds) | facts | geometry | {"voi": "none"}
    return Image(array=array, unit=unit, spacing=spacing, source=source, reference=reference_of(ds, where))


def _pictures(stored: np.ndarray, ds: Dataset, where: str) -> Image:
    """Monochrome frames to display values (frame, row, column); one window for all, unless each has its own."""
    if has_windows_per_frame(ds):
        shown = [to_display(frame, frame_header(ds, n), where) for n, frame in enumerate(stored)]
        display, applied = np.stack([display for display, _ in shown]), shown[0][1]
    else:
        display, applied = to_display(stored, frame_header(ds, 0), where)
    check_finite(display, where)
    return _picture(display, ds, where, facts=applied, frames=len(stored))


def _colours(stored: np.ndarray, ds: Dataset, where: str) -> Image:
    """RGB, YBR (converted by pydicom) and palettes to display values (3 per frame, row, column)."""
    white = 2 ** int(ds.BitsStored) - 1
    if str(ds.PhotometricInterpretation).strip() == "PALETTE COLOR":
        frames, rows, columns = stored.shape
        looked_up, white = palette_colours(stored.reshape(frames * rows, columns), ds, where)
        stored = looked_up.reshape(frames, rows, columns, 3)
    frames, rows, columns, _ = stored.shape
    array = np.moveaxis(stored, -1, 1).reshape(3 * frames, rows, columns)
    array = np.ascontiguousarray(array, dtype=np.float32) / np.float32(white)
    if array.min() < 0 or array.max() > 1:
        raise DataError(f"{where} has colours beyond the {ds.BitsStored} bits that it states; export it again.")
    return _picture(array, ds, where, facts={"voi": "none"}, frames=frames)


def _picture(array: np.ndarray, ds: Dataset, where: str, *, facts: dict[str, Any], frames: int) -> Image:
    spacing, source = pixel_spacing(ds)
    facts = facts_of(ds) | {"spacing_source": source} | facts
    if frames > 1:
        facts["frames"] = frames
        facts["channels_by"] = "frame" if len(array) == frames else "frame, then red, green, blue"
        if number(ds, "FrameTime"):
            facts["frame_time_ms"] = number(ds, "FrameTime")
    reference = reference_of(ds, where, frames=range(1, frames + 1) if frames > 1 else None)
    return Image(array=array, unit="display", spacing=spacing, source=facts, reference=reference)


def _stated_steps(ds: Dataset) -> tuple[float | None, float | None]:
    """SliceThickness and SpacingBetweenSlices in mm, of the object or of its first frame; None where they are 0."""
    found = []
    for keyword in ("SliceThickness", "SpacingBetweenSlices"):
        value = number(ds, keyword)
        if value is None and has_groups(ds):
            value = group_value(ds, 0, "PixelMeasuresSequence", keyword)
        found.append(abs(float(value)) if value else None)
    return found[0], found[1]
