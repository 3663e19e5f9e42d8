from __future__ import annotations

import gzip
import os
import zipfile
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from PIL import Image as Pillow

from medgcsam.imaging import sniff_kind

TEST_FILES = Path(pydicom.__file__).parent / "data" / "test_files"


@pytest.mark.parametrize("kind", ["png", "jpeg", "tiff"])
def test_pictures_are_known_without_their_extension(tmp_path, kind):
    Pillow.fromarray(np.zeros((4, 5), np.uint8)).save(tmp_path / "x.dcm", format=kind)
    assert sniff_kind(tmp_path / "x.dcm") == kind


@pytest.mark.parametrize(("pair", "name"), [(nibabel.Nifti1Image, "x.nii"), (nibabel.Nifti2Image, "y.nii.gz")])
def test_nifti_plain_and_gzipped(tmp_path, pair, name):
    nibabel.save(pair(np.zeros((3, 4, 5), np.int16), np.eye(4)), tmp_path / name)
    os.rename(tmp_path / name, tmp_path / "scan.png")
    assert sniff_kind(tmp_path / "scan.png") == "nifti"


def test_npz(tmp_path):
    np.savez(tmp_path / "x.npz", train_images=np.zeros((1, 2, 2), np.uint8))
    assert sniff_kind(tmp_path / "x.npz") == "npz"


@pytest.mark.parametrize("name", ["CT_small.dcm", "ExplVR_BigEndNoMeta.dcm", "ExplVR_LitEndNoMeta.dcm", "rtstruct.dcm"])
def test_dicom_with_and_without_preamble(name):
    assert sniff_kind(TEST_FILES / name) == "dicom"


def test_a_dicom_file_whose_preamble_is_a_tiff_header_is_dicom(tmp_path):
    data = (TEST_FILES / "CT_small.dcm").read_bytes()
    (tmp_path / "dual.tif").write_bytes(b"II*\0" + data[4:])
    assert sniff_kind(tmp_path / "dual.tif") == "dicom"


@pytest.mark.parametrize(
    "data", [b"", b"file,label\n1.png,0\n", b"GIF89a" + bytes(500), gzip.compress(b"no nifti" * 99, mtime=0)]
)
def test_anything_else_is_unknown(tmp_path, data):
    (tmp_path / "x.png").write_bytes(data)
    assert sniff_kind(tmp_path / "x.png") == "unknown"


def test_zip(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:  # the name does not matter
        archive.writestr("a/b.dcm", b"x")
    assert sniff_kind(tmp_path / "x.npz") == "zip"
