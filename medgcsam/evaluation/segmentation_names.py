"""Names of a segmentation's metrics in metrics.json, and structures whose names would make two of them one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

UNITS = ("mm", "px", "ml", "mm2")
"""Endings of names that say a unit."""
MEANS = (
    "dice", "dice_with_empty", "nsd", "hd95_mm", "hd95_px", "asd_mm", "asd_px", "volume_error_ml", "volume_error_px",
    "area_error_mm2", "area_error_px", "volume_error_absolute_ml", "volume_error_absolute_px",
    "area_error_absolute_mm2", "area_error_absolute_px", "missed_rate", "false_positive_rate", "lesion_sensitivity",
)  # fmt: skip
COUNTS = ("missed", "false_positive", "both_empty", "lesions_reference", "lesions_found", "lesions_false")


def named(measure: str, structure: str | None) -> str:
    """The name of a measure of one structure, or (None) of all of them."""
    return measure if structure is None else f"{measure}_{structure}"


def measure_and_unit(name: str) -> tuple[str, str]:
    """``hd95_mm`` as ``("hd95", "mm")``, ``dice`` as ``("dice", "")``."""
    measure, _, unit = name.rpartition("_")
    return (measure, unit) if unit in UNITS else (name, "")


def colliding(structures: Sequence[str]) -> str | None:
    """A structure whose name makes two metrics have one name, and which, in words; None where there is none.

    Of a structure called ``rate`` the number of those missed would be ``missed_rate``, which is the share of all.
    """
    meant: dict[str, list[tuple[str, str | None]]] = defaultdict(list)
    for structure in (None, *structures):
        for measure in (*MEANS, *COUNTS):
            meant[named(measure, structure)].append((measure, structure))
    for name, both in meant.items():
        if len(both) > 1:
            (first, other), (second, structure) = both[:2]
            whose = "all structures" if other is None else repr(other)
            return f"{structure!r}: {name} would be both {first} of {whose} and {second} of {structure!r}"
    return None
