from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.pixels import pixel_array

from medgcsam.errors import DataError
from medgcsam.imaging import read_image
from medgcsam.imaging.dicom import decoding
from medgcsam.imaging.dicom.decoding import DecodingFailed, decode

SMALL = {
    "RLE": "SC_rgb_rle_16bit_2frame.dcm",
    "JPEG": "SC_rgb_jpeg_dcmtk.dcm",
    "JPEG lossless": "SC_rgb_jpeg_gdcm.dcm",
    "JPEG-LS": "MR_small_jpeg_ls_lossless.dcm",
    "JPEG 2000": "MR_small_jp2klossless.dcm",
}


def _read(name):
    return pydicom.dcmread(get_testdata_file(name, download=False))


@pytest.mark.parametrize("name", SMALL.values(), ids=SMALL)
def test_the_pixels_are_those_of_pydicom_in_one_process(name):
    expected, found = pixel_array(_read(name)), decode(_read(name))
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


def test_one_frame_of_several():
    ds = _read("SC_rgb_rle_16bit_2frame.dcm")
    np.testing.assert_array_equal(decode(ds, index=1), pixel_array(ds, index=1))


@pytest.mark.parametrize(
    ("name", "at", "value"), [("SC_rgb_small_odd_jpeg.dcm", 22, 0), ("MR_small_jp2klossless.dcm", 58, 255)]
)
def test_one_damaged_byte_that_aborts_gdcm_is_a_refusal_and_the_next_file_is_read(tmp_path, name, at, value):
    """In one process, ``pixel_array`` of these bytes ends Python with SIGABRT (python-gdcm 3.2.6)."""
    ds = _read(name)
    pixels = bytearray(ds.PixelData)
    pixels[at] = value
    ds.PixelData = bytes(pixels)
    ds.save_as(tmp_path / "damaged.dcm")
    with pytest.raises(DataError, match=r"damaged\.dcm"):
        read_image(tmp_path / "damaged.dcm")
    decode(_read(name))


@pytest.mark.parametrize("missing", [100, 600])
def test_a_jpeg_stream_with_a_hole_is_refused_although_decoders_fill_it(missing):
    ds = _read("SC_rgb_jpeg_dcmtk.dcm")
    ds.PixelData = ds.PixelData[: -missing - 200] + ds.PixelData[-200:]
    with pytest.raises(DecodingFailed, match="premature end"):
        decode(ds)


def test_a_decoder_that_takes_too_long_is_stopped(monkeypatch):
    decode(_read(SMALL["JPEG 2000"]))
    monkeypatch.setattr(decoding, "SECONDS", 0.2)
    monkeypatch.setattr(decoding, "SECONDS_PER_SAMPLE", 0.0)
    os.kill(decoding._child.process.pid, signal.SIGSTOP)
    start = time.monotonic()
    with pytest.raises(DecodingFailed, match="busy"):
        decode(_read(SMALL["JPEG 2000"]))
    assert time.monotonic() - start < 5
    monkeypatch.undo()
    decode(_read(SMALL["JPEG 2000"]))


def test_a_decoder_ended_by_the_system_is_no_fault_of_the_file(monkeypatch):
    decode(_read(SMALL["JPEG 2000"]))
    child = decoding._child

    def ask(*_):
        child.process.kill()
        raise EOFError

    monkeypatch.setattr(child, "ask", ask)
    with pytest.raises(MemoryError):
        decode(_read(SMALL["JPEG 2000"]))


def test_an_unknown_transfer_syntax_is_not_implemented():
    ds = _read(SMALL["JPEG 2000"])
    ds.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.100"  # MPEG2
    with pytest.raises(NotImplementedError):
        decode(ds)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_process_has_a_decoder_of_its_own():
    expected = decode(_read(SMALL["JPEG-LS"]))
    mine = decoding._child.process.pid
    pid = os.fork()
    if pid == 0:
        same = np.array_equal(decode(_read(SMALL["JPEG-LS"])), expected)
        other = decoding._child.process.pid
        decoding._close()
        os._exit(0 if same and other != mine else 1)
    assert os.waitpid(pid, 0)[1] == 0
    np.testing.assert_array_equal(decode(_read(SMALL["JPEG-LS"])), expected)
    assert decoding._child.process.pid == mine


def test_no_decoder_outlives_the_program():
    code = (
        "import pydicom, os; from pydicom.data import get_testdata_file as f; "
        "from medgcsam.imaging.dicom import decoding; "
        f"decoding.decode(pydicom.dcmread(f({SMALL['RLE']!r}, download=False))); "
        "print(decoding._child.process.pid, flush=True); os.kill(os.getpid(), 9)"
    )
    pid = int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout)
    for _ in range(50):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        state = Path(f"/proc/{pid}/stat")
        if state.exists() and state.read_text().rsplit(")", 1)[1].split()[0] == "Z":
            return  # dead, and waiting for an init process that a container may not have
        time.sleep(0.1)
    pytest.fail("the decoder still runs")
