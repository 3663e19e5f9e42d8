"""Attributes of one frame of an enhanced multi-frame object (PS3.3 C.7.6.16): its own, or those all frames share."""

from __future__ import annotations

from typing import Any

from pydicom.dataset import Dataset

VALUES = (
    "PhotometricInterpretation", "BitsStored", "PixelRepresentation", "PixelPaddingValue", "PixelPaddingRangeLimit",
    "ModalityLUTSequence", "RescaleSlope", "RescaleIntercept", "RescaleType", "VOILUTSequence", "WindowCenter",
    "WindowWidth", "VOILUTFunction",
)  # fmt: skip
RESCALE, VOI = ("RescaleSlope", "RescaleIntercept", "RescaleType"), VALUES[-4:]


def has_groups(ds: Dataset) -> bool:
    """Whether each frame is described on its own."""
    return bool(ds.get("PerFrameFunctionalGroupsSequence"))


def group_item(ds: Dataset, frame: int, group: str, *, every: bool = False) -> Any:
    """A functional group of a frame (from 0): its own item, or the one all frames share, or None; ``every``: all items,
    of the few groups that have several."""
    shared = ds.get("SharedFunctionalGroupsSequence")
    for item in (ds.PerFrameFunctionalGroupsSequence[frame], shared[0] if shared else None):
        sequence = item.get(group) if item is not None else None
        if sequence:
            return sequence if every else sequence[0]
    return None


def group_value(ds: Dataset, frame: int, group: str, keyword: str) -> Any:
    """An attribute of a functional group of a frame (from 0), or None."""
    item = group_item(ds, frame, group)
    return None if item is None else item.get(keyword)


def has_windows_per_frame(ds: Dataset) -> bool:
    """Whether frames have VOI LUTs or windows of their own."""
    return has_groups(ds) and any("FrameVOILUTSequence" in item for item in ds.PerFrameFunctionalGroupsSequence)


def frame_header(ds: Dataset, frame: int) -> Dataset:
    """What ``presentation.py`` needs of a frame (from 0): its rescale, its windows, and the kind of its pixels.

    For objects without functional groups it is the object itself.
    """
    if not has_groups(ds):
        return ds
    header = Dataset()
    header.set_original_encoding(*ds.original_encoding)
    for keyword in VALUES:
        if keyword in ds:
            header[keyword] = ds[keyword]
    for group, keywords in (("PixelValueTransformationSequence", RESCALE), ("FrameVOILUTSequence", VOI)):
        item = group_item(ds, frame, group)
        for keyword in keywords if item is not None else ():
            if keyword in header:
                del header[keyword]
            if keyword in item:
                header[keyword] = item[keyword]
    return header
