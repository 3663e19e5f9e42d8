"""One header-only pass over a folder of DICOM: what each file is, whose, of which series, and where its plane lies."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.uid import UID

from medgcsam.errors import DataError, MachineError
from medgcsam.imaging.dicom.channels import DIFFUSION, KEYWORDS
from medgcsam.imaging.dicom.file import open_dataset, sop_class
from medgcsam.imaging.dicom.header import read_header
from medgcsam.imaging.faults import faults_of
from medgcsam.imaging.sniff import HEAD_BYTES, kind_of_bytes
from medgcsam.imaging.sources import Item, file_item, zip_items
from medgcsam.intake.importers.result import Progress

LOOK_BYTES = 2**15
"""Most headers end before; of a longer one the whole file is read."""
UNREADABLE, NO_DICOM, EMPTY = "cannot be read", "no DICOM file", "empty file"
PARALLEL_FROM = 20_000
"""Files from which on it pays to start processes."""
TEXTS = (
    "SOPClassUID", "SOPInstanceUID", "PatientID", "StudyInstanceUID", "SeriesInstanceUID", "AccessionNumber",
    "Modality", "SeriesDescription", "StudyDate", "PatientSex", "PatientAge", "Manufacturer", "ManufacturerModelName",
    "InstitutionName", "BodyPartExamined", "ViewPosition", "NumberOfFrames", "ContentLabel", "StructureSetLabel",
    "FrameOfReferenceUID", "PhotometricInterpretation", "RescaleType",
    *(keyword for keyword in KEYWORDS if keyword != "ImageType"),
)  # fmt: skip
PLACES = {name: place for place, name in enumerate(TEXTS)}
TAGS = [int(tag_for_keyword(name)) for name in TEXTS]
DOUBLES = [int(tag_for_keyword(name)) for name in DIFFUSION]
OTHERS = (
    "SpecificCharacterSet", "ImageType", "Rows", "Columns", "PixelSpacing", "ImageOrientationPatient",
    "ImagePositionPatient", "SliceThickness", "SpacingBetweenSlices", "ReferencedSeriesSequence",
    "ReferencedFrameOfReferenceSequence", "BitsStored",
)  # fmt: skip
CHARACTER_SET, IMAGE_TYPE, ROWS, COLUMNS, BITS_STORED = 0x00080005, 0x00080008, 0x00280010, 0x00280011, 0x00280101
MEDIA_CLASS, REFERRED_SERIES = 0x00020002, 0x00081115
SPACING, ORIENTATION, POSITION, THICKNESS, STEP = 0x00280030, 0x00200037, 0x00200032, 0x00180050, 0x00180088
PLAIN_SETS = {"": "latin-1", "ISO_IR 6": "latin-1", "ISO_IR 100": "latin-1", "ISO_IR 192": "utf-8"}
"""SpecificCharacterSet of one encoding; text in all others is left to pydicom."""


@dataclass(frozen=True, slots=True)
class Header:
    """What is known of one file. ``fault`` is why it is no usable DICOM object (and ``detail`` the reader's sentence),
    else empty; then the rest is filled.

    reference: path below the scanned folder, or ``ZIP#member``.
    texts: the elements of ``TEXTS`` in their order, without surrounding blanks, empty where absent; ask for them by
        ``header[KEYWORD]``.
    position, orientation, spacing, shape: as written, None where absent; (rows, columns) is (0, 0) for no image.
    syntax, bits: transfer syntax UID and BitsStored (0 where absent).
    refers: SeriesInstanceUIDs that a SEG or RTSTRUCT refers to.
    """

    reference: str
    fault: str = ""
    detail: str = ""
    texts: tuple[str, ...] = ()
    image_type: tuple[str, ...] = ()
    shape: tuple[int, int] = (0, 0)
    position: tuple[float, ...] | None = None
    orientation: tuple[float, ...] | None = None
    spacing: tuple[float, ...] | None = None
    thickness: float | None = None
    step: float | None = None
    syntax: str = ""
    bits: int = 0
    refers: tuple[str, ...] = ()

    def __getitem__(self, keyword: str) -> str:
        return self.texts[PLACES[keyword]] if self.texts else ""

    @property
    def object_name(self) -> str:
        """The SOP class in words."""
        uid = UID(self["SOPClassUID"])
        return uid.name if uid else "an object without SOPClassUID"


def scan(paths: Sequence[Path], folder: Path, *, workers: int = 0, progress: Progress = None) -> Iterator[Header]:
    """The headers of files, and of the members of zip archives among them, in the given order.

    workers: processes beside this one, used for many files only; 0 reads here.
    """
    done = 0
    read = partial(scan_file, folder=str(folder))
    names = [str(path) for path in paths]
    if workers > 0 and len(names) >= PARALLEL_FROM:
        # Spawned, not forked: the caller may run threads of torch, and a fork of those can hang.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, mp_context=context) as pool:
            try:
                for headers in pool.map(read, names, chunksize=64):
                    done += 1
                    yield from _told(headers, done, len(names), progress)
            except BrokenProcessPool:
                pass  # no worker can start, or the system killed one for memory: the rest is read here
    for name in names[done:]:
        done += 1
        yield from _told(read(name), done, len(names), progress)


def _told(headers: list[Header], done: int, total: int, progress: Progress) -> list[Header]:
    """The headers, with one copy in memory of texts that many share, after telling how far the scan is."""
    if progress is not None and (done % 50 == 0 or done == total):
        progress(done, total)
    return [replace(header, texts=tuple(map(sys.intern, header.texts))) for header in headers]


def scan_file(path: str, folder: str) -> list[Header]:
    """The header of a file, or those of the members of a zip archive."""
    reference = Path(path).relative_to(folder).as_posix()
    try:
        item = file_item(path)
        if path.lower().endswith(".zip") and item.read(4) == b"PK\x03\x04":
            members = zip_items(path)
            return [scan_item(member, reference + member.name[len(path) :]) for member in members]
        return [scan_item(item, reference)]
    except (DataError, MachineError) as error:
        return [Header(reference, UNREADABLE, str(error))]
    except Exception as error:  # one hostile file does not end the scan of all
        return [Header(reference, UNREADABLE, type(error).__name__)]


def scan_item(item: Item, reference: str) -> Header:
    """The header of one file or member of an archive; nothing that is wrong with it raises."""
    try:
        data = item.read(min(LOOK_BYTES, item.size))
        if not data:
            return Header(reference, EMPTY)
        kind = kind_of_bytes(data[:HEAD_BYTES])
        if kind != "dicom":
            return Header(reference, NO_DICOM)
        with faults_of(item.name, "DICOM"):
            found = _quick(data, item.size, reference)
            return _header(_dataset(item, data), reference) if found is None else found
    except (DataError, MachineError) as error:
        return Header(reference, UNREADABLE, str(error))
    except RecursionError:
        return Header(reference, UNREADABLE, "its sequences are nested too deeply")
    except Exception as error:
        return Header(reference, UNREADABLE, type(error).__name__)


def _quick(data: bytes, size: int, reference: str) -> Header | None:
    """The same as ``_header`` by a walk that converts nothing else; None for what is left to pydicom."""
    walked = read_header(data, size=size)
    encoding = PLAIN_SETS.get(walked.text(CHARACTER_SET)) if walked is not None else None
    if walked is None or not walked.is_whole or encoding is None or ROWS not in walked.elements:
        return None
    if REFERRED_SERIES in walked.elements:  # of a SEG; sequences are left to pydicom
        return None
    try:
        texts = [walked.doubles(tag) if tag in DOUBLES else _clean(walked.raw(tag).decode(encoding)) for tag in TAGS]
    except UnicodeDecodeError:
        return None

    texts[0] = texts[0] or walked.text(MEDIA_CLASS)

    def numbers(tag: int) -> tuple[float, ...] | None:
        return _numbers(walked.text(tag).split("\\")) if walked.raw(tag) else None

    return Header(
        reference,
        texts=tuple(texts),
        image_type=tuple(part.strip() for part in walked.text(IMAGE_TYPE).split("\\"))
        if walked.raw(IMAGE_TYPE)
        else (),
        shape=(walked.short(ROWS) or 0, walked.short(COLUMNS) or 0),
        position=numbers(POSITION),
        orientation=numbers(ORIENTATION),
        spacing=numbers(SPACING),
        thickness=_number(walked.text(THICKNESS)),
        step=_number(walked.text(STEP)),
        syntax=walked.syntax,
        bits=walked.short(BITS_STORED) or 0,
    )


def _dataset(item: Item, data: bytes) -> Dataset:
    """The wanted elements of a file whose first bytes are ``data``, by pydicom."""
    data = item.read() if len(data) < item.size else data
    return open_dataset(data, item.name, stop_before_pixels=True, specific_tags=[*TEXTS, *OTHERS])


def _header(ds: Dataset, reference: str) -> Header:
    texts = (_clean(sop_class(ds)), *(_text(ds.get(name)) for name in TEXTS[1:]))
    return Header(
        reference,
        texts=texts,
        image_type=tuple(str(value).strip() for value in _several(ds.get("ImageType"))),
        shape=(int(ds.get("Rows") or 0), int(ds.get("Columns") or 0)),
        position=_numbers(ds.get("ImagePositionPatient")),
        orientation=_numbers(ds.get("ImageOrientationPatient")),
        spacing=_numbers(ds.get("PixelSpacing")),
        thickness=_number(ds.get("SliceThickness")),
        step=_number(ds.get("SpacingBetweenSlices")),
        syntax=str(getattr(ds, "file_meta", {}).get("TransferSyntaxUID") or ""),
        bits=int(ds.get("BitsStored") or 0),
        refers=tuple(dict.fromkeys(_referred_series(ds))),
    )


def _referred_series(ds: Dataset) -> Iterator[str]:
    """SeriesInstanceUIDs named by a SEG (PS3.3 C.12.2.3) or RTSTRUCT (PS3.3 C.8.8.5)."""
    for series in ds.get("ReferencedSeriesSequence") or ():
        yield str(series.get("SeriesInstanceUID") or "")
    for frame in ds.get("ReferencedFrameOfReferenceSequence") or ():
        for study in frame.get("RTReferencedStudySequence") or ():
            for series in study.get("RTReferencedSeriesSequence") or ():
                yield str(series.get("SeriesInstanceUID") or "")


def _text(value: Any) -> str:
    if isinstance(value, MultiValue):
        return _clean("\\".join(str(part) for part in value))
    return "" if value is None else _clean(str(value))


def _clean(text: str) -> str:
    return " ".join(text.replace("\0", " ").split())


def _several(value: Any) -> Sequence[Any]:
    if value is None or value == "":
        return ()
    return [value] if isinstance(value, str) else list(value)


def _numbers(value: Any) -> tuple[float, ...] | None:
    try:
        return tuple(float(number) for number in value) or None
    except (TypeError, ValueError):
        return None


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def worker_count() -> int:
    """Processes for a scan: one per core that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
