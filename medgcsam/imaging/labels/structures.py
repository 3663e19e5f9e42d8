"""Named structures of a label file become one label on the grid of an image.

Every kind of label file is brought into the same form first: names, and a function that places one of them on a grid.
Which of them are wanted, what number each gets, whether they overlap and whether they lie in the image is then the same
question for all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from medgcsam.errors import ConfigError, DataError, MachineError
from medgcsam.imaging.faults import MAX_VOXELS
from medgcsam.imaging.image import Image
from medgcsam.imaging.labels.resample import Grid, Placed, grid_of, place, same_grid

MAX_NUMBER = np.iinfo(np.int16).max
HALF = 0.5
"""A voxel belongs to a structure that fills half of it or more; with several, to the one that fills most of it."""
ROUNDING = 1e-3
MAX_CHANNEL_VOXELS = 2 * MAX_VOXELS
"""Of a label with one channel per class, all channels together: 4 GiB."""


@dataclass(frozen=True, eq=False)
class Structures:
    """What a label file holds, before its voxels are looked at.

    names: of the structures, in the file's order; not necessarily distinct.
    numbers: the class number of each where the caller names none.
    place: (position in ``names``, grid) -> the structure on that grid.
    facts: for ``Image.source``.
    numeric: whether the names are the numbers of a label map.
    on_grid: the label map itself, where it lies on the grid of the image.
    white: of a mask of two values, whose structure is 1, the other value as the file has it; it may be named by both.
    """

    names: tuple[str, ...]
    numbers: tuple[int, ...]
    place: Callable[[int, Grid], Placed]
    facts: Mapping[str, Any] = field(default_factory=dict)
    numeric: bool = False
    on_grid: np.ndarray | None = None
    white: int = 1

    def called(self, position: int) -> tuple[str, ...]:
        """What a structure may be named by."""
        name = self.names[position]
        return (name,) if self.white == 1 else (name, str(self.white))


def of_map(values: np.ndarray, to_grid: np.ndarray, grid: Grid, facts: Mapping[str, Any]) -> Structures:
    """The classes of a label map: three axes of whole numbers, with its map from index to index of the grid."""
    numbers = tuple(int(n) for n in np.unique(values) if n)
    return Structures(
        names=tuple(str(n) for n in numbers),
        numbers=numbers,
        place=lambda position, grid: place(values == numbers[position], to_grid, grid),
        facts=facts,
        numeric=True,
        on_grid=values if same_grid(to_grid, values.shape, grid) else None,
    )


def selected(found: Structures, names: Mapping[str, int] | None, where: str) -> dict[int, int]:
    """Position in ``found.names`` -> class number, for the structures that are wanted, in the file's order.

    names: ``{structure: number}``. A key may be several names separated by ``|``, all of which are the same structure,
    and hold ``*`` for any text; capitals, and spaces at the ends, do not count. Without it, all structures.
    Label maps have numbers for names (``"2"``), a mask of 0 and 255 both ``"1"`` and ``"255"``; where no key is a
    number, their values are class numbers already and must be among the numbers of ``names``. Raises DataError for a
    file that has structures, but none of those wanted.
    """
    if names is None:
        return dict(enumerate(found.numbers))
    check_numbers(names)
    if found.numeric and by_words(names):
        strange = sorted(set(found.numbers) - set(names.values()))
        if strange:
            wanted = ", ".join(str(n) for n in sorted(set(names.values())))
            raise DataError(
                f"{where} has the value {strange[0]}, which is no class ({wanted}); correct one of the two."
            )
        return dict(enumerate(found.numbers))
    chosen: dict[int, int] = {}
    for position in range(len(found.names)):
        called = found.called(position)
        numbers = {number for key, number in names.items() if any(matches(name, key) for name in called)}
        if len(numbers) > 1:
            what = " or ".join(repr(name) for name in called)
            raise DataError(f"{where} has the structure {what}, which several classes name; name it in one of them.")
        if numbers:
            chosen[position] = numbers.pop()
    if found.names and not chosen and not found.numeric:
        there = ", ".join(repr(name) for name in found.names[:8]) + (", ..." if len(found.names) > 8 else "")
        raise DataError(f"{where} has none of the structures that the classes name, only {there}; correct the names.")
    return chosen


def check_numbers(names: Mapping[str, int]) -> None:
    """Raises ConfigError for class numbers that are not 1 to 32767."""
    for name, number in names.items():
        if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= MAX_NUMBER:
            raise ConfigError(f"the structure {name!r} has the class number {number!r}; give a number from 1 to 32767.")


def by_words(names: Mapping[str, int]) -> bool:
    """Whether no key is a number, so that the values of a label map are class numbers already."""
    return not any(part.strip().isdecimal() for key in names for part in [key, *key.split("|")])


def matches(name: str, key: str) -> bool:
    """Whether a structure of this name is one that ``key`` means; see ``selected``."""
    name = name.strip().casefold()
    patterns = [part.strip().casefold().replace("[", "[[]").replace("?", "[?]") for part in [key, *key.split("|")]]
    return any(pattern and fnmatchcase(name, pattern) for pattern in patterns)


def label_of(
    found: Structures,
    where: str,
    *,
    like: Image,
    names: Mapping[str, int] | None,
    overlapping: bool,
    max_outside: float | None,
) -> Image:
    """One label on the grid of ``like``: int16, (1, *spatial) of class numbers, or a channel of 0 and 1 per class.

    max_outside: share of a structure that may lie outside the image; None for any, even all of it.

    ``source`` gains structures, structures_left_out, classes_absent, outside, structures_lost, channels (the class of
    each, with ``overlapping``) and empty; ``read.read_label`` says what they are.
    Raises DataError for structures that overlap in one integer channel, for those outside of the image, and for more
    channels than MAX_CHANNEL_VOXELS; MachineError where it does not fit into memory.
    """
    grid, chosen = grid_of(like), selected(found, names, where)
    source = dict(found.facts) | _facts(found, chosen, names)
    with _enough_memory(where):
        if found.on_grid is not None and not overlapping:
            array = _renumbered(found, chosen)
        else:
            wanted = sorted(set((names or {}).values()) or set(chosen.values())) or [1]
            canvas = _channels(wanted, grid, where) if overlapping else _OneChannel(grid)
            source |= _painted(canvas, found, chosen, grid, where=where, max_outside=max_outside)
            array = canvas.array
            if overlapping:
                source["channels"] = tuple(wanted)
    array = array if len(like.spatial_shape) == 3 else array[..., 0]
    source["empty"] = not array.any()
    return Image(array=array, unit="label", affine=like.affine, spacing=like.spacing, source=source)


@contextmanager
def _enough_memory(where: str) -> Iterator[None]:
    try:
        yield
    except MemoryError as error:
        raise MachineError(f"{where} does not fit into memory; use a machine with more of it.") from error


def _channels(wanted: Sequence[int], grid: Grid, where: str) -> _Channels:
    if len(wanted) * math.prod(grid.shape) > MAX_CHANNEL_VOXELS:
        raise DataError(
            f"{where} would have {len(wanted):,} channels of {math.prod(grid.shape):,} voxels, over the limit of "
            f"{MAX_CHANNEL_VOXELS:,} in all; name fewer structures."
        )
    return _Channels(wanted, grid)


def _renumbered(found: Structures, chosen: Mapping[int, int]) -> np.ndarray:
    table = np.zeros(max(found.numbers, default=0) + 1, np.int16)
    for position, number in chosen.items():
        table[found.numbers[position]] = number
    return table[found.on_grid][None]


def _painted(
    canvas: _Channels | _OneChannel,
    found: Structures,
    chosen: Mapping[int, int],
    grid: Grid,
    *,
    where: str,
    max_outside: float | None,
) -> dict[str, Any]:
    """All chosen structures onto the canvas, and what is worth knowing about how they lie."""
    facts: dict[str, Any] = {}
    outside, lost = [], []
    for position, number in chosen.items():
        name, placed = found.names[position], found.place(position, grid)
        if max_outside is not None and placed.outside > max_outside:
            raise DataError(
                f"{where} has {_share(placed.outside)} of {name!r} outside of the image, over the limit of "
                f"{max_outside:.1%}; give the label that belongs to it."
            )
        facts |= placed.facts
        outside += [] if placed.empty else [placed.outside]
        painted = canvas.add(placed, number, name, where)
        if not (painted or placed.empty or grid.shape[2] == 1):
            lost.append(name)
    if max_outside is not None and outside and min(outside) > 1 - ROUNDING:
        raise DataError(f"{where} lies entirely outside of the image; give the label that belongs to it.")
    if any(outside):
        facts["outside"] = round(max(outside), 6)
    if lost:
        facts["structures_lost"] = tuple(lost)
    return facts


def _facts(found: Structures, chosen: Mapping[int, int], names: Mapping[str, int] | None) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    if not found.numeric or any(found.numbers[position] != number for position, number in chosen.items()):
        facts["structures"] = {found.names[position]: number for position, number in chosen.items()}
    left_out = tuple(name for position, name in enumerate(found.names) if position not in chosen)
    absent = tuple(sorted(set((names or {}).values()) - set(chosen.values())))
    return facts | {
        key: value for key, value in (("structures_left_out", left_out), ("classes_absent", absent)) if value
    }


class _Channels:
    """One channel of 0 and 1 per class."""

    def __init__(self, numbers: Sequence[int], grid: Grid) -> None:
        self.numbers = list(numbers)
        self.array = np.zeros((len(self.numbers), *grid.shape), np.int16)

    def add(self, placed: Placed, number: int, name: str, where: str) -> bool:
        filled = _filled(placed)
        self.array[(self.numbers.index(number), *placed.box)] |= filled
        return bool(filled.any())


class _OneChannel:
    """One channel of class numbers; two structures of different classes may not claim the same voxel."""

    def __init__(self, grid: Grid) -> None:
        self.array = np.zeros((1, *grid.shape), np.int16)
        self.share: np.ndarray | None = None

    def add(self, placed: Placed, number: int, name: str, where: str) -> bool:
        filled, old = _filled(placed), self.array[(0, *placed.box)]
        if self.share is None and placed.share.dtype != bool:
            self.share = (self.array[0] > 0).astype(np.float32)
        held = 1.0 if self.share is None else self.share[placed.box]
        disputed = filled & (old > 0) & (old != number)
        both = int((disputed & (held + placed.share > 1 + ROUNDING)).sum())
        if both:
            raise DataError(
                f"{where} has {name!r} overlap another structure in {both:,} voxels; "
                "name only structures that lie apart, or ask for one channel per structure."
            )
        filled &= ~(disputed & (placed.share <= held))
        old[filled] = number
        if self.share is not None:
            np.maximum(held, placed.share, out=held, where=filled)
        return bool(filled.any())


def _filled(placed: Placed) -> np.ndarray:
    return placed.share.copy() if placed.share.dtype == bool else placed.share >= HALF


def _share(outside: float) -> str:
    return "all" if outside > 1 - ROUNDING else f"{outside:.1%}"
