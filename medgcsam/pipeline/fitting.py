"""Which images of a segmentation do not fit it: their channels, pictures among volumes, no spacing, another unit.

A job takes images of one kind. What kind that is, the configuration says; where it says ``auto``, most of the images
that decide do. In training these are the training patients' images: one to be tested on has no say in what fits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medgcsam.cohort.faults import shorten
from medgcsam.cohort.manifest import split_masks
from medgcsam.pipeline.survey import Surveyed
from medgcsam.pipeline.volumes import wrong_channels

NAMED = 20
"""Reasons given in an error message."""
ALIKE = 3
"""Further images named that have the same reason."""
MULTI_SLICE = "a volume of several slices"

Verdict = Callable[[Surveyed], str | None]
"""What is wrong with an image, in words that go on after its name; None where it fits."""


@dataclass(frozen=True)
class Misfit:
    """``kind``: one of ``intake.fault_kinds``. ``sentence`` goes on after the name of the image."""

    kind: str
    sentence: str


def misfits(
    surveyed: Sequence[Surveyed], deciding: Sequence[int], image: Any, *, whose: str = "training images"
) -> dict[int, Misfit]:
    """What does not fit, by row, in their order; images whose survey found a fault neither count nor decide.

    deciding: rows that decide where ``image``, the section of the configuration, says ``auto``; an image that an
        earlier rule refuses does not take part in the next. Where two kinds are equally many, neither fits.
    whose: what the deciding rows are called.
    """
    found: dict[int, Misfit] = {}
    for kind, rule in RULES.items():
        left = [row for row, seen in enumerate(surveyed) if seen.fault is None and row not in found]
        among = set(left)
        verdict = rule(image, [surveyed[row] for row in deciding if row in among], whose)
        found |= {row: Misfit(kind, said) for row in left if (said := verdict(surveyed[row])) is not None}
    return dict(sorted(found.items()))


def _channels(image: Any, deciding: Sequence[Surveyed], whose: str) -> Verdict:
    """As ``volumes.prepare_volume`` takes them."""
    return lambda seen: wrong_channels(seen.channels, seen.unit, image.channels)


def _dimensions(image: Any, deciding: Sequence[Surveyed], whose: str) -> Verdict:
    """Pictures or volumes; a volume of one slice is either."""
    pictures = sum(len(seen.shape) == 2 for seen in deciding)
    volumes = sum(seen.picture is None for seen in deciding)
    wanted, why = image.dimensions, f"image.dimensions is {image.dimensions}"
    if wanted == "auto":
        if not deciding:
            return lambda seen: None
        wanted = None if pictures == volumes > 0 else 2 if pictures >= volumes else 3
        others = MULTI_SLICE.replace("a volume", "volumes") if wanted == 3 else "pictures"
        why = f"most {whose} are {others}" if wanted else f"as many {whose} are pictures as volumes of several slices"

    def verdict(seen: Surveyed) -> str | None:
        if wanted is None:
            fits = len(seen.shape) == 3 and seen.picture is not None
        else:
            shape, _ = seen.layout(wanted)
            fits = shape is not None and len(shape) == wanted
        return None if fits else f"is {'a picture' if len(seen.shape) == 2 else MULTI_SLICE}, where {why}"

    return verdict


def _spacing(image: Any, deciding: Sequence[Surveyed], whose: str) -> Verdict:
    """Without a spacing nothing can be resampled; where half of the images have none, no voxels are."""
    spaced = sum(seen.spacing is not None for seen in deciding)
    if image.spacing is None or (image.spacing == "auto" and 2 * spaced <= len(deciding)):
        return lambda seen: None
    why = f"most {whose} have one" if image.spacing == "auto" else "image.spacing asks for one"
    said = f"has no voxel spacing, where {why} (image.spacing left empty takes voxels as they are)"
    return lambda seen: said if seen.spacing is None else None


def _unit(image: Any, deciding: Sequence[Surveyed], whose: str) -> Verdict:
    """What is measured is not compared with what has no unit, unless each image is scaled by itself, as asked for."""
    if image.intensity == "display":
        said = "has values without a display range ({}), where image.intensity is display"
        return lambda seen: None if seen.unit == "display" else said.format(seen.unit)
    counts = Counter(seen.unit for seen in deciding).most_common()
    if image.intensity != "auto" or not counts:
        return lambda seen: None
    (unit, most), tied = counts[0], len(counts) > 1 and counts[0][1] == counts[1][1]
    if tied:
        unit, why = None, f"{' and '.join(name for name, n in counts if n == most)} are equally frequent"
    else:
        why = f"those of most {whose} are {unit}"
    advice = "image.intensity percentile or zscore takes each image by itself"
    return lambda seen: None if seen.unit == unit else f"has values of the kind {seen.unit}, where {why} ({advice})"


RULES: dict[str, Callable[[Any, Sequence[Surveyed], str], Verdict]] = {
    "channels": _channels,
    "dimensions": _dimensions,
    "no_spacing": _spacing,
    "other_unit": _unit,
}


def explain_faults(
    images: Sequence[str], masks: Sequence[str], faults: Mapping[int, str], *, can_exclude: bool = False
) -> str:
    """One sentence about the images or masks that cannot be used, by row: each reason once, with those it is true of.

    can_exclude: whether ``data.faulty_masks`` can still be set to leave them out.
    """
    alike: dict[str, list[int]] = {}
    for row in sorted(faults):
        bare = faults[row].replace(images[row], "")
        for mask in split_masks(masks[row]):
            bare = bare.replace(mask, "")
        alike.setdefault(bare, []).append(row)
    told = []
    for first, *others in list(alike.values())[:NAMED]:
        also = f" [the same of {len(others)} more: {shorten([images[row] for row in others], ALIKE)}]"
        told.append(faults[first].rstrip(".") + (also if others else ""))
    more = f"; and {len(alike) - NAMED} other reasons" if len(alike) > NAMED else ""
    remedies = ["correct them", "give their rows a reason in the column 'exclude'"]
    remedies += ["set data.faulty_masks: exclude"] if can_exclude else []
    return (
        f"{len(faults)} of {len(images)} images or masks cannot be used ({'; '.join(told)}{more}): "
        f"{', '.join(remedies[:-1])}, or {remedies[-1]}; 'medgcsam check' lists all."
    )
