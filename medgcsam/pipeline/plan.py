"""The numbers of a segmentation, from the training patients' images: spacing, intensity, patch, batch, levels.

The rules are those of nnU-Net (Isensee et al., Nature Methods 2021) where nothing else is said. Only what the
configuration leaves ``auto`` is planned, and each number comes with the reason for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import ceil, prod
from typing import Any

import numpy as np

from medgcsam.config.checks import cross_checks
from medgcsam.errors import ConfigError, DataError
from medgcsam.pipeline.budget import (
    COSTS,
    FEWEST_IMAGES,
    MOST_IMAGES,
    MOST_OF_THE_SET,
    Budget,
    budget_of,
    largest_patch,
    network_stages,
    step_gb,
)
from medgcsam.pipeline.grids import resampled_size
from medgcsam.pipeline.stages import Stage
from medgcsam.pipeline.survey import Surveyed
from medgcsam.pipeline.volumes import luminance

ANISOTROPIC = 3.0
"""A set is anisotropic where one axis is this many times coarser, and has this many times fewer voxels, than others."""
MOST_PER_IMAGE = 8
FEWEST_STEPS = 50
"""Gradients that an epoch of a small set has at least, where MOST_PER_IMAGE allows it; nnU-Net takes 250 of any set."""
PERCENTILES = (0.5, 99.5)
MEASURED = {"HU", "SUV", "Bq/ml"}
"""Units in which equal values mean the same in every image."""

Settled = tuple[Any, str]


@dataclass(frozen=True)
class Plan:
    """``values``: what ``auto`` became, by the key of the configuration, such as "image.spacing". ``reasons``: why."""

    values: dict[str, Any] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)

    def settle(self, key: str, given: Any, compute: Callable[[], Settled]) -> Any:
        """``given``, or, where it is "auto", what is computed, which is kept with its reason."""
        if not (isinstance(given, str) and given == "auto"):
            return given
        self.values[key], self.reasons[key] = compute()
        return self.values[key]


def make_plan(config: Any, surveyed: Sequence[Surveyed], *, device_memory_gb: float | None) -> Plan:
    """The plan for a configuration.

    surveyed: the images of the TRAINING patients alone, none of them faulty.
    device_memory_gb: of the GPU that trains; None for a CPU.
    Raises DataError for images that do not go together (pictures and volumes, HU and raw values), and where no training
    image has a structure; ConfigError for ``network.levels`` that the patch does not allow, for a patch too small for
    the network, and for sizes or spacings of another number of axes than the images have.
    """
    plan, image, network = Plan(), config.image, config.network
    dimensions = plan.settle("image.dimensions", image.dimensions, lambda: _dimensions(surveyed))
    layouts = _layouts(surveyed, dimensions)
    _check_axes(config, dimensions)
    spacing = plan.settle("image.spacing", image.spacing, lambda: _spacing(layouts))
    _plan_intensity(plan, image, surveyed)
    fit = image.size if dimensions == 2 else None
    shapes = [resampled_size(shape, mm, spacing, fit) for shape, mm in layouts]
    median = tuple(int(n) for n in np.median(shapes, axis=0).round())
    width = plan.settle("network.width", network.width, lambda: _width(network.name))
    budget = budget_of(network.name, config.patches.memory_gb, device_memory_gb)
    levels = None if network.levels == "auto" else network.levels
    voxels = budget.voxels(network.name, width, dimensions)
    patch = plan.settle(
        "patches.size", config.patches.size,
        lambda: _patch(median, spacing, network.name, levels, voxels, budget),
    )  # fmt: skip
    plan.settle("network.levels", network.levels, lambda: _levels(network.name, patch, spacing))
    batch_size = plan.settle(
        "training.batch_size", config.training.batch_size, lambda: _batch_size(patch, shapes, voxels, budget)
    )
    plan.settle(
        "patches.per_image", config.patches.per_image,
        lambda: _per_image(patch, median, len(surveyed), batch_size)
    )  # fmt: skip
    plan.settle(
        "patches.memory_gb", config.patches.memory_gb,
        lambda: _memory(network.name, width, patch, batch_size, budget),
    )  # fmt: skip
    return plan


def resolved(config: Any, plan: Plan) -> Any:
    """The configuration with the plan's values in place of ``auto``."""
    sections: dict[str, dict[str, Any]] = {}
    for name, value in plan.values.items():
        section, key = name.split(".")
        sections.setdefault(section, {})[key] = value
    changed = {name: getattr(config, name).model_copy(update=values) for name, values in sections.items()}
    return config.model_copy(update=changed)


def continued(config: Any, plan: Plan, surveyed: Sequence[Surveyed]) -> Plan:
    """``plan`` of a run that was begun, whatever device goes on with it.

    Raises ConfigError naming the keys that are ``auto`` in ``config`` and that it does not hold; else as ``make_plan``.
    """
    missing = make_plan(resolved(config, plan), surveyed, device_memory_gb=None).values
    if missing:
        raise ConfigError(
            f"{', '.join(missing)}: the plan that this run was begun with says nothing of that; give the new run "
            "another name, or begin anew with --restart."
        )
    return plan


