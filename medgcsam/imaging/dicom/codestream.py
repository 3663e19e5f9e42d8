"""What compressed pictures state themselves, read without decoding: JPEG, JPEG-LS and JPEG 2000."""

from __future__ import annotations

START_OF_FRAME = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC} | {0xF7}
"""SOF0 to SOF15 without DHT, JPG and DAC (ITU-T T.81, table B.1), and SOF55 of JPEG-LS (ITU-T T.87)."""
SOT, EOC = 0xFF90, 0xFFD9
"""Start of a tile-part and end of a JPEG 2000 stream (ITU-T T.800, table A.2)."""
MAX_TILES = 65_535
"""Tiles that a stream can number (ITU-T T.800, table A.4)."""
ALONE = {0x01, *range(0xD0, 0xD9)}
"""Markers without a length: TEM, RST0 to RST7 and SOI."""


def frame_size(stream: bytes) -> tuple[int, int] | None:
    """(rows, columns) by the first frame header of a stream; None where it is of another kind, or does not say."""
    if stream.startswith(b"\xff\xd8"):
        at = _frame_header(stream)
        return None if at is None else (_two(stream, at + 5), _two(stream, at + 7))
    start = _siz(stream)
    if start < 0 or len(stream) < start + 24:
        return None
    width, height, left, top = (int.from_bytes(stream[start + n : start + n + 4], "big") for n in (8, 12, 16, 20))
    return height - top, width - left


def sample_bits(stream: bytes) -> int | None:
    """Most bits per sample by the frame header of a JPEG or JPEG 2000 stream; None where it does not say."""
    if stream.startswith(b"\xff\xd8"):
        at = _frame_header(stream)
        return None if at is None else stream[at + 4]
    return max(((bits & 0x7F) + 1 for bits, _ in _components(stream)), default=None)


def is_subsampled(stream: bytes) -> bool:
    """Whether a JPEG 2000 stream has components coarser than its pixels (XRsiz, YRsiz), as no DICOM image read here."""
    return any(step != b"\1\1" for _, step in _components(stream))


def _components(stream: bytes) -> list[tuple[int, bytes]]:
    """(Ssiz, XRsiz and YRsiz) of the components of a JPEG 2000 stream (ITU-T T.800, table A.9); of others none."""
    start = -1 if stream.startswith(b"\xff\xd8") else _siz(stream)
    places = range(start + 42, min(start + 42 + 3 * _two(stream, start + 40), len(stream) - 2), 3) if start >= 0 else ()
    return [(stream[at], stream[at + 1 : at + 3]) for at in places]


def has_holes(stream: bytes) -> bool:
    """Whether the parts of a JPEG 2000 stream, which state their lengths, do not follow upon each other up to its end:
    the marker segments of the main header, then the parts of all tiles (ITU-T T.800, A.4.2). Bytes were lost or put in.
    """
    at = -1 if stream.startswith(b"\xff\xd8") else _siz(stream)
    if at < 0:
        return False
    missing, at = _tiles(stream, at), at + 2
    while (marker := _two(stream, at)) != SOT:
        if at + 4 > len(stream) or not 0xFF51 <= marker <= 0xFF64:
            return True
        at += 2 + _two(stream, at + 2)
    while (marker := _two(stream, at)) == SOT and at + 12 <= len(stream):
        missing.discard(_two(stream, at + 4))
        length = _four(stream, at + 6)
        if length == 0:  # up to the end of the stream
            return bool(missing)
        if length < 14:
            return True
        at += length
    return marker != EOC or bool(missing)


def _tiles(stream: bytes, start: int) -> set[int]:
    """The tiles of a JPEG 2000 stream by its image and tile size (ITU-T T.800, B.3); at most MAX_TILES."""
    counts = []
    for n in (8, 12):  # Xsiz and Ysiz; behind them XTsiz, YTsiz, and XTOsiz, YTOsiz
        end, size, first = (_four(stream, start + n + more) for more in (0, 16, 24))
        counts.append(-(-(end - first) // size) if size else 0)
    return set(range(min(counts[0] * counts[1], MAX_TILES)))


def _siz(stream: bytes) -> int:
    """Where SOC and SIZ are (ITU-T T.800, A.5.1), perhaps behind JP2 boxes; -1 where they are not."""
    return stream.find(b"\xff\x4f\xff\x51", 0, 1024)


def _two(stream: bytes, at: int) -> int:
    return int.from_bytes(stream[at : at + 2], "big")


def _four(stream: bytes, at: int) -> int:
    return int.from_bytes(stream[at : at + 4], "big")


def _frame_header(stream: bytes) -> int | None:
    """Where the first frame header of a JPEG stream is."""
    at = 2
    while at + 9 <= len(stream) and stream[at] == 0xFF:
        marker = stream[at + 1]
        if marker in START_OF_FRAME:
            return at
        if marker == 0xFF:  # a fill byte
            at += 1
        elif marker in ALONE:
            at += 2
        else:
            at += 2 + _two(stream, at + 2)
    return None
