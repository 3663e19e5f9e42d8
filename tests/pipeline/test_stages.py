"""Where networks pool: hand-checked cases, and properties of random patches."""

from __future__ import annotations

import numpy as np
import pytest

from medgcsam.errors import ConfigError
from medgcsam.pipeline.stages import SMALLEST, allowing, divisible, factors, stages


def strides(patch, spacing, levels=None):
    return [stride for _, stride in stages(patch, spacing, levels)]


def test_cubes_are_halved_until_four_voxels_remain():
    assert stages((32, 32, 32), None) == [
        ((3, 3, 3), (1, 1, 1)), ((3, 3, 3), (2, 2, 2)), ((3, 3, 3), (2, 2, 2)), ((3, 3, 3), (2, 2, 2)),
    ]  # fmt: skip


def test_a_coarse_axis_waits_until_the_others_are_within_twice():
    # nnU-Net's plan of prostate MR: 20 x 320 x 256 at 3.6 x 0.62 x 0.62 mm pools z twice, the plane six times.
    found = stages((20, 320, 256), (3.6, 0.62, 0.62))
    assert [stride for _, stride in found] == [
        (1, 1, 1), (1, 2, 2), (1, 2, 2), (2, 2, 2), (2, 2, 2), (1, 2, 2), (1, 2, 2),
    ]  # fmt: skip
    assert [kernel for kernel, _ in found][:4] == [(1, 3, 3), (1, 3, 3), (3, 3, 3), (3, 3, 3)]


def test_a_single_slice_is_neither_pooled_nor_convolved_along_its_axis():
    for kernel, stride in stages((64, 64, 1), (1.0, 1.0, 5.0)):
        assert kernel == (3, 3, 1)
        assert stride[2] == 1


def test_levels_are_kept_or_refused():
    assert strides((64, 64), None, 3) == [(1, 1), (2, 2), (2, 2)]
    with pytest.raises(ConfigError, match=r"network.levels: 5 .* 32 x 32, which allows 4"):
        stages((32, 32), None, 5)
    with pytest.raises(ConfigError, match=r"patches.size has 2 axes"):
        stages((32, 32), (1.0, 1.0, 1.0))


def test_an_odd_length_is_told_from_a_short_one():
    with pytest.raises(ConfigError, match=r"34 can be halved only once; take patches\.size 32 x 32 or 36 x 36"):
        stages((34, 34), None, 3)
    with pytest.raises(ConfigError, match=r"which allows 3: 33 is odd .* take patches\.size 32 x 40 or 40 x 40"):
        stages((33, 40), None, 4)
    with pytest.raises(ConfigError, match=r"or enlarge patches\.size to a number that can be halved as often"):
        stages((24, 24, 24), None, 9)


def test_small_patches_are_enlarged_until_they_allow_enough():
    assert allowing((32, 32), None, 4) == (32, 32)
    assert allowing((24, 28, 1), (1.0, 1.0, 5.0), 4) == (32, 32, 1)
    random = np.random.default_rng(2)
    for _ in range(200):
        axes, levels = int(random.integers(2, 4)), int(random.integers(1, 5))
        spacing = tuple(np.exp(random.uniform(-2, 2.5, axes)))
        small = tuple(int(n) for n in random.integers(1, 40, axes))
        patch = allowing(divisible(small, spacing, levels), spacing, levels)
        assert all(new >= old for new, old in zip(patch, small, strict=True))
        assert len(stages(patch, spacing, levels)) == levels


def test_random_patches():
    random = np.random.default_rng(0)
    for _ in range(200):
        axes = int(random.integers(2, 4))
        spacing = tuple(np.exp(random.uniform(-1, 2, axes)))
        wanted = tuple(int(n) for n in random.integers(1, 200, axes))
        patch = divisible(wanted, spacing)
        assert all(new >= old for new, old in zip(patch, wanted, strict=True))
        found = stages(patch, spacing)
        assert found[0][1] == (1,) * axes
        for n, factor, before in zip(patch, factors(found), wanted, strict=True):
            assert n % factor == 0
            assert factor == 1 or n // factor >= SMALLEST
            assert n - before < max(factor, n / 4 + 1)  # enlarged little
        size, step = np.array(patch), np.array(spacing)
        for _, stride in found[1:]:
            able = size >= 2 * SMALLEST
            # An axis twice as coarse as another one that can still be halved waits.
            assert all(s == 1 or mm < 2 * step[able].min() for s, mm in zip(stride, step, strict=True))
            size, step = size // stride, step * stride
        assert stages(patch, spacing, len(found)) == found