def check_resolved(config: Any) -> None:
    """Raise ConfigError where planned numbers contradict what is configured, as a small batch can."""
    for keys, message in cross_checks(config):
        raise ConfigError(f"{'.'.join(keys[0])}: {message} (as planned from the images).")


def stages_of(config: Any) -> list[Stage]:
    """(kernel, stride) of each resolution of the network of a resolved configuration."""
    return network_stages(config.network.name, config.patches.size, config.image.spacing, config.network.levels)


def _dimensions(surveyed: Sequence[Surveyed]) -> Settled:
    flat = [one for one in surveyed if one.picture is not None]
    if len(flat) == len(surveyed):
        kind = "pictures" if all(len(one.shape) == 2 for one in flat) else "pictures, or volumes of one slice"
        return 2, f"all {len(flat)} training images are {kind}"
    pictures = sum(len(one.shape) == 2 for one in surveyed)
    if pictures:
        raise DataError(
            f"{pictures} of {len(surveyed)} training images are pictures and the others volumes: leave one kind out."
        )
    return 3, f"{len(surveyed) - len(flat)} of {len(surveyed)} training images are volumes of several slices"


def _layouts(surveyed: Sequence[Surveyed], dimensions: int) -> list[tuple[tuple[int, ...], tuple[float, ...] | None]]:
    found = [one.layout(dimensions) for one in surveyed]
    wrong = sum(shape is None for shape, _ in found)
    if wrong:
        what = "volumes of several slices" if dimensions == 2 else "pictures"
        raise DataError(
            f"{wrong} of {len(found)} training images are {what}, but image.dimensions is {dimensions}: change it to "
            f"{5 - dimensions}, or leave these images out."
        )
    return found


def _check_axes(config: Any, dimensions: int) -> None:
    """Raise ConfigError for lengths that are given for another number of axes."""
    what = "pictures" if dimensions == 2 else "volumes"
    for key, given in (("image.spacing", config.image.spacing), ("patches.size", config.patches.size)):
        if given not in ("auto", None) and len(given) != dimensions:
            raise ConfigError(
                f"{key}: {list(given)} has {len(given)} numbers, but the training images are {what}; give {dimensions} "
                "numbers, one per axis, or auto."
            )


def _spacing(layouts: Sequence[tuple[tuple[int, ...], tuple[float, ...] | None]]) -> Settled:
    """Median per axis; of a strongly anisotropic set the 10th percentile along its coarse axis."""
    known = np.array([mm for _, mm in layouts if mm is not None])
    if len(known) < len(layouts):
        missing = f"{len(layouts) - len(known)} of {len(layouts)} training images have no spacing"
        if len(layouts[0][0]) == 2:
            return None, f"{missing}: pictures are made to fit into image.size"
        return None, f"{missing}: voxels are taken as they are"
    spacing = np.median(known, axis=0)
    shape = np.median([[n * a / b for n, a, b in zip(size, mm, spacing, strict=True)] for size, mm in layouts], axis=0)
    reason = f"median of {len(known)} training images, which have {_times(known.min(0))} to {_times(known.max(0))} mm"
    coarse = int(spacing.argmax())
    others = np.delete(np.arange(len(spacing)), coarse)
    if spacing[coarse] > ANISOTROPIC * spacing[others].max() and shape[coarse] * ANISOTROPIC < shape[others].min():
        fine = float(np.percentile(known[:, coarse], 10))
        spacing[coarse] = max(fine, spacing[others].max())
        reason += f"; along the coarse axis their 10th percentile, {fine:.4g} mm"
    return tuple(_round(mm, 4) for mm in spacing), reason


def _plan_intensity(plan: Plan, image: Any, surveyed: Sequence[Surveyed]) -> None:
    intensity = plan.settle("image.intensity", image.intensity, lambda: _intensity(surveyed))
    foreground = _foreground(surveyed, image.channels)
    if intensity == "foreground" and "auto" in (image.clip, image.mean, image.std) and not foreground.size:
        raise DataError(
            "no mask of a training patient holds a structure, so there is nothing to learn; check the masks."
        )
    taken = f"{foreground.shape[1]} values inside the structures of {len(surveyed)} training images"
    taken = f"each channel, of {taken}" if len(foreground) > 1 else taken
    unused = f"not used by image.intensity: {intensity}"

    def of(compute: Callable[[np.ndarray], Any], what: str) -> Callable[[], Settled]:
        if intensity != "foreground":
            return lambda: (None, unused)
        return lambda: (_each(foreground, compute), f"{what} of {taken}")

    low, high = PERCENTILES
    plan.settle("image.clip", image.clip, of(_clip, f"{low} and {high} percentile"))
    plan.settle("image.mean", image.mean, of(lambda values: _round(values.mean(dtype=float), 6), "mean"))
    plan.settle("image.std", image.std, of(lambda values: _round(values.std(dtype=float), 6) or 1.0, "deviation"))


