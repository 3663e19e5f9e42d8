from __future__ import annotations

import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow
from PIL import ImageFile

from medgcsam.errors import DataError
from medgcsam.imaging import read_image

RANDOM = np.random.default_rng(0)
GRAY = RANDOM.integers(0, 256, (7, 5), dtype=np.uint8)
COLOUR = RANDOM.integers(0, 256, (7, 5, 3), dtype=np.uint8)


def png(samples: np.ndarray, *, colour_type: int, extra: bytes = b"") -> bytes:
    """A PNG encoder written from the specification: 8 or 16 bit, filters None and Up in turn."""
    rows, columns = samples.shape[:2]
    raw = samples.astype(samples.dtype.newbyteorder(">")).reshape(rows, -1).view(np.uint8)
    filtered = raw.copy()
    filtered[1::2] -= raw[0:-1:2][: len(filtered[1::2])]
    body = b"".join(bytes([2 * (r % 2)]) + filtered[r].tobytes() for r in range(rows))
    header = struct.pack(">IIBBBBB", columns, rows, 8 * samples.dtype.itemsize, colour_type, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", header)
        + extra
        + _chunk(b"IDAT", zlib.compress(body))
        + _chunk(b"IEND", b"")
    )


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def tiff(samples: np.ndarray, *, order: str = "<", photometric: int = 1, compression: int = 1) -> bytes:
    """A TIFF encoder written from the specification: one strip, chunky colours."""
    rows, columns = samples.shape[:2]
    channels = samples.shape[2] if samples.ndim == 3 else 1
    data = samples.astype(samples.dtype.newbyteorder(order)).tobytes()
    data = zlib.compress(data) if compression == 8 else data
    bits_at, data_at = 8, 8 + 2 * channels
    tags = [
        (256, 4, 1, columns),
        (257, 4, 1, rows),
        (258, 3, channels, bits_at),
        (259, 3, 1, compression),
        (262, 3, 1, photometric),
        (273, 4, 1, data_at),
        (277, 3, 1, channels),
        (278, 4, 1, rows),
        (279, 4, 1, len(data)),
        (284, 3, 1, 1),
    ]
    bits = 8 * samples.dtype.itemsize
    directory = struct.pack(order + "H", len(tags))
    for tag, kind, count, value in tags:
        inline = bits if tag == 258 and channels == 1 else value
        short = kind == 3 and count == 1
        packed = struct.pack(order + "HH", inline, 0) if short else struct.pack(order + "I", inline)
        directory += struct.pack(order + "HHI", tag, kind, count) + packed
    start = b"II*\0" if order == "<" else b"MM\0*"
    head = start + struct.pack(order + "I", data_at + len(data)) + struct.pack(order + "H", bits) * channels
    return head + data + directory + struct.pack(order + "I", 0)


@pytest.fixture
def read(tmp_path):
    def read_bytes(data: bytes):
        (tmp_path / "picture").write_bytes(data)
        return read_image(tmp_path / "picture")

    return read_bytes


