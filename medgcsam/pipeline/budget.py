"""What a training step of a segmentation network costs, and the patch that this allows.

With torch 2.13 and MONAI 1.6 at the width named here: memory as the sum of all tensors kept for the backward pass in
float32; time of one forward and backward pass on two cores of a 2020s server CPU. Both grow with the voxels of a step,
so one number each will do. Measured are the times of unet, unet_small, attention_unet_small and, of pictures,
segresnet_small and swin_unetr_small; the other times are estimates from networks of like size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from medgcsam.config.patches import LONGEST
from medgcsam.errors import ConfigError
from medgcsam.pipeline.stages import Stage, allowing, divisible, nearest, shown, stages, why_odd

STEP_SECONDS = 0.25
"""What a gradient may take where a CPU, or a network made for one, sets the pace."""
FIXED_GB = 1.5
"""GPU memory that does not grow with the patch: context, workspace, weights, gradients and moments."""
SHARE = 0.8
"""Of a GPU's memory that is planned with."""
SMALLEST_PATCH = {2: 64, 3: 32}
"""Voxels per axis below which a patch is not shrunk: less shows too little around."""
FEWEST_IMAGES = 2
MOST_IMAGES = 32
MOST_OF_THE_SET = 0.05
"""Share of all training voxels that one batch may hold, as in nnU-Net."""
SWIN_FACTOR = 32


@dataclass(frozen=True)
class Cost:
    """Of one network. ``width``: channels of its first stage. ``fewest``: resolutions that it needs. ``levels``: most
    that are planned.

    ``bytes``, ``seconds``: by dimensions, memory per voxel and CPU time per million voxels.
    """

    width: int
    fewest: int
    levels: int
    bytes: dict[int, float]
    seconds: dict[int, float]


COSTS = {
    "unet": Cost(32, 2, 6, {2: 1663, 3: 959}, {2: 3.8, 3: 4.2}),
    "segresnet": Cost(32, 2, 5, {2: 3126, 3: 1905}, {2: 11.0, 3: 14.0}),
    "dynunet": Cost(32, 3, 6, {2: 2501, 3: 1713}, {2: 8.0, 3: 12.0}),
    "swin_unetr": Cost(48, 1, 6, {2: 7299, 3: 6297}, {2: 20.0, 3: 60.0}),
    "attention_unet": Cost(32, 2, 5, {2: 3055, 3: 2148}, {2: 9.0, 3: 14.0}),
    "unet_small": Cost(16, 2, 5, {2: 300, 3: 146}, {2: 0.8, 3: 0.45}),
    "segresnet_small": Cost(16, 3, 5, {2: 302, 3: 150}, {2: 0.8, 3: 0.55}),
    "dynunet_small": Cost(16, 4, 5, {2: 300, 3: 139}, {2: 0.8, 3: 0.55}),
    "swin_unetr_small": Cost(12, 1, 6, {2: 837, 3: 440}, {2: 1.4, 3: 1.2}),
    "attention_unet_small": Cost(16, 3, 5, {2: 388, 3: 168}, {2: 0.8, 3: 0.55}),
}


@dataclass(frozen=True)
class Budget:
    """What a step may take. ``gb``: memory, or None where ``STEP_SECONDS`` of a CPU limit it. ``words`` says so."""

    gb: float | None
    words: str

    def voxels(self, network: str, width: int, dimensions: int) -> float:
        """How many voxels, of all patches of a batch together, fit."""
        cost = COSTS[network]
        wider = width / cost.width
        if self.gb is None:
            return STEP_SECONDS / (cost.seconds[dimensions] * wider**1.5) * 1e6
        return max(self.gb - FIXED_GB, 0.1 * self.gb) * 1e9 / (cost.bytes[dimensions] * wider)


