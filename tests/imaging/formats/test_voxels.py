from __future__ import annotations

import bz2
import gzip
import tracemalloc
import zlib

import nibabel
import numpy as np
import pytest

from medgcsam.errors import DataError
from medgcsam.imaging import read_image, source_digest
from medgcsam.imaging.formats.voxels import as_image, shear_degrees, unpack

PACKERS = {"raw": bytes, "gzip": gzip.compress, "zlib": zlib.compress, "bzip2": bz2.compress}
BODY = np.random.default_rng(7).integers(0, 9, 1_500_001, dtype=np.uint8).tobytes()


@pytest.mark.parametrize("encoding", PACKERS)
def test_exactly_the_promised_bytes(encoding):
    packed = PACKERS[encoding](BODY)
    assert bytes(unpack(packed, encoding, len(BODY), "x")) == BODY
    assert bytes(unpack(packed, encoding, len(BODY) - 7, "x", skip=7)) == BODY[7:]
    with pytest.raises(DataError, match="truncated"):
        unpack(packed, encoding, len(BODY) + 1, "x")
    with pytest.raises(DataError, match="more voxels"):
        unpack(packed, encoding, len(BODY) - 1, "x")


@pytest.mark.parametrize("encoding", ["gzip", "zlib", "bzip2"])
def test_every_cut_and_a_wrong_checksum_are_noticed(encoding):
    packed = PACKERS[encoding](BODY[:500])
    for cut in range(len(packed)):
        with pytest.raises(DataError):
            unpack(packed[:cut], encoding, 500, "x")
    place = {"gzip": -6, "zlib": -2, "bzip2": 10}[encoding]
    wrong = bytearray(packed)
    wrong[place] ^= 1
    with pytest.raises(DataError):
        unpack(bytes(wrong), encoding, 500, "x")


def test_gzip_of_several_members_and_padding_is_one_stream():
    packed = gzip.compress(BODY[:100]) + gzip.compress(BODY[100:300]) + bytes(512)
    assert bytes(unpack(packed, "gzip", 300, "x")) == BODY[:300]


@pytest.mark.parametrize("encoding", ["gzip", "zlib", "bzip2"])
def test_a_bomb_takes_no_more_memory_than_was_promised(encoding):
    bomb = PACKERS[encoding](bytes(50_000_000))
    tracemalloc.start()
    with pytest.raises(DataError, match="more voxels"):
        unpack(bomb, encoding, 1000, "x")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8_000_000


HEADERS = {
    "x.nhdr": b"NRRD0004\ntype: uchar\ndimension: 3\nsizes: 2 2 2\nencoding: raw\ndata file: x.img\n",
    "x.mhd": b"ObjectType = Image\nNDims = 3\nDimSize = 2 2 2\nElementType = MET_UCHAR\nElementDataFile = x.img\n",
    "x.hdr": nibabel.Nifti1Pair(np.zeros((2, 2, 2), np.uint8), np.eye(4)).header.binaryblock,
}


@pytest.mark.parametrize("name", HEADERS)
def test_voxels_in_a_second_file_are_part_of_the_image_and_of_its_digest(tmp_path, name):
    (tmp_path / name).write_bytes(HEADERS[name])
    digests = set()
    for first in (3, 4):
        (tmp_path / "x.img").write_bytes(bytes([first]) + bytes(7))
        assert read_image(tmp_path / name).array[0, 0, 0, 0] == first
        digests.add(source_digest(tmp_path / name))
    assert len(digests) == 2


def test_shear_is_the_angle_that_is_missing_to_ninety_degrees():
    affine = np.diag([0.5, 2.0, 3.0, 1.0])
    assert shear_degrees(affine) == 0
    affine[0, 2] = 3.0  # the third axis leans by 45 degrees towards the first
    assert shear_degrees(affine) == pytest.approx(45)


def test_scaling_is_exact_in_float64_before_it_is_float32():
    stored = np.array([[[16777217, 3]]], np.int32)
    image = as_image(stored, "x", channel_axis=None, affine=None, spacing=None, source={}, scaling=(0.001, -16777.0))
    np.testing.assert_array_equal(image.array[0], (stored * 0.001 - 16777.0).astype(np.float32))


def test_numbers_too_large_for_float32_are_refused():
    with pytest.raises(DataError, match="infinite"):
        as_image(np.full((2, 2, 2), 1e300), "x", channel_axis=None, affine=None, spacing=None, source={})
