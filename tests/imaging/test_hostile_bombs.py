"""Small files that promise or unpack to absurd sizes, and damaged label objects."""

from __future__ import annotations

import gzip
import io
import logging
import os
import struct
import time
import tracemalloc
import warnings
import zipfile
import zlib
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian

from medgcsam.errors import DataError
from medgcsam.imaging import read_image, read_label
from medgcsam.imaging.image import Image, Reference

EXAMPLES = int(os.environ.get("MEDGCSAM_HOSTILE", "0"))
HOSTILE = settings(
    max_examples=EXAMPLES or 40, derandomize=not EXAMPLES, deadline=None, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
FRAME = "1.2.3.4"
LIKE = Image(
    array=np.zeros((1, 20, 20, 5), np.float32), unit="HU", affine=np.diag([-1.0, -1.0, 3.0, 1.0]),
    spacing=(1.0, 1.0, 3.0), reference=Reference(series_uid="1.2.3.5", frame_of_reference_uid=FRAME),
)  # fmt: skip


def _png(width: int, height: int) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress(bytes(2**24))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def _patched(data: bytes, *changes: tuple[int, bytes]) -> bytes:
    result = bytearray(data)
    for at, value in changes:
        result[at : at + len(value)] = value
    return bytes(result)


def _saved(kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    Pillow.fromarray(np.zeros((16, 16), np.uint8)).save(stream, format=kind, **options)
    return stream.getvalue()


def _jpeg() -> bytes:
    data = _saved("jpeg")
    return _patched(data, (data.index(b"\xff\xc0") + 5, b"\xff\xff\xff\xff"))


def _tiff() -> bytes:
    data = _saved("tiff")
    at = data.index(struct.pack("<HHI", 256, 4, 1)) + 8  # ImageWidth, then ImageLength
    return _patched(data, (at, struct.pack("<I", 2**31 - 1)), (at + 12, struct.pack("<I", 2**31 - 1)))


def _nifti(*shape: int) -> bytes:
    data = nibabel.Nifti1Image(np.zeros((2, 2, 2), np.float64), np.eye(4)).to_bytes()
    return _patched(data, (40, struct.pack("<8h", 3, *shape, 1, 1, 1, 1)))


def _npz(array_header: str, body: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        head = array_header.encode() + b"\n"
        archive.writestr("train_images.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + body)
    return stream.getvalue()


def _dicom(rows: int, columns: int, *, frames: int = 1, bits: int = 16, syntax: str = ExplicitVRLittleEndian) -> bytes:
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.7", "1.2.3"
    ds.Rows, ds.Columns, ds.NumberOfFrames, ds.SamplesPerPixel = rows, columns, frames, 1
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = bits, bits, bits - 1, 0
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.PixelData = bytes(64) if syntax == ExplicitVRLittleEndian else encapsulate([bytes(64)] * min(frames, 3))
    ds["PixelData"].VR = "OB" if syntax != ExplicitVRLittleEndian else "OW"
    ds["PixelData"].is_undefined_length = syntax != ExplicitVRLittleEndian
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = syntax
    stream = io.BytesIO()
    ds.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


RLE, JPEG_2000 = "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.90"
BOMBS = {
    "png of 60000 x 60000": lambda: _png(60_000, 60_000),
    "jpeg of 65535 x 65535": _jpeg,
    "tiff of 2^31 x 2^31": _tiff,
    "nifti of 32767^3": lambda: _nifti(32767, 32767, 32767),
    "nifti of 1024^3 with 64 bytes": lambda: _nifti(1024, 1024, 1024),
    "gzipped nifti that unpacks to 256 MB": lambda: gzip.compress(_nifti(2, 2, 2) + bytes(2**28), 1),
    "npz of 10^12": lambda: _npz("{'descr': '|u1', 'fortran_order': False, 'shape': (1000, 100000, 10000), }", b""),
    "npz of negative size": lambda: _npz("{'descr': '|u1', 'fortran_order': False, 'shape': (-1, 2, 2), }", b"1234"),
    "npz of objects": lambda: _npz("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", b"cos\nsystem\n."),
    "npz with a program": lambda: _npz("__import__('os').abort()", b""),
    "npz whose header nests": lambda: _npz("{'descr': " + "(" * 4000 + ")" * 4000 + "}", b""),
    "dicom of 65535 x 65535": lambda: _dicom(65535, 65535),
    "dicom of 12000 x 12000 with 64 bytes": lambda: _dicom(12_000, 12_000),
    "dicom of 2^31 frames": lambda: _dicom(64, 64, frames=2**31 - 1),
    "dicom of 64 bits": lambda: _dicom(64, 64, bits=64),
    "rle of 12000 x 12000 with 64 bytes": lambda: _dicom(12_000, 12_000, syntax=RLE),
    "rle of 10000 frames with 3": lambda: _dicom(64, 64, frames=10_000, syntax=RLE),
    "jpeg 2000 of 12000 x 12000 with 64 bytes": lambda: _dicom(12_000, 12_000, syntax=JPEG_2000),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_a_bomb_is_refused_soon_and_in_little_memory(tmp_path, kind):
    path = tmp_path / "bomb"
    path.write_bytes(BOMBS[kind]())
    tracemalloc.start()
    start = time.monotonic()
    try:
        with pytest.raises(DataError, match="bomb"):
            read_image(f"{path}#train/0" if "npz" in kind else path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert time.monotonic() - start < 10
    assert peak < 100 * 2**20


def _structure_set() -> Dataset:
    ds, study, series, referenced, region, drawn, contour = (Dataset() for _ in range(7))
    ds.SOPClassUID, ds.SOPInstanceUID, ds.Modality = "1.2.840.10008.5.1.4.1.1.481.3", "1.2.9", "RTSTRUCT"
    series.SeriesInstanceUID, study.RTReferencedSeriesSequence = "1.2.3.5", [series]
    referenced.FrameOfReferenceUID, referenced.RTReferencedStudySequence = FRAME, [study]
    ds.ReferencedFrameOfReferenceSequence = [referenced]
    region.ROINumber, region.ROIName, region.ReferencedFrameOfReferenceUID = 1, "GTV", FRAME
    contour.ContourGeometricType, contour.NumberOfContourPoints = "CLOSED_PLANAR", 4
    contour.ContourData = ["4", "4", "6", "12", "4", "6", "12", "12", "6", "4", "12", "6"]
    drawn.ReferencedROINumber, drawn.ContourSequence = 1, [contour]
    ds.StructureSetROISequence, ds.ROIContourSequence = [region], [drawn]
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return ds


def _bytes(ds: Dataset) -> bytes:
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ds.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def _read_label(data: bytes, path: Path, like: Image = LIKE) -> Image | None:
    """The label, or None where it was refused as it should be. Anything else fails the test."""
    path.write_bytes(data)
    logging.disable(logging.CRITICAL)
    start = time.monotonic()
    try:
        label, text = read_label(path, like), ""
    except DataError as error:
        label, text = None, str(error)
    finally:
        logging.disable(logging.NOTSET)
    assert time.monotonic() - start < 20
    if label is None:
        assert path.name in text
        return None
    assert label.array.shape == (1, *like.spatial_shape)
    assert label.array.dtype == np.int16
    return label


POINTS = ["1e300", "nan", "inf", "-1e9", "6.5", "1e5"]


@HOSTILE
@given(
    st.lists(st.tuples(st.integers(0, 11), st.sampled_from(POINTS)), max_size=3),
    st.sampled_from([0, 3, 4, 5, 2**31 - 1, -1]),
    st.sampled_from(["CLOSED_PLANAR", "OPEN_PLANAR", "POINT", "", "CLOSEDPLANAR_XOR"]),
    st.sampled_from(range(0, 13)),
)
def test_odd_contours_are_drawn_or_refused(tmp_path_factory, changes, count, kind, kept):
    ds = _structure_set()
    contour = ds.ROIContourSequence[0].ContourSequence[0]
    points = list(contour.ContourData)
    for at, text in changes:
        points[at] = text
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        contour["ContourData"] = pydicom.DataElement("ContourData", "DS", points[:kept], validation_mode=0)
        contour.NumberOfContourPoints = count
        contour["ContourGeometricType"] = pydicom.DataElement("ContourGeometricType", "CS", kind, validation_mode=0)
        label = _read_label(_bytes(ds), tmp_path_factory.getbasetemp() / "odd.dcm")
    if label is not None and not changes and kept == 12:
        drawn = kind in ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")
        assert drawn != ("structures_without_area" in label.source)
        assert count == 4 or not drawn
        assert set(np.argwhere(label.array[0])[:, 2]) == ({2} if drawn else set())


@pytest.mark.parametrize("what", ["contours", "segments"])
def test_damaged_labels_are_read_or_refused(tmp_path, what):
    like, data = LIKE, _bytes(_structure_set())
    if what == "segments":
        ds = pydicom.dcmread(get_testdata_file("liver_1frame.dcm", download=False))
        data = _bytes(ds)
        at = ds.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence[0].ImagePositionPatient
        affine = np.diag([-1.0, -1.0, 1.0, 1.0])
        affine[:3, 3] = [-float(at[0]), -float(at[1]), float(at[2])]
        like = Image(
            array=np.zeros((1, 512, 512, 1), np.float32), unit="HU", affine=affine, spacing=(1.0, 1.0, 1.0),
            reference=Reference(frame_of_reference_uid=str(ds.FrameOfReferenceUID)),
        )  # fmt: skip

    @settings(HOSTILE, max_examples=EXAMPLES or 30)
    @given(st.lists(st.tuples(st.integers(130, len(data) - 1), st.binary(min_size=1, max_size=4)), max_size=4))
    def hold(changes):
        _read_label(_patched(data, *changes), tmp_path / "damaged.dcm", like)

    hold()
