"""A file becomes an Image: pixels, geometry and unit, read the same way whoever asks; nothing is learned here."""

from __future__ import annotations

from medgcsam.imaging.dicom.transfer_syntaxes import readable_transfer_syntaxes
from medgcsam.imaging.image import Image, Reference, pixel_digest
from medgcsam.imaging.read import read_image, read_label, source_digest
from medgcsam.imaging.sniff import sniff_kind

__all__ = [
    "Image",
    "Reference",
    "pixel_digest",
    "read_image",
    "read_label",
    "readable_transfer_syntaxes",
    "sniff_kind",
    "source_digest",
]
