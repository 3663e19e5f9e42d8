"""What fits a segmentation: by the configuration, or by most of the images that decide; and how it is said."""

from __future__ import annotations

import numpy as np
import pytest

from medgcsam.config import ImageConfig
from medgcsam.errors import DataError
from medgcsam.imaging import Image
from medgcsam.pipeline.fitting import explain_faults, misfits
from medgcsam.pipeline.survey import Surveyed
from medgcsam.pipeline.volumes import prepare_volume

VOLUME = Surveyed(shape=(20, 24, 12), spacing=(1.0, 1.0, 2.0), channels=1, unit="HU")
SLICE = Surveyed((20, 24, 1), (1.0, 1.0, 2.0), (24, 20), (1.0, 1.0), channels=1, unit="HU")
PICTURE = Surveyed((24, 20), None, (24, 20), None, channels=1, unit="display")


def seen(one: Surveyed, **changes) -> Surveyed:
    return Surveyed(**{**vars(one), **changes})


def found(surveyed, deciding=None, **image) -> dict[int, str]:
    deciding = range(len(surveyed)) if deciding is None else deciding
    return {row: one.kind for row, one in misfits(surveyed, deciding, ImageConfig(**image)).items()}


def test_what_goes_together_fits():
    assert found([VOLUME, VOLUME, SLICE]) == {}
    assert found([PICTURE, seen(PICTURE, channels=3), PICTURE]) == {}
    assert found([VOLUME], channels=3) == {}
    assert found([SLICE, SLICE]) == {}
    assert found([]) == {}


def test_channels():
    two, colour = seen(VOLUME, channels=2), seen(PICTURE, channels=3)
    assert found([VOLUME, two]) == found([VOLUME, two], channels=3) == {1: "channels"}
    assert found([two, two]) == {0: "channels", 1: "channels"}
    assert found([seen(colour, unit="raw")]) == {0: "channels"}
    assert found([seen(colour, unit="raw")], channels=3) == {}


def test_pictures_and_volumes():
    assert found([VOLUME, VOLUME, PICTURE, SLICE]) == {2: "dimensions"}
    assert found([PICTURE, PICTURE, VOLUME]) == {2: "dimensions"}
    assert found([VOLUME, VOLUME, PICTURE, SLICE], dimensions=2, intensity="zscore") == {
        0: "dimensions",
        1: "dimensions",
    }
    assert found([PICTURE, PICTURE, VOLUME], dimensions=3) == {0: "dimensions", 1: "dimensions"}
    assert found([PICTURE, VOLUME, seen(SLICE)]) == {0: "dimensions", 1: "dimensions"}  # equally many
    assert found([SLICE, VOLUME], [0]) == {1: "dimensions"}


def test_only_the_deciding_images_decide():
    surveyed = [VOLUME, PICTURE, PICTURE, PICTURE]
    assert found(surveyed, [0]) == {1: "dimensions", 2: "dimensions", 3: "dimensions"}
    assert found([seen(VOLUME, unit="SUV"), VOLUME, VOLUME], [0]) == {1: "other_unit", 2: "other_unit"}
    assert found(surveyed, []) == {}


def test_spacing():
    spaced, bare = seen(PICTURE, spacing=(0.5, 0.5), picture_spacing=(0.5, 0.5)), PICTURE
    assert found([spaced, spaced, bare]) == {2: "no_spacing"}
    assert found([spaced, bare]) == found([bare, bare, spaced]) == {}
    assert found([spaced, spaced, bare], spacing=None) == {}
    assert found([bare, bare, spaced], spacing=(1.0, 1.0)) == {0: "no_spacing", 1: "no_spacing"}


def test_units():
    raw = seen(VOLUME, unit="raw")
    assert found([VOLUME, VOLUME, raw]) == {2: "other_unit"}
    assert found([VOLUME, raw]) == {0: "other_unit", 1: "other_unit"}
    assert found([VOLUME, VOLUME, raw], intensity="zscore") == {}
    assert found([VOLUME, PICTURE, PICTURE], intensity="display", dimensions="auto") == {0: "dimensions"}
    assert found([seen(SLICE), PICTURE], intensity="display") == {0: "other_unit"}


def test_a_faulty_or_refused_image_decides_nothing():
    faulty = Surveyed(fault="x.png is truncated")
    two = seen(PICTURE, channels=2)
    assert found([faulty, faulty, VOLUME, two, two]) == {3: "channels", 4: "channels"}
    sentence = misfits([VOLUME, VOLUME, PICTURE], [0, 1], ImageConfig())[2].sentence
    assert sentence == "is a picture, where most training images are volumes of several slices"


def test_equal_reasons_are_told_once():
    images = [f"{row}.nii" for row in range(8)]
    masks = [f"{row}_mask.nii" for row in range(8)]
    faults = {row: f"{images[row]} has 2 channels." for row in range(6)} | {7: "7_mask.nii does not lie on 7.nii"}
    assert explain_faults(images, masks, faults, can_exclude=True) == (
        "7 of 8 images or masks cannot be used (0.nii has 2 channels [the same of 5 more: 1.nii, 2.nii, 3.nii and 2 "
        "more]; 7_mask.nii does not lie on 7.nii): correct them, give their rows a reason in the column 'exclude', or "
        "set data.faulty_masks: exclude; 'medgcsam check' lists all."
    )
    faults = {row: f"{masks[row]} does not lie on {images[row]}" for row in range(2)}
    told = explain_faults(images, masks, faults)
    assert "[the same of 1 more: 1.nii]): correct them, or give" in told
    many = explain_faults(images * 4, masks * 4, {row: f"reason {row}" for row in range(32)})
    assert "reason 19; and 12 other reasons)" in many


@pytest.mark.parametrize("channels", [1, 3])
def test_the_rule_of_channels_is_that_of_preparation(channels):
    config = ImageConfig(channels=channels, dimensions=2, spacing=None, intensity="zscore")
    for number in (1, 2, 3, 4):
        for unit in ("display", "raw"):
            try:
                prepare_volume(Image(array=np.zeros((number, 16, 16), np.float32), unit=unit), config)
                fits = True
            except DataError:
                fits = False
            one = seen(PICTURE, channels=number, unit=unit)
            assert (found([one], channels=channels, dimensions=2) == {}) == fits
