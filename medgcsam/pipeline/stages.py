"""The resolutions of a segmentation network: where it pools, and along which axes its kernels reach.

The rule of nnU-Net (Isensee et al., Nature Methods 2021): an axis is halved while its voxels are less than twice as
long as the shortest, so that voxels become cubes on the way down, and a kernel does not reach along an axis before.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import prod

from medgcsam.errors import ConfigError

SMALLEST = 4
"""Voxels along an axis that remain at the lowest resolution, at least."""

Stage = tuple[tuple[int, ...], tuple[int, ...]]


def stages(patch: Sequence[int], spacing: Sequence[float] | None, levels: int | None = None) -> list[Stage]:
    """(kernel, stride) of each resolution, finest first; the stride leads to it from the one before, first (1, 1, ..).

    Args:
        patch: voxels per axis.
        spacing: mm per axis; None counts as equal along all axes.
        levels: resolutions, the first included; None for as many as the patch allows.

    Kernels are 3 or 1 long, strides 2 or 1. The product of the strides along an axis divides the patch; an axis keeps
    at least SMALLEST voxels unless it had fewer to begin with. A single remaining axis is halved only while it keeps
    more than that (3 x SMALLEST or more before), as in nnU-Net.
    Raises ConfigError where the patch is too small for ``levels``, or they are less than 1.
    """
    found = _walk(patch, spacing, levels)
    if levels is not None and len(found) != levels:
        wanted = f"network.levels: {levels} are not possible with a patch of {shown(patch)}, which allows {len(found)}"
        if sizes := nearest(patch, spacing, levels, most=levels):
            raise ConfigError(f"{wanted}: {why_odd(patch, found)}; take patches.size {sizes}, or lower network.levels.")
        raise ConfigError(
            f"{wanted}; lower network.levels, or enlarge patches.size to a number that can be halved as often."
        )
    return found


def _walk(patch: Sequence[int], spacing: Sequence[float] | None, levels: int | None = None) -> list[Stage]:
    """``stages``, or as many of ``levels`` as the patch allows."""
    size, step = [int(n) for n in patch], _lengths(patch, spacing)
    kernel = _kernel(size, step, [1] * len(size))
    found: list[Stage] = [(tuple(kernel), (1,) * len(size))]
    while levels is None or len(found) < levels:
        halved = _halved(size, step)
        if not halved:
            break
        stride = [2 if axis in halved else 1 for axis in range(len(size))]
        size = [n // s for n, s in zip(size, stride, strict=True)]
        step = [mm * s for mm, s in zip(step, stride, strict=True)]
        kernel = _kernel(size, step, kernel)
        found.append((tuple(kernel), tuple(stride)))
    return found


def divisible(patch: Sequence[int], spacing: Sequence[float] | None, levels: int | None = None) -> tuple[int, ...]:
    """The patch, enlarged as little as needed so that each axis can be halved as often as its length suggests."""
    size, step, factor = [int(n) for n in patch], _lengths(patch, spacing), [1] * len(patch)
    left = levels - 1 if levels is not None else None
    while left != 0 and (halved := _halved(size, step, even=False)):
        for axis in halved:
            size[axis], step[axis], factor[axis] = -(-size[axis] // 2), step[axis] * 2, factor[axis] * 2
        left = None if left is None else left - 1
    return tuple(-(-n // f) * f for n, f in zip(patch, factor, strict=True))


def allowing(patch: Sequence[int], spacing: Sequence[float] | None, levels: int) -> tuple[int, ...]:
    """The patch, enlarged so that it allows ``levels``: of what does, the one with the fewest voxels."""
    if len(_walk(patch, spacing)) >= levels:
        return tuple(patch)
    # Together axes end at SMALLEST; one alone is halved only down to 3 x SMALLEST / 2, see ``_halved``.
    ends = (0, SMALLEST * 2 ** (levels - 1), 3 * SMALLEST // 2 * 2 ** (levels - 1))
    least = (tuple(max(pair) for pair in zip(patch, ends, strict=True)) for ends in product(ends, repeat=len(patch)))
    tried = (divisible(each, spacing, levels) for each in least)
    return min((each for each in tried if len(_walk(each, spacing)) >= levels), key=lambda each: (prod(each), each))


def nearest(patch: Sequence[int], spacing: Sequence[float] | None, fewest: int, *, most: int) -> str:
    """The next smaller and larger patch that can be halved as their lengths suggest, such as "32 x 32 or 40 x 40".

    They allow ``fewest`` resolutions; divisibility is for ``most``. Empty where there are none: the patch is too small.
    """
    larger = divisible(patch, spacing, most)
    by = factors(_walk(larger, spacing, most))
    smaller = tuple(n // factor * factor for n, factor in zip(patch, by, strict=True))
    found = [size for size in (smaller, larger) if min(size) > 0 and len(_walk(size, spacing)) >= fewest]
    return " or ".join(dict.fromkeys(shown(size) for size in found))


def why_odd(patch: Sequence[int], found: Sequence[Stage]) -> str:
    """Which lengths of a patch end its halving because they become odd."""
    left = {n: n // factor for n, factor in zip(patch, factors(found), strict=True)}
    odd = [n for n, rest in left.items() if rest % 2 and rest >= 2 * SMALLEST]
    return " and ".join(_how_often(n) for n in odd)


def _how_often(length: int) -> str:
    times = (length & -length).bit_length() - 1
    if times == 0:
        return f"{length} is odd and cannot be halved"
    return f"{length} can be halved only {'once' if times == 1 else f'{times} times'}"


def shown(patch: Sequence[int]) -> str:
    """A shape in words: 32 x 32."""
    return " x ".join(str(n) for n in patch)


def factors(found: Sequence[Stage]) -> tuple[int, ...]:
    """What each axis is divided by in all: the product of the strides."""
    product = [1] * len(found[0][1])
    for _, stride in found:
        product = [f * s for f, s in zip(product, stride, strict=True)]
    return tuple(product)


def _lengths(patch: Sequence[int], spacing: Sequence[float] | None) -> list[float]:
    if spacing is None:
        return [1.0] * len(patch)
    if len(spacing) != len(patch):
        raise ConfigError(f"patches.size has {len(patch)} axes and image.spacing has {len(spacing)}; make them equal.")
    return [float(mm) for mm in spacing]


def _halved(size: Sequence[int], step: Sequence[float], *, even: bool = True) -> list[int]:
    """The axes that are halved next; none where the lowest resolution is reached."""
    able = [axis for axis, n in enumerate(size) if n >= 2 * SMALLEST and not (even and n % 2)]
    if not able:
        return []
    shortest = min(step[axis] for axis in able)
    able = [axis for axis in able if step[axis] < 2 * shortest]
    return able if len(able) > 1 or size[able[0]] >= 3 * SMALLEST else []


def _kernel(size: Sequence[int], step: Sequence[float], before: Sequence[int]) -> list[int]:
    """3 along an axis once its voxels are less than twice as long as the shortest; never along a single voxel."""
    shortest = min((mm for mm, n in zip(step, size, strict=True) if n > 1), default=1.0)
    return [3 if n > 1 and (k == 3 or mm < 2 * shortest) else 1 for n, mm, k in zip(size, step, before, strict=True)]
