"""Damaged compressed pixels: refused, or decoded as an independent decoder does from the same bytes, or intact.

The bits of entropy-coded data have no checksum: most changes of them give another valid stream, and another picture,
which every decoder accepts. What can be held is that nothing is invented beyond that. Decoders here are Pillow (JPEG by
libjpeg-turbo, JPEG 2000) and CharLS by itself; the program has GDCM decode. Run-length coding is decoded below.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels import pixel_array

from medgcsam.errors import DataError
from medgcsam.imaging import read_image
from medgcsam.imaging.dicom.file import open_dataset, stored_pixels

EXAMPLES = int(os.environ.get("MEDGCSAM_HOSTILE", "0"))
DAMAGED = settings(
    max_examples=EXAMPLES or 40, derandomize=not EXAMPLES, deadline=None, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
GRAY = (np.add.outer(np.arange(40), np.arange(56)) * 2).astype(np.uint8) ^ 5
JPEG_BASELINE = "1.2.840.10008.1.2.4.50"


def _sample(name: str) -> bytes:
    return Path(get_testdata_file(name, download=False)).read_bytes()


def _jpeg_object(**options: object) -> bytes:
    stream, ds = io.BytesIO(), Dataset()
    Pillow.fromarray(GRAY).save(stream, "jpeg", **options)
    ds.SOPClassUID, ds.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.7", "1.2.3"
    ds.Rows, ds.Columns, ds.SamplesPerPixel, ds.PhotometricInterpretation = *GRAY.shape, 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 8, 8, 7, 0
    ds.PixelData = encapsulate([stream.getvalue()])
    ds["PixelData"].VR = "OB"
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = JPEG_BASELINE
    file = io.BytesIO()
    ds.save_as(file, enforce_file_format=True)
    return file.getvalue()


FILES = {
    "jpeg": (_jpeg_object, "pillow"),
    "jpeg with restarts": (lambda: _jpeg_object(restart_marker_blocks=5), "pillow"),
    "jpeg-ls": (lambda: _sample("MR_small_jpeg_ls_lossless.dcm"), "pyjpegls"),
    "near-lossless jpeg-ls": (lambda: _sample("JPEGLSNearLossless_16.dcm"), "pyjpegls"),
    "jpeg 2000": (lambda: _sample("MR_small_jp2klossless.dcm"), "pillow"),
    "lossy jpeg 2000": (lambda: _sample("JPEG2000.dcm"), "pillow"),
    "rle": (lambda: _sample("MR_small_RLE.dcm"), ""),
    "rle in colour": (lambda: _sample("SC_rgb_rle_16bit_2frame.dcm"), ""),
}


def run_lengths(frame: bytes, rows: int, columns: int, samples: int, depth: int) -> np.ndarray:
    """(rows, columns, samples) of a frame (PS3.5 annex G): segments of bytes, the highest byte of a sample first."""
    header = np.frombuffer(frame[:64], "<u4")
    count = int(header[0])
    assert count == samples * depth
    ends = [*header[2 : count + 1].tolist(), len(frame)]
    planes = []
    for start, end in zip(header[1 : count + 1].tolist(), ends, strict=True):
        at, values = start, bytearray()
        while at < end and len(values) < rows * columns:
            control = frame[at]
            if control < 128:
                values += frame[at + 1 : min(at + 2 + control, end)]
                at += 2 + control
            else:
                values += frame[at + 1 : min(at + 2, end)] * (257 - control) if control > 128 else b""
                at += 2 if control > 128 else 1
        assert len(values) >= rows * columns
        planes.append(np.frombuffer(bytes(values[: rows * columns]), np.uint8).reshape(rows, columns))
    parts = np.stack(planes, -1).reshape(rows, columns, samples, depth)
    return np.ascontiguousarray(parts).view(f">u{depth}")[..., 0]


def independent(data: bytes, plugin: str) -> np.ndarray | None:
    """Stored pixels by another decoder, or None where it refuses them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            ds = pydicom.dcmread(io.BytesIO(data), force=True)
            if plugin:
                return pixel_array(ds, decoding_plugin=plugin)
            size = (ds.Rows, ds.Columns, ds.SamplesPerPixel, ds.BitsAllocated // 8)
            count = int(ds.get("NumberOfFrames") or 1)
            frames = [run_lengths(frame, *size) for frame in generate_frames(ds.PixelData, number_of_frames=count)]
            values = np.stack(frames).reshape(count, *size[:2], size[2])
            values = values if size[2] > 1 else values[..., 0]
            return values if count > 1 else values[0]
        except Exception:
            return None


def stored(data: bytes) -> np.ndarray | None:
    """Stored pixels as the program reads them, or None where it refuses them."""
    with contextlib.suppress(DataError):
        return stored_pixels(open_dataset(data, "x"), "x")
    return None


def is_jpeg(kind: str) -> bool:
    return kind in ("jpeg", "jpeg with restarts")


def assert_same_bits(one: np.ndarray, other: np.ndarray | None, *, blocks: bool) -> None:
    """The same values, but for what damage leaves open.

    Where a stream no longer says whether it is signed, decoders differ in that alone; and where values of JPEG leave
    the range from 0 to 255, each cuts or wraps them in its own way, which shows in their block of 8 x 8 (blocks).
    """
    assert other is not None, "read, where another decoder sees the damage"
    assert one.dtype.itemsize == other.dtype.itemsize
    unsigned = f"u{one.dtype.itemsize}"
    differ = one.astype(unsigned) != other.astype(unsigned)
    if blocks:
        ends = np.isin(one, (0, 255)) | np.isin(other, (0, 255))
        parts = [mask.reshape(one.shape[0] // 8, 8, -1, 8).any((1, 3)) for mask in (differ, ends)]
        assert not (parts[0] & ~parts[1]).any()
    else:
        assert not differ.any()


def pixels_start(data: bytes) -> int:
    """First byte of the first fragment that holds pixels: behind PixelData, the offset table and an item's header."""
    at = next(re.finditer(rb"\xe0\x7f\x10\x00O[BW]\0\0\xff{4}", data)).end()
    return at + 8 + int.from_bytes(data[at + 4 : at + 8], "little") + 8


def spared(data: bytes, start: int) -> set[int]:
    """The header of a JPEG or JPEG-LS stream but for precision and size: tables, by whose damage values leave their
    range, and parameters that one decoder checks and another has no use for."""
    at, found = start + 2, set()
    while data[at] == 0xFF:
        marker, end = data[at + 1], at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        found |= set(range(at, end)) - (set(range(at + 4, at + 9)) if marker in (0xC0, 0xF7) else set())
        at = end
        if marker == 0xDA:
            break
    return found


@pytest.fixture(autouse=True)
def _quiet():
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("kind", FILES)
def test_damaged_pixels_are_refused_intact_or_those_of_another_decoder(kind):
    make, plugin = FILES[kind]
    if plugin == "pyjpegls":
        pytest.importorskip("jpeg_ls")
    data = make()
    start, whole = pixels_start(data), stored(data)
    np.testing.assert_array_equal(whole, independent(data, plugin))
    left_out = spared(data, start) if "2000" not in kind and "rle" not in kind else set()
    places = [at for at in range(start, len(data)) if at not in left_out]

    @DAMAGED
    @given(st.lists(st.tuples(st.sampled_from(places), st.integers(1, 255)), min_size=1, max_size=3))
    def hold(changes):
        damaged = bytearray(data)
        for at, bits in changes:
            damaged[at] ^= bits
        pixels = stored(bytes(damaged))
        if pixels is None or (pixels.shape == whole.shape and np.array_equal(pixels, whole)):
            return
        assert_same_bits(pixels, independent(bytes(damaged), plugin), blocks=is_jpeg(kind))

    hold()


@pytest.mark.parametrize("kind", FILES)
def test_pixels_that_lose_or_gain_bytes_are_refused_intact_or_those_of_another_decoder(kind):
    make, plugin = FILES[kind]
    if plugin == "pyjpegls":
        pytest.importorskip("jpeg_ls")
    data = make()
    ds, whole = pydicom.dcmread(io.BytesIO(data)), stored(data)
    count = int(ds.get("NumberOfFrames") or 1)
    frames = list(generate_frames(ds.PixelData, number_of_frames=count))
    first = len(frames[0])

    @settings(DAMAGED, max_examples=EXAMPLES or 12)
    @given(st.integers(100, first - 1), st.sampled_from([1, 2, 16, first]), st.binary(max_size=8))
    def hold(at, lost, gained):
        damaged = pydicom.dcmread(io.BytesIO(data))
        frame = frames[0][:at] + gained + frames[0][at + lost :]
        damaged.PixelData = encapsulate([frame, *frames[1:]])
        stream = io.BytesIO()
        damaged.save_as(stream)
        pixels = stored(stream.getvalue())
        if pixels is None or np.array_equal(pixels, whole):
            return
        assert_same_bits(pixels, independent(stream.getvalue(), plugin), blocks=is_jpeg(kind))

    hold()


def test_a_changed_bit_of_compressed_pixels_may_give_another_picture_without_a_word(tmp_path):
    """What docs/dicom-support.md says of compressed pixels; if this fails, the sentence there is no longer true."""
    data = _sample("MR_small_jp2klossless.dcm")
    damaged = bytearray(data)
    damaged[pixels_start(data) + 3_000] ^= 1
    for name, content in (("whole", data), ("damaged", damaged)):
        (tmp_path / name).write_bytes(content)
    whole, other = (read_image(tmp_path / name).array for name in ("whole", "damaged"))
    assert not np.array_equal(whole, other)
    assert independent(bytes(damaged), "pillow") is not None


@pytest.mark.parametrize(
    ("kind", "before", "after"),
    [
        ("jpeg", b"\xff\xc0\x00\x0b\x08", b"\xff\xc0\x00\x0b\x0c"),  # 12 bits in a file of 8
        ("lossy jpeg 2000", b"\x01\x01\xff\x52", b"\x24\x01\xff\x52"),  # components 36 times as coarse
        ("lossy jpeg 2000", b"\x8f\x01\x01\xff\x52", b"\x9e\x01\x01\xff\x52"),  # 31 bits
    ],
)
def test_streams_that_state_other_samples_than_the_header_are_refused(kind, before, after):
    data = FILES[kind][0]()
    assert data.count(before) == 1
    with pytest.raises(DataError, match="state another kind of samples"):
        stored_pixels(open_dataset(data.replace(before, after), "x"), "x")


def test_a_jpeg_2000_stream_that_lacks_tiles_or_bytes_is_refused():
    data = FILES["jpeg 2000"][0]()
    start = data.index(b"\xff\x4f\xff\x51")
    fewer = data[: start + 31] + b"\x20" + data[start + 32 :]  # tiles of 64 x 32, of which one is there
    longer = bytearray(data)
    longer[data.index(b"\xff\x90\x00\x0a") + 9] ^= 0x10  # the length of the tile-part
    for damaged in (fewer, bytes(longer)):
        with pytest.raises(DataError, match="do not fit together"):
            stored_pixels(open_dataset(damaged, "x"), "x")
