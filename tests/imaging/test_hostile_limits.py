"""Files that lie about their sizes, circles of links, and what messages show: refused soon, in one sentence."""

from __future__ import annotations

import bz2
import gzip
import io
import os
import struct
import subprocess
import sys
import time
import zipfile
import zlib
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from PIL import Image as Pillow
from pydicom.data import get_testdata_file

from medgcsam.errors import DataError
from medgcsam.imaging import read_image
from medgcsam.imaging.dicom.file import MAX_INFLATED
from medgcsam.imaging.faults import MAX_VOXELS

EXPLICIT, DEFLATED, JPEG = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.50"
CHILD = """
import resource, sys
from medgcsam.errors import DataError
from medgcsam.imaging import read_image
import medgcsam.imaging.dicom.file
import medgcsam.imaging.dicom.objects, medgcsam.imaging.formats.arrays, medgcsam.imaging.formats.nifti
import medgcsam.imaging.formats.nrrd, medgcsam.imaging.formats.raster, medgcsam.imaging.dicom.series
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + 2**28,) * 2)
if len(sys.argv) > 2:
    medgcsam.imaging.dicom.file.MAX_INFLATED = int(sys.argv[2])
try:
    read_image(sys.argv[1])
except DataError as error:
    print(error)
"""
needs_proc = pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="the system has no /proc")


def refused_in_little_memory(path: Path | str, *limits: int) -> str:
    """The sentence by which a process that may have 256 MiB more than its modules refuses a file.

    limits: how many bytes a deflated object may inflate to, where it is not the usual number.
    """
    command = [sys.executable, "-c", CHILD, str(path), *map(str, limits)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr[-500:]
    assert done.stdout.strip(), "it was read"
    return done.stdout


def element(group: int, number: int, vr: bytes, value: bytes) -> bytes:
    value += b"\0" * (len(value) % 2)
    if vr in (b"OB", b"OW", b"SQ"):
        return struct.pack("<HH2sHL", group, number, vr, 0, len(value)) + value
    return struct.pack("<HH2sH", group, number, vr, len(value)) + value


def meta(syntax: str, *, length: int | None = None, before: bytes = b"") -> bytes:
    """Preamble and file meta information."""
    rest = before + element(2, 2, b"UI", b"1.2.840.10008.5.1.4.1.1.7") + element(2, 16, b"UI", syntax.encode())
    return bytes(128) + b"DICM" + element(2, 0, b"UL", struct.pack("<L", length or len(rest))) + rest


def zeros(count: int, wbits: int) -> bytes:
    """``count`` times 16 MiB of zeros, packed."""
    engine = zlib.compressobj(1, zlib.DEFLATED, wbits)
    first = engine.compress(b"") + engine.flush(zlib.Z_FULL_FLUSH)
    return first + (engine.compress(bytes(2**24)) + engine.flush(zlib.Z_FULL_FLUSH)) * count + engine.flush()


def lying_zip(path: Path, name: str, method: int, packed: bytes, size: int) -> Path:
    """An archive of one member that says it has ``size`` bytes."""
    sizes = (0, len(packed), size, len(name))
    local = struct.pack("<4s5H3L2H", b"PK\3\4", 46, 0, method, 0, 33, *sizes, 0) + name.encode()
    central = struct.pack("<4s6H3L5H2L", b"PK\1\2", 46, 46, 0, method, 0, 33, *sizes, *[0] * 6) + name.encode()
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, len(central), len(local) + len(packed), 0)
    path.write_bytes(local + packed + central + end)
    return path


@needs_proc
@pytest.mark.parametrize(("name", "entry"), [("a.dcm", ""), ("train_images.npy", "#train/0")])
def test_a_packing_that_ignores_the_stated_size_is_refused_by_name(tmp_path, name, entry):
    engine, block = bz2.BZ2Compressor(9), bytes(2**24)
    packed = b"".join(engine.compress(block) for _ in range(20)) + engine.flush()  # 320 MiB
    path = lying_zip(tmp_path / "lying.zip", name, zipfile.ZIP_BZIP2, packed, 5000)
    assert "packed by bzip2" in refused_in_little_memory(f"{path}{entry}")


