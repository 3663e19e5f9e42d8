"""Which images a trained network takes, in words for whoever has only the image."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from medgcsam.imaging import Image
from medgcsam.training.suitability import unsuited

VOLUMES = {"dimensions": 3, "channels": 1, "spacing": [2.0, 2.0, 4.0], "intensity": "foreground"}
PICTURES = {"dimensions": 2, "channels": 1, "spacing": None, "intensity": "display"}


def config(task="segmentation", **image):
    return SimpleNamespace(task=task, image=SimpleNamespace(**image))


def volume(shape=(1, 9, 8, 7), unit="raw", mm=2.0):
    spacing = None if mm is None else (mm,) * (len(shape) - 1)
    affine = None if mm is None else np.diag([mm, mm, mm, 1.0])
    return Image(array=np.zeros(shape, np.float32), unit=unit, affine=affine, spacing=spacing)


def picture(channels=1):
    return Image(array=np.zeros((channels, 9, 8), np.float32), unit="display", affine=None, spacing=None)


def test_what_fits_is_taken() -> None:
    assert unsuited(volume(), config(**VOLUMES)) is None
    assert unsuited(picture(3), config(**PICTURES)) is None
    assert unsuited(picture(3), config("classification", **PICTURES)) is None


@pytest.mark.parametrize(
    ("image", "of", "words"),
    [
        (picture(), config(**VOLUMES | {"intensity": "zscore"}), "is a picture, and the network takes volumes"),
        (volume(), config(**PICTURES | {"intensity": "zscore"}), "is a volume of 7 slices"),
        (volume(), config(**PICTURES), "holds measured values (raw)"),
        (volume((2, 9, 8, 7)), config(**VOLUMES), "has 2 channels or frames, and the network takes 1; name one"),
        (volume(), config(**VOLUMES | {"channels": 2}), "has 1 channel, and the network takes 2"),
        (volume(mm=None), config(**VOLUMES), "has no voxel spacing"),
        (volume((1, 900, 900, 9), mm=5000.0), config(**VOLUMES), "is too large at the spacing of the network"),
        (volume(unit="HU"), config("classification", **PICTURES | {"intensity": "zscore"}), "volume of 7 slices"),
    ],
)
def test_what_does_not_fit_is_said_without_options_of_training(image, of, words) -> None:
    said = unsuited(image, of)
    assert words in said
    assert not any(key in said for key in ("image.", "data.", "inference.", "output."))
