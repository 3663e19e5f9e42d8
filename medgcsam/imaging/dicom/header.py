"""A quick look at a DICOM header: where each top-level element lies, without converting any.

A series has one header per slice, and all but a few elements are the same in each; parsing them all takes longer than
reading the pixels. This walk follows PS3.5 chapter 7 to the letter for the two little-endian encodings and gives up
(None) on whatever is unusual, which is then left to pydicom. Nothing is repaired here.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct

LONG_VRS = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"))
SHORT_VRS = frozenset(
    (b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO", b"LT", b"PN", b"SH", b"SL", b"SS",
     b"ST", b"TM", b"UI", b"UL", b"US")
)  # fmt: skip
IMPLICIT, EXPLICIT, DEFLATED, BIG_ENDIAN = (f"1.2.840.10008.1.2{end}" for end in ("", ".1", ".1.99", ".2"))
PIXEL_DATA = 0x7FE00010
TRANSFER_SYNTAX = 0x00020010
UNDEFINED = 0xFFFFFFFF
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
MAX_DEPTH = 32
MAX_ITEMS, BYTES_PER_ITEM = 100_000, 256
OPEN_SEQUENCE = b"SQ*"

_explicit = Struct("<HH2sH").unpack_from
_implicit = Struct("<HHL").unpack_from
_long = Struct("<L").unpack_from
_double = Struct("<d").iter_unpack

Element = tuple[bytes, int, int]
"""(VR, b"" in the implicit encoding; first byte of the value; its length, UNDEFINED for encapsulated pixels)."""


@dataclass(frozen=True, eq=False)
class Header:
    """Top-level elements of one object, by tag (group << 16 | element), up to and including PixelData.

    data: the bytes that were looked at, from the first of the file on. is_whole: whether the walk reached PixelData
    or the end of the object within them. A sequence of undefined length has OPEN_SEQUENCE for its VR.
    """

    data: bytes
    syntax: str
    elements: dict[int, Element]
    is_whole: bool

    def raw(self, tag: int) -> bytes:
        """The value as stored; b"" where the element is absent or empty."""
        found = self.elements.get(tag)
        return b"" if found is None else self.data[found[1] : found[1] + found[2]]

    def text(self, tag: int) -> str:
        """The value without the padding of blanks and zeros; for the VRs of plain ASCII."""
        return self.raw(tag).decode("ascii", "replace").strip(" \0")

    def doubles(self, tag: int) -> str:
        """The values of an FD element as a DS would say them, parted by backslashes."""
        found, value = self.elements.get(tag), self.raw(tag)
        if found is None or found[0] not in (b"", b"FD") or len(value) % 8:
            return self.text(tag)
        return "\\".join(repr(number) for (number,) in _double(value))

    def short(self, tag: int) -> int | None:
        """The value of an unsigned short, or None."""
        value = self.raw(tag)
        return int.from_bytes(value, "little") if len(value) == 2 else None


def read_header(data: bytes, *, size: int | None = None) -> Header | None:
    """Look at the first bytes of a file of ``size`` bytes (default: ``data`` is the whole file).

    None where it is no DICOM file of the plain kind (with preamble, implicit or explicit little endian data set,
    elements in ascending order, sequences in the same encoding), or is damaged.
    """
    size = len(data) if size is None else size
    start, syntax, meta = read_meta(data)
    if data[128:132] != b"DICM" or not syntax or syntax in (DEFLATED, BIG_ENDIAN):
        return None
    elements = meta
    end, complete = _walk(data, start, elements, explicit=syntax != IMPLICIT, last_group=0xFFFF)
    if end < 0 and len(data) == size:
        return None
    pixels = elements.get(PIXEL_DATA)
    if pixels is not None and pixels[2] != UNDEFINED and pixels[1] + pixels[2] > size:
        return None
    return Header(data, syntax, elements, complete and (pixels is not None or len(data) == size))


def read_meta(data: bytes) -> tuple[int, str, dict[int, Element]]:
    """File meta information, group 0002: (first byte behind it, the transfer syntax, its elements).

    The group goes on to the first element of another group, whatever length it states. (-1, "", ...) where it is
    damaged; the syntax is "" where none is said.
    """
    meta: dict[int, Element] = {}
    start, _ = _walk(
        data, 132 if data[128:132] == b"DICM" else 0, meta, explicit=True, first_group=0x0002, last_group=0x0002
    )
    _, at, length = meta.get(TRANSFER_SYNTAX, (b"", 0, 0))
    return start, "" if start < 0 else data[at : at + length].rstrip(b" \0").decode("ascii", "replace"), meta


def most_items(size: int) -> int:
    """How many items of sequences and fragments of pixels an object of so many bytes may have.

    Parsing costs 5e-5 s for each, however empty; those of real objects with many hold hundreds of bytes.
    """
    return MAX_ITEMS + size // BYTES_PER_ITEM


def _walk(
    data: bytes, at: int, elements: dict[int, Element], *, explicit: bool, last_group: int, first_group: int = 0
) -> tuple[int, bool]:
    """(byte behind the last element taken, whether the walk came to its end); (-1, False) where it went astray.

    It ends at PixelData, before the first element of a group beyond the two that are given, and at the end of the data.
    """
    end, previous = len(data), 0
    while at + 8 <= end:
        vr = b""
        if explicit:
            group, element, vr, length = _explicit(data, at)
        else:
            group, element, length = _implicit(data, at)
        if group > last_group or group < first_group:
            return at, True
        tag, start = group << 16 | element, at + 8
        if tag <= previous:
            return -1, False
        if explicit and vr not in SHORT_VRS:
            if vr not in LONG_VRS or at + 12 > end:
                return -1, False
            (length,), start = _long(data, at + 8), at + 12
        if tag == PIXEL_DATA:
            elements[tag] = (vr, start, length)
            return start, True
        if length == UNDEFINED:
            if vr not in (b"SQ", b""):
                return -1, False
            at = _behind_sequence(data, start, explicit=explicit)
            if at < 0:
                return -1, False
            elements[tag] = (OPEN_SEQUENCE, start, at - start)
        else:
            at = start + length
            if at > end:
                return -1, False
            elements[tag] = (vr, start, length)
        previous = tag
    return (at, True) if at == end else (-1, False)


def _behind_sequence(data: bytes, at: int, *, explicit: bool) -> int:
    """First byte behind a sequence of undefined length whose first item is at ``at``; -1 where it is damaged."""
    end, depth, in_item = len(data), 1, [False]  # per open sequence: whether one of its items is open
    left = most_items(end)
    while at + 8 <= end:
        group, element, length = _implicit(data, at)
        tag, vr = group << 16 | element, b""
        if tag == SEQUENCE_END and not in_item[-1]:
            at += 8
            in_item.pop()
            depth -= 1
            if depth == 0:
                return at
        elif tag == ITEM and not in_item[-1]:
            left -= 1
            if left < 0:
                return -1
            in_item[-1] = length == UNDEFINED
            at += 8 if length == UNDEFINED else 8 + length
        elif tag == ITEM_END and in_item[-1]:
            in_item[-1] = False
            at += 8
        elif in_item[-1] and group != 0xFFFE:
            start = at + 8
            if explicit:
                vr, length = data[at + 4 : at + 6], int.from_bytes(data[at + 6 : at + 8], "little")
                if vr not in SHORT_VRS:
                    if vr not in LONG_VRS or at + 12 > end:
                        return -1
                    (length,), start = _long(data, at + 8), at + 12
            at = start
            if length != UNDEFINED:
                at += length
            elif vr in (b"SQ", b"") and depth < MAX_DEPTH:
                in_item.append(False)
                depth += 1
            else:
                return -1
        else:
            return -1
    return -1
