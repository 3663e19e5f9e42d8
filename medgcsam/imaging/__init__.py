"""A file becomes an Image: pixels, geometry and unit, read the same way whoever asks; nothing is learned here."""

from __future__ import annotations

from medgcsam.imaging.image import Image, pixel_digest
from medgcsam.imaging.read import read_image, read_label, source_digest
from medgcsam.imaging.sniff import sniff_kind
from medgcsam.imaging.transfer_syntaxes import readable_transfer_syntaxes

__all__ = [
    "Image",
    "pixel_digest",
    "read_image",
    "read_label",
    "readable_transfer_syntaxes",
    "sniff_kind",
    "source_digest",
]
