"""What becomes of every DICOM file of two public collections, as a table: read as what, or refused and why."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from medgcsam.errors import MedgcsamError
from medgcsam.imaging.dicom.transfer_syntaxes import readable_transfer_syntaxes
from medgcsam.imaging.image import Image
from medgcsam.imaging.read import read_image

FILES, SERIES = "dicom_variety", "dicom_series"
INTRODUCTION = """# What is read from DICOM, and what is refused

Written by `python -m medgcsam.imaging support --data FOLDER > docs/dicom-support.md`, where FOLDER holds the
collections `dicom_variety` and `dicom_series`; a test holds it to what the code does.

A file is read exactly or refused by name, with the reason and what to do. Nothing is guessed.

One kind of value is replaced: padding (PixelPaddingValue, and up to PixelPaddingRangeLimit) of CT, MR and PET becomes
the smallest true value of the volume where it exceeds that, and `padding_pixels` or `padding_voxels` says how many
there are. In pictures it is shown black.

Compressed pixels have no checksum. A stream that is cut off, that states another size or kind of samples than the
header, whose tiles or parts are missing, or that a decoder finds damaged is refused. But most changes of single bits in
entropy-coded data (JPEG, JPEG-LS, JPEG 2000, RLE) give another valid stream, which every decoder reads without a word
as another picture, and so does this one. Copy compressed files with a tool that verifies them.
"""
CHANNELS = """## Several images of one place

Single-frame files of one series that lie at the same positions are channels where an attribute of the standard tells
them apart, and every position has every one of its values exactly once:

- TemporalPositionIdentifier, TriggerTime, InversionTime, EchoTime (MR Image, PS3.3 C.8.3.1); FrameReferenceTime (PET
  Image, C.8.9.4); DiffusionBValue, alone or with DiffusionGradientOrientation (MR Diffusion, C.8.13.5.9). What varies
  together counts together. `channels_by`, `channel_values` and `channel_seconds` (start of each from the first, by
  AcquisitionTime) in `source` say what the channels are.
- A series of Siemens mosaics of one size and place has a channel for each, by AcquisitionNumber, which counts the
  volumes there.

Where AcquisitionNumber, AcquisitionTime or ContentTime alone differ they are several acquisitions, and where
RepetitionTime, FlipAngle, KVP, ConvolutionKernel or the first three values of ImageType differ between channels, echoes
have AcquisitionNumbers of their own, or the order contradicts AcquisitionTime, they may be: refused together, and read
one at a time (`read_image(..., volume=0)`, `FOLDER#series=UID#volume=0`). InstanceNumber, private elements and the
order of files tell nothing apart. Slices of one volume that mix echo times or diffusion weights are refused.
"""
BECOMES = (
    ("CT, MR, PET: a slice, or a series of slices", "volume (column, row, slice); CT in HU where rescaled to it"),
    (
        "PET",
        "SUV as stored (GML) or by body weight (BQML, where the header allows it); else Bq/ml or raw, with the reason",
    ),
    (
        "enhanced PET",
        "SUV or Bq/ml by its Real World Value Mapping (UCUM `g/ml{SUVbw}`, `Bq/ml`); of Bq/ml SUV by dose (MBq), "
        "weight and DecayCorrectionDateTime, where it is corrected for attenuation and decay; else rescaled and raw, "
        "with the reason",
    ),
    ("legacy converted enhanced PET", "as the slices that it was made of"),
    (
        "enhanced CT, MR, PET; tomosynthesis",
        "volume by the position of each frame; time points and echoes are channels",
    ),
    ("multi-frame CT, MR, PET without positions", "refused"),
    ("Siemens mosaic", "volume by its CSA header; refused where that was removed; of a series, each is a channel"),
    ("nuclear medicine", "reconstructed tomograms are volumes; of everything else the frames are channels"),
    (
        "CR, DX, mammography, XA, secondary capture",
        "picture (row, column) as displayed: LUT or window, inverted if stored so",
    ),
    ("ultrasound and other pictures in RGB, YBR, palette", "picture with three channels"),
    ("cine of any of these", "picture whose channels are the frames"),
    (
        "a series of slices in colours that lie in the patient",
        "volume with three channels, `display`; multi-frame volumes in colours are refused",
    ),
    ("a series of CR, DX, US or secondary capture in gray", "refused, also where its files lie in the patient"),
    ("localisers of CT and MR; CT and MR in inverted gray without a unit", "refused"),
    ("whole slide images", "refused"),
    ("DICOM SEG, RTSTRUCT", "labels, read by `read_label` only"),
    ("dose, parametric map, report, plan, presentation state, waveform", "refused: no image to learn from"),
)


def support_document(data: Path, *, keep: Callable[[Path], bool] = lambda path: True) -> str:
    """The document, for the folder of data sets; ``keep`` picks the files and series folders that are read."""
    syntaxes = [(name, "yes" if read else "no") for name, read in readable_transfer_syntaxes().items()]
    syntaxes = [(name, "8 bits only" if "Extended" in name and read == "yes" else read) for name, read in syntaxes]
    return "\n".join(
        [
            INTRODUCTION,
            _table(("object", "becomes"), BECOMES),
            CHANNELS,
            f"## Transfer syntaxes\n\n{_table(('transfer syntax', 'read'), syntaxes)}",
            f"## `{SERIES}`\n\n{_table(('series', 'read as'), support_rows(data, SERIES, keep=keep))}",
            f"## `{FILES}`\n\n{_table(('file', 'read as'), support_rows(data, FILES, keep=keep))}",
        ]
    )


def support_rows(
    data: Path, collection: str, *, keep: Callable[[Path], bool] = lambda path: True
) -> Iterator[tuple[str, str]]:
    """(path within the collection as code, what it is read as or why it is refused), in order."""
    root = data / collection
    for path in _series(root) if collection == SERIES else _files(root):
        if keep(path):
            yield f"`{path.relative_to(root).as_posix()}`", outcome(path)


def outcome(path: Path) -> str:
    """What a file or folder is read as, in words, or ``refused: `` and the reason without the path."""
    try:
        return _in_words(read_image(path))
    except MedgcsamError as error:
        return f"refused: {_without_path(str(error), path)}"


def _in_words(image: Image) -> str:
    facts, spatial = image.source, image.spatial_shape
    size = " x ".join(str(n) for n in spatial)
    what = f"{'volume' if len(spatial) == 3 else 'picture'} {size}, {image.unit}"
    if image.array.shape[0] > 1:
        what += f", {image.array.shape[0]} channels" + (f" by {facts['channels_by']}" if "channels_by" in facts else "")
    if len(spatial) == 3 and image.affine is None:
        what += ", no orientation"
    if str(facts.get("geometry", "")).startswith("resampled"):
        what += f", {facts['geometry']}"
    return f"{what} ({facts.get('sop_class') or 'no SOP class'}, {facts.get('photometric')})"


def _files(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.is_file() and path.suffix not in (".csv", ".txt"))


def _series(root: Path) -> list[Path]:
    return sorted({path.parent for path in root.rglob("*.dcm")})


def _without_path(text: str, path: Path) -> str:
    return text.replace(f"{path}/", "").replace(str(path), "").strip().replace("|", "\\|")


def _table(heading: tuple[str, str], rows: Iterable[tuple[str, str]]) -> str:
    lines = "".join(f"| {left} | {right} |\n" for left, right in rows)
    return f"| {heading[0]} | {heading[1]} |\n|---|---|\n{lines}"