@needs_proc
@pytest.mark.parametrize("how", ["length", "late"])
def test_a_deflated_bomb_is_refused_whatever_its_meta_group_says(tmp_path, how):
    early = element(2, 1, b"OB", bytes(4000)) if how == "late" else b""
    head = meta(DEFLATED, length=0xFFFFFFF0 if how == "length" else None, before=early)
    (tmp_path / "bomb.dcm").write_bytes(head + zeros(64, -15))  # 1 GiB
    start = time.monotonic()
    assert "to over 200,000,000 bytes, a decompression bomb" in refused_in_little_memory(
        tmp_path / "bomb.dcm", 200_000_000
    )
    assert time.monotonic() - start < 15


def test_what_a_deflated_object_may_inflate_to_is_no_more_than_the_largest_volume():
    assert MAX_INFLATED <= 4 * MAX_VOXELS


def test_a_sound_deflated_object_is_read_and_a_cut_or_garbled_one_refused(tmp_path):
    data, path = Path(get_testdata_file("image_dfl.dcm", download=False)).read_bytes(), tmp_path / "dfl.dcm"
    path.write_bytes(data)
    shape = read_image(path).array.shape
    path.write_bytes(data[:140] + b"\xf0\xff\xff\xff" + data[144:])  # a wrong length of the meta group harms nothing
    assert read_image(path).array.shape == shape
    for damaged in (data[:-200], data[:148] + b"??" + data[150:]):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"damaged|truncated"):
            read_image(path)


def test_links_in_a_circle_are_passed_over_in_a_folder_and_refused_beside_a_header(tmp_path, write_series):
    write_series(np.random.default_rng(0).integers(0, 99, (3, 4, 5)).astype(np.int16))
    expected = read_image(tmp_path / "series").array
    for name, target in (("x", "y"), ("y", "x"), ("z", "z")):
        os.symlink(target, tmp_path / "series" / name)
    assert np.array_equal(read_image(tmp_path / "series").array, expected)
    head = "ObjectType = Image\nNDims = 2\nDimSize = 5 6\nElementType = MET_UCHAR\nElementDataFile = lp\n"
    (tmp_path / "a.mhd").write_text(head)
    os.symlink("lp", tmp_path / "lp")
    with pytest.raises(DataError, match="'lp'"):
        read_image(tmp_path / "a.mhd")


@needs_proc
def test_a_sparse_file_of_gigabytes_is_not_read_before_it_is_believed(tmp_path):
    picture = io.BytesIO()
    Pillow.fromarray(np.zeros((8, 8), np.uint8)).save(picture, "png")
    nrrd = b"NRRD0004\ntype: uchar\ndimension: 3\nsizes: 5 6 7\nencoding: raw\n"
    mha = b"ObjectType = Image\nNDims = 2\nDimSize = 5 6\nElementType = MET_UCHAR\nElementDataFile = LOCAL\n"
    heads = {
        "a.nii": nibabel.Nifti1Image(np.zeros((4, 4, 4), np.float32), np.eye(4)).to_bytes(),
        "a.png": picture.getvalue(), "a.nrrd": nrrd + b"\n", "a.mha": mha, "b.raw": b"", "folder/big": b"",
    }  # fmt: skip
    (tmp_path / "folder").mkdir()
    (tmp_path / "b.nhdr").write_bytes(nrrd + b"data file: b.raw\n\n")
    for name, head in heads.items():
        with open(tmp_path / name, "wb") as stream:
            stream.write(head)
            stream.truncate(2**32)
    expected = {"a.nii": "more voxels", "a.png": "too many for one picture", "a.nrrd": "more voxels",
                "a.mha": "more voxels", "b.nhdr": "more voxels", "folder": "no DICOM image"}  # fmt: skip
    for name, words in expected.items():
        assert words in refused_in_little_memory(tmp_path / name), name