def _foreground(surveyed: Sequence[Surveyed], channels: int) -> np.ndarray:
    """(channels, values) inside the structures of all images; (1, values) where one rule is for all channels.

    It is for gray images and for the colours of pictures, which are one measurement.
    """
    samples = [np.atleast_2d(one.foreground) for one in surveyed]
    if all(one.unit == "display" for one in surveyed):
        samples = [
            luminance(part)[None] if channels == 1 and len(part) == 3 else part.reshape(1, -1) for part in samples
        ]
    wanted = channels if any(len(part) == channels for part in samples) else 1
    fitting = [np.broadcast_to(part, (wanted, part.shape[1])) for part in samples if len(part) in (1, wanted)]
    return np.concatenate([np.empty((wanted, 0), np.float32), *fitting], axis=1)


def _each(foreground: np.ndarray, compute: Callable[[np.ndarray], Any]) -> Any:
    """What is computed of the values, or of those of each channel."""
    found = tuple(compute(channel) for channel in foreground)
    return found if len(found) > 1 else found[0]


def _intensity(surveyed: Sequence[Surveyed]) -> Settled:
    units = sorted({one.unit for one in surveyed})
    if len(units) > 1:
        raise DataError(
            f"the training images have values of several kinds ({', '.join(units)}): leave one kind out, or set "
            "image.intensity to percentile or zscore."
        )
    if units == ["display"]:
        return "display", "the images are pictures with values for display"
    if units[0] in MEASURED:
        return "foreground", f"values in {units[0]} mean the same in every image"
    return "zscore", "the values have no unit, so each image is brought to mean 0 and deviation 1"


def _clip(foreground: np.ndarray) -> tuple[float, float]:
    low, high = (_round(value, 6) for value in np.percentile(foreground, PERCENTILES))
    return low, high


def _width(name: str) -> Settled:
    return COSTS[name].width, f"the usual width of {name}"


def _patch(
    median: tuple[int, ...], spacing: Any, name: str, levels: int | None, voxels: float, budget: Budget
) -> Settled:
    patch = largest_patch(median, spacing, name, levels, voxels)
    whole = all(n >= m for n, m in zip(patch, median, strict=True))
    what = "the patch holds it" if whole else f"the patch is what fits the budget ({budget.words})"
    return patch, f"the median training image has {_times(median)} voxels; {what}, and can be halved"


def _levels(name: str, patch: Sequence[int], spacing: Any) -> Settled:
    found = network_stages(name, patch, spacing)
    left = [n // prod(s[axis] for _, s in found) for axis, n in enumerate(patch)]
    if name.startswith("swin"):
        return len(found), f"as many as the patch allows; {name} itself always halves each axis five times"
    return len(found), f"a patch of {_times(patch)} is halved to {_times(left)}"


def _batch_size(patch: Sequence[int], shapes: Sequence[Sequence[int]], voxels: float, budget: Budget) -> Settled:
    """As many as the budget takes, but at most MOST_OF_THE_SET, and FEWEST_IMAGES in any case."""
    one = prod(patch)
    fits = int(voxels // one)
    share = round(MOST_OF_THE_SET * sum(prod(shape) for shape in shapes) / one)
    size = max(FEWEST_IMAGES, min(fits, share, MOST_IMAGES))
    if size == FEWEST_IMAGES:
        return size, f"the fewest that are taken; {fits} fit the budget ({budget.words}), {share} are 5% of the set"
    limit = {fits: f"what fits the budget ({budget.words})", share: "5% of the voxels of the training set"}
    return size, limit.get(size, f"the most that are taken; {fits} fit the budget")


def _per_image(patch: Sequence[int], median: Sequence[int], images: int, batch_size: int) -> Settled:
    """Enough to see an image whole, and for FEWEST_STEPS."""
    covered = prod(median) / prod(min(n, m) for n, m in zip(patch, median, strict=True))
    number = min(MOST_PER_IMAGE, max(1, ceil(covered - 0.1)))
    busy = min(MOST_PER_IMAGE, ceil(FEWEST_STEPS * batch_size / images))
    if busy > number:
        return busy, f"so that {images} training images give {images * busy // batch_size} gradients per epoch"
    return number, f"the median training image holds {covered:.2g} patches"


def _memory(name: str, width: int, patch: Sequence[int], batch_size: int, budget: Budget) -> Settled:
    if budget.gb is not None:
        return budget.gb, budget.words
    gb = step_gb(name, width, patch, batch_size)
    return _round(gb, 2), f"what a step of {batch_size} patches takes; it was planned for {budget.words}"


def _round(value: float, digits: int) -> float:
    """To significant digits: what is beyond means nothing, and folds that agree so far share one store."""
    return float(f"{value:.{digits}g}")


def _times(values: Sequence[float]) -> str:
    return " x ".join(f"{value:.4g}" for value in values)
