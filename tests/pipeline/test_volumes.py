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
    with pytest.raises(DataError, match="4 channels"):
        prepare_volume(block(channels=4), settings())


def test_a_pair_shares_its_grid(tmp_path):
    (image,), (mask,) = write_cohort(tmp_path, 1)
    read, label = read_pair(image, mask, config().image, STRUCTURES, overlapping=True)
    assert label.shape == (2, *read.spatial_shape)
    single = read_pair(image, mask, config().image, STRUCTURES, overlapping=False)[1]
    np.testing.assert_array_equal(label, np.concatenate([single == 1, single == 2]))
