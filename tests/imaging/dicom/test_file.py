"""The bytes of a DICOM object: bombs, nesting, frames that lie about their size, and the pixels as pydicom has them."""

from __future__ import annotations

import io
import zlib

import numpy as np
import pydicom
import pytest
from PIL import Image as Pillow
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEGBaseline8Bit

from medgcsam.errors import DataError
from medgcsam.imaging.dicom.codestream import frame_size
from medgcsam.imaging.dicom.file import JPEG_ENDED, JPEG_EXTENDED, frame_count, open_dataset, stored_pixels


def jpeg(rows: int, columns: int) -> bytes:
    stream = io.BytesIO()
    Pillow.fromarray(np.zeros((rows, columns), np.uint8)).save(stream, format="jpeg")
    return stream.getvalue()


def test_a_path_and_its_bytes_are_one_object(write_dicom):
    path = write_dicom(np.arange(20, dtype=np.uint16).reshape(4, 5))
    for source in (path, str(path), path.read_bytes()):
        assert np.array_equal(stored_pixels(open_dataset(source, "x"), "x"), np.arange(20).reshape(4, 5))
    assert "PixelData" not in open_dataset(path, "x", stop_before_pixels=True)
    with pytest.raises(DataError, match="cannot be opened"):
        open_dataset(path.parent / "absent", "absent")


@pytest.mark.parametrize("frames", [1, 3])
def test_frames_come_first(write_dicom, frames):
    pixels = np.arange(60, dtype=np.uint8).reshape(3, 4, 5)[:frames]
    path = write_dicom(pixels[0], NumberOfFrames=frames)
    ds = pydicom.dcmread(path)
    ds.PixelData = pixels.tobytes()
    assert frame_count(ds) == frames
    assert stored_pixels(ds, "x").shape == ((3, 4, 5) if frames == 3 else (4, 5))
    ds.PixelData = pixels.tobytes()[:-6]
    with pytest.raises(DataError, match="damaged"):
        stored_pixels(ds, "x")


def test_a_deflated_object_is_read_and_a_deflated_bomb_is_not(write_dicom, tmp_path, monkeypatch):
    path = write_dicom(np.arange(20, dtype=np.uint16).reshape(4, 5))
    ds = pydicom.dcmread(path)
    ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    ds.save_as(path)
    assert np.array_equal(stored_pixels(open_dataset(path, "x"), "x"), np.arange(20).reshape(4, 5))
    data = path.read_bytes()
    start = 144 + int.from_bytes(data[140:144], "little")
    engine = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    bomb = data[:start] + engine.compress(bytes(2**24)) + engine.flush()
    monkeypatch.setattr("medgcsam.imaging.dicom.file.MAX_INFLATED", 2**22)
    monkeypatch.setattr("medgcsam.imaging.dicom.file.dcmread", lambda *a, **k: pytest.fail("it was inflated"))
    with pytest.raises(DataError, match="a decompression bomb"):
        open_dataset(bomb, "x")


@pytest.mark.parametrize("explicit_length", [True, False])
def test_sequences_nested_without_end_are_refused(write_dicom, explicit_length):
    data = write_dicom(np.ones((4, 5), np.uint16)).read_bytes()
    at, nest = data.index(b"\x28\0\x02\0US"), b""
    if explicit_length:
        for _ in range(3000):
            nest = b"\xfe\xff\x00\xe0" + (len(nest)).to_bytes(4, "little") + nest
            nest = b"\x10\0\x02\x10SQ\0\0" + (len(nest)).to_bytes(4, "little") + nest
    else:
        nest = (b"\x10\0\x02\x10SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff") * 3000
    hostile = data[:at] + nest + data[at:]
    if explicit_length:  # never looked into
        assert stored_pixels(open_dataset(hostile, "x"), "x").shape == (4, 5)
    else:
        with pytest.raises(DataError, match="nested too deeply"):
            open_dataset(hostile, "x")


@pytest.mark.parametrize(
    ("elements", "message"),
    [
        ({"Rows": 60000, "Columns": 60000}, "over the limit"),
        ({"NumberOfFrames": 2**31 - 1}, "over the limit"),
        ({"Rows": 0}, "which is empty"),
        ({"BitsStored": None}, "does not say its BitsStored"),
        ({"HighBit": 15, "BitsStored": 12}, "12 bits up to bit 15"),
        ({"Rows": 5}, "damaged"),
    ],
)
def test_what_cannot_be_is_refused_before_it_is_decoded(write_dicom, elements, message):
    ds = pydicom.dcmread(write_dicom(np.ones((4, 5), np.uint16)))
    for keyword, value in elements.items():
        setattr(ds, keyword, value)
    with pytest.raises(DataError, match=message):
        stored_pixels(ds, "x")


def compressed(write_dicom, frames: list[bytes]) -> Dataset:
    ds = pydicom.dcmread(write_dicom(np.zeros((16, 24), np.uint8), NumberOfFrames=len(frames)))
    ds.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    ds.PixelData = encapsulate(frames)
    ds["PixelData"].is_undefined_length = True
    return ds


def test_a_compressed_frame_of_another_size_than_stated_is_refused(write_dicom):
    assert stored_pixels(compressed(write_dicom, [jpeg(16, 24)]), "x").shape == (16, 24)
    for frames in ([jpeg(24, 16)], [jpeg(2000, 2000)], [jpeg(16, 24), jpeg(16, 8)]):
        with pytest.raises(DataError, match=r"says 16x24 pixels and holds"):
            stored_pixels(compressed(write_dicom, frames), "x")
    with pytest.raises(DataError, match="end too early"):
        stored_pixels(compressed(write_dicom, [jpeg(16, 24)[:-200]]), "x")


def test_the_size_in_a_stream_is_that_of_the_picture_in_it():
    assert frame_size(jpeg(16, 24)) == (16, 24)
    stream = io.BytesIO()
    Pillow.fromarray(np.zeros((33, 21), np.uint8)).save(stream, format="jpeg2000")  # in the boxes of a JP2 file
    assert frame_size(stream.getvalue()) == (33, 21)
    assert frame_size(b"") is None
    assert frame_size(b"\xff\xd8\xff") is None
    assert frame_size(jpeg(16, 24)[:30]) is None
    assert frame_size(b"\xff\xd8" + b"\xff" * 5000) is None


def test_the_size_in_real_streams_is_that_of_the_picture_that_pydicom_decodes(shared_data):
    seen = 0
    for file in sorted((shared_data / "dicom_variety" / "WG04").rglob("*")):
        if not file.is_file() or file.read_bytes()[128:132] != b"DICM":
            continue
        ds = open_dataset(file, file.name)
        if str(ds.file_meta.TransferSyntaxUID) in JPEG_ENDED - {JPEG_EXTENDED} and int(ds.Rows) * int(ds.Columns) < 4e5:
            frame = next(pydicom.encaps.generate_frames(ds.PixelData, number_of_frames=1))
            assert frame_size(frame) == ds.pixel_array.shape[:2], file.name
            seen += 1
    assert seen >= 5


def test_an_object_without_meta_information_names_its_encoding(write_dicom):
    path = write_dicom(np.ones((4, 5), np.uint16), preamble=False)
    ds = open_dataset(path.read_bytes(), "x")
    assert ds.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2"
    nested = Dataset()
    nested.CodeValue = "1"
    assert open_dataset(write_dicom(np.ones((4, 5), np.uint16), ConceptCodeSequence=Sequence([nested])), "x")
