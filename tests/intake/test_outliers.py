"""Images unlike the rest of their set: sizes and inverted contrast."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from PIL import Image as Picture
from scipy.ndimage import gaussian_filter

from medgcsam.intake.frequencies import coefficients
from medgcsam.intake.outliers import ENOUGH, inverted, odd_sizes
from medgcsam.intake.pictures import THUMBNAIL, thumbnail

SIZES = ((1, 512, 512), (3, 512, 512), (1, 17, 23), (1, 512, 512, 40))


def test_a_size_that_few_images_have():
    shape = np.array([0] * 38 + [1, 2, -1, 3], np.int32)  # colour does not count, neither does what was not read
    assert list(odd_sizes(shape, SIZES)) == [(39, (512, 512)), (41, (512, 512))]


def test_sizes_are_mixed_or_images_few():
    assert list(odd_sizes(np.array([0] * 20 + [2] * 20, np.int32), SIZES)) == []
    assert list(odd_sizes(np.array([0] * (ENOUGH - 2) + [2], np.int32), SIZES)) == []
    assert list(odd_sizes(np.array([-1] * 50, np.int32), SIZES)) == []
    assert list(odd_sizes(np.zeros(0, np.int32), ())) == []


def chests(count: int) -> np.ndarray:
    """Pictures that share a pattern of bright and dark, each with one of its own: uint8 (count, size, size)."""
    random = np.random.default_rng(0)
    shared = gaussian_filter(random.normal(0, 600, (THUMBNAIL, THUMBNAIL)), 6)
    own = [gaussian_filter(random.normal(0, 300, (THUMBNAIL, THUMBNAIL)), 6) for _ in range(count)]
    return (128 + shared + np.array(own)).clip(0, 255).astype(np.uint8)


def test_inverted_pictures_are_found_also_where_there_are_many():
    for count in (1, 10, 25):
        pictures = chests(60)
        pictures[:count] = 255 - pictures[:count]
        assert inverted(coefficients(pictures), np.zeros(60, int)).tolist() == list(range(count))


def test_nothing_is_said_of_few_or_of_different_pictures():
    pictures = chests(ENOUGH - 1)
    pictures[0] = 255 - pictures[0]
    assert not len(inverted(coefficients(pictures), np.zeros(len(pictures), int)))
    random = np.random.default_rng(0)
    unlike = np.array([gaussian_filter(random.normal(128, 600, (48, 48)), 6) for _ in range(60)]).clip(0, 255)
    assert not len(inverted(coefficients(unlike.astype(np.uint8)), np.zeros(60, int)))
    assert not len(inverted(np.zeros((0, 63)), np.zeros(0, int)))


def test_each_sort_is_measured_by_itself():
    pictures = chests(80)
    pictures[40:] = 255 - pictures[40:]  # another modality, all of it the other way round
    pictures[[3, 50]] = 255 - pictures[[3, 50]]
    sort = np.repeat([0, 1], 40)
    assert inverted(coefficients(pictures), sort).tolist() == [3, 50]


def test_real_radiographs_and_ultrasound(shared_data: Path):
    """None of the radiographs as they are; nearly all of those that are inverted."""
    with (shared_data / "chest_xray_nih" / "labels.csv").open() as stream:
        names = [row["file"] for row in csv.DictReader(stream)][::5]
    pictures = [Picture.open(shared_data / "chest_xray_nih" / "images" / name).convert("L") for name in names]
    joined = b"".join(thumbnail(picture) for picture in pictures)
    upright = np.frombuffer(joined, np.uint8).reshape(-1, THUMBNAIL, THUMBNAIL).copy()
    assert not len(inverted(coefficients(upright), np.zeros(len(upright), int)))
    upright[:20] = 255 - upright[:20]
    found = inverted(coefficients(upright), np.zeros(len(upright), int)).tolist()
    assert len(found) >= 18
    assert max(found) < 20
