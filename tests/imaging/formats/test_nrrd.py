from __future__ import annotations

import gzip

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from medgcsam.errors import DataError
from medgcsam.imaging import sniff_kind
from medgcsam.imaging.formats.nrrd import read_nrrd
from medgcsam.imaging.formats.voxels import sibling_reader

RNG = np.random.default_rng(5)
VALUES = RNG.integers(-500, 500, (4, 3, 2)).astype("<i2")  # i, j, k
HEAD = """NRRD0005
# a comment
type: short
dimension: 3
space: left-posterior-superior
sizes: 4 3 2
space directions: (0,0.5,0) (-0.7,0,0) (0,0,3)
kinds: domain domain domain
endian: little
encoding: raw
space origin: (10,20,30)
"""


def _bytes(head=HEAD, body=None, **changes):
    """An attached NRRD; ``type="x"`` replaces a field (an empty one drops it), underscores are spaces."""
    lines = head.splitlines()
    for key, value in changes.items():
        key = key.replace("_", " ")
        lines = [line for line in lines if not line.startswith(f"{key}:")] + ([f"{key}: {value}"] if value else [])
    return "\n".join(lines).encode() + b"\n\n" + (VALUES.tobytes(order="F") if body is None else body)


def test_axes_and_affine_by_hand():
    image = read_nrrd(_bytes(), "x.nrrd")
    np.testing.assert_array_equal(image.array[0], VALUES)
    # (1, 0, 0) lies 0.5 mm further to the back (P) of LPS (10, 20, 30): in RAS at -10, -20.5, 30
    np.testing.assert_allclose(image.affine @ [0, 0, 0, 1], [-10, -20, 30, 1])
    np.testing.assert_allclose(image.affine @ [1, 0, 0, 1], [-10, -20.5, 30, 1])
    np.testing.assert_allclose(image.affine @ [0, 1, 0, 1], [-9.3, -20, 30, 1])
    assert image.spacing == pytest.approx((0.5, 0.7, 3))
    assert (image.unit, image.array.dtype) == ("raw", np.float32)


@pytest.mark.parametrize(
    ("space", "signs"),
    [("LPS", (-1, -1, 1)), ("right-anterior-superior", (1, 1, 1)), ("RAS", (1, 1, 1)), ("LAS", (-1, 1, 1))],
)
def test_the_space_decides_the_signs(space, signs):
    np.testing.assert_allclose(read_nrrd(_bytes(space=space), "x").affine[:3, 3], np.multiply(signs, [10, 20, 30]))


@pytest.mark.parametrize("changes", [{"space": "scanner-xyz"}, {"space": ""}, {"space_origin": ""}])
def test_without_an_anatomical_place_there_is_spacing_but_no_affine(changes):
    image = read_nrrd(_bytes(**changes), "x")
    assert image.affine is None
    assert image.spacing == pytest.approx((0.5, 0.7, 3))


def test_spacings_alone():
    image = read_nrrd(_bytes(space="", space_origin="", space_directions="", spacings="0.5 0.7 3"), "x")
    assert (image.affine, image.spacing) == (None, (0.5, 0.7, 3.0))
    assert read_nrrd(_bytes(space="", space_origin="", space_directions=""), "x").spacing is None


def test_units_of_space_are_converted():
    image = read_nrrd(_bytes(space_units='"cm" "cm" "cm"'), "x")
    assert image.spacing == pytest.approx((5, 7, 30))
    np.testing.assert_allclose(image.affine[:3, 3], [-100, -200, 300])


