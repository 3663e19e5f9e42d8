from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image as Pillow

from medgcsam.errors import DataError
from medgcsam.imaging import pixel_digest, read_image, source_digest

GRAY = np.arange(35, dtype=np.uint8).reshape(7, 5)


def test_the_kind_is_decided_by_content(tmp_path, write_dicom):
    Pillow.fromarray(GRAY).save(tmp_path / "scan.nii.gz", format="png")
    dicom = write_dicom(GRAY, name="photo.jpg")
    assert read_image(tmp_path / "scan.nii.gz").source["kind"] == "png"
    assert read_image(dicom).source["kind"] == "dicom"


def test_the_same_pixels_in_two_formats_have_one_pixel_digest_and_two_source_digests(tmp_path, write_dicom):
    Pillow.fromarray(GRAY).save(tmp_path / "a.png")
    Pillow.fromarray(GRAY).save(tmp_path / "a.tif")
    paths = [tmp_path / "a.png", tmp_path / "a.tif", write_dicom(GRAY)]
    assert len({pixel_digest(read_image(path)) for path in paths}) == 1
    assert [source_digest(path) for path in paths] == [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]


def test_a_hash_sign_in_a_name_is_just_a_name(tmp_path):
    Pillow.fromarray(GRAY).save(tmp_path / "case#train", format="png")
    Pillow.fromarray(GRAY).save(tmp_path / "case#3.png")
    assert read_image(tmp_path / "case#train").array.shape == (1, 7, 5)
    assert read_image(tmp_path / "case#3.png").array.shape == (1, 7, 5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: None, "does not exist"),
        (lambda p: p.write_bytes(b""), "empty file"),
        (lambda p: p.mkdir(), "is a folder"),
        (lambda p: p.write_text("file,label\na.png,0\n"), "no kind that can be read"),
    ],
)
def test_what_cannot_be_read_is_one_sentence_that_names_the_file_and_the_remedy(tmp_path, make, message):
    make(tmp_path / "scan-17")
    with pytest.raises(DataError, match=message) as caught:
        read_image(tmp_path / "scan-17")
    text = str(caught.value)
    assert "scan-17" in text
    assert text.endswith(".")
    assert ";" in text
    assert "\n" not in text


def test_a_selector_into_something_else_is_refused(tmp_path):
    Pillow.fromarray(GRAY).save(tmp_path / "a.png")
    for function in (read_image, source_digest):
        with pytest.raises(DataError, match=r"a\.png"):
            function(f"{tmp_path}/a.png#train/0")
    with pytest.raises(DataError, match="does not exist"):
        source_digest(tmp_path / "absent.png")


def test_importing_the_package_loads_none_of_the_readers():
    code = (
        "import sys, medgcsam.imaging; "
        "print([m for m in ('pydicom', 'nibabel', 'PIL', 'torch', 'monai') if m in sys.modules])"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )
