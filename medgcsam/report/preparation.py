"""What was done to every image before the network saw it, in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from medgcsam.report.facts import Facts

_FIT = {
    "pad": "a border is added",
    "stretch": "the image is stretched to the size",
    "crop": "the longer side is cut",
}
_INTENSITY = {
    "display": "as displayed (window or full range)",
    "percentile": "cut at the 0.5th and 99.5th percentile",
    "zscore": "zero mean and unit deviation in each image",
}
_AXES = {2: "rows × columns", 3: "right-left × front-back × head-feet"}
_POINTS = {2: "pixels", 3: "voxels"}
_DIMENSIONS = {2: "pictures (2)", 3: "volumes (3)"}
_UNUSABLE = {"error": "none was accepted", "exclude": "left out and counted"}


def preparation(facts: Facts) -> list[tuple[str, Any]]:
    """(name, words) of each step, None where no file says it."""
    image = facts.config.get("image") or {}
    if facts.metrics["task"] == "segmentation":
        return _of_segmentation(facts, image)
    size = image.get("size")
    size = f"{_times(size)} (rows × columns)" if isinstance(size, list) else size
    return [
        ("Size in pixels", size),
        ("Other aspect ratios", _FIT.get(image.get("fit"), image.get("fit"))),
        ("Gray values", _INTENSITY.get(image.get("intensity"), image.get("intensity"))),
        ("Channels", image.get("channels")),
    ]


def _of_segmentation(facts: Facts, image: dict[str, Any]) -> list[tuple[str, Any]]:
    config, data = facts.config, facts.provenance.get("data") or {}
    dimensions, patch = image.get("dimensions"), (config.get("patches") or {}).get("size")
    structures = data.get("structures") or facts.metrics.get("structures")
    kinds = {True: "may overlap", False: "each voxel belongs to one at most"}
    unusable = (config.get("data") or {}).get("faulty_masks")
    axes = f" ({_AXES[dimensions]})" if dimensions in _AXES else ""
    return [
        ("Structures", ", ".join(structures) if structures else None),
        ("Their voxels", kinds.get(data.get("overlapping"))),
        ("Dimensions", _DIMENSIONS.get(dimensions, dimensions)),
        ("Spacing", _spacing_words(image, axes)),
        ("Patch", f"{_times(patch)} {_POINTS.get(dimensions, 'voxels')}{axes}" if isinstance(patch, list) else patch),
        ("Gray values", foreground_words(facts, image)),
        ("Channels", image.get("channels")),
        ("Images or masks that cannot be used", _UNUSABLE.get(unusable, unusable)),
    ]


def _spacing_words(image: dict[str, Any], axes: str) -> str | None:
    spacing = image.get("spacing")
    if isinstance(spacing, list):
        return f"resampled to {_times(spacing)} mm{axes}"
    if spacing is not None or "spacing" not in image:
        return spacing
    size = image.get("size")
    if image.get("dimensions") == 2 and isinstance(size, list):
        return f"unknown; larger pictures are made smaller to fit into {_times(size)} pixels (rows × columns)"
    return "unknown; voxels are taken as they are"


def foreground_words(facts: Facts, image: dict[str, Any]) -> str | None:
    """The rule of the gray values; of ``foreground`` with its numbers, and where the plan found them."""
    kind = image.get("intensity")
    if kind != "foreground":
        return _INTENSITY.get(kind, kind)
    clip, mean, std = image.get("clip"), image.get("mean"), image.get("std")
    clips = clip if isinstance(clip, list) and isinstance(clip[0], list) else [clip]
    rules = [clips, *(rule if isinstance(rule, list) else [rule] for rule in (mean, std))]
    number = max(map(len, rules))
    each = zip(*(rule * number if len(rule) == 1 else rule for rule in rules), strict=True)
    words = "; ".join(f"channel {n}: " * (number > 1) + _rule_words(*rule) for n, rule in enumerate(each, 1))
    planned = [key for key in ("image.clip", "image.mean", "image.std") if key in (facts.plan or {})]
    source = "; from the voxels inside the structures of the training patients" if len(planned) == 3 else ""
    return words + source


def _rule_words(clip: Any, mean: Any, std: Any) -> str:
    words = f"cut to {clip[0]:g} to {clip[1]:g}, then" if isinstance(clip, list) else "not cut;"
    if isinstance(mean, int | float) and isinstance(std, int | float):
        words += f" minus {mean:g}, divided by {std:g}"
    return words


def _times(values: Sequence[Any]) -> str:
    return " × ".join(f"{value:g}" if isinstance(value, float) else str(value) for value in values)
