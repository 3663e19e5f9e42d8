"""Single-frame files of one series at the same positions: time points, echoes or diffusion weights become channels.

A SeriesInstanceUID does not say that two images of one place belong together. They do where an attribute of the
standard counts them (``TOLD_BY``) and every position has every one of its values exactly once. Where only the number or
the time of the acquisition differs, they are two acquisitions: each can be chosen, and together they are refused.
Nothing is taken from the order of files or InstanceNumber.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from datetime import datetime
from typing import Any

import numpy as np

from medgcsam.errors import DataError
from medgcsam.imaging.dicom.multiframe import SAME_ECHO
from medgcsam.imaging.dicom.pet import parsed_time

TOLD_BY = (
    "TemporalPositionIdentifier", "TriggerTime", "FrameReferenceTime", "InversionTime", "EchoTime", "DiffusionBValue",
    "DiffusionGradientOrientation",
)  # fmt: skip
"""What tells images at one position apart, in the order by which channels are sorted: MR Image, PS3.3 C.8.3.1 (ms, but
for the identifier); FrameReferenceTime of PET, C.8.9.4 (ms from the start of the series); MR Diffusion, C.8.13.5.9
(s/mm2)."""
DIFFUSION = TOLD_BY[-2:]
CONSTANT = ("TemporalPositionIdentifier", "EchoTime", *DIFFUSION)
"""Of these, those that do not tell channels apart are the same in all images of a channel; times need not be."""
NUMBER, *TIMES = "AcquisitionNumber", "AcquisitionTime", "ContentTime"
"""What tells acquisitions apart (General Image, PS3.3 C.7.6.1)."""
ONE_PROTOCOL = ("RepetitionTime", "FlipAngle", "KVP", "ConvolutionKernel")
"""What images of one acquisition have in common, whatever their channel; and ImageType, of which the first three values
have a meaning (PS3.3 C.7.6.1.1.2)."""
SAME_PROTOCOL = 0.01
KEYWORDS = (*TOLD_BY, NUMBER, *TIMES, "AcquisitionDate", "ImageType", *ONE_PROTOCOL)
Texts = Callable[[int, str], str]
"""(index of an image, keyword) -> its value as text, parts separated by a backslash, "" where it is absent."""


def channels_of(
    levels: Sequence[Sequence[int]], text: Texts, where: str, *, volume: int | None = None, mosaics: bool = False
) -> tuple[np.ndarray, dict[str, Any]]:
    """(image of each channel and position (channels, positions), facts).

    levels: the images at each position, ``geometry.levels_of``. text: the attributes of an image, ``KEYWORDS``.
    volume: the one channel to take (0-based); acquisitions in one series are given so alone. mosaics: each image is a
        volume, and the numbers of acquisitions count time points, as Siemens has it.

    Facts, where there are several channels: ``channels_by`` (keywords), ``channel_values``, ``channel_seconds`` (start
    of each by AcquisitionTime, from the first), and of one that was chosen ``volume`` and ``volumes``.
    Raises DataError for what no attribute tells apart, for several acquisitions, and where there is no such volume.
    """
    if all(len(level) == 1 for level in levels):
        return chosen_channel(np.array([[level[0] for level in levels]]), {}, where, volume=volume)
    what = "mosaics" if mosaics else "slices"
    found, doubt = _told_apart(levels, text, (NUMBER, *TOLD_BY) if mosaics else TOLD_BY), ""
    if found is None:
        found, doubt = _acquisitions(levels, text), "they differ in nothing else"
    if found is None:
        raise DataError(
            f"{where} has duplicate positions: {_counted(levels, what)}; it is no volume, or holds several (time "
            "points, echoes or copies) that no attribute tells apart: split it."
        )
    by, keys, table = found
    seconds = _seconds(table, text)
    doubt = doubt or _doubt(by, keys, table, text, seconds)
    if doubt and volume is None:
        raise DataError(
            f"{where} has duplicate positions: {_counted(levels, what)}, {len(table)} acquisitions told apart by "
            f"{' and '.join(by)} ({doubt}); name one by #volume=0 to #volume={len(table) - 1}, or split it."
        )
    facts: dict[str, Any] = {
        "channels_by": " and ".join(by),
        "channel_values": [key[0] if len(key) == 1 else str(key) for key in keys],
    }
    if seconds is not None and len(set(seconds)) > 1:
        facts["channel_seconds"] = seconds
    return chosen_channel(table, facts, where, volume=volume)


def chosen_channel(
    table: np.ndarray, facts: dict[str, Any], where: str, *, volume: int | None
) -> tuple[np.ndarray, dict[str, Any]]:
    """The one channel ``volume`` (0-based) of a table (channels, positions) and of its facts, or all. Raises DataError
    where there is no such volume."""
    if volume is None:
        return table, facts
    if not 0 <= volume < len(table):
        raise DataError(f"{where} has no volume {volume}, only 0 to {len(table) - 1}; correct the selector.")
    kept = {
        name: [value[volume]] if name in ("channel_values", "channel_seconds") else value
        for name, value in facts.items()
    }
    return table[volume : volume + 1], kept | {"volume": volume, "volumes": len(table)}


def _counted(levels: Sequence[Sequence[int]], what: str) -> str:
    count = sum(map(len, levels))
    if len(levels) == 1:
        return f"all {count} {what} lie at one position"
    return f"{count} {what} lie at {len(levels)} positions"


def _told_apart(
    levels: Sequence[Sequence[int]], text: Texts, names: Sequence[str]
) -> tuple[tuple[str, ...], list[tuple[Hashable, ...]], np.ndarray] | None:
    """(names, sorted values of the channels, table): all that varies together, else the first attribute alone."""
    count = sum(map(len, levels))
    columns = {name: _column(name, text, count) for name in names}
    columns = {name: column for name, column in columns.items() if len(set(column)) > 1 and None not in column}
    ways = [tuple(columns), *((name,) for name in columns), DIFFUSION]
    for by in ways:
        if not by or not all(name in columns for name in by):
            continue
        keys = list(zip(*(columns[name] for name in by), strict=True))
        table = _table(levels, keys)
        rest = [columns[name] for name in columns if name in CONSTANT and name not in by]
        if table is not None and all(len({column[n] for n in row}) == 1 for column in rest for row in table):
            return by, [keys[row[0]] for row in table], table
    return None


def _table(levels: Sequence[Sequence[int]], keys: Sequence[tuple[Hashable, ...]]) -> np.ndarray | None:
    """(channels, positions), channels by rising key; None where a position has not each key exactly once."""
    expected = sorted({keys[n] for n in levels[0]})
    rows = [{keys[n]: n for n in level} for level in levels]
    if any(len(level) != len(expected) or sorted(row) != expected for level, row in zip(levels, rows, strict=True)):
        return None
    return np.array([[row[key] for row in rows] for key in expected])


def _column(name: str, text: Texts, count: int) -> list[Hashable]:
    """The values of an attribute: numbers, () for no direction, None for no value."""
    texts = [text(n, name) for n in range(count)]
    if name == "DiffusionGradientOrientation":
        return [tuple(value + 0.0 for value in found) if (found := _numbers(one)) else () for one in texts]
    column = [found[0] if len(found := _numbers(one)) == 1 else None for one in texts]
    if name == "EchoTime" and None not in column:
        return _as_one(column)
    return [int(value) if value is not None and value == int(value) else value for value in column]


def _numbers(text: str) -> tuple[float, ...]:
    """The finite numbers of a text; () where one is none."""
    try:
        values = tuple(float(part) for part in text.split("\\"))
    except ValueError:
        return ()
    return values if all(abs(value) < float("inf") for value in values) and "_" not in text else ()


def _as_one(values: Sequence[float]) -> list[Hashable]:
    """Values but for the differences that echo times may have and be one."""
    known: list[float] = []
    for value in sorted(set(values)):
        if not known or value - known[-1] > SAME_ECHO * abs(value):
            known.append(value)
    return [max(one for one in known if one <= value) for value in values]


def _acquisitions(
    levels: Sequence[Sequence[int]], text: Texts
) -> tuple[tuple[str, ...], list[tuple[Hashable, ...]], np.ndarray] | None:
    """The same by AcquisitionNumber, or by times of which each position has one before the next begins."""
    count = sum(map(len, levels))
    numbers = _column(NUMBER, text, count)
    if None not in numbers and (table := _table(levels, [(n,) for n in numbers])) is not None:
        return (NUMBER,), [(numbers[row[0]],) for row in table], table
    for name in TIMES if len({len(level) for level in levels}) == 1 else ():
        moments = _moments(name, text, count)
        if moments is None:
            continue
        table = np.array([sorted(level, key=moments.__getitem__) for level in levels]).T
        times = np.array(moments)[table]
        if (times[:-1].max(1) < times[1:].min(1)).all():
            return (name,), [(round(float(t), 3),) for t in times.min(1) - times.min()], table
    return None


def _moments(name: str, text: Texts, count: int) -> list[float] | None:
    """Seconds of a time of day, by AcquisitionDate where all have it; None where one has none.

    Without dates, times more than half a day apart are taken to lie around midnight.
    """
    dates = [text(n, "AcquisitionDate") for n in range(count)]
    dated = all(dates) and name == TIMES[0]
    times = [text(n, name) for n in range(count)]
    found = [parsed_time((dates[n] if dated else "20000101") + time) if time else None for n, time in enumerate(times)]
    if None in found:
        return None
    seconds = [(moment - datetime(2000, 1, 1)).total_seconds() for moment in found]
    if not dated and max(seconds) - min(seconds) > 43200:
        seconds = [value + 86400 if value < 43200 else value for value in seconds]
    return seconds


def _seconds(table: np.ndarray, text: Texts) -> list[float] | None:
    """Start of each channel in s from the first, by AcquisitionTime; None where an image has none."""
    moments = _moments(TIMES[0], text, table.size)
    if moments is None:
        return None
    starts = np.array(moments)[table].min(1)
    return [round(float(start), 3) for start in starts - starts.min()]


def _doubt(
    by: Sequence[str], keys: Sequence[tuple[Any, ...]], table: np.ndarray, text: Texts, seconds: list[float] | None
) -> str:
    """Why channels are no one acquisition, or nothing."""
    for name in ONE_PROTOCOL:
        found = {text(int(n), name) for n in table.ravel()}
        numbers = [_numbers(one) for one in found]
        if len(found) > 1 and not all(len(one) == 1 for one in numbers):
            return f"{name} differs"
        values = [value for (value,) in numbers] if len(found) > 1 else []
        if values and max(values) - min(values) > SAME_PROTOCOL * max(map(abs, values)):
            return f"{name} differs"
    if len({tuple(text(int(n), "ImageType").split("\\")[:3]) for n in table.ravel()}) > 1:
        return "ImageType differs"
    if by == ("EchoTime",) and len({text(int(n), NUMBER) for n in table[:, 0]}) > 1:
        return f"{NUMBER} differs"
    if by[0] in (TOLD_BY[0], NUMBER) and seconds is not None:
        starts: dict[Any, float] = {}
        for key, start in zip(keys, seconds, strict=True):
            starts[key[0]] = min(start, starts.get(key[0], start))
        if list(starts.values()) != sorted(starts.values()):
            return f"{by[0]} runs against {TIMES[0]}"
    return ""
