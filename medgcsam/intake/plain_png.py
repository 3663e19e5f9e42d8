"""The quick way through the most common kind of image file: a PNG about which nothing is unusual."""

from __future__ import annotations

import zlib

from PIL import Image as Pillow

from medgcsam.imaging.faults import MAX_PIXELS

SIGNATURE = b"\x89PNG\r\n\x1a\n"
START = SIGNATURE + b"\0\0\0\rIHDR"
MODES = {(8, 0): "L", (8, 2): "RGB"}
HARMLESS = {b"IHDR", b"IDAT", b"IEND", b"pHYs", b"gAMA", b"cHRM", b"sRGB", b"tIME", b"bKGD", b"sBIT", b"iCCP"}
"""Chunks that the reader does not look at, and those of the picture itself."""


def plain_png(data: bytes) -> Pillow.Image | None:
    """The picture, loaded, of mode L or RGB and 8 bits, whose samples are its display values times 255.

    None where the file is anything else or damaged: transparency, palette, other bits, interlaced, animation, metadata
    that may hold an orientation, a wrong checksum. The reader of ``imaging`` then decides; where this gives a picture,
    that reader gives the same one, twice as slowly.
    """
    if not data.startswith(START) or len(data) < 33:
        return None
    width, height = int.from_bytes(data[16:20]), int.from_bytes(data[20:24])
    mode = MODES.get((data[24], data[25]))
    if mode is None or any(data[26:29]) or not 0 < width * height <= MAX_PIXELS:
        return None
    samples = _samples(data)
    if samples is None:
        return None
    try:
        return Pillow.frombytes(mode, (width, height), samples, "zip", mode)
    except Exception:  # Pillow raises anything on damaged bytes; the reader will say what is wrong
        return None


def _samples(data: bytes) -> bytes | None:
    """The compressed samples, where all chunks are harmless and whole, in order, their checksums right (PNG
    specification, 5.3 and 5.6), the last one IEND."""
    place, view, parts, before = len(SIGNATURE), memoryview(data), [], b""
    while place + 12 <= len(data):
        length = int.from_bytes(data[place : place + 4])
        name, end = data[place + 4 : place + 8], place + 8 + length
        if name not in HARMLESS or end + 4 > len(data):
            return None
        if zlib.crc32(view[place + 4 : end]) != int.from_bytes(data[end : end + 4]):
            return None
        if name == b"IEND":
            return b"".join(parts)
        if name == b"IDAT":
            if parts and before != name:
                return None
            parts.append(view[place + 8 : end])
        elif name == b"IHDR" and before:
            return None
        place, before = end + 4, name
    return None
