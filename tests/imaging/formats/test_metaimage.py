from __future__ import annotations

import gzip
import zlib

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from medgcsam.errors import DataError
from medgcsam.imaging import sniff_kind
from medgcsam.imaging.formats.metaimage import read_metaimage
from medgcsam.imaging.formats.voxels import sibling_reader

RNG = np.random.default_rng(6)
VALUES = RNG.integers(-500, 500, (4, 3, 2)).astype("<i2")  # i, j, k
HEAD = """ObjectType = Image
NDims = 3
BinaryData = True
BinaryDataByteOrderMSB = False
CompressedData = False
TransformMatrix = 0 1 0 -1 0 0 0 0 1
Offset = 10 20 30
ElementSpacing = 0.5 0.7 3
DimSize = 4 3 2
ElementType = MET_SHORT
ElementDataFile = LOCAL
"""


def _bytes(body=None, **changes):
    """An .mha; ``DimSize="4 3"`` replaces a field, an empty value drops it; ElementDataFile stays last."""
    fields = dict(line.split(" = ") for line in HEAD.splitlines())
    file = changes.pop("ElementDataFile", fields.pop("ElementDataFile"))
    fields = {key: value for key, value in (fields | changes).items() if value} | {"ElementDataFile": file}
    lines = [f"{key} = {value}" for key, value in fields.items()]
    return "\n".join(lines).encode() + b"\n" + (VALUES.tobytes(order="F") if body is None else body)


def test_axes_and_affine_by_hand():
    image = read_metaimage(_bytes(), "x.mha")
    np.testing.assert_array_equal(image.array[0], VALUES)
    # The first axis runs along (0, 1, 0) of LPS, which is to the back: 0.5 mm further in -y of RAS.
    np.testing.assert_allclose(image.affine @ [0, 0, 0, 1], [-10, -20, 30, 1])
    np.testing.assert_allclose(image.affine @ [1, 0, 0, 1], [-10, -20.5, 30, 1])
    np.testing.assert_allclose(image.affine @ [0, 1, 0, 1], [-9.3, -20, 30, 1])
    assert image.spacing == pytest.approx((0.5, 0.7, 3))
    assert (image.unit, image.array.dtype) == ("raw", np.float32)


@pytest.mark.parametrize("changes", [{"TransformMatrix": ""}, {"Offset": ""}])
def test_without_orientation_there_is_spacing_but_no_affine(changes):
    image = read_metaimage(_bytes(**changes), "x")
    assert (image.affine, image.spacing) == (None, (0.5, 0.7, 3.0))
    assert read_metaimage(_bytes(ElementSpacing=""), "x").affine is None


@pytest.mark.parametrize("pack", [bytes, zlib.compress, gzip.compress])
@pytest.mark.parametrize("msb", [False, True])
@pytest.mark.parametrize(
    ("name", "code"), [("MET_UCHAR", "u1"), ("MET_USHORT", "u2"), ("MET_FLOAT", "f4"), ("MET_DOUBLE", "f8")]
)
def test_types_byte_orders_and_compression(pack, msb, name, code):
    values = np.abs(VALUES // 4).astype((">" if msb else "<") + code)
    data = _bytes(
        ElementType=name, BinaryDataByteOrderMSB=str(msb), CompressedData=str(pack is not bytes),
        body=pack(values.tobytes(order="F")),
    )  # fmt: skip
    np.testing.assert_array_equal(read_metaimage(data, "x").array[0], values.astype(np.float32))


def test_channels_and_time_are_channels():
    values = RNG.integers(0, 99, (5, 4, 3, 2)).astype("<i2")
    data = _bytes(ElementNumberOfChannels="5", body=values.tobytes(order="F"))
    np.testing.assert_array_equal(read_metaimage(data, "x").array, values)
    over_time = np.moveaxis(values, 0, 3)
    matrix = " ".join(map(str, np.eye(4).ravel()))
    geometry = {"TransformMatrix": matrix, "Offset": "1 2 3 0", "ElementSpacing": "1 1 1 2.5"}
    data = _bytes(NDims="4", DimSize="4 3 2 5", body=over_time.tobytes(order="F"), **geometry)
    np.testing.assert_array_equal(read_metaimage(data, "x").array, values)
    np.testing.assert_array_equal(read_metaimage(data, "x", volume=3).array[0], values[3])


def test_a_picture_is_rows_and_columns():
    values = VALUES[..., 0]
    geometry = {"TransformMatrix": "1 0 0 1", "Offset": "0 0", "ElementSpacing": "0.5 0.7"}
    image = read_metaimage(_bytes(NDims="2", DimSize="4 3", body=values.tobytes(order="F"), **geometry), "x")
    np.testing.assert_array_equal(image.array[0], values.T)
    assert (image.affine, image.spacing) == (None, (0.7, 0.5))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"BinaryData": "False"}, "as text"),
        ({"ObjectType": "Tube"}, "Tube object"),
        ({"ElementType": "MET_LONG"}, "MET_LONG"),
        ({"ElementType": "MET_OTHER"}, "MET_OTHER"),
        ({"BinaryDataByteOrderMSB": ""}, "does not say its BinaryDataByteOrderMSB"),
        ({"CompressedData": "maybe"}, "expected True or False"),
        ({"DimSize": "4 3"}, "save two or three axes"),
        ({"DimSize": "4 3 0"}, "empty"),
        ({"DimSize": "40000 30000 20000"}, "over the limit"),
        ({"DimSize": "4 3 3"}, "truncated"),
        ({"DimSize": "4 3 1"}, "more voxels than"),
        ({"DimSize": "a b c"}, "damaged MetaImage"),
        ({"TransformMatrix": "1 0 0 0 1 0 0 1 0"}, "singular"),
        ({"TransformMatrix": "1 0 0 1"}, "where 9 belong"),
        ({"ElementDataFile": "LIST"}, "several files"),
        ({"ElementDataFile": "s%03d.raw 1 2 1"}, "several files"),
        ({"ElementDataFile": "x.raw"}, "without its voxels"),
        ({"HeaderSize": "-2"}, "HeaderSize"),
    ],
)
def test_what_is_odd_is_refused_by_name(changes, reason):
    with pytest.raises(DataError, match=rf"^x\.mha .*{reason}"):
        read_metaimage(_bytes(**changes), "x.mha")


