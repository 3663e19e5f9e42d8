"""Burned-in text is suspected where there is text, and nowhere else; every image has a gray picture."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture
from PIL import ImageDraw, ImageFont
from scipy.ndimage import gaussian_filter

from medgcsam.imaging import Image
from medgcsam.intake.pictures import THUMBNAIL, gray_picture, has_text, thumbnail


def suspected(gray: np.ndarray) -> bool:
    return has_text(gray, int(gray.max()) - int(gray.min()))


def anatomy(size: int = 320) -> np.ndarray:
    random = np.random.default_rng(0)
    smooth = gaussian_filter(random.normal(0, 1, (size, size)), 12)
    return (90 + 500 * smooth + random.normal(0, 3, (size, size))).clip(0, 200).astype(np.uint8)


def written(gray: np.ndarray, text: str, size: int, value: int = 255) -> np.ndarray:
    picture = Picture.fromarray(gray)
    font = ImageFont.load_default(size)
    ImageDraw.Draw(picture).text((8, 20), text, fill=value, font=font)
    return np.asarray(picture)


@pytest.mark.parametrize("size", [10, 14, 20, 30])
@pytest.mark.parametrize("text", ["DOE^JOHN 1961-03-12", "Krankenhaus Mitte 12:04", "ID 4711-0815"])
def test_text_is_suspected(size, text):
    assert suspected(written(anatomy(), text, size))
    assert suspected(255 - written(anatomy(), text, size))


def test_a_page_full_of_text_is_suspected():
    page = np.full((400, 600), 255, np.uint8)
    picture = Picture.fromarray(page)
    words = "Befund: Patient in gutem Zustand, keine Infiltrate, keine Stauung, Herz normal gross. " * 2
    for line in range(4, 380, 18):
        ImageDraw.Draw(picture).text((8, line), words[:95], fill=0, font=ImageFont.load_default(11))
    assert suspected(np.asarray(picture))


def test_what_is_not_text():
    plain = anatomy()
    marker = written(plain, "L", 24)
    grid = plain.copy()
    grid[::16] = grid[:, ::16] = 255
    dotted = plain.copy()
    dotted[100, 50:250:3] = 255
    collimated = plain.copy()
    collimated[:, :40] = collimated[:, 280:] = 0
    speckle = np.random.default_rng(0).rayleigh(30, (320, 320)).clip(0, 255)
    speckle = gaussian_filter(speckle, 0.8).astype(np.uint8)
    noise = np.random.default_rng(0).normal(90, 25, (320, 320)).clip(0, 255).astype(np.uint8)
    for picture in (
        plain,
        noise,
        noise[:36, :36],
        marker,
        grid,
        dotted,
        collimated,
        speckle,
        np.zeros((320, 320), np.uint8),
    ):
        assert not suspected(picture)


@pytest.mark.parametrize("shape", [(1, 1), (2, 400), (400, 2), (3, 11), (28, 28)])
def test_pictures_of_any_shape(shape):
    gray = np.random.default_rng(0).integers(0, 30, shape, dtype=np.uint8)
    assert not suspected(gray)
    assert len(thumbnail(Picture.fromarray(gray))) == THUMBNAIL**2


def test_a_checkerboard_in_a_tiny_picture_has_no_room_for_text():
    gray = (np.indices((20, 8)).sum(0) % 2 * 255).astype(np.uint8)
    assert not suspected(gray)


def test_real_overlays(shared_data: Path):
    """About one in ten BUSI images carries letters; a sample of those suspected was looked at: all of them do."""
    folder = shared_data / "breast_ultrasound_busi"
    with (folder / "labels.csv").open() as stream:
        names = [row["file"] for row in csv.DictReader(stream)]
    found = [name for name in names if suspected(np.asarray(Picture.open(folder / name).convert("L")))]
    assert 0.05 < len(found) / len(names) < 0.2


def test_gray_picture_of_a_volume_is_its_middle_slice_with_rows_first():
    volume = np.zeros((1, 4, 6, 5), np.float32)
    volume[0, :, :, 2] = np.arange(24).reshape(4, 6)
    gray = gray_picture(Image(array=volume, unit="HU"))
    assert gray.shape == (6, 4)
    assert (np.diff(gray.astype(int), axis=1) > 0).all()
    assert (gray.min(), gray.max()) == (0, 255)


def test_gray_picture_of_display_values():
    picture = np.array([[[0.0, 0.5, 1.0]]], np.float32)
    assert gray_picture(Image(array=picture, unit="display")).tolist() == [[0, 128, 255]]
    colour = np.stack([picture[0], picture[0] * 0, picture[0] * 0])
    assert gray_picture(Image(array=colour, unit="display")).tolist() == [[0, 42, 85]]


def test_gray_picture_of_pixels_that_are_no_numbers():
    picture = np.array([[[np.nan, 3.0], [-np.inf, 4.0]]], np.float32)
    assert gray_picture(Image(array=picture, unit="raw")).dtype == np.uint8
