"""Damaged and malicious files: each is read to the right pixels or refused in one sentence; nothing else happens.

``MEDGCSAM_HOSTILE=2000`` tries that many damaged files of each kind, at random, instead of the few that are always the
same.
"""

from __future__ import annotations

import io
import logging
import os
import resource
import time
import warnings
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow
from pydicom.data import get_testdata_file
from pydicom.pixels import apply_modality_lut, pixel_array
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from medgcsam.errors import DataError
from medgcsam.imaging import Image, read_image

EXAMPLES = int(os.environ.get("MEDGCSAM_HOSTILE", "0"))
SECONDS, MEGABYTES = 20, 400
GRAY = (np.add.outer(np.arange(24), np.arange(31)) * 4).astype(np.uint8)
VOXELS = np.random.default_rng(8).integers(0, 500, (5, 6, 7)).astype("<i2")
HOSTILE = settings(
    max_examples=EXAMPLES or 30, derandomize=not EXAMPLES, deadline=None, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip

NATIVE = [
    "MR_small.dcm", "MR_small_implicit.dcm", "MR_small_bigendian.dcm", "CT_small.dcm", "image_dfl.dcm",
    "SC_rgb_small_odd.dcm", "ExplVR_BigEnd.dcm", "MR_small_RLE.dcm",
]  # fmt: skip
COMPRESSED = [
    "MR_small_jpeg_ls_lossless.dcm", "MR_small_jp2klossless.dcm", "SC_rgb_small_odd_jpeg.dcm",
    "SC_rgb_rle_16bit_2frame.dcm", "JPEG2000.dcm", "JPEGLSNearLossless_16.dcm",
]  # fmt: skip
OTHER_OBJECTS = [
    "rtstruct.dcm", "liver_1frame.dcm", "rtdose.dcm", "UN_sequence.dcm", "nested_priv_SQ.dcm", "no_meta.dcm",
    "MR_truncated.dcm", "test-SR.dcm",
]  # fmt: skip


def _dicom(name: str) -> bytes:
    return Path(get_testdata_file(name, download=False)).read_bytes()


def _picture(kind: str, pixels: np.ndarray = GRAY, **options: object) -> bytes:
    stream = io.BytesIO()
    Pillow.fromarray(pixels).save(stream, format=kind, **options)
    return stream.getvalue()


def _voxel_file(kind: str) -> bytes:
    body = VOXELS.tobytes(order="F")
    if kind == "nrrd":
        head = (
            "NRRD0004\ntype: short\ndimension: 3\nsizes: 5 6 7\nspace: RAS\nspace directions: (1,0,0) (0,2,0) (0,0,3)\n"
        )
        return f"{head}space origin: (4,5,6)\nendian: little\nencoding: raw\n\n".encode() + body
    if kind == "mha":
        head = "ObjectType = Image\nNDims = 3\nBinaryDataByteOrderMSB = False\nOffset = 1 2 3\nElementSpacing = 1 2 3\n"
        return f"{head}DimSize = 5 6 7\nElementType = MET_SHORT\nElementDataFile = LOCAL\n".encode() + body
    image = (nibabel.Nifti2Image if kind == "nii2" else nibabel.Nifti1Image)(VOXELS, np.diag([-0.7, 0.6, 2.5, 1]))
    return image.to_bytes()


def _npz(*, compressed: bool) -> bytes:
    stream = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(stream, train_images=np.stack([GRAY] * 3))
    return stream.getvalue()


def _gzip(data: bytes) -> bytes:
    import gzip

    return gzip.compress(data, mtime=0)


CHECKED = {  # formats whose every byte of pixels is under a checksum: what is read must be the intact picture
    "png": lambda: _picture("png"),
    "colour png": lambda: _picture("png", np.stack([GRAY, GRAY // 2, GRAY[::-1]], -1)),
    "16-bit png": lambda: _picture("png", GRAY.astype(np.uint16) * 200),
    "nii.gz": lambda: _gzip(_voxel_file("nii")),
    "npz": lambda: _npz(compressed=True),
}
UNCHECKED = {
    "jpeg": lambda: _picture("jpeg"),
    "progressive jpeg": lambda: _picture("jpeg", np.stack([GRAY] * 3, -1), progressive=True),
    "tiff": lambda: _picture("tiff"),
    "lzw tiff": lambda: _picture("tiff", compression="tiff_lzw"),
    "float tiff": lambda: _picture("tiff", GRAY.astype(np.float32)),
    "plain npz": lambda: _npz(compressed=False),
}
VOXEL_FILES = ["nii", "nii2", "nrrd", "mha"]


VRS = {
    "PhotometricInterpretation": "CS", "NumberOfFrames": "IS", "RescaleSlope": "DS", "RescaleIntercept": "DS",
    "WindowCenter": "DS", "WindowWidth": "DS", "PixelSpacing": "DS", "ImageOrientationPatient": "DS",
    "ImagePositionPatient": "DS", "SliceThickness": "DS", "PatientAge": "AS", "RescaleType": "LO", "Modality": "CS",
    "VOILUTFunction": "CS", "PixelPaddingValue": "US", "SOPClassUID": "UI",
}  # fmt: skip
SAYS = {
    "Rows": [0, 1, 7, 63, 128, 65535], "Columns": [0, 1, 9, 32, 256, 65535], "BitsAllocated": [0, 1, 8, 32, 64, 7],
    "BitsStored": [0, 1, 8, 12, 17, 65535], "HighBit": [0, 7, 11, 16], "PixelRepresentation": [0, 1, 2],
    "SamplesPerPixel": [0, 1, 2, 3, 4], "PlanarConfiguration": [0, 1, 2],
    "PhotometricInterpretation": ["", "MONOCHROME1", "RGB", "YBR_FULL", "YBR_FULL_422", "PALETTE COLOR", "HSV", "ARGB"],
    "NumberOfFrames": ["0", "1", "2", "-1", "2147483647", ""],
    "RescaleSlope": ["0", "-1", "1e300", "nan", "inf", "", ["1", "2"]],
    "RescaleIntercept": ["1e300", "nan", ""],
    "WindowCenter": ["0", "nan", "1e300", "", ["1", "2"]], "WindowWidth": ["0", "-5", "1", "nan", "1e300", "", "0.5"],
    "PixelSpacing": [["0", "0"], ["-1", "1"], ["nan", "1"], ["1e30", "1"], ["1"], ""],
    "ImageOrientationPatient": [["0"] * 6, ["nan"] * 6, ["1", "0", "0"], ["9"] * 6, ""],
    "ImagePositionPatient": [["nan", "0", "0"], ["1e30", "0", "0"], ["0", "0"], ""],
    "SliceThickness": ["0", "-1", "nan", "1e30", ""], "PatientAge": ["", "999Y", "old"],
    "RescaleType": ["", "US", "HU"],
    "Modality": ["", "PT", "XX"], "VOILUTFunction": ["", "SIGMOID", "LINEAR_EXACT", "OTHER"],
    "PixelPaddingValue": [0, 1, 65535], "SOPClassUID": ["", "1.2.3", "1.2.840.10008.5.1.4.1.1.1"],
}  # fmt: skip
SAID = [(keyword, value) for keyword, values in SAYS.items() for value in values]


@pytest.fixture(scope="module", autouse=True)
def _no_memory_blow_up():
    logging.disable(logging.CRITICAL)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    logging.disable(logging.NOTSET)
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < MEGABYTES


def _read(data: bytes, folder: Path, *, entry: str = "") -> Image | None:
    """The image, or None where it was refused as it should be. Anything else fails the test."""
    path = folder / "hostile-file"
    path.write_bytes(data)
    start = time.monotonic()
    try:
        image = read_image(f"{path}{entry}")
    except DataError as error:
        image, text = None, str(error)
        assert "hostile-file" in text
        assert text.endswith(".")
        assert "\n" not in text
        assert len(text) < 700
    assert time.monotonic() - start < SECONDS
    if image is not None:
        assert np.isfinite(image.array).all()
        assert image.unit != "display" or (image.array.min() >= 0 and image.array.max() <= 1)
    return image


@st.composite
def damage(draw: st.DrawFn, data: bytes) -> bytes:
    """``data`` with one to four changes, four in five of them in the first bytes."""
    result = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        far = min(len(result), 1500) - 1 if draw(st.integers(0, 4)) else len(result) - 1
        at = draw(st.integers(0, max(0, far)))
        what = draw(st.sampled_from(["flip", "set", "fill", "delete", "insert", "copy", "cut"]))
        if what == "flip":
            result[at : at + 1] = bytes(value ^ 1 << draw(st.integers(0, 7)) for value in result[at : at + 1])
        elif what == "set":
            result[at : at + 1] = draw(st.sampled_from([b"\0", b"\1", b"\x7f", b"\x80", b"\xff", b"9", b" "]))
        elif what == "fill":
            long = [
                b"\xff" * 4,
                b"\0" * 4,
                b"\xff\xff\xff\x7f",
                b"\x7f\xff\xff\xff",
                b"\xfe\xff\xdd\xe0",
                b"\0\0\xc0\x7f",
            ]
            result[at : at + 4] = draw(st.sampled_from(long))
        elif what == "copy":
            source = draw(st.integers(0, len(result)))
            result[at : at + 8] = result[source : source + 8]
        elif what == "cut" and draw(st.integers(0, 2)) == 0:
            del result[at:]
        elif what == "delete":
            del result[at : at + draw(st.sampled_from([1, 2, 4, 64]))]
        elif what == "insert":
            result[at:at] = draw(st.binary(min_size=1, max_size=8))
        if not result:
            break
    return bytes(result)


@pytest.mark.parametrize("kind", CHECKED)
def test_a_damaged_file_under_checksums_is_refused_or_intact(tmp_path, kind):
    data, entry = CHECKED[kind](), "#train/1" if "npz" in kind else ""
    intact = _read(data, tmp_path, entry=entry).array

    @HOSTILE
    @given(damage(data))
    def hold(damaged):
        image = _read(damaged, tmp_path, entry=entry)
        assert image is None or np.array_equal(image.array, intact)

    hold()


CUT = CHECKED | UNCHECKED
CUT |= {kind: lambda kind=kind: _voxel_file(kind) for kind in VOXEL_FILES}
CUT |= {name: lambda name=name: _dicom(name) for name in ("SC_rgb_small_odd.dcm", "JPEG2000.dcm", *COMPRESSED[:3])}


@pytest.mark.parametrize("kind", CUT)
def test_a_file_that_is_cut_off_is_refused_or_has_lost_nothing(tmp_path, kind):
    data, entry = CUT[kind](), "#train/1" if "npz" in kind else ""
    intact = _read(data, tmp_path, entry=entry).array
    cuts = range(0, len(data), 1 if EXAMPLES else max(1, len(data) // 60))
    for cut in {*cuts, *range(len(data) - 12, len(data))}:
        image = _read(data[:cut], tmp_path, entry=entry)
        assert image is None or np.array_equal(image.array, intact)


@pytest.mark.parametrize("kind", UNCHECKED)
def test_a_damaged_picture_is_read_or_refused(tmp_path, kind):
    entry = "#train/1" if "npz" in kind else ""

    @HOSTILE
    @given(damage(UNCHECKED[kind]()))
    def hold(damaged):
        _read(damaged, tmp_path, entry=entry)

    hold()


@pytest.mark.parametrize("kind", VOXEL_FILES)
def test_a_damaged_header_of_voxels_loses_and_invents_none(tmp_path, kind):
    data = _voxel_file(kind)
    header, body = data[: -VOXELS.nbytes], data[-VOXELS.nbytes :]

    @HOSTILE
    @given(damage(header))
    def hold(damaged):
        damaged += body
        image = _read(damaged, tmp_path)
        if image is None:
            return
        if kind.startswith("nii"):
            whole = (nibabel.Nifti2Image if kind == "nii2" else nibabel.Nifti1Image).from_bytes(damaged)
            np.testing.assert_array_equal(image.array.ravel(), _reordered(whole.get_fdata(), image).astype(np.float32))
        elif image.source["stored_type"] in ("int16", "uint16"):
            np.testing.assert_array_equal(np.sort(image.array, axis=None), np.sort(VOXELS, axis=None))

    hold()


def _reordered(values: np.ndarray, image: Image) -> np.ndarray:
    """The voxels of a NIfTI file with two to five axes in the order of ``image.array``."""
    values = values.reshape(*values.shape[:3], -1)
    if image.array.ndim == 3:
        return values[:, :, 0, 0].T.ravel()
    return np.moveaxis(values, 3, 0).ravel()


def _agrees_with_pydicom(image: Image, data: bytes) -> None:
    """The values follow from the stored pixels as pydicom, asked by itself, reads them from the same bytes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ds = pydicom.dcmread(io.BytesIO(data), force=True)
        if "TransferSyntaxUID" not in ds.file_meta:
            implicit, little = ds.original_encoding
            ds.file_meta.TransferSyntaxUID = (
                ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian if little else ExplicitVRBigEndian
            )
        is_rle = ds.file_meta.TransferSyntaxUID == RLELossless
        stored = pixel_array(ds, decoding_plugin="pydicom" if is_rle else "")
        if image.array.shape[0] == 3:
            white = 2 ** int(ds.BitsStored) - 1
            np.testing.assert_allclose(np.moveaxis(image.array, 0, -1), stored / white, atol=1e-6)
            return
        if ds.get("RescaleSlope") not in (None, "") or ds.get("RescaleIntercept") not in (None, ""):
            ds.RescaleSlope, ds.RescaleIntercept = ds.get("RescaleSlope") or 1, ds.get("RescaleIntercept") or 0
        values = np.asarray(apply_modality_lut(stored, ds), dtype=np.float64)
    if image.array.ndim == 4:
        pixels = image.array[0, :, :, 0].T
        unpadded = np.ones(stored.shape, bool) if "padding_pixels" not in image.source else pixels == values
        np.testing.assert_allclose(pixels[unpadded], values[unpadded].astype(np.float32), rtol=1e-6)
        assert (~unpadded).sum() <= image.source.get("padding_pixels", 0)
    elif "padding_pixels" not in image.source:
        shown = image.array[0][np.unravel_index(np.argsort(stored, axis=None, kind="stable"), stored.shape)]
        steps, same = np.diff(shown), np.diff(np.sort(stored, axis=None)) == 0
        assert (steps[same] == 0).all(), "one stored value is shown as two"
        assert (steps >= 0).all() or (steps <= 0).all(), "brighter pixels are shown darker and brighter"


@pytest.mark.parametrize("name", NATIVE)
def test_a_damaged_dicom_file_is_read_as_pydicom_reads_it_or_refused(tmp_path, name):
    @HOSTILE
    @given(damage(_dicom(name)))
    def hold(damaged):
        image = _read(damaged, tmp_path)
        if image is not None:
            _agrees_with_pydicom(image, damaged)

    hold()


@pytest.mark.parametrize("name", ["MR_small.dcm", "CT_small.dcm", "SC_rgb_small_odd.dcm"])
def test_a_header_that_says_something_else_is_read_as_pydicom_reads_it_or_refused(tmp_path, name):
    @HOSTILE
    @given(st.lists(st.sampled_from(SAID), min_size=1, max_size=3, unique_by=lambda said: said[0]))
    def hold(said):
        ds = pydicom.dcmread(get_testdata_file(name, download=False))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for keyword, value in said:
                ds[keyword] = pydicom.DataElement(keyword, VRS.get(keyword, "US"), value, validation_mode=0)
            stream = io.BytesIO()
            ds.save_as(stream)
        image = _read(stream.getvalue(), tmp_path)
        if image is not None:
            _agrees_with_pydicom(image, stream.getvalue())

    hold()


@pytest.mark.parametrize("name", COMPRESSED + OTHER_OBJECTS)
def test_damaged_compressed_and_other_objects_crash_nothing(tmp_path, name):
    @settings(HOSTILE, max_examples=EXAMPLES or 10)
    @given(damage(_dicom(name)))
    def hold(damaged):
        _read(damaged, tmp_path)

    hold()
