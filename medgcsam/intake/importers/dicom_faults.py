"""Why images of a folder of DICOM cannot be read, as far as their headers say it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from pydicom.uid import UID

from medgcsam.errors import DataError
from medgcsam.imaging.dicom.alike import echoes_differ
from medgcsam.imaging.dicom.channels import channels_of
from medgcsam.imaging.dicom.facts import as_plane
from medgcsam.imaging.dicom.file import JPEG_EXTENDED
from medgcsam.imaging.dicom.transfer_syntaxes import readable_transfer_syntaxes
from medgcsam.imaging.geometry import Plane, levels_of, stack_planes
from medgcsam.intake.importers.dicom_scan import Header

GEOMETRY = {
    "mixed size": "mixed size",
    "mixed orientation": "mixed orientation",
    "mixed spacing": "mixed spacing",
    "acquisitions told apart by": "several acquisitions at the same positions",
    "duplicate positions": "duplicate positions",
    "side by side": "images side by side in one plane",
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


def fault_of_stack(slices: Sequence[Header], reference: str) -> tuple[str, str, int]:
    """Why slices are no regular volume: a short reason and the reader's sentence, both empty where they are one; and
    how many channels (time points, echoes, diffusion weights) the volume has."""
    planes = []
    for header in slices:
        plane, why = as_plane(header.position, header.orientation, header.spacing, header.shape)
        if plane is None:
            return ("", "", 1) if len(slices) == 1 else (why, header.reference, 1)
        planes.append(plane)
    for keyword, what in ALIKE.items():
        if len({header[keyword] for header in slices}) > 1:
            return f"several {what} in one series", "", 1
    try:
        channels = _channels(slices, levels_of(planes, reference), reference)
    except DataError as error:
        return *_said(error, reference), 1
    reason, detail = _fault_of_geometry(slices, planes, channels[0], reference)
    if not set(reason.split(" and ")) - {"", *RESAMPLED}:
        mixed = next((what for channel in channels if (what := _mixed([slices[n] for n in channel]))), "")
        reason, detail = (f"several {mixed} in one series", "") if mixed else (reason, detail)
    return reason, detail, len(channels)


def fault_of_mosaics(mosaics: Sequence[Header], reference: str) -> tuple[str, str]:
    """Why several mosaics are no series of volumes, as far as their headers say it; both empty where they are one."""
    for keyword, what in ALIKE.items():
        if len({header[keyword] for header in mosaics}) > 1:
            return f"several {what} in one series", ""
    if len({(one.shape, one.position, one.orientation, one.spacing, one.step) for one in mosaics}) > 1:
        return "mosaics of several sizes or places", ""
    try:
        _channels(mosaics, [range(len(mosaics))], reference, mosaics=True)
    except DataError as error:
        return _said(error, reference)
    return "", ""


def _channels(
    slices: Sequence[Header], levels: Sequence[Sequence[int]], reference: str, *, mosaics: bool = False
) -> list[list[int]]:
    """The slices of each channel. Raises DataError."""

    def text(n: int, keyword: str) -> str:
        return "\\".join(slices[n].image_type) if keyword == "ImageType" else slices[n][keyword]

    return channels_of(levels, text, reference, mosaics=mosaics)[0].tolist()


def _fault_of_geometry(
    slices: Sequence[Header], planes: Sequence[Plane], channel: Sequence[int], reference: str
) -> tuple[str, str]:
    first = slices[channel[0]]
    try:
        stack_planes([planes[n] for n in channel], reference, thickness=first.thickness, step=first.step)
    except DataError as error:
        return _said(error, reference)
    return "", ""


def _mixed(channel: Sequence[Header]) -> str:
    """What the images of one volume must have in common and have not."""
    if echoes_differ({header["EchoTime"] for header in channel}):
        return "echo times"
    if len({header["DiffusionBValue"] for header in channel}) > 1:
        return "diffusion weights"
    return "kinds of image (ImageType)" if len({header.image_type[:3] for header in channel}) > 1 else ""


def _said(error: DataError, reference: str) -> tuple[str, str]:
    """The reason to count by, and the sentence without its beginning."""
    text = str(error).removeprefix(reference).strip()
    reasons = list(dict.fromkeys(reason for words, reason in GEOMETRY.items() if words in text))
    final = [reason for reason in reasons if reason not in RESAMPLED]
    return " and ".join(final[:1] or reasons) or "no regular volume", text
