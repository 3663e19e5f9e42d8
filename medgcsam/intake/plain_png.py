"""The quick way through the most common kind of image file: a PNG about which nothing is unusual."""

from __future__ import annotations

import zlib
from io import BytesIO

from PIL import Image as Pillow
from PIL import ImageFile

from medgcsam.imaging.faults import MAX_PIXELS

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MODES = {(8, 0): "L", (8, 2): "RGB"}
HARMLESS = {b"IHDR", b"IDAT", b"IEND", b"pHYs", b"gAMA", b"cHRM", b"sRGB", b"tIME", b"bKGD", b"sBIT", b"iCCP"}
"""Chunks that the reader does not look at, and those of the picture itself."""


def plain_png(data: bytes) -> Pillow.Image | None:
    """The picture, loaded, of mode L or RGB and 8 bits, whose samples are its display values times 255.

    None where the file is anything else or damaged: transparency, palette, other bits, animation, metadata that may
    hold an orientation, a wrong checksum. The reader of ``imaging`` then decides; where this gives a picture, that
    reader gives the same one, twice as slowly.
    """
    if not data.startswith(SIGNATURE) or len(data) < 33:
        return None
    width, height = int.from_bytes(data[16:20]), int.from_bytes(data[20:24])
    mode = MODES.get((data[24], data[25]))
    if mode is None or not 0 < width * height <= MAX_PIXELS or not _plain_chunks(data):
        return None
    ImageFile.LOAD_TRUNCATED_IMAGES = False  # another library may have set it, and a half-gray image would pass
    try:
        picture = Pillow.open(BytesIO(data), formats=["PNG"])
        picture.load()
    except Exception:  # Pillow raises anything on damaged bytes; the reader will say what is wrong
        return None
    return picture if picture.mode == mode and picture.size == (width, height) else None


def _plain_chunks(data: bytes) -> bool:
    """Whether all chunks are harmless and whole, their checksums right (PNG specification, 5.3), the last one IEND."""
    place, view = len(SIGNATURE), memoryview(data)
    while place + 12 <= len(data):
        length = int.from_bytes(data[place : place + 4])
        name, end = data[place + 4 : place + 8], place + 8 + length
        if name not in HARMLESS or end + 4 > len(data):
            return False
        if zlib.crc32(view[place + 4 : end]) != int.from_bytes(data[end : end + 4]):
            return False
        if name == b"IEND":
            return True
        place = end + 4
    return False
