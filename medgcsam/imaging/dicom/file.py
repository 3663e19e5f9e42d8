"""The bytes of one DICOM object: opened safely, and its pixels as stored. What they mean is said elsewhere."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import generate_frames
from pydicom.pixels import pixel_array
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from medgcsam.errors import DataError
from medgcsam.imaging.dicom.codestream import frame_size, has_holes, is_subsampled, sample_bits
from medgcsam.imaging.dicom.decoding import decode
from medgcsam.imaging.dicom.header import DEFLATED, MAX_ITEMS, most_items, read_meta
from medgcsam.imaging.faults import MAX_VOXELS, check_size, faults_of

JPEG_BASELINE, JPEG_EXTENDED = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51"
JPEG_ENDED = {f"1.2.840.10008.1.2.4.{n}" for n in (50, 51, 57, 70, 80, 81, 90, 91)}
ITEMS = (b"\xfe\xff\x00\xe0", b"\xff\xfe\xe0\x00")
"""The tag of an item, little and big endian."""
MAX_INFLATED = 2**31
NOT_IMAGES = ("Surface", "Parametric Map", "Dose", "Real World", "Presentation State", "Spectroscopy")
"""Words in the names of SOP classes whose objects are no images to learn from; and of those that are labels."""
LABELS = ("Segmentation", "RT Structure Set")
MONOCHROME = ("MONOCHROME1", "MONOCHROME2")
SAMPLES = {"MONOCHROME1": 1, "MONOCHROME2": 1, "PALETTE COLOR": 1, "RGB": 3, "YBR_FULL": 3, "YBR_FULL_422": 3}
UID_FORM = re.compile(r"[0-9.]{1,64}")
REQUIRED = ("Rows", "Columns", "BitsAllocated", "BitsStored", "PixelRepresentation", "PhotometricInterpretation")


def open_dataset(
    data: bytes | str | Path,
    where: str,
    *,
    stop_before_pixels: bool = False,
    specific_tags: Sequence[str] | None = None,
) -> Dataset:
    """Parse a DICOM object, with or without preamble; its file meta information is completed.

    Elements are converted on access and may be damaged anywhere, so that access too belongs into
    ``faults.faults_of``. specific_tags: the keywords to read, or None for all. Raises DataError for what cannot be
    parsed, sequences nested too deeply or with too many items to be parsed, and deflated objects that inflate beyond
    MAX_INFLATED bytes.
    """
    try:
        if not isinstance(data, bytes):
            data = Path(data).read_bytes()
    except OSError as error:
        raise DataError(f"{where} cannot be opened ({error.strerror or error}); correct the path.") from error
    with faults_of(where, "DICOM"):
        start, syntax, _ = read_meta(data)
        if start < 0 and DEFLATED.encode() in data:  # pydicom may see more in a damaged group than is seen here
            raise DataError(f"{where} is a damaged DICOM file (its file meta information); export it again.")
        if syntax == DEFLATED:
            _check_inflated(data, start, where)
        _check_items(_items(data), len(data), where)
        tags = None if specific_tags is None else list(specific_tags)
        try:
            ds = dcmread(BytesIO(data), force=True, stop_before_pixels=stop_before_pixels, specific_tags=tags)
        except RecursionError as error:
            raise DataError(f"{where} has sequences nested too deeply to be sound; leave it out.") from error
        _complete_meta(ds)
        if not UID_FORM.fullmatch(str(ds.file_meta.TransferSyntaxUID)):
            raise DataError(f"{where} is a damaged DICOM file (its transfer syntax is no UID); export it again.")
        return ds


def sop_class(ds: Dataset) -> str:
    """SOP class UID of an object, "" where it has none, or one so damaged that it could hold anything else."""
    found = str(ds.get("SOPClassUID") or ds.file_meta.get("MediaStorageSOPClassUID") or "")
    return found if UID_FORM.fullmatch(found) else ""


def stored_pixels(ds: Dataset, where: str) -> np.ndarray:
    """Stored values ((frames,) rows, columns), or colours ((frames,) rows, columns, 3), as decoded by pydicom.

    YBR is converted to RGB by pydicom; palettes stay indices. The frames axis is there where NumberOfFrames is over 1.
    Raises DataError for absurd sizes (before anything is decoded), missing elements, bits that are not the lowest of
    their word, truncated streams, frames of another size than stated, and transfer syntaxes without a decoder.
    """
    _check_described(ds, where)
    syntax = ds.file_meta.TransferSyntaxUID
    with faults_of(where, "DICOM"):
        if syntax.is_encapsulated:
            _check_frames(ds, where)
        try:
            array = decode(ds) if syntax.is_encapsulated else pixel_array(ds)
        except NotImplementedError as error:
            raise DataError(
                f"{where} uses the transfer syntax {syntax.name}, and no decoder for it is installed; "
                "ask the archive to send it uncompressed."
            ) from error
    frames = frame_count(ds)
    expected = (frames, ds.Rows, ds.Columns) if frames > 1 else (ds.Rows, ds.Columns)
    if array.shape[: len(expected)] != expected:
        raise DataError(f"{where} says {expected} pixels and holds {array.shape}; export it again.")
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def frame_count(ds: Dataset) -> int:
    """NumberOfFrames, 1 where it is absent, empty or 0."""
    return int(ds.get("NumberOfFrames") or 1)


def _complete_meta(ds: Dataset) -> None:
    """A data set without file meta information names its transfer syntax by its encoding only."""
    if getattr(ds, "file_meta", None) is None:
        ds.file_meta = FileMetaDataset()
    if not ds.file_meta.get("TransferSyntaxUID"):
        implicit, little = ds.original_encoding
        plain = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
        ds.file_meta.TransferSyntaxUID = plain if little else ExplicitVRBigEndian


def _items(data: bytes) -> int:
    """How many tags of items there are; 0 where there is no room for many."""
    return max(data.count(tag) for tag in ITEMS) if len(data) > 8 * MAX_ITEMS else 0


def _check_items(items: int, size: int, where: str) -> None:
    if items > most_items(size):
        raise DataError(f"{where} has {items:,} items or fragments in {size:,} bytes, a bomb; leave it out.")


def _check_inflated(data: bytes, start: int, where: str) -> None:
    """Inflate a deflated data set (PS3.5 A.5) piece by piece and throw it away, to know its size beforehand."""
    engine, size, items = zlib.decompressobj(-zlib.MAX_WBITS), 0, 0
    for at in range(start, len(data), 2**20):
        rest = data[at : at + 2**20]
        while rest and not engine.eof:
            part = engine.decompress(rest, 2**20)
            size, items = size + len(part), items + part.count(ITEMS[0])
            rest = engine.unconsumed_tail
            if size > MAX_INFLATED:
                raise DataError(f"{where} inflates to over {MAX_INFLATED:,} bytes, a decompression bomb; leave it out.")
    if not engine.eof:
        raise DataError(f"{where} is a truncated DICOM file (its deflated data end too early); export it again.")
    _check_items(items, size, where)


def _check_described(ds: Dataset, where: str) -> None:
    """All that a decoder needs is said, and is sane."""
    with faults_of(where, "DICOM"):
        name = UID(sop_class(ds)).name or "DICOM"
        if "PixelData" not in ds:
            raise DataError(
                f"{where} has no pixels ({name}), or was cut off before them; leave it out or export it again."
            )
        missing = [keyword for keyword in REQUIRED if ds.get(keyword) in (None, "")]
        if missing:
            raise DataError(f"{where} is a DICOM file that does not say its {missing[0]}; export it again.")
        rows, columns, frames = int(ds.Rows), int(ds.Columns), frame_count(ds)
        check_size((rows, columns), where)
        samples, photometric = int(ds.get("SamplesPerPixel") or 1), str(ds.PhotometricInterpretation).strip()
        check_size((frames, rows, columns, samples), where, limit=MAX_VOXELS)
        if samples != SAMPLES.get(photometric, samples):
            raise DataError(f"{where} is {photometric} and says it has {samples} samples per pixel; export it again.")
        stored, high = int(ds.BitsStored), int(ds.get("HighBit", int(ds.BitsStored) - 1))
        if high != stored - 1:
            raise DataError(f"{where} has its {stored} bits up to bit {high}, which is not read; export it again.")
        if ds.file_meta.TransferSyntaxUID == JPEG_EXTENDED and stored > 8:
            raise DataError(
                f"{where} is compressed as 12-bit JPEG Extended (Process 2 and 4), and no decoder for it is "
                "installed; ask the archive to send it as JPEG Lossless or uncompressed."
            )


def _check_frames(ds: Dataset, where: str) -> None:
    """Compressed frames end properly, and have the size that the header says; decoders believe the stream alone."""
    syntax, frames = ds.file_meta.TransferSyntaxUID, frame_count(ds)
    if syntax not in JPEG_ENDED:
        return
    if not _ends_properly(ds.PixelData):
        raise DataError(f"{where} is a truncated DICOM file (its compressed pixels end too early); export it again.")
    for frame in generate_frames(ds.PixelData, number_of_frames=frames):
        found = frame_size(frame)
        if found is not None and found != (int(ds.Rows), int(ds.Columns)):
            raise DataError(
                f"{where} says {ds.Rows}x{ds.Columns} pixels and holds {found[0]}x{found[1]}; export it again."
            )
        if has_holes(frame):
            raise DataError(
                f"{where} is a damaged DICOM file (the parts of its JPEG 2000 stream do not fit together); "
                "export it again."
            )
        bits, lossy = sample_bits(frame), syntax in (JPEG_BASELINE, JPEG_EXTENDED)
        if is_subsampled(frame) or (bits is not None and (bits > ds.BitsAllocated or (lossy and bits != 8))):
            raise DataError(
                f"{where} is a damaged DICOM file (its compressed pixels state another kind of samples than its "
                "header); export it again."
            )


def _ends_properly(encapsulated: bytes) -> bool:
    """JPEG, JPEG-LS and JPEG 2000 streams end with FF D9; decoders fill what is cut off with gray or zeros."""
    return b"\xff\xd9" in encapsulated[-8:]  # behind it only padding to an even length, by 00 or FF