def test_a_matrix_that_mixes_space_and_time_is_refused():
    matrix = np.eye(4)
    matrix[0, 3] = 0.5
    geometry = {"TransformMatrix": " ".join(map(str, matrix.ravel())), "Offset": "1 2 3 0", "ElementSpacing": "1 1 1 2"}
    with pytest.raises(DataError, match="mixes space and time"):
        read_metaimage(_bytes(NDims="4", DimSize="4 3 1 2", **geometry), "x")


def test_a_header_reads_only_from_its_own_folder(tmp_path):
    (tmp_path / "case").mkdir()
    (tmp_path / "secret.raw").write_bytes(VALUES.tobytes(order="F"))
    (tmp_path / "case" / "x.raw").write_bytes(b"head" + VALUES.tobytes(order="F"))
    path = tmp_path / "case" / "x.mhd"
    for skip in ("4", "-1"):
        data = _bytes(ElementDataFile="x.raw", HeaderSize=skip, body=b"")
        for text in (data, data.rstrip()):
            image = read_metaimage(text, str(path), sibling=sibling_reader(path))
            np.testing.assert_array_equal(image.array[0], VALUES)
    for name in ("../secret.raw", str(tmp_path / "secret.raw"), "absent.raw"):
        with pytest.raises(DataError, match=r"x\.mhd"):
            read_metaimage(_bytes(ElementDataFile=name, body=b""), str(path), sibling=sibling_reader(path))


@pytest.mark.parametrize("name", ["x.mha", "x.mhd"])
@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("components", [1, 3])
def test_what_itk_writes_is_read_as_itk_reads_it(tmp_path, name, compressed, components):
    sitk = pytest.importorskip("SimpleITK")
    values = RNG.normal(size=(5, 4, 3, components)).astype(np.float32)
    image = sitk.GetImageFromArray(values if components > 1 else values[..., 0], isVector=components > 1)
    turned = Rotation.from_euler("xyz", [20, -30, 40], degrees=True).as_matrix() @ np.diag([1, -1, 1])
    image.SetDirection(turned.ravel().tolist())
    image.SetSpacing((0.4, 0.5, 2.5))
    image.SetOrigin((-11, 12, 13))
    path = tmp_path / name
    sitk.WriteImage(image, str(path), compressed)
    assert sniff_kind(path) == "metaimage"
    read = read_metaimage(path.read_bytes(), str(path), sibling=sibling_reader(path))
    np.testing.assert_array_equal(read.array, values.T)
    for index in ((0, 0, 0), (2, 3, 4)):
        left, back, head = image.TransformIndexToPhysicalPoint(index)
        np.testing.assert_allclose(read.affine @ [*index, 1], [-left, -back, head, 1], atol=1e-9)