def saved(array: np.ndarray, format: str, mode: str | None = None, **options: object) -> bytes:
    buffer = BytesIO()
    picture = Pillow.fromarray(array)
    (picture.convert(mode) if mode else picture).save(buffer, format=format, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("format", ["png", "tiff"])
@pytest.mark.parametrize("array", [GRAY, COLOUR], ids=["gray", "colour"])
def test_8_bit_is_lossless_row_by_column_and_255_is_white(read, format, array):
    image = read(saved(array, format))
    expected = array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
    np.testing.assert_allclose(image.array, expected / 255, atol=1e-7)
    assert (image.unit, image.array.dtype, image.affine, image.spacing) == ("display", np.float32, None, None)


@pytest.mark.parametrize(("colour_type", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_16_bit_png_keeps_16_bits_in_every_colour_type(read, colour_type, channels):
    samples = RANDOM.integers(0, 65536, (6, 9, channels), dtype=np.uint16)
    image = read(png(samples, colour_type=colour_type))
    expected = samples / 65535
    if channels in (2, 4):
        expected = expected[..., :-1] * expected[..., -1:]
    np.testing.assert_allclose(image.array, expected.transpose(2, 0, 1), atol=1e-6)
    assert image.source["bits"] == 16


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compression", [1, 8])
@pytest.mark.parametrize(("shape", "photometric"), [((6, 9), 1), ((6, 9), 0), ((6, 9, 3), 2)])
def test_16_bit_tiff_keeps_16_bits_and_white_is_zero_is_inverted(read, order, compression, shape, photometric):
    samples = RANDOM.integers(0, 65536, shape, dtype=np.uint16)
    if order == ">" and photometric == 0:  # the one variant that Pillow lacks
        with pytest.raises(DataError, match="variant"):
            read(tiff(samples, order=order, photometric=photometric, compression=compression))
        return
    image = read(tiff(samples, order=order, photometric=photometric, compression=compression))
    expected = (65535 - samples.astype(float) if photometric == 0 else samples) / 65535
    np.testing.assert_allclose(image.array, np.moveaxis(expected.reshape(6, 9, -1), -1, 0), atol=1e-6)


def test_8_bit_tiff_with_white_as_zero_is_inverted(read):
    np.testing.assert_allclose(read(tiff(GRAY, photometric=0)).array[0], 1 - GRAY / 255, atol=1e-6)


def test_palettes_are_looked_up_and_gray_ones_stay_gray(read):
    picture = Pillow.fromarray(GRAY // 64)
    picture = Pillow.frombytes("P", picture.size, picture.tobytes())
    for palette, channels in (
        [[9, 9, 9, 80, 80, 80, 3, 3, 3, 255, 255, 255], 1],
        [[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12], 3],
    ):
        picture.putpalette(palette)
        buffer = BytesIO()
        picture.save(buffer, "png")
        expected = np.asarray(palette).reshape(4, 3)[GRAY // 64, :channels] / 255
        np.testing.assert_allclose(read(buffer.getvalue()).array, expected.transpose(2, 0, 1), atol=1e-6)


def test_one_bit_pictures_are_black_and_white(read):
    image = read(saved(GRAY > 99, "png"))
    np.testing.assert_array_equal(image.array[0], (GRAY > 99).astype(np.float32))


def test_alpha_is_dropped_where_opaque_composed_over_black_otherwise_and_refused_where_empty(read):
    opaque = np.concatenate([COLOUR, np.full((7, 5, 1), 255, np.uint8)], axis=2)
    image = read(saved(opaque, "png"))
    np.testing.assert_allclose(image.array, COLOUR.transpose(2, 0, 1) / 255, atol=1e-7)
    assert image.source["alpha"] == "opaque, dropped"
    half = opaque.copy()
    half[:3, :, 3] = 51
    image = read(saved(half, "png"))
    np.testing.assert_allclose(image.array[:, :3], COLOUR.transpose(2, 0, 1)[:, :3] / 255 * 0.2, atol=1e-6)
    assert image.source["alpha"] == "composed over black"
    half[..., 3] = 0
    with pytest.raises(DataError, match="transparent in every pixel"):
        read(saved(half, "png"))


def test_a_transparent_gray_value_is_black(read):
    image = read(png(GRAY[..., None], colour_type=0, extra=_chunk(b"tRNS", struct.pack(">H", int(GRAY[2, 3])))))
    expected = np.where(GRAY[2, 3] == GRAY, 0, GRAY / 255)
    np.testing.assert_allclose(image.array[0], expected, atol=1e-6)


@pytest.mark.parametrize("format", ["jpeg", "png", "tiff"])
@pytest.mark.parametrize(
    ("orientation", "turn"),
    [
        (1, lambda a: a),
        (2, np.fliplr),
        (3, lambda a: np.rot90(a, 2)),
        (4, np.flipud),
        (5, np.transpose),
        (6, lambda a: np.rot90(a, -1)),
        (7, lambda a: np.rot90(a, 2).T),
        (8, np.rot90),
    ],
)
def test_exif_orientation_is_applied(read, format, orientation, turn):
    blocks = np.kron(np.asarray([[0, 60, 120], [255, 180, 30]], np.uint8), np.ones((16, 16), np.uint8))
    exif = Pillow.Exif()
    exif[274] = orientation
    options = {"quality": 100} if format == "jpeg" else {}
    image = read(saved(blocks, format, exif=exif, **options))
    np.testing.assert_allclose(image.array[0], turn(blocks) / 255, atol=0.02)


def test_float_tiff_stays_raw_and_nan_is_refused(read):
    values = RANDOM.normal(size=(4, 5)).astype(np.float32)
    image = read(saved(values, "tiff"))
    assert image.unit == "raw"
    np.testing.assert_array_equal(image.array[0], values)
    values[2, 2] = np.nan
    with pytest.raises(DataError, match="1 pixels that are NaN"):
        read(saved(values, "tiff"))


def test_several_pages_and_print_colours_are_refused(read):
    with pytest.raises(DataError, match="2 pages"):
        read(saved(GRAY, "tiff", save_all=True, append_images=[Pillow.fromarray(GRAY)]))
    with pytest.raises(DataError, match="CMYK"):
        read(saved(COLOUR, "tiff", "CMYK"))


@pytest.mark.parametrize("format", ["png", "jpeg", "tiff"])
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.floats(0.0, 0.999), tolerant=st.booleans())
def test_a_truncated_picture_is_refused_or_complete_even_if_pillow_was_told_to_tolerate_it(read, format, cut, tolerant):
    smooth = np.add.outer(np.arange(60), np.arange(50)).astype(np.uint8)
    data = saved(smooth, format)
    whole = read(data).array
    ImageFile.LOAD_TRUNCATED_IMAGES = tolerant
    try:
        image = read(data[: int(cut * len(data))])
    except DataError as error:
        complaint = str(error)
    else:
        np.testing.assert_array_equal(image.array, whole)
        complaint = ""
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = False
    assert not complaint or "picture" in complaint  # the file is named


def test_a_flipped_bit_in_a_png_is_noticed(read):
    data = bytearray(saved(GRAY, "png"))
    data[data.index(b"IDAT") + 20] ^= 4
    with pytest.raises(DataError, match="damaged PNG"):
        read(bytes(data))


@pytest.mark.parametrize("side", [0, 13_000, 60_000])
def test_absurd_dimensions_are_refused_before_decoding(read, side):
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(b"\0")) + _chunk(b"IEND", b"")
    with pytest.raises(DataError):
        read(data)


def test_nih_radiographs_agree_with_pillow(shared_data):
    for path in sorted((shared_data / "chest_xray_nih").rglob("*.png"))[:5]:
        image = read_image(path)
        with Pillow.open(path) as picture:
            np.testing.assert_allclose(image.array[0] * 255, np.asarray(picture.convert("L")), atol=1e-4)
        assert image.array.shape == (1, 320, 320)


def test_signed_8_bit_tiff_is_refused_and_not_wrapped(tmp_path):
    path = tmp_path / "signed.tif"
    tags = {339: 2}
    Pillow.fromarray(np.array([[249, 3], [65, 136]], np.uint8)).save(path, tiffinfo=tags)
    with pytest.raises(DataError, match="signed 8-bit"):
        read_image(path)


def test_a_transparent_colour_in_16_bit_is_refused(tmp_path):
    path = tmp_path / "key.png"
    Pillow.fromarray(np.arange(4, dtype=np.uint16).reshape(2, 2)).save(path, transparency=1)
    with pytest.raises(DataError, match="transparent colour"):
        read_image(path)
