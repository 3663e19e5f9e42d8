"""Why images of a folder of DICOM cannot be read, as far as their headers say it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from pydicom.uid import UID

from medgcsam.errors import DataError
from medgcsam.imaging.dicom.facts import as_plane
from medgcsam.imaging.dicom.file import JPEG_EXTENDED
from medgcsam.imaging.dicom.transfer_syntaxes import readable_transfer_syntaxes
from medgcsam.imaging.geometry import stack_planes
from medgcsam.intake.importers.dicom_scan import Header

GEOMETRY = {
    "mixed size": "mixed size",
    "mixed orientation": "mixed orientation",
    "mixed spacing": "mixed spacing",
    "duplicate positions": "duplicate positions",
    "too few slices": "too few slices",
    "one slice missing": "slices missing",
    "slices missing": "slices missing",
    "uneven steps": "uneven steps",
    "has a gap": "slices missing",
    "gantry tilt": "gantry tilt",
    "slices out of line": "slices out of line",
}
"""Words of the reader's sentence -> the reason to count by, those that cannot be resampled first."""
ALIKE = {
    "SOPClassUID": "kinds of object",
    "PhotometricInterpretation": "photometric interpretations",
    "FrameOfReferenceUID": "frames of reference",
    "RescaleType": "units",
}
"""What the reader wants to be the same in all slices."""
RESAMPLED = {"slices missing", "uneven steps", "gantry tilt", "slices out of line"}


def undecodable(header: Header) -> str:
    """Why the pixels of an image cannot be decoded here, or nothing."""
    name = UID(header.syntax).name if header.syntax else ""
    if header.syntax == JPEG_EXTENDED and header.bits > 8:
        return "12-bit JPEG Extended cannot be decoded"
    return "" if _readable().get(name, True) else f"{name} cannot be decoded"


@lru_cache(maxsize=1)
def _readable() -> dict[str, bool]:
    return readable_transfer_syntaxes()


def fault_of_stack(slices: Sequence[Header], reference: str) -> tuple[str, str]:
    """Why slices are no regular volume: a short reason and the reader's sentence, both empty where they are one."""
    planes = []
    for header in slices:
        plane, why = as_plane(header.position, header.orientation, header.spacing, header.shape)
        if plane is None:
            return ("", "") if len(slices) == 1 else (why, header.reference)
        planes.append(plane)
    first = slices[0]
    for keyword, what in ALIKE.items():
        if len({header[keyword] for header in slices}) > 1:
            return f"several {what} in one series", ""
    if len({header.image_type[:3] for header in slices}) > 1:
        return "several kinds of image (ImageType) in one series", ""
    try:
        stack_planes(planes, reference, thickness=first.thickness, step=first.step)
    except DataError as error:
        text = str(error).removeprefix(reference).strip()
        reasons = list(dict.fromkeys(reason for words, reason in GEOMETRY.items() if words in text))
        final = [reason for reason in reasons if reason not in RESAMPLED]
        return " and ".join(final[:1] or reasons) or "no regular volume", text
    return "", ""
