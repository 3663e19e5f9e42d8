"""Near-duplicates: copies are found whatever was done to them, different pictures of one kind are not."""

from __future__ import annotations

import csv
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture
from scipy.fft import dctn
from scipy.ndimage import gaussian_filter

from medgcsam.intake import near_duplicates as module
from medgcsam.intake.alignment import similarity
from medgcsam.intake.examine import CLOSER
from medgcsam.intake.frequencies import COEFFICIENTS, ORDER, coefficients, explained, slopes
from medgcsam.intake.near_duplicates import FEW, candidate_pairs, near_duplicates
from medgcsam.intake.pictures import THUMBNAIL, thumbnail


def cloud(seed: int, size: int = 240) -> Picture.Image:
    """A smooth random picture that looks like no other, over a background that all share."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size, :size] / size
    shared = 60 * np.sin(3 * rows) + 40 * columns
    own = sum(gaussian_filter(random.normal(0, 50 * width, (size, size)), width) for width in (5, 9, 20))
    return Picture.fromarray((90 + shared + own).clip(0, 255).astype(np.uint8))


def jpeg(picture: Picture.Image) -> Picture.Image:
    stream = BytesIO()
    picture.save(stream, "JPEG", quality=50)
    return Picture.open(stream).convert("L")


EDITS = {
    "jpeg": jpeg,
    "smaller": lambda picture: picture.resize((150, 170), Picture.Resampling.BICUBIC),
    "larger": lambda picture: picture.resize((400, 390), Picture.Resampling.BICUBIC),
    "cropped": lambda picture: picture.crop((12, 3, 235, 232)),
    "contrast": lambda picture: picture.point([40 + value // 2 for value in range(256)]),
    "brighter": lambda picture: picture.point([min(255, round(40 + 0.8 * value)) for value in range(256)]),
    "fainter": lambda picture: picture.point([round(60 + 0.5 * value) for value in range(256)]),
    "all": lambda picture: jpeg(picture.crop((0, 9, 230, 236)).resize((200, 200), Picture.Resampling.BICUBIC)),
}


def thumbnails(pictures: list[Picture.Image], size: int = THUMBNAIL) -> np.ndarray:
    joined = b"".join(thumbnail(picture, size) for picture in pictures)
    return np.frombuffer(joined, np.uint8).reshape(-1, size, size)


def found(pictures: list[Picture.Image], patients: np.ndarray | None = None) -> dict[tuple[int, int], float]:
    patients = np.arange(len(pictures)) if patients is None else patients
    small, large = thumbnails(pictures), thumbnails(pictures, CLOSER)
    pairs, alike = near_duplicates(coefficients(small), patients, lambda rows: small[rows], lambda row: large[row])
    return {(int(a), int(b)): float(value) for (a, b), value in zip(pairs, alike, strict=True)}


@pytest.fixture(scope="module")
def clouds() -> list[Picture.Image]:
    return [cloud(seed) for seed in range(60)]


@pytest.mark.parametrize("edit", EDITS)
def test_each_copy_is_found_and_nothing_else(clouds, edit):
    copies = [EDITS[edit](picture) for picture in clouds[:12]]
    pairs = found(clouds + copies)
    assert set(pairs) == {(number, 60 + number) for number in range(12)}
    assert all(0.82 <= alike <= 1.001 for alike in pairs.values())


def test_small_sets_are_searched_too(clouds):
    pictures = [*clouds[:5], EDITS["cropped"](clouds[3])]
    assert len(pictures) < FEW
    assert set(found(pictures)) == {(3, 5)}


def test_images_of_one_patient_are_no_pairs(clouds):
    pictures = clouds + [EDITS["jpeg"](picture) for picture in clouds[:3]]
    patients = np.arange(63)
    patients[61] = patients[1]
    assert set(found(pictures, patients)) == {(0, 60), (2, 62)}


def test_flat_pictures_are_like_nothing():
    flat = np.full((40, THUMBNAIL, THUMBNAIL), 128, np.uint8)
    assert not coefficients(flat).any()
    assert found([Picture.fromarray(picture) for picture in flat]) == {}
    assert similarity(flat, flat).tolist() == [0] * 40


def test_a_large_set_is_searched_in_cells_and_finds_the_same(clouds, monkeypatch):
    pictures = clouds + [EDITS["cropped"](picture) for picture in clouds[:10]]
    at_once = found(pictures)
    monkeypatch.setattr(module, "EXACT", 20)
    assert found(pictures) == at_once != {}


def test_several_threads_find_the_same(clouds, monkeypatch):
    small, large = (thumbnails(clouds + [EDITS["all"](picture) for picture in clouds[:9]], size) for size in (48, 96))
    monkeypatch.setattr(module, "SURE", 1.0)  # larger thumbnails are compared too
    arguments = coefficients(small), np.arange(69), lambda rows: small[rows], lambda row: large[row]
    alone = near_duplicates(*arguments)
    assert len(alone[0]) == 9
    monkeypatch.setattr(module, "CACHED", 7)
    monkeypatch.setattr(module, "BLOCK", 10)
    for one, other in zip(alone, near_duplicates(*arguments, threads=3), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_an_image_of_one_patient_with_another_label_is_looked_for(clouds):
    """Among patients that have one label each, and one that has two in a copy."""
    small, large = (thumbnails([*clouds, EDITS["jpeg"](clouds[7])], size) for size in (48, 96))
    patients, labels = np.append(np.arange(60) // 2, 3), np.append(np.zeros(60, int), 1)
    pairs, _ = near_duplicates(
        coefficients(small), patients, lambda rows: small[rows], lambda row: large[row], labels=labels
    )
    assert pairs.tolist() == [[7, 60]]


def test_candidates_are_each_named_once_and_in_order(clouds, monkeypatch):
    pictures = thumbnails(clouds)
    monkeypatch.setattr(module, "MANY", 50)
    pairs = candidate_pairs(coefficients(pictures), np.arange(60))
    assert (pairs[:, 0] < pairs[:, 1]).all()
    assert [tuple(pair) for pair in pairs] == sorted({tuple(pair) for pair in pairs.tolist()})


def test_coefficients_are_those_of_the_cosine_transform(clouds):
    pictures = thumbnails(clouds[:4])
    expected = dctn(pictures.astype(float), axes=(1, 2), norm="ortho")[:, :ORDER, :ORDER].reshape(4, -1)[:, 1:]
    assert expected.shape[1] == COEFFICIENTS
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(coefficients(pictures), expected, atol=1e-5)


def test_slopes_tell_what_a_shift_does(clouds):
    """Against the difference of the coefficients of a picture shifted by one pixel up and one pixel down."""
    large = np.stack([np.asarray(picture.resize((52, 52)), np.float32) for picture in clouds[:6]])
    moved = {step: large[:, 2 + step : 50 + step, 2:50] for step in (-1, 0, 1)}
    expected = (coefficients(moved[1]) - coefficients(moved[-1])) / 2
    change = slopes(moved[0])[:, 1]
    for got, wanted in zip(change, expected, strict=True):
        assert np.corrcoef(got, wanted)[0, 1] > 0.97


def test_similarity_does_not_ask_which_is_the_crop(clouds):
    whole, part = thumbnails(clouds[:8]), thumbnails([EDITS["cropped"](picture) for picture in clouds[:8]])
    np.testing.assert_allclose(similarity(whole, part), similarity(part, whole), atol=0.03)


def test_another_contrast_counts_for_nothing(clouds):
    pictures = thumbnails(clouds[:8]).astype(np.float32)
    moved = np.roll(pictures, 1, axis=2)
    np.testing.assert_allclose(similarity(pictures, 0.5 * moved + 60), similarity(pictures, moved), atol=1e-3)
    assert similarity(pictures, 0.3 * pictures + 90).min() > 0.999


def test_chest_radiographs_of_different_patients_are_not_confused(shared_data: Path):
    folder = shared_data / "chest_xray_nih" / "images"
    names = sorted(path.name for path in folder.iterdir())[::3]
    pictures = [Picture.open(folder / name).convert("L") for name in names]
    patients = np.unique([name.split("_")[0] for name in names], return_inverse=True)[1]
    assert found(pictures, patients) == {}
    edits = [EDITS["jpeg"], lambda picture: picture.crop((6, 10, 309, 316)), lambda picture: picture.resize((224, 224))]
    copies = [edits[number % 3](picture) for number, picture in enumerate(pictures[:30])]
    pairs = found(pictures + copies, np.concatenate([patients, patients.max() + 1 + np.arange(30)]))
    assert {(number, len(pictures) + number) for number in range(30)} <= set(pairs)


def test_busi_pairs_that_are_listed_are_found(shared_data: Path):
    """Eight of its groups of two; images of different groups are not alike."""
    folder = shared_data / "breast_ultrasound_busi"
    groups: dict[str, list[str]] = {}
    for row in csv.DictReader((folder / "labels.csv").open()):
        groups.setdefault(row["dup_group"], []).append(row["file"])
    twins = [files for files in groups.values() if len(files) == 2][:8]
    pictures = [Picture.open(folder / name).convert("L") for files in twins for name in files]
    assert set(found(pictures)) == {(2 * number, 2 * number + 1) for number in range(8)}


def test_what_a_crop_changes_is_explained_and_what_another_picture_changes_is_not(clouds):
    whole = thumbnails(clouds)
    cropped = thumbnails([picture.crop((10, 10, 230, 230)) for picture in clouds])
    spread = coefficients(whole).mean(0), coefficients(whole).std(0)
    parts, cut, others = ((coefficients(p), slopes(p)) for p in (whole, cropped, np.roll(whole, 1, axis=0)))
    assert np.quantile(explained(parts, cut, *spread), 0.1) > 0.8
    assert np.quantile(explained(parts, others, *spread), 0.9) < 0.3
    np.testing.assert_allclose(explained(parts, cut, *spread), explained(cut, parts, *spread), atol=0.01)
