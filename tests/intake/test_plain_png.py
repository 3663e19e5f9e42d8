"""The quick way through plain PNG gives what the reader of imaging gives, or steps aside."""

from __future__ import annotations

import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Picture
from PIL.PngImagePlugin import PngInfo

from medgcsam.imaging.formats.raster import read_raster
from medgcsam.intake.plain_png import plain_png

RANDOM = np.random.default_rng(0)


def saved(picture: Picture.Image, **options) -> bytes:
    stream = BytesIO()
    picture.save(stream, "PNG", **options)
    return stream.getvalue()


def noise(*shape: int) -> Picture.Image:
    return Picture.fromarray(RANDOM.integers(0, 256, shape, dtype=np.uint8))


def display(picture: Picture.Image) -> np.ndarray:
    """(channels, row, column) in 0..1, float32, as imaging gives it."""
    samples = np.asarray(picture, np.float32) / np.float32(255)
    return samples[None] if samples.ndim == 2 else np.moveaxis(samples, -1, 0)


GRAY = saved(noise(23, 31))


def chunk(name: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4) + name + data + zlib.crc32(name + data).to_bytes(4)


def written(samples: bytes, *, head: bytes = bytes([8, 0, 0, 0, 0]), between: bytes = b"") -> bytes:
    """A gray PNG of 8 x 6 pixels by hand, its compressed samples in two chunks."""
    header = chunk(b"IHDR", (8).to_bytes(4) + (6).to_bytes(4) + head)
    parts = chunk(b"IDAT", samples[:10]) + between + chunk(b"IDAT", samples[10:])
    return b"\x89PNG\r\n\x1a\n" + header + parts + chunk(b"IEND", b"")


ROWS = b"".join(b"\0" + RANDOM.integers(0, 256, 8, dtype=np.uint8).tobytes() for _ in range(6))
"""Without filters."""
PACKED = zlib.compress(ROWS)


def test_samples_in_several_chunks_are_joined():
    expected = np.frombuffer(ROWS, np.uint8).reshape(6, 9)[:, 1:]
    np.testing.assert_array_equal(np.asarray(plain_png(written(PACKED))), expected)


@pytest.mark.parametrize("data", [GRAY, saved(noise(23, 31, 3)), saved(noise(9, 7), optimize=True)])
def test_plain_pictures_equal_those_of_the_reader(data):
    picture = plain_png(data)
    np.testing.assert_array_equal(display(picture), read_raster(data, "x.png", kind="png").array)


def test_a_plain_picture_of_real_data(shared_data: Path):
    for path in sorted((shared_data / "chest_xray_nih" / "images").iterdir())[:5]:
        data = path.read_bytes()
        np.testing.assert_array_equal(display(plain_png(data)), read_raster(data, path.name, kind="png").array)


def transparent() -> bytes:
    return saved(noise(8, 8), transparency=7)


def rotated() -> bytes:
    exif = Picture.Exif()
    exif[0x0112] = 6
    return saved(noise(8, 9), exif=exif)


def with_text() -> bytes:
    info = PngInfo()
    info.add_itxt("XML:com.adobe.xmp", '<rdf tiff:Orientation="6"/>')
    return saved(noise(8, 9), pnginfo=info)


@pytest.mark.parametrize(
    "data",
    [
        transparent(),
        rotated(),
        with_text(),
        saved(noise(8, 8).convert("P")),
        saved(noise(8, 8).convert("1")),
        saved(noise(8, 8).convert("LA")),
        saved(Picture.fromarray(RANDOM.integers(0, 65536, (8, 8)).astype(np.uint16))),
        saved(noise(8, 8), save_all=True, append_images=[noise(8, 8)]),
        b"",
        b"\xff\xd8\xff" + GRAY,
        GRAY[:-12],
        written(PACKED, head=bytes([8, 0, 0, 0, 1])),
        written(PACKED, between=chunk(b"pHYs", bytes(9))),
        written(PACKED, between=chunk(b"IHDR", (6).to_bytes(4) + (8).to_bytes(4) + bytes([8, 0, 0, 0, 0]))),
        written(zlib.compress(ROWS[:-1])),
        written(PACKED[:-4] + bytes(4)),
        written(zlib.compress(b"\7" + ROWS[1:])),
    ],
    ids=[
        *("colour key", "EXIF", "XMP", "palette", "1 bit", "alpha", "16 bit", "animated", "empty", "JPEG", "no end"),
        *("interlaced", "samples apart", "two headers", "a sample short", "checksum of the samples", "no such filter"),
    ],
)
def test_everything_unusual_is_left_to_the_reader(data):
    assert plain_png(data) is None


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(GRAY) - 1), st.integers(1, 255))
def test_a_changed_byte_never_makes_a_picture_that_the_reader_would_not_give(place, change):
    data = bytearray(GRAY)
    data[place] ^= change
    picture = plain_png(bytes(data))
    if picture is not None:
        np.testing.assert_array_equal(display(picture), read_raster(bytes(data), "x.png", kind="png").array)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, len(GRAY) - 1))
def test_a_cut_file_is_never_a_picture(length):
    assert plain_png(GRAY[:length]) is None
