"""The frames of a DICOM Segmentation: what each says about itself, and its pixels, decoded one at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from pydicom.dataset import Dataset
from pydicom.pixels import pixel_array

from medgcsam.errors import DataError
from medgcsam.imaging.dicom.decoding import decode
from medgcsam.imaging.faults import faults_of
from medgcsam.imaging.geometry import Plane


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame: its segment (None in a label map), its plane or None, the instances it was drawn on where needed."""

    segment: int | None
    plane: Plane | None
    sources: tuple[tuple[str, int | None], ...]


def frames_of(ds: Dataset, kind: str, where: str, *, with_sources: bool) -> list[Frame]:
    """All frames. Where each lies decides, so the instances are looked at only for frames that do not say it."""
    shared = (ds.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    own = list(ds.get("PerFrameFunctionalGroupsSequence") or [])
    count = int(ds.get("NumberOfFrames") or 1)
    if len(own) != count:
        raise DataError(f"{where} describes {len(own)} of its {count} frames; export it again.")

    def group(frame: Dataset, keyword: str) -> Dataset | None:
        items = frame.get(keyword) or shared.get(keyword)
        return items[0] if items else None

    frames, shape = [], (int(ds.Rows), int(ds.Columns))
    for frame in own:
        which = group(frame, "SegmentIdentificationSequence")
        if which is None and kind != "LABELMAP":
            raise DataError(f"{where} has a frame that does not say its segment; export it again.")
        segment = int(which.ReferencedSegmentNumber) if kind != "LABELMAP" else None
        parts = [group(frame, f"{part}Sequence") for part in ("PlanePosition", "PlaneOrientation", "PixelMeasures")]
        plane = None if any(part is None for part in parts) else _plane(*parts, shape)
        drawn_on = frame.get("DerivationImageSequence") if plane is None or with_sources else None
        frames.append(Frame(segment, plane, tuple(_sources(drawn_on or []))))
    return frames


def _plane(position: Dataset, orientation: Dataset, measures: Dataset, shape: tuple[int, int]) -> Plane | None:
    if any(not item.get(keyword) for item, keyword in (
        (position, "ImagePositionPatient"), (orientation, "ImageOrientationPatient"), (measures, "PixelSpacing"))
    ):  # fmt: skip
        return None
    directions = np.array([float(value) for value in orientation.ImageOrientationPatient]).reshape(2, 3)
    place = np.array([float(value) for value in position.ImagePositionPatient]).reshape(3)
    between_rows, between_columns = (float(value) for value in measures.PixelSpacing)
    return Plane(place, directions[0], directions[1], (between_rows, between_columns), shape)


def _sources(derivations: Iterable[Dataset]) -> Iterable[tuple[str, int | None]]:
    """(SOP instance UID, frame number or None) of the images that a frame was drawn on."""
    for derivation in derivations:
        for image in derivation.get("SourceImageSequence") or []:
            number = image.get("ReferencedFrameNumber")
            numbers = [None] if number is None else number if not isinstance(number, int) else [number]
            for one in numbers:
                yield str(image.get("ReferencedSOPInstanceUID") or ""), None if one is None else int(one)


def decoder(ds: Dataset, kind: str, numbers: set[int], where: str) -> Callable[[int, int], np.ndarray]:
    """(frame, segment number) -> (columns, rows) bool, or float32 shares in 0..1 of a fractional segmentation."""
    full = np.float32(ds.get("MaximumFractionalValue") or 1)
    known = [0, int(ds.get("PixelPaddingValue") or 0), *numbers]
    packed = None
    if ds.BitsAllocated == 1 and not ds.file_meta.TransferSyntaxUID.is_encapsulated:
        packed = _packed(ds, where)  # by hand, because pydicom 3.0 fails on frames that begin within a byte

    @lru_cache(maxsize=512 if kind == "LABELMAP" else 1)
    def stored(frame: int) -> np.ndarray:
        with faults_of(where, "DICOM"):
            if packed is not None:
                values = _unpacked(packed, frame, ds)
            else:
                compressed = ds.file_meta.TransferSyntaxUID.is_encapsulated
                values = decode(ds, index=frame) if compressed else pixel_array(ds, index=frame)
        if values.shape != (ds.Rows, ds.Columns):
            raise DataError(f"{where} says {ds.Rows}x{ds.Columns} pixels, holds {values.shape}; export it again.")
        if kind == "LABELMAP" and not np.isin(values, known).all():
            raise DataError(f"{where} has pixels of a segment that it does not describe; export it again.")
        return values.T

    def mask(frame: int, number: int) -> np.ndarray:
        values = stored(frame)
        if kind == "FRACTIONAL":
            return np.minimum(values.astype(np.float32) / full, 1)
        return values == number if kind == "LABELMAP" else values > 0

    return mask


def _packed(ds: Dataset, where: str) -> np.ndarray:
    """Bytes of uncompressed pixels of one bit each, in the order of little endian (PS3.5 8.1.1)."""
    needed = -(-int(ds.get("NumberOfFrames") or 1) * int(ds.Rows) * int(ds.Columns) // 8)
    data = np.frombuffer(ds.PixelData, np.uint8)
    if len(data) < needed:
        raise DataError(f"{where} is truncated, {len(data):,} of {needed:,} bytes of pixels; export it again.")
    if not ds.file_meta.TransferSyntaxUID.is_little_endian and ds["PixelData"].VR == "OW":
        data = data[: len(data) // 2 * 2].view(np.uint16).byteswap().view(np.uint8)
    return data


def _unpacked(packed: np.ndarray, frame: int, ds: Dataset) -> np.ndarray:
    """(rows, columns) 0 and 1. Frames follow each other without padding, so one may begin within a byte."""
    size = int(ds.Rows) * int(ds.Columns)
    first, skip = divmod(frame * size, 8)
    bits = np.unpackbits(packed[first : -(-(frame + 1) * size // 8)], bitorder="little")
    return bits[skip : skip + size].reshape(int(ds.Rows), int(ds.Columns))
