"""The kind of a file, decided by its first bytes and never by its name."""

from __future__ import annotations

import re
import struct
import zlib
from pathlib import Path

HEAD_BYTES = 1024
FIRST_VRS = (b"UL", b"OB", b"UI", b"CS", b"DA", b"TM", b"LO", b"SH", b"PN", b"LT", b"ST", b"SQ", b"DT")


def sniff_kind(path: str | Path) -> str:
    """``png``, ``jpeg``, ``tiff``, ``dicom``, ``nifti``, ``nrrd``, ``metaimage``, ``npz``, ``zip`` or ``unknown``.

    Raises OSError for no such file.
    """
    with open(path, "rb") as file:
        return kind_of_bytes(file.read(HEAD_BYTES))


def kind_of_bytes(head: bytes) -> str:
    """The same for the first kilobyte of a file."""
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if head.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if head[128:132] == b"DICM":  # before TIFF: the preamble of a DICOM file may be a TIFF header (PS3.10, 7.1)
        return "dicom"
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "tiff"
    if re.match(rb"NRRD000[1-9]\r?\n", head):
        return "nrrd"
    if re.match(rb"(Comment|ObjectType|ObjectSubType|NDims)[ \t]*=", head):
        return "metaimage"
    if head.startswith(b"PK\x03\x04"):  # the name of the first member follows its header of 30 bytes
        return "npz" if head[30 : 30 + int.from_bytes(head[26:28], "little")].endswith(b".npy") else "zip"
    if _is_nifti(head) or (head.startswith(b"\x1f\x8b") and _is_nifti(_gunzip_head(head))):
        return "nifti"
    if _is_bare_dicom(head):
        return "dicom"
    return "unknown"


def _gunzip_head(head: bytes) -> bytes:
    try:
        return zlib.decompressobj(wbits=31).decompress(head, 544)
    except zlib.error:
        return b""


def _is_nifti(head: bytes) -> bool:
    """NIfTI-1 and NIfTI-2, in one file or as a header of its own, and Analyze 7.5, which the reader refuses by name."""
    for order in "<>":
        size, axes = struct.unpack_from(f"{order}i36xh", head) if len(head) >= 348 else (0, 0)
        if size == 348 and 1 <= axes <= 7:
            return True
    return head[344:348] in (b"n+1\0", b"ni1\0") or head[4:12] in (b"n+2\0\r\n\x1a\n", b"ni2\0\r\n\x1a\n")


def _is_bare_dicom(head: bytes) -> bool:
    """A data set without preamble: it starts with an element of group 0002 or 0008, in any of the three encodings."""
    if len(head) < 16:
        return False
    for order in "<>":
        group, element, implicit_length = struct.unpack(f"{order}HHI", head[:8])
        if group not in (0x0002, 0x0008) or element > 0x00FF:
            continue
        if head[4:6] in FIRST_VRS or (order == "<" and implicit_length <= HEAD_BYTES):
            return True
    return False