@pytest.mark.parametrize("encoding", ["raw", "gzip", "bzip2"])
@pytest.mark.parametrize("endian", ["little", "big"])
@pytest.mark.parametrize("name", ["unsigned char", "short", "uint32", "int64", "float", "double"])
def test_types_byte_orders_and_encodings(encoding, endian, name):
    import bz2

    code = {"unsigned char": "u1", "short": "i2", "uint32": "u4", "int64": "i8", "float": "f4", "double": "f8"}[name]
    values = np.abs(VALUES // 4).astype(("<" if endian == "little" else ">") + code)
    pack = {"raw": bytes, "gzip": gzip.compress, "bzip2": bz2.compress}[encoding]
    data = _bytes(type=name, endian=endian, encoding=encoding, body=pack(values.tobytes(order="F")))
    np.testing.assert_array_equal(read_nrrd(data, "x").array[0], values.astype(np.float32))


@pytest.mark.parametrize("place", [0, 3])
def test_the_axis_without_direction_is_the_channels(place):
    values = RNG.integers(0, 99, (4, 3, 2, 5)).astype("<i2")
    stored = np.moveaxis(values, 3, place)
    directions, kinds = ["(1,0,0)", "(0,1,0)", "(0,0,1)"], ["domain"] * 3
    directions.insert(place, "none")
    kinds.insert(place, "list")
    data = _bytes(
        dimension="4", sizes=" ".join(map(str, stored.shape)), space_directions=" ".join(directions),
        kinds=" ".join(kinds), body=stored.tobytes(order="F"),
    )  # fmt: skip
    np.testing.assert_array_equal(read_nrrd(data, "x").array, np.moveaxis(values, 3, 0))
    np.testing.assert_array_equal(read_nrrd(data, "x", volume=4).array[0], values[..., 4])


def test_a_picture_is_rows_and_columns_whose_affine_follows():
    values = VALUES[..., 0]
    data = _bytes(
        dimension="2", sizes="4 3", space_directions="(0,0.5,0) (-0.7,0,0)", kinds="domain domain",
        body=values.tobytes(order="F"),
    )  # fmt: skip
    image = read_nrrd(data, "x")
    np.testing.assert_array_equal(image.array[0], values.T)
    assert image.spacing == pytest.approx((0.7, 0.5))
    np.testing.assert_allclose(image.affine @ [0, 1, 0, 1], [-10, -20.5, 30, 1])  # one column on


def test_segments_of_slicer_are_named():
    pairs = "Segment0_Name:=tumour\nSegment0_LabelValue:=3\nSegment0_Layer:=0\nSegment1_Name:=liver"
    assert read_nrrd(_bytes(head=HEAD + pairs), "x").source["segments"] == [(0, 3, "tumour"), (0, 1, "liver")]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"encoding": "ascii"}, "encoding 'ascii'"),
        ({"encoding": "hex"}, "encoding 'hex'"),
        ({"type": "block"}, "type 'block'"),
        ({"endian": ""}, "does not say its endian"),
        ({"sizes": "4 3"}, "2 sizes"),
        ({"sizes": "4 3 0"}, "empty"),
        ({"sizes": "40000 30000 20000"}, "over the limit"),
        ({"sizes": "4 3 3"}, "truncated"),
        ({"sizes": "4 3 1"}, "more voxels than"),
        ({"kinds": "RGB-color domain domain"}, "rgb-color"),
        ({"line_skip": "1"}, "skips lines"),
        ({"data_file": "LIST"}, "several files"),
        ({"data_file": "slice%03d.raw 1 2 1"}, "several files"),
        ({"data_file": "x.raw"}, "detached"),
        ({"space_directions": "(1,0,0) (0,1,0) (0,1,0)"}, "singular"),
        ({"space_directions": "(1,0,0) (0,1,0)"}, "2 space directions"),
        ({"space_directions": "(1,0,0) none none"}, "does not say which"),
        ({"space_directions": "1,0,0 0,1,0 0,0,1"}, "no vector"),
        ({"space_directions": "(1e9,0,0) (0,1,0) (0,0,1)"}, "cannot be"),
        ({"space_units": '"parsec" "parsec" "parsec"'}, "save it in mm"),
        ({"dimension": "three"}, "damaged NRRD"),
    ],
)
def test_what_is_odd_is_refused_by_name(changes, reason):
    with pytest.raises(DataError, match=rf"^x\.nrrd .*{reason}"):
        read_nrrd(_bytes(**changes), "x.nrrd")


def test_a_field_stated_twice_and_a_header_without_end_are_refused():
    with pytest.raises(DataError, match="repeats one"):
        read_nrrd(_bytes(head=HEAD + "sizes: 2 3 4"), "x")
    with pytest.raises(DataError, match="without end"):
        read_nrrd(HEAD.encode() + b"kinds:" + b"x" * 2**21, "x")


def test_a_detached_header_reads_only_from_its_own_folder(tmp_path):
    (tmp_path / "case").mkdir()
    (tmp_path / "secret.raw").write_bytes(VALUES.tobytes(order="F"))
    (tmp_path / "case" / "x.raw").write_bytes(b"head" + VALUES.tobytes(order="F"))
    (tmp_path / "case" / "link.raw").symlink_to(tmp_path / "secret.raw")
    path = tmp_path / "case" / "x.nhdr"
    for skip in ("4", "-1"):
        image = read_nrrd(_bytes(data_file="x.raw", byte_skip=skip, body=b""), str(path), sibling=sibling_reader(path))
        np.testing.assert_array_equal(image.array[0], VALUES)
    for name in ("../secret.raw", str(tmp_path / "secret.raw"), "link.raw", "..", "absent.raw", "..\\secret.raw"):
        with pytest.raises(DataError, match=r"x\.nhdr"):
            read_nrrd(_bytes(data_file=name, body=b""), str(path), sibling=sibling_reader(path))


@pytest.mark.parametrize("name", ["x.nrrd", "x.nhdr"])
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
    assert sniff_kind(path) == "nrrd"
    read = read_nrrd(path.read_bytes(), str(path), sibling=sibling_reader(path))
    np.testing.assert_array_equal(read.array, values.T)
    for index in ((0, 0, 0), (2, 3, 4)):
        left, back, head = image.TransformIndexToPhysicalPoint(index)
        np.testing.assert_allclose(read.affine @ [*index, 1], [-left, -back, head, 1], atol=1e-9)
