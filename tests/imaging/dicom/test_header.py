"""The quick look at a header sees what pydicom sees, or sees nothing."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.data import get_testdata_file
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from medgcsam.imaging.dicom.header import OPEN_SEQUENCE, PIXEL_DATA, UNDEFINED, read_header

PLAIN = ("CT_small.dcm", "MR_small.dcm", "MR_small_implicit.dcm", "JPEG2000.dcm", "examples_palette.dcm")


def check_against_pydicom(data: bytes, where: str) -> bool:
    """Whether there is a header; if so, every element of it is byte for byte that of pydicom."""
    header = read_header(data)
    if header is None:
        return False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ds = pydicom.dcmread(io.BytesIO(data), force=True)
    expected = {int(tag): ds.get_item(tag) for tag in ds.keys()}  # noqa: SIM118, as iterating converts
    found = {tag: element for tag, element in header.elements.items() if tag >> 16 != 2}
    assert set(found) == {tag for tag in expected if tag <= PIXEL_DATA}, where
    for tag, (vr, _, length) in found.items():
        element = expected[tag]
        if isinstance(element, RawDataElement) and UNDEFINED not in (length, element.length):
            assert header.raw(tag) == (element.value or b""), (where, hex(tag))
        elif vr != OPEN_SEQUENCE and length:
            assert tag in (PIXEL_DATA, 0x00080005), (where, hex(tag))
    assert header.syntax == str(ds.file_meta.TransferSyntaxUID)
    return True


def test_every_element_of_real_files_is_what_pydicom_reads(shared_data):
    files = sorted((shared_data / "dicom_variety").rglob("*")) + sorted((shared_data / "dicom_series").rglob("*.dcm"))
    files = [file for file in files if file.is_file() and "too_short" not in file.name]
    data = {file: head for file in files if (head := file.read_bytes())[128:132] == b"DICM"}
    seen = sum(check_against_pydicom(content, str(file)) for file, content in data.items())
    assert seen > 0.9 * len(data) > 50


@pytest.mark.parametrize("name", PLAIN)
def test_the_first_bytes_say_the_same_as_all(name):
    path = get_testdata_file(name, download=False)
    if path is None:
        pytest.skip(f"pydicom came without {name}")
    data = Path(path).read_bytes()
    whole = read_header(data)
    assert whole.is_whole
    pixels = whole.elements[PIXEL_DATA][1]
    for length in (132, 300, pixels // 2, pixels, pixels + 10):
        part = read_header(data[:length], size=len(data))
        if part is not None:
            assert part.elements.items() <= whole.elements.items()
            assert part.is_whole == (length >= pixels)
    assert read_header(data[:pixels], size=len(data)).is_whole


@pytest.mark.parametrize("implicit", [True, False])
def test_nested_sequences_of_any_length_encoding_are_stepped_over(write_dicom, implicit):
    inner = Dataset()
    inner.CodeValue, inner.CodeMeaning = "1", "x" * 40
    item = Dataset()
    item.add_new(0x00400100, "SQ", Sequence([inner, inner]))
    item.is_undefined_length_sequence_item = True
    item[0x00400100].is_undefined_length = True
    path = write_dicom(np.ones((4, 5), np.uint16), ConceptNameCodeSequence=Sequence([item, Dataset(), item]))
    ds = pydicom.dcmread(path)
    ds["ConceptNameCodeSequence"].is_undefined_length = True
    stream = io.BytesIO()
    ds.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian if implicit else ds.file_meta.TransferSyntaxUID
    pydicom.dcmwrite(stream, ds, implicit_vr=implicit, little_endian=True, enforce_file_format=True)
    header = read_header(stream.getvalue())
    assert header.elements[0x0040A043][0] == OPEN_SEQUENCE
    assert header.short(0x00280010) == 4
    assert header.text(0x00280004) == "MONOCHROME2"
    assert header.elements[PIXEL_DATA][2] == 40
    assert check_against_pydicom(stream.getvalue(), "nested")


def test_what_is_unusual_is_left_to_pydicom(write_dicom):
    data = write_dicom(np.ones((4, 5), np.uint16), ImageComments="comment").read_bytes()
    assert read_header(data) is not None
    at = data.index(b"\x28\0\x10\0US")
    for changed in (
        data[128:],  # no preamble
        data.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.2\0"),  # big endian
        data[: at + 4] + b"QQ" + data[at + 6 :],  # a VR that there is not
        data[: at + 6] + b"\xff\x7f" + data[at + 8 :],  # a value beyond the end
        data[:at] + data[at : at + 10] * 2 + data[at + 10 :],  # an element twice
        data[:-1],  # cut off
        data[: at + 5],
    ):
        assert read_header(changed) is None


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damage_never_raises_and_never_shows_an_element_that_pydicom_does_not_see(draw):
    data = bytearray(Path(get_testdata_file("MR_small.dcm", download=False)).read_bytes()[:2000])
    for _ in range(draw.draw(st.integers(1, 4))):
        at = draw.draw(st.integers(132, len(data) - 1))
        data[at] = draw.draw(st.integers(0, 255))
    header = read_header(bytes(data), size=len(data) + draw.draw(st.sampled_from([0, 10_000])))
    if header is None:
        return
    for tag in header.elements:
        assert isinstance(header.text(tag), str)
        assert header.elements[tag][1] + len(header.raw(tag)) <= len(data)