def test_what_unpacks_to_gigabytes_is_refused_before_it_is_unpacked(tmp_path):
    header = nibabel.Nifti1Header()
    header.set_data_shape((1024, 1024, 1024))
    header.set_data_dtype(np.float64)
    header["vox_offset"], header["magic"] = 352, b"n+1"
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(header.binaryblock + bytes(4)) + zeros(2, 31))
    with pytest.raises(DataError, match="over the limit of"):
        read_image(tmp_path / "a.nii.gz")
    header.set_data_dtype(np.int16)
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(header.binaryblock + bytes(4)) + zeros(2, 31))
    with pytest.raises(DataError, match="a decompression bomb"):
        read_image(tmp_path / "a.nii.gz")
    path = lying_zip(tmp_path / "a.npz", "train_images.npy", zipfile.ZIP_DEFLATED, zeros(20, -15), 2**30)
    with pytest.raises(DataError, match="a decompression bomb"):
        read_image(f"{path}#train/0")


@pytest.mark.parametrize("kind", ["gzip", "items", "fragments"])
def test_millions_of_empty_parts_are_refused_soon(tmp_path, kind):
    item, path = b"\xfe\xff\x00\xe0\0\0\0\0", tmp_path / "parts"
    if kind == "gzip":
        whole = nibabel.Nifti1Image(np.zeros((4, 4, 4), np.float32), np.eye(4)).to_bytes()
        empty = gzip.compress(b"", mtime=0)
        path.write_bytes(gzip.compress(whole) + empty * 10)
        assert read_image(path).spatial_shape == (4, 4, 4)
        path.write_bytes(gzip.compress(whole[:352]) + empty * 500_000 + gzip.compress(whole[352:]))
    elif kind == "items":
        path.write_bytes(meta(EXPLICIT) + b"\x08\0\x40\x11SQ\0\0\xff\xff\xff\xff" + item * 1_000_000)
    else:
        path.write_bytes(meta(JPEG) + b"\xe0\x7f\x10\0OB\0\0\xff\xff\xff\xff" + item * 1_000_000)
    start = time.monotonic()
    with pytest.raises(DataError, match="too many parts" if kind == "gzip" else "items or fragments"):
        read_image(path)
    assert time.monotonic() - start < 10


def test_messages_show_no_values_and_no_control_characters_of_a_file(tmp_path):
    ds = pydicom.dcmread(get_testdata_file("CT_small.dcm", download=False))
    ds["NumberOfFrames"] = pydicom.DataElement("NumberOfFrames", "LO", "DOE^JANE 1970", validation_mode=0)
    path = tmp_path / "a"
    ds.save_as(path)
    with pytest.raises(DataError) as caught:
        read_image(path)
    assert "DOE" not in str(caught.value)
    path.write_text(
        "ObjectType = Image\nNDims = 2\nDimSize = 5 6\nElementDataFile = LOCAL\n".replace(
            "ElementDataFile", f"ElementType = A\x1b[2J{'x' * 50_000}\nElementDataFile"
        )
    )
    with pytest.raises(DataError, match="of the type") as caught:
        read_image(path)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < len(str(path)) + 200
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a\x1b[31m\n.dcm", b"")
    with pytest.raises(DataError, match="is an empty file") as caught:
        read_image(path)
    assert str(caught.value).isprintable()


def test_a_cut_archive_that_holds_an_archive_is_not_read_as_the_inner_one(tmp_path):
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("a.dcm", Path(get_testdata_file("CT_small.dcm", download=False)).read_bytes())
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("b.zip", inner.getvalue())
    (tmp_path / "a.zip").write_bytes((tmp_path / "a.zip").read_bytes()[:-30])
    with pytest.raises(DataError, match="truncated"):
        read_image(tmp_path / "a.zip")
