"""Sizes that compressed pictures state themselves, read without decoding: JPEG, JPEG-LS and JPEG 2000."""

from __future__ import annotations

START_OF_FRAME = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC} | {0xF7}
"""SOF0 to SOF15 without DHT, JPG and DAC (ITU-T T.81, table B.1), and SOF55 of JPEG-LS (ITU-T T.87)."""
ALONE = {0x01, *range(0xD0, 0xD9)}
"""Markers without a length: TEM, RST0 to RST7 and SOI."""


def frame_size(stream: bytes) -> tuple[int, int] | None:
    """(rows, columns) by the first frame header of a stream; None where it is of another kind, or does not say."""
    if stream.startswith(b"\xff\xd8"):
        return _jpeg(stream)
    start = stream.find(b"\xff\x4f\xff\x51", 0, 1024)  # SOC and SIZ (ITU-T T.800, A.5.1), perhaps behind JP2 boxes
    if start < 0 or len(stream) < start + 24:
        return None
    width, height, left, top = (int.from_bytes(stream[start + n : start + n + 4], "big") for n in (8, 12, 16, 20))
    return height - top, width - left


def _jpeg(stream: bytes) -> tuple[int, int] | None:
    at = 2
    while at + 9 <= len(stream) and stream[at] == 0xFF:
        marker = stream[at + 1]
        if marker in START_OF_FRAME:
            return int.from_bytes(stream[at + 5 : at + 7], "big"), int.from_bytes(stream[at + 7 : at + 9], "big")
        if marker == 0xFF:  # a fill byte
            at += 1
        elif marker in ALONE:
            at += 2
        else:
            at += 2 + int.from_bytes(stream[at + 2 : at + 4], "big")
    return None
