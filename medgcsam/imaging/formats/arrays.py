"""Entries of a MedMNIST archive (Yang et al., Scientific Data 2023), one image at a time.

Such an ``.npz`` holds ``train_images``, ``val_images`` and ``test_images``: (n, row, column) gray, (n, row, column, 3)
colour or (n, i, j, k) volumes. An array is decompressed once and kept; an uncompressed one is memory-mapped.
"""

from __future__ import annotations

import math
import os
import zipfile
from functools import lru_cache
from typing import BinaryIO

import numpy as np

from medgcsam.errors import DataError
from medgcsam.imaging.faults import check_finite, check_size, faults_of
from medgcsam.imaging.image import Image
from medgcsam.imaging.sources import RATIO_COUNTS_FROM, check_packing, check_unpacked

MAX_BYTES = 2**33
"""Largest array that is unpacked: 8 GiB, twice ChestMNIST at 224 pixels."""
LOCAL_HEADER_BYTES = 30


def read_entry(file: str, partition: str, index: int) -> Image:
    """Image number ``index`` (from 0) of a partition: unit ``display`` for 8 and 16 bit, ``raw`` for floats."""
    where = f"{file}#{partition}/{index}"
    entry = raw_entry(file, partition, index)
    is_colour = entry.ndim == 3 and entry.shape[-1] == 3
    if entry.ndim not in (2, 3) or entry.dtype.kind not in "uf" or entry.dtype.itemsize > 4:
        raise DataError(f"{where} is {entry.dtype} of shape {entry.shape}; give 8-bit gray, colour or volume entries.")
    check_size(entry.shape, where)
    check_finite(entry, where)
    array = np.moveaxis(entry, -1, 0) if is_colour else entry[None]
    array = np.array(array, dtype=np.float32, order="C")
    integer = entry.dtype.kind == "u"
    if integer:
        array /= np.float32(np.iinfo(entry.dtype).max)
    source = {"kind": "npz", "bits": 8 * entry.dtype.itemsize, "partition": partition, "index": index}
    return Image(array=array, unit="display" if integer else "raw", source=source)


def raw_entry(file: str, partition: str, index: int) -> np.ndarray:
    """The entry as stored, read-only."""
    try:
        state = os.stat(file)
    except OSError as error:
        raise DataError(f"{file} cannot be opened ({error.strerror}); correct the path.") from error
    array = _images(file, f"{partition}_images", state.st_mtime_ns, state.st_size)
    if index >= len(array):
        raise DataError(f"{file}#{partition}/{index} is beyond the last image, number {len(array) - 1}; correct it.")
    return array[index]


@lru_cache(maxsize=3)
def _images(file: str, key: str, mtime_ns: int, size: int) -> np.ndarray:
    """One array of an archive, kept: the three partitions of the data set in use. Time and size notice a new file."""
    with faults_of(file, "npz"), zipfile.ZipFile(file) as archive:
        if f"{key}.npy" not in archive.namelist():
            raise DataError(f"{file} has no array {key}; give an archive in the layout of MedMNIST.")
        member = archive.getinfo(f"{key}.npy")
        check_packing(member, file)
        if member.compress_type != zipfile.ZIP_STORED:
            check_unpacked(file, max(1, size), member.file_size, limit=MAX_BYTES, ratio_from=RATIO_COUNTS_FROM)
        array = (
            _mapped(file, member) if member.compress_type == zipfile.ZIP_STORED else _unpacked(file, archive, member)
        )
    array.flags.writeable = False
    if array.ndim < 3:
        raise DataError(f"{file}: {key} has shape {array.shape}; give (n, row, column), with colours last.")
    return array


def _unpacked(file: str, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(member) as stream:
        shape, fortran, dtype = _described(file, stream, member.file_size)
        body = stream.read()  # to the end, where the checksum is compared
    return np.frombuffer(body, dtype).reshape(shape, order="F" if fortran else "C")


def _mapped(file: str, member: zipfile.ZipInfo) -> np.ndarray:
    """Memory map of an uncompressed member: its data follow the local header, whose name and extra field vary."""
    with open(file, "rb") as stream:
        stream.seek(member.header_offset)
        header = stream.read(LOCAL_HEADER_BYTES)
        start = stream.tell() + int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
        stream.seek(start)
        shape, fortran, dtype = _described(file, stream, start + member.file_size)
        offset = stream.tell()
    return np.memmap(file, dtype=dtype, mode="r", offset=offset, shape=shape, order="F" if fortran else "C")


def _described(file: str, stream: BinaryIO, end: int) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, order and type of the array whose header begins here; its values must fill the rest, up to ``end``."""
    version = np.lib.format.read_magic(stream)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read_header(stream)
    size = math.prod(shape) * dtype.itemsize
    if dtype.hasobject or any(n < 0 for n in shape) or size != end - stream.tell():
        raise DataError(
            f"{file} holds {end - stream.tell():,} bytes where {size:,} of numbers belong; get the archive again."
        )
    return shape, fortran, dtype
