"""Which files make up the one image series of a folder, archive, list or DICOM medium, by their headers alone."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from pydicom.config import IGNORE
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.uid import UID

from medgcsam.errors import DataError
from medgcsam.imaging.dicom.channels import DIFFUSION, KEYWORDS
from medgcsam.imaging.dicom.file import LABELS, NOT_IMAGES, open_dataset, sop_class
from medgcsam.imaging.dicom.header import PIXEL_DATA, Header, read_header
from medgcsam.imaging.faults import faults_of, said
from medgcsam.imaging.sniff import HEAD_BYTES, kind_of_bytes
from medgcsam.imaging.sources import Item

LOOK_BYTES = 2**14
"""Most headers end before; of a longer one the whole file is read."""
WHOLE_BYTES = 2**24
"""Of larger files the first bytes are looked at before all of them are read."""
HELD_BYTES = 2**30
"""Files are kept in memory up to this sum while headers are looked at, and read again above it."""
SAID_AT_MOST = 4
MAX_KNOWN = 500_000
_known: dict[tuple[str, int, int], str] = {}
"""(name, size, stamp) of files looked at before -> SeriesInstanceUID: a folder of many series is looked through once,
not once for each of them."""

MEDIA_SOP_CLASS = 0x00020002
SOP_CLASS, SOP_INSTANCE, IMAGE_TYPE, MODALITY, DESCRIPTION = 0x00080016, 0x00080018, 0x00080008, 0x00080060, 0x0008103E
STUDY, SERIES, FRAME_OF_REFERENCE = 0x0020000D, 0x0020000E, 0x00200052
POSITION, ORIENTATION, PIXEL_SPACING, THICKNESS, BETWEEN = 0x00200032, 0x00200037, 0x00280030, 0x00180050, 0x00180088
SAMPLES, PHOTOMETRIC, FRAMES, ROWS, COLUMNS = 0x00280002, 0x00280004, 0x00280008, 0x00280010, 0x00280011
ALLOCATED, STORED, HIGH_BIT, SIGN, PADDING, PADDING_LIMIT = (
    0x00280100, 0x00280101, 0x00280102, 0x00280103, 0x00280120, 0x00280121,
)  # fmt: skip
PATIENT, ECHO_TIME, DIFFUSION_B = 0x00100020, 0x00180081, 0x00189087
INTERCEPT, SLOPE, RESCALE_TYPE, MODALITY_LUT = 0x00281052, 0x00281053, 0x00281054, 0x00283000
RECORDED = {
    IMAGE_TYPE: "ImageType", 0x00180060: "KVP", 0x00200012: "AcquisitionNumber", 0x00181210: "ConvolutionKernel",
    0x00180080: "RepetitionTime", 0x00180082: "InversionTime", 0x00180086: "EchoNumbers", 0x00181314: "FlipAngle",
    0x00180024: "SequenceName", 0x00180010: "ContrastBolusAgent", 0x00200011: "SeriesNumber",
    0x00200100: "TemporalPositionIdentifier", THICKNESS: "SliceThickness", BETWEEN: "SpacingBetweenSlices",
}  # fmt: skip
"""Elements that may differ between slices of one volume, and whose difference is recorded."""
TELLING = {keyword: tag_for_keyword(keyword) for keyword in KEYWORDS}
"""What may tell images at one position apart; and of these, what is stored as doubles (FD)."""
DOUBLES = [TELLING[keyword] for keyword in DIFFUSION]
WORDS = (ROWS, COLUMNS, SAMPLES, ALLOCATED, STORED, HIGH_BIT, SIGN, PADDING, PADDING_LIMIT)
TEXTS = (
    SOP_CLASS, SOP_INSTANCE, IMAGE_TYPE, MODALITY, DESCRIPTION, STUDY, SERIES, FRAME_OF_REFERENCE, POSITION,
    ORIENTATION, PIXEL_SPACING, THICKNESS, BETWEEN, PHOTOMETRIC, FRAMES, INTERCEPT, SLOPE, RESCALE_TYPE, PATIENT,
    ECHO_TIME, *RECORDED, *TELLING.values(),
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Slice:
    """One DICOM image file of a series; ``dataset`` where its header was left to pydicom."""

    item: Item
    header: Header
    dataset: Dataset | None = None

    def data(self) -> bytes:
        """All bytes of the file, as they were when its header was looked at."""
        if self.dataset is None and len(self.header.data) == self.item.size:
            return self.header.data
        return self.item.read()


@dataclass(frozen=True, eq=False)
class Series:
    """The files of one image series, and how many others (not DICOM, or not images) lie beside them."""

    slices: list[Slice]
    others: int


def choose_series(items: Sequence[Item], where: str, *, series_uid: str | None = None) -> Series:
    """The files of the one image series among ``items``, or of the one named by its SeriesInstanceUID.

    Files that are no DICOM images are passed over and counted, the files of other series only passed over. Raises
    DataError for empty and damaged DICOM files, no such series, and several series where none is named.
    """
    found: dict[str, list[Slice]] = {}
    held = others = 0
    for item in items:
        if series_uid is not None and _known.get((item.name, item.size, item.stamp), series_uid) != series_uid:
            continue
        looked = _look(item, whole=series_uid is None and held < HELD_BYTES)
        name = "" if looked is None else UID(class_of(looked.header), validation_mode=IGNORE).name
        no_image = looked is None or any(word in name for word in (*LABELS, *NOT_IMAGES))
        if no_image or not _has_pixels(looked.header, name):
            others += 1
            continue
        uid = looked.header.text(SERIES)
        _remember(item, uid)
        if series_uid is not None and uid != series_uid:
            continue
        if PIXEL_DATA not in looked.header.elements:
            raise DataError(f"{item.name} has no pixels, or was cut off before them; leave it out or export it again.")
        if len(found) > 1 or held >= HELD_BYTES:
            looked = _without_pixels(looked)
        held += len(looked.header.data)
        found.setdefault(uid, []).append(looked)
    if not found:
        what = f"no image series {series_uid}" if series_uid is not None else "no DICOM image"
        raise DataError(f"{where} holds {what} among {len(items)} files; correct the path or the selector.")
    if len(found) > 1:
        raise DataError(
            f"{where} holds {len(found)} image series ({_described(found)}); name one as {where}#series=UID, "
            "with a SeriesInstanceUID as `medgcsam import` lists them."
        )
    return Series(next(iter(found.values())), others)


def _remember(item: Item, uid: str) -> None:
    if len(_known) >= MAX_KNOWN:
        _known.clear()
    _known[item.name, item.size, item.stamp] = uid


def series_digest(series: Series) -> str:
    """sha256 (64 hex digits) over the sorted sha256 of the files of a series."""
    parts = sorted(hashlib.sha256(one.data()).hexdigest() for one in series.slices)
    return hashlib.sha256("".join(parts).encode()).hexdigest()


def _look(item: Item, *, whole: bool) -> Slice | None:
    """The header of a DICOM file; None for a file of another kind."""
    if item.size == 0:
        raise DataError(f"{item.name} is an empty file; export it again.")
    data = item.read(None if whole and item.size <= WHOLE_BYTES else LOOK_BYTES)
    if kind_of_bytes(data[:HEAD_BYTES]) != "dicom":
        return None
    header = read_header(data, size=item.size)
    if (header is None or not header.is_whole) and len(data) < item.size:
        data = item.read()
        header = read_header(data)
    if header is not None:
        return Slice(item, header)
    with faults_of(item.name, "DICOM"):
        ds = open_dataset(data, item.name)
        return Slice(item, as_header(ds), ds)


def as_header(ds: Dataset) -> Header:
    """What this file and ``slices.py`` ask a header for, from an object that pydicom has parsed."""
    parts: list[bytes] = []
    elements, at = {}, 0
    for tag in dict.fromkeys((*WORDS, *TEXTS, PIXEL_DATA, MODALITY_LUT)):
        value = ds[tag].value if tag in ds else sop_class(ds) if tag == SOP_CLASS else None
        if value is None or (tag == MODALITY_LUT and not len(value)):
            continue
        if tag in WORDS:
            words = [value] if isinstance(value, int) else list(value)
            part = b"".join((int(word) & 0xFFFF).to_bytes(2, "little") for word in words)
        elif tag in DOUBLES:
            doubles = [float(v) for v in (value if hasattr(value, "__len__") else [value])]
            part = struct.pack(f"<{len(doubles)}d", *doubles)
        elif tag in TEXTS:
            many = hasattr(value, "__len__") and not isinstance(value, str)
            part = ("\\".join(str(v) for v in value) if many else str(value)).encode("utf-8", "replace")
        else:
            part = b""
        elements[tag] = (b"", at, len(part))
        parts.append(part)
        at += len(part)
    return Header(b"".join(parts), str(ds.file_meta.TransferSyntaxUID), elements, True)


def telling(one: Slice, keyword: str) -> str:
    """What ``channels.py`` asks a slice for."""
    tag = TELLING[keyword]
    return one.header.doubles(tag) if tag in DOUBLES else one.header.text(tag)


def class_of(header: Header) -> str:
    """The SOP class UID, from the file meta information where the data set has none."""
    return header.text(SOP_CLASS) or header.text(MEDIA_SOP_CLASS)


def _has_pixels(header: Header, class_name: str) -> bool:
    """Whether an object has pixels, or is of a kind that ought to have them."""
    return PIXEL_DATA in header.elements or ROWS in header.elements or class_name.endswith("Image Storage")


def _without_pixels(one: Slice) -> Slice:
    """The same without the bytes of the pixels, which are read again when they are needed."""
    if one.dataset is not None:
        return one
    kept = one.header.data[: one.header.elements[PIXEL_DATA][1]]
    return replace(one, header=replace(one.header, data=kept))


def _described(found: Mapping[str, Sequence[Slice]]) -> str:
    """A word on each of the first series: modality, description, number of files."""
    words = []
    for slices in list(found.values())[:SAID_AT_MOST]:
        header = slices[0].header
        name = f"{said(header.text(MODALITY))} {said(header.text(DESCRIPTION))}".strip() or "without description"
        words.append(f"{name}: {len(slices)} file{'s' if len(slices) > 1 else ''}")
    return "; ".join(words) + ("; ..." if len(found) > SAID_AT_MOST else "")
