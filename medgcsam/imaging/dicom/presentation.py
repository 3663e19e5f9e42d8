"""Stored DICOM values to what a viewer shows: modality LUT, VOI LUT or window, presentation (PS3.3 C.11, PS3.4 N.2).

Choices, each recorded in the facts that are returned:

- Several VOI LUTs or windows: the first, as pydicom and viewers have it. Both kinds present: the LUT.
- No usable VOI: up to 8 stored bits, the full range of those bits; above, from the smallest to the largest value, as
  viewers do, because many files store 10 or 12 bits of signal in 16.
- A VOI that makes an image of several values constant is applied, and recorded as ``constant_after_voi``.
- Padding (PixelPaddingValue, and up to PixelPaddingRangeLimit) takes no part in that range and is shown black.
- MONOCHROME1 is inverted. PresentationLUTShape must agree with it by the standard, and where it does not, is ignored.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.pixels import apply_color_lut

from medgcsam.errors import DataError
from medgcsam.imaging.faults import said


def to_display(stored: np.ndarray, ds: Dataset, where: str) -> tuple[np.ndarray, dict[str, Any]]:
    """Monochrome stored values (row, column) to display values (row, column), float32 in 0..1, and the facts."""
    values, facts = to_modality(stored, ds, where)
    padding = padding_mask(stored, ds)
    display, voi = _voi(values, ds, where, padding=padding)
    if display.min() == display.max() and values.min() != values.max():
        voi["constant_after_voi"] = True
    inverted = str(ds.PhotometricInterpretation).strip() == "MONOCHROME1"
    if inverted and voi["voi"] != "constant image":
        display = 1.0 - display
    if padding is not None:
        display[padding] = 0.0
        facts["padding_pixels"] = int(padding.sum())
    return display.astype(np.float32), facts | voi | {"inverted": inverted}


def to_modality(stored: np.ndarray, ds: Dataset, where: str) -> tuple[np.ndarray, dict[str, Any]]:
    """Modality LUT or rescale (PS3.3 C.11.1): float64 values in the unit of the modality, and the facts."""
    if ds.get("ModalityLUTSequence"):
        table, first, _ = _table(ds.ModalityLUTSequence[0], ds, where)
        return _looked_up(stored, table, first).astype(np.float64), {"modality_lut": "table"}
    for keyword in ("RescaleSlope", "RescaleIntercept"):
        if ds.get(keyword) not in (None, "") and (number(ds, keyword) is None or ds[keyword].VM > 1):
            raise DataError(f"{where} has a {keyword} that is not one finite number; export it again.")
    slope, intercept = number(ds, "RescaleSlope"), number(ds, "RescaleIntercept")
    if slope is None and intercept is None:
        return stored.astype(np.float64), {"modality_lut": "none"}
    slope, intercept = 1.0 if slope is None else slope, intercept or 0.0
    if slope == 0:
        raise DataError(f"{where} has a RescaleSlope of 0, which wipes out the image; export it again.")
    return stored * slope + intercept, {"modality_lut": "rescale", "rescale": (slope, intercept)}


def padding_mask(stored: np.ndarray, ds: Dataset) -> np.ndarray | None:
    """True where a pixel is padding (PS3.3 C.7.5.1.1.2); None where none is, or where all would be."""
    first, last = number(ds, "PixelPaddingValue"), number(ds, "PixelPaddingRangeLimit")
    if first is None:
        return None
    # The value is often written with the wrong sign for the pixels: compare it as these bits read.
    low, high = sorted(int(np.array(int(v)).astype(stored.dtype)) for v in (first, first if last is None else last))
    mask = (stored >= low) & (stored <= high)
    return mask if mask.any() and not mask.all() else None


def number(ds: Dataset, keyword: str) -> float | None:
    """The (first) value of an element as a finite number, or None."""
    value = ds.get(keyword)
    if value is not None and not isinstance(value, (str, int, float)) and hasattr(value, "__len__"):
        value = value[0] if len(value) else None
    try:
        found = float(value)
    except (TypeError, ValueError):
        return None
    return found if math.isfinite(found) else None


def _voi(
    values: np.ndarray, ds: Dataset, where: str, *, padding: np.ndarray | None
) -> tuple[np.ndarray, dict[str, Any]]:
    """Float64 (row, column) in 0..1 before presentation, and which VOI was applied."""
    if ds.get("VOILUTSequence"):
        table, first, top = _table(ds.VOILUTSequence[0], ds, where)
        return _looked_up(values, table, first) / top, {"voi": "table", "voi_choices": len(ds.VOILUTSequence)}
    center, width = number(ds, "WindowCenter"), number(ds, "WindowWidth")
    function = str(ds.get("VOILUTFunction") or "LINEAR").strip().upper()
    if function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        raise DataError(f"{where} has the unknown VOI LUT function {said(function)}; export it again.")
    if center is not None and width is not None and (width >= 1 or (width > 0 and function != "LINEAR")):
        choices = ds["WindowCenter"].VM
        applied = {"voi": function, "window": (center, width), "voi_choices": choices}
        return windowed(values, center, width, function), applied
    facts = {"voi_ignored": "unusable window"} if center is not None or width is not None else {}
    low, high, name = _range(values, ds, padding=padding)
    if high == low:
        return np.zeros_like(values), facts | {"voi": "constant image"}
    return np.clip((values - low) / (high - low), 0, 1), facts | {"voi": name, "range": (low, high)}


def windowed(values: np.ndarray, center: float, width: float, function: str = "LINEAR") -> np.ndarray:
    """A window to 0..1 by the three functions of PS3.3 C.11.2.1.2 and C.11.2.1.3."""
    if function == "SIGMOID":
        with np.errstate(over="ignore"):
            return 1 / (1 + np.exp(-4 * (values - center) / width))
    if function == "LINEAR":
        center, width = center - 0.5, width - 1
    if width == 0:
        return (values > center).astype(np.float64)
    return np.clip((values - center) / width + 0.5, 0, 1)


def _range(values: np.ndarray, ds: Dataset, *, padding: np.ndarray | None) -> tuple[float, float, str]:
    bits = int(ds.BitsStored)
    if bits <= 8 and not ds.get("ModalityLUTSequence"):
        low = -(2 ** (bits - 1)) if ds.get("PixelRepresentation", 0) == 1 else 0
        slope, intercept = number(ds, "RescaleSlope") or 1.0, number(ds, "RescaleIntercept") or 0.0
        ends = sorted(v * slope + intercept for v in (low, low + 2**bits - 1))
        return ends[0], ends[1], "full range"
    used = values if padding is None else values[~padding]
    return float(used.min()), float(used.max()), "data range"


def _table(item: Dataset, ds: Dataset, where: str) -> tuple[np.ndarray, int, int]:
    """(entries, first value mapped, value of white) of a modality or VOI LUT item (PS3.3 C.11.1.1)."""
    entries, first, bits = (int(v) for v in item.LUTDescriptor)
    entries = entries or 2**16
    data = item.LUTData
    if isinstance(data, bytes):
        little = ds.original_encoding[1] is not False
        table = np.frombuffer(data, np.uint8 if len(data) < 2 * entries else ("<u2" if little else ">u2"))
    else:
        table = np.atleast_1d(np.asarray(data)).astype(np.uint16)
        if 2 * len(table) in (entries, entries + 1):  # 8-bit entries, two to a word
            table = table.astype("<u2").view(np.uint8)
    if len(table) < entries:
        raise DataError(f"{where} has a look-up table of {len(table)} instead of {entries} entries; export it again.")
    table = table[:entries]
    # White is the largest value of the stated depth; tables that exceed it state 8 bits and use more.
    return table, first, 2 ** max(bits, int(table.max()).bit_length()) - 1


def palette_colours(stored: np.ndarray, ds: Dataset, where: str) -> tuple[np.ndarray, int]:
    """Palette indices (row, column) to (colours (row, column, 3), value of white). Raises DataError."""
    colours = apply_color_lut(stored, ds)[..., :3]
    white = int(np.iinfo(colours.dtype).max)
    tables = [ds.get(f"{colour}PaletteColorLookupTableData") for colour in ("Red", "Green", "Blue")]
    if white > 255 and all(isinstance(table, bytes) for table in tables):
        entry = "<u2" if ds.original_encoding[1] is not False else ">u2"
        highest = max(int(np.frombuffer(table[: len(table) // 2 * 2], entry).max(initial=0)) for table in tables)
        if 0 < highest <= 255:
            raise DataError(f"{where} has a palette of 16 bits that is filled with 8-bit values; save it as RGB.")
    return colours, white


def _looked_up(values: np.ndarray, table: np.ndarray, first: int) -> np.ndarray:
    index = np.rint(values).astype(np.int64) - first
    return table[np.clip(index, 0, len(table) - 1)]