def budget_of(network: str, memory_gb: float | str, device_memory_gb: float | None) -> Budget:
    """The budget: memory as configured; else the GPU's; else, without one or for a small network, time on a CPU."""
    if memory_gb != "auto":
        return Budget(float(memory_gb), f"patches.memory_gb: {memory_gb:g}")
    if device_memory_gb is None or network.endswith("_small"):
        kind = "a small network" if device_memory_gb is not None else "a CPU"
        return Budget(None, f"{STEP_SECONDS:g} s per gradient on {kind}")
    gb = round(SHARE * device_memory_gb, 1)
    return Budget(gb, f"{gb:g} GB, {SHARE:.0%} of the GPU's memory")


def step_gb(network: str, width: int, patch: Sequence[int], batch_size: int) -> float:
    """Estimated memory of a step."""
    cost = COSTS[network]
    return prod(patch) * batch_size * cost.bytes[len(patch)] * width / cost.width / 1e9


def network_stages(
    network: str, patch: Sequence[int], spacing: Sequence[float] | None, levels: int | None = None
) -> list[Stage]:
    """``stages`` for a network; ``levels`` None for as many as are sensible. Swin UNETR has its own in any case.

    Raises ConfigError for ``levels`` that the patch does not allow, and a patch that allows fewer than are needed.
    """
    if network.startswith("swin"):
        return stages(patch, spacing)
    if levels is not None:
        return stages(patch, spacing, levels)
    cost, found = COSTS[network], stages(patch, spacing)
    if len(found) < cost.fewest:
        allows = f"patches.size: {shown(patch)} allows {len(found)} of the {cost.fewest} resolutions of {network}"
        if sizes := nearest(patch, spacing, cost.fewest, most=cost.levels):
            raise ConfigError(f"{allows}, as {why_odd(patch, found)}; take {sizes}.")
        enough = shown(allowing(patch, spacing, cost.fewest))
        raise ConfigError(f"{allows}; take {enough} or more, or another network.")
    return found[: cost.levels]


def largest_patch(
    median: Sequence[int], spacing: Sequence[float] | None, network: str, levels: int | None, voxels: float
) -> tuple[int, ...]:
    """The median shape, made divisible, and shrunk until FEWEST_IMAGES patches have at most ``voxels``.

    The axis that is longest in proportion to the median is shortened first, so that a patch keeps the proportions of
    what it is cut from; an axis of SMALLEST_PATCH or less is left. No axis is longer than LONGEST.
    """
    patch = _fitted([min(n, LONGEST) for n in median], spacing, network, levels)
    while prod(patch) * FEWEST_IMAGES > voxels:
        order = sorted(range(len(patch)), key=lambda axis: (patch[axis] / median[axis], patch[axis]), reverse=True)
        shorter = (_shorter(patch, axis, spacing, network, levels) for axis in order)
        found = next((tried for tried in shorter if tried is not None), None)
        if found is None:
            break
        patch = found
    return patch


def _fitted(shape: Sequence[int], spacing: Sequence[float] | None, network: str, levels: int | None) -> tuple[int, ...]:
    if network.startswith("swin"):
        patch = tuple(-(-n // SWIN_FACTOR) * SWIN_FACTOR for n in shape)
        return patch if max(patch) > SWIN_FACTOR else (2 * SWIN_FACTOR, *patch[1:])
    cost = COSTS[network]
    patch = divisible(shape, spacing, levels or cost.levels)
    return patch if levels is not None else allowing(patch, spacing, cost.fewest)


def _shorter(
    patch: Sequence[int], axis: int, spacing: Sequence[float] | None, network: str, levels: int | None
) -> tuple[int, ...] | None:
    """The next smaller patch that is shorter along one axis, divisible again; None where there is none."""
    for length in range(patch[axis] - 1, SMALLEST_PATCH[len(patch)] - 1, -1):
        tried = _fitted([length if a == axis else n for a, n in enumerate(patch)], spacing, network, levels)
        if tried[axis] < patch[axis] and prod(tried) < prod(patch):
            return tried
    return None
