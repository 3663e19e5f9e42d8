"""Intensities against MONAI's transforms, and channels."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from monai.transforms import NormalizeIntensity, ScaleIntensityRangePercentiles

from medgcsam.errors import DataError
from medgcsam.imaging import Image
from medgcsam.pipeline.volumes import prepare_volume, read_pair
from tests.pipeline.segmentation_phantoms import STRUCTURES, config, write_cohort


def settings(**changed):
    plain = {"dimensions": 3, "spacing": None, "size": (112, 112), "channels": 1, "intensity": "zscore"}
    return SimpleNamespace(**plain | {"clip": None, "mean": None, "std": None} | changed)


def block(unit="raw", channels=1):
    array = np.random.default_rng(0).gamma(2, 100, (channels, 9, 8, 7)).astype(np.float32)
    array[:, :4] = 0
    return Image(array=array, unit=unit, spacing=(1.0, 1.0, 1.0))


def test_zscore_is_monais_over_the_voxels_other_than_zero():
    image = block()
    inside = image.array > 0
    expected = np.asarray(NormalizeIntensity(nonzero=True)(image.array))
    found = prepare_volume(image, settings())[0]
    np.testing.assert_allclose(found[inside], expected[inside], atol=2e-3)
    used = image.array[inside]
    np.testing.assert_allclose(found[~inside], -used.mean() / used.std(), atol=2e-3)


def test_percentile_is_monais():
    image = block()
    expected = np.asarray(ScaleIntensityRangePercentiles(0.5, 99.5, 0.0, 1.0, clip=True)(image.array))
    np.testing.assert_allclose(prepare_volume(image, settings(intensity="percentile"))[0], expected, atol=1e-3)


def test_foreground_cuts_and_scales_by_the_plans_numbers():
    found = prepare_volume(block("HU"), settings(intensity="foreground", clip=(50, 300), mean=120.0, std=40.0))[0]
    np.testing.assert_allclose(found, (block().array.clip(50, 300) - 120) / 40, atol=3e-3)
    uncut = prepare_volume(block("Bq/ml"), settings(intensity="foreground", mean=0.0, std=1e-4))[0]
    assert np.isfinite(uncut).all()


@pytest.mark.parametrize("intensity", ["zscore", "percentile"])
@pytest.mark.parametrize("value", [0.0, 5.0, 1e7])
def test_a_flat_image_stays_finite(intensity, value):
    image = Image(array=np.full((1, 4, 4, 4), value, np.float32), unit="raw", spacing=(1.0, 1.0, 1.0))
    found = prepare_volume(image, settings(intensity=intensity))[0]
    assert np.isfinite(found).all()
    assert np.ptp(found) == 0


@pytest.mark.parametrize("intensity", ["zscore", "percentile", "foreground"])
def test_each_channel_is_scaled_by_itself(intensity):
    """As T1 and T2, or PET and CT, whose numbers have nothing to do with each other."""
    scales = ((1, 0), (50, 5000), (0.01, 1))
    one = block()
    three = Image(
        array=np.concatenate([scale * one.array + (one.array != 0) * offset for scale, offset in scales]),
        unit="raw",
        spacing=one.spacing,
    )
    rules = [{"clip": (50 * a + b, 300 * a + b), "mean": 120.0 * a + b, "std": 40.0 * a} for a, b in scales]
    each = {key: tuple(rule[key] for rule in rules) for key in rules[0]}
    found = prepare_volume(three, settings(channels=3, intensity=intensity, **each))[0]
    for channel, rule in zip(range(3), rules, strict=True):
        alone = Image(array=three.array[channel : channel + 1], unit="raw", spacing=one.spacing)
        expected = prepare_volume(alone, settings(intensity=intensity, **rule))[0]
        np.testing.assert_array_equal(found[channel : channel + 1], expected)
    same = prepare_volume(three, settings(channels=3, intensity="foreground", **rules[0]))[0]
    np.testing.assert_array_equal(same[0], prepare_volume(one, settings(intensity="foreground", **rules[0]))[0][0])


def test_the_colours_of_a_picture_are_scaled_together():
    picture = Image(
        array=np.random.default_rng(2).random((3, 9, 8), np.float32) * [[[1]], [[0.5]], [[0.1]]], unit="display"
    )
    found = prepare_volume(picture, settings(dimensions=2, channels=3))[0]
    np.testing.assert_allclose(found, (picture.array - picture.array.mean()) / picture.array.std(), atol=2e-3)


def test_display_values_and_channels():
    picture = Image(array=np.random.default_rng(1).random((3, 5, 6), np.float32), unit="display")
    flat = settings(dimensions=2, intensity="display")
    weights = np.array([0.299, 0.587, 0.114])[:, None, None]
    np.testing.assert_allclose(prepare_volume(picture, flat)[0][0], (picture.array * weights).sum(0), atol=1e-3)
    three = settings(dimensions=2, intensity="display", channels=3)
    np.testing.assert_allclose(prepare_volume(picture, three)[0], picture.array, atol=1e-3)
    gray = Image(array=picture.array[:1], unit="display")
    assert (prepare_volume(gray, three)[0] == prepare_volume(gray, flat)[0]).all()
    with pytest.raises(DataError, match="no display range"):
        prepare_volume(block(), settings(intensity="display"))
    with pytest.raises(DataError, match=r"4 channels .* set image.channels to 4 .* '#volume=0'"):
        prepare_volume(block(channels=4), settings())
    with pytest.raises(DataError, match=r"1 channel, where image.channels is 2; set image.channels to 1"):
        prepare_volume(block(), settings(channels=2))
    assert prepare_volume(block(channels=2), settings(channels=2))[0].shape == (2, 9, 8, 7)


def test_a_pair_shares_its_grid(tmp_path):
    (image,), (mask,) = write_cohort(tmp_path, 1)
    read, label = read_pair(image, mask, config().image, STRUCTURES, overlapping=True)
    assert label.shape == (2, *read.spatial_shape)
    single = read_pair(image, mask, config().image, STRUCTURES, overlapping=False)[1]
    np.testing.assert_array_equal(label, np.concatenate([single == 1, single == 2]))
