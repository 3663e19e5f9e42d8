from __future__ import annotations

import hashlib
import subprocess
import sys

import nibabel
import numpy as np
import pytest
from PIL import Image as Pillow

from medgcsam.errors import DataError
from medgcsam.imaging import pixel_digest, read_image, source_digest
from medgcsam.imaging.references import split_selector

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
        (lambda p: p.mkdir(), "holds no DICOM image among 0 files"),
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


def test_a_volume_of_a_file_is_chosen_by_selector_or_argument(tmp_path):
    voxels = np.arange(48, dtype=np.int16).reshape(2, 3, 4, 2)
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), tmp_path / "four.nii.gz")
    path = f"{tmp_path}/four.nii.gz"
    assert read_image(path).array.shape == (2, 2, 3, 4)
    for image in (read_image(f"{path}#volume=1"), read_image(path, volume=1), read_image(f"{path}#volume=1", volume=1)):
        assert np.array_equal(image.array[0], voxels[..., 1])
    digests = {source_digest(reference) for reference in (path, f"{path}#volume=0", f"{path}#volume=1")}
    assert len(digests) == 3
    with pytest.raises(DataError, match="names another volume than 0"):
        read_image(f"{path}#volume=1", volume=0)
    Pillow.fromarray(GRAY).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="no volumes to choose from"):
        read_image(tmp_path / "a.png", volume=0)


@pytest.mark.parametrize("selector", ["volume=x", "volume=-1", "series=1.2", "train/0", "0"])
def test_a_selector_that_selects_nothing_is_refused(tmp_path, selector):
    nibabel.save(nibabel.Nifti1Image(np.ones((2, 3, 4), np.int16), np.eye(4)), tmp_path / "a.nii")
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match="no kind that can be read"):
        read_image(f"{tmp_path}/a.nii#{selector}")
    with pytest.raises(DataError, match=r"no image series 1\.2|selects nothing of a folder"):
        read_image(f"{tmp_path}/folder#{selector}")


def test_a_file_whose_whole_name_has_a_selector_in_it_is_that_file(tmp_path):
    nibabel.save(nibabel.Nifti1Image(np.ones((2, 3, 4), np.int16), np.eye(4)), tmp_path / "a.nii")
    Pillow.fromarray(GRAY).save(tmp_path / "a.nii#volume=0", format="png")
    assert read_image(f"{tmp_path}/a.nii#volume=0").source["kind"] == "png"
    assert split_selector(f"{tmp_path}/a.nii#volume=0") == (f"{tmp_path}/a.nii#volume=0", "")
    assert split_selector(f"{tmp_path}/a.nii#volume=1") == (f"{tmp_path}/a.nii", "volume=1")
    assert split_selector(f"{tmp_path}/absent#volume=1") == (f"{tmp_path}/absent#volume=1", "")


def test_importing_the_package_loads_none_of_the_readers():
    code = (
        "import sys, medgcsam.imaging; "
        "print([m for m in ('pydicom', 'nibabel', 'PIL', 'torch', 'monai') if m in sys.modules])"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )
