"""A check lists every fault of a data set at once."""

from __future__ import annotations

from collections import Counter
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image as Picture
from scipy.ndimage import gaussian_filter

from medgcsam.config import DataConfig
from medgcsam.imaging import Image
from medgcsam.intake import check_dataset, examine, open_dataset


def pixels(seed: int, shape: tuple[int, int] = (64, 64)) -> np.ndarray:
    """A smooth random picture."""
    noise = np.random.default_rng(seed).normal(0, 1, shape)
    return (128 + 250 * gaussian_filter(noise, 2)).clip(0, 255).astype(np.uint8)


def save(path: Path, seed: int, **options) -> bytes:
    Picture.fromarray(pixels(seed)).save(path, **options)
    return path.read_bytes()


def opened(folder: Path, *rows: str, header: str = "image,patient_id,label,partition"):
    (folder / "m.csv").write_text("\n".join([header, *rows]))
    data = DataConfig(manifest="m.csv", classes=["well", "ill"])
    return open_dataset(data, base=folder, cache=folder, strict=False)


def kinds(dataset, **options) -> list[tuple[int, str]]:
    return [(fault.row, fault.kind) for fault in check_dataset(dataset, **options).faults]


def test_a_sound_set_has_no_fault(tmp_path):
    for number in range(4):
        save(tmp_path / f"{number}.png", number)
    rows = ["0.png,1,well,train", "1.png,1,ill,train", "2.png,2,ill,test", "3.png,3,well,"]
    checked = check_dataset(opened(tmp_path, *rows))
    assert (checked.faults, checked.copies, checked.known) == ((), (), 0)


def test_every_fault_at_once(tmp_path):
    content = save(tmp_path / "a.png", 0)
    (tmp_path / "twin.png").write_bytes(content)
    (tmp_path / "short.png").write_bytes(content[: len(content) // 2])
    Picture.fromarray(np.zeros((32, 32), np.uint8)).save(tmp_path / "black.png")
    Picture.fromarray(pixels(5)[:9]).save(tmp_path / "thin.png")
    for number in range(3):
        save(tmp_path / f"{number}.png", 10 + number)
    dataset = opened(
        tmp_path,
        "a.png,1,well,train",  # 2
        "twin.png,2,ill,train",  # 3
        "short.png,3,well,train",  # 4
        "black.png,4,well,train",  # 5
        "absent.png,5,well,train",  # 6
        "0.png,6,sick,train",  # 7
        "1.png,7,ill,train",  # 8
        "2.png,7,ill,test",  # 9
        "1.png,,well,somewhere",  # 10
        ",9,ill,test",  # 11
        "1.png,ill",  # 12
        "thin.png,10,ill,test",  # 13
    )
    assert kinds(dataset) == [
        (2, "conflicting_labels"), (2, "identical_images"), (4, "unreadable"), (5, "constant"), (6, "missing"),
        (7, "label"), (8, "conflicting_labels"), (8, "patient_in_two_partitions"), (10, "listed_twice"),
        (10, "partition"), (10, "patient"), (11, "image"), (12, "fields"), (13, "too_small"),
    ]  # fmt: skip
    faults = check_dataset(dataset).faults
    sentences = {(fault.row, fault.kind): fault.sentence for fault in faults}
    assert "a.png, twin.png (lines 2, 3)" in sentences[2, "identical_images"]
    assert "ill and well" in sentences[2, "conflicting_labels"]
    assert sentences[6, "missing"] == "line 6: absent.png does not exist: put it there, or exclude the row"
    assert str(tmp_path) not in sentences[4, "unreadable"]
    assert "patient 7" in sentences[8, "patient_in_two_partitions"]
    assert "1.png is listed with the labels ill and well (lines 8, 10)" in sentences[8, "conflicting_labels"]


def test_identical_images_of_one_patient_with_one_label_are_no_fault(tmp_path):
    (tmp_path / "b.png").write_bytes(save(tmp_path / "a.png", 0))
    assert kinds(opened(tmp_path, "a.png,1,well,", "b.png,1,well,")) == []
    assert kinds(opened(tmp_path, "a.png,1,well,", "b.png,1,ill,")) == [(2, "conflicting_labels")]


def test_equal_pixels_in_different_files_are_identical(tmp_path):
    save(tmp_path / "a.png", 0)
    save(tmp_path / "b.png", 0, compress_level=0)
    Picture.fromarray(pixels(0)).save(tmp_path / "c.tiff")
    changed = pixels(0)
    changed[30, 30] ^= 1
    Picture.fromarray(changed).save(tmp_path / "d.png")
    checked = check_dataset(opened(tmp_path, "a.png,1,well,", "b.png,2,well,", "c.tiff,3,well,", "d.png,4,well,"))
    identical = [fault for fault in checked.faults if fault.kind == "identical_images"]
    assert [fault.sentence.rpartition(": ")[2] for fault in identical] == ["a.png, b.png, c.tiff (lines 2, 3, 4)"]
    assert {copies.second for copies in checked.copies} == {"d.png"}


def test_near_duplicates_across_patients_are_told_with_their_similarity(tmp_path):
    save(tmp_path / "a.png", 0)
    save(tmp_path / "b.png", 1)
    stream = BytesIO()
    Picture.fromarray(pixels(0)).resize((90, 80), Picture.Resampling.BICUBIC).save(stream, "JPEG", quality=80)
    (tmp_path / "copy.jpg").write_bytes(stream.getvalue())
    dataset = opened(tmp_path, "a.png,1,well,", "b.png,2,well,", "copy.jpg,3,ill,")
    checked = check_dataset(dataset)
    (fault,) = checked.faults
    (copies,) = checked.copies
    assert (fault.kind, fault.row) == ("near_duplicates", 2)
    assert (copies.first, copies.second, copies.lines) == ("a.png", "copy.jpg", (2, 4))
    assert 0.9 < copies.similarity <= 1
    assert "well and ill" in fault.sentence
    assert kinds(opened(tmp_path, "a.png,1,well,", "b.png,2,well,", "copy.jpg,1,well,")) == []


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_pixels_that_are_no_numbers(tmp_path, monkeypatch, value):
    """Should a reader let such pixels pass, the check does not."""
    Picture.fromarray(pixels(0)).save(tmp_path / "a.tiff")
    array = np.array([[[0, value]]], np.float32)
    monkeypatch.setattr(examine, "read_image", lambda path, **options: Image(array=array, unit="raw"))
    assert kinds(opened(tmp_path, "a.tiff,1,well,")) == [(2, "not_finite")]


def test_text_that_only_the_header_tells_of(tmp_path, monkeypatch):
    read = examine.read_image

    def with_header(path, **options):
        image = read(path, **options)
        image.source["burned_in_annotation"] = "YES" if path.endswith("a.tiff") else "NO"
        return image

    monkeypatch.setattr(examine, "read_image", with_header)
    for number, name in enumerate("ab"):
        Picture.fromarray(pixels(number)).save(tmp_path / f"{name}.tiff")
    (fault,) = check_dataset(opened(tmp_path, "a.tiff,1,well,", "b.tiff,2,ill,")).faults
    assert (fault.kind, fault.row) == ("burned_in_text", 2)
    assert "its header says so" in fault.sentence


def test_near_copies_of_one_patient_with_other_labels(tmp_path):
    """Among few images, which are compared pair by pair, and among many, which are not."""
    rows = []
    for number in range(40):
        save(tmp_path / f"{number}.png", number)
        rows.append(f"{number}.png,P{number},well,")
    Picture.fromarray(pixels(0)).resize((90, 80), Picture.Resampling.BICUBIC).save(tmp_path / "copy.png")
    for some in (rows[:4], rows):
        (fault,) = [
            f for f in check_dataset(opened(tmp_path, *some, "copy.png,P0,ill,")).faults if f.kind != "odd_size"
        ]
        assert (fault.kind, fault.row) == ("conflicting_labels", 2)
        assert "0.png, copy.png are nearly identical" in fault.sentence
        assert "the labels ill and well" in fault.sentence
        assert "conflicting_labels" not in dict(kinds(opened(tmp_path, *some, "copy.png,P0,well,"))).values()


@pytest.mark.parametrize("other", ["p 01", "P01", "P1", "p1 "])
def test_patients_whose_names_hardly_differ(tmp_path, other):
    for number in range(3):
        save(tmp_path / f"{number}.png", number)
    rows = ["0.png,P 01,well", f"1.png,{other},ill", "2.png,P10,ill"]

    def found(*parts):
        header = "image,patient_id,label" + ",partition" * bool(parts)
        lines = [",".join(filter(None, pair)) for pair in zip(rows, parts or ("",) * 3, strict=True)]
        return check_dataset(opened(tmp_path, *lines, header=header)).faults

    (fault,) = found("train", "test", "train")
    assert (fault.kind, fault.row) == ("similar_patients", 2)
    assert "P 01" in fault.sentence
    assert "in test and train" in fault.sentence
    assert "lines 2, 3" in fault.sentence
    assert found("train", "train", "test") == ()
    assert [fault.kind for fault in found()] == ["similar_patients"]


def test_pictures_of_unknown_patients_may_have_similar_names(tmp_path):
    for number, name in enumerate(("1.png", "01.png")):
        save(tmp_path / name, number)
    (tmp_path / "m.csv").write_text("image,label\n1.png,well\n01.png,ill\n")
    data = DataConfig(manifest="m.csv", patients="unknown")
    assert kinds(open_dataset(data, base=tmp_path, cache=tmp_path, strict=False)) == []


def test_what_is_not_looked_for_in_a_small_set_is_said(tmp_path):
    rows = []
    for number in range(20):
        save(tmp_path / f"{number}.png", number)
        rows.append(f"{number}.png,{number},well,")
    few, enough = (check_dataset(opened(tmp_path, *some)).notes for some in (rows[:19], rows))
    assert [note.split()[0] for note in few] == ["odd_size", "inverted_contrast"]
    assert all("fewer than 20" in note for note in few)
    assert enough == ()


def test_pixels_that_a_reader_refuses_as_no_numbers(tmp_path):
    Picture.fromarray(np.array([[0.0, np.nan]], np.float32)).save(tmp_path / "a.tiff")
    assert kinds(opened(tmp_path, "a.tiff,1,well,")) == [(2, "not_finite")]


def test_patients_that_share_a_study(tmp_path):
    for number in range(4):
        save(tmp_path / f"{number}.png", number)
    rows = ["0.png,1,well,s1", "1.png,2,well,s1", "2.png,3,well,s2", "3.png,3,ill,s2"]
    (fault,) = check_dataset(opened(tmp_path, *rows, header="image,patient_id,label,study")).faults
    assert (fault.kind, fault.row) == ("shared_study", 2)
    assert "patients 1, 2 share one study (lines 2, 3)" in fault.sentence


def test_patients_that_share_a_study_by_their_dicom_files(tmp_path, monkeypatch):
    """Also where the manifest has no column of studies; the uid itself is not told."""
    studies = {"0": "1.2.3", "1": "1.2.3", "2": "4.5.6"}

    def read(path, **options):
        name = Path(path).stem
        image = SimpleNamespace(**vars(Image(array=pixels(int(name))[None].astype(np.float32), unit="raw")))
        image.reference = SimpleNamespace(study_uid=studies[name])
        return image

    for name in studies:
        (tmp_path / f"{name}.dcm").write_bytes(b"x")
    monkeypatch.setattr(examine, "read_image", read)
    (fault,) = check_dataset(opened(tmp_path, "0.dcm,1,well,", "1.dcm,2,well,", "2.dcm,3,ill,")).faults
    assert fault.kind == "shared_study"
    assert "1.2.3" not in fault.sentence


def test_an_odd_size_and_an_inverted_image_among_many(tmp_path):
    shared = 60 * np.cos(np.linspace(0, 6, 64))[:, None]
    rows = []
    for number in range(40):
        picture = (pixels(number) * 0.4 + 77 + shared).clip(0, 255).astype(np.uint8)
        picture = 255 - picture if number == 7 else picture
        picture = picture[:, :50] if number == 9 else picture
        Picture.fromarray(picture).save(tmp_path / f"{number}.png")
        rows.append(f"{number}.png,{number},well,")
    checked = check_dataset(opened(tmp_path, *rows))
    assert [(fault.row, fault.kind) for fault in checked.faults] == [(9, "inverted_contrast"), (11, "odd_size")]
    assert "64x50 where nearly all others are 64x64" in checked.faults[1].sentence


def test_a_repeated_check_finds_the_same_without_looking_again(tmp_path):
    save(tmp_path / "a.png", 0)
    (tmp_path / "b.png").write_bytes(save(tmp_path / "c.png", 1)[:700])
    dataset = opened(tmp_path, "a.png,1,well,", "b.png,2,well,", "c.png,3,ill,")
    first, second = (check_dataset(dataset, cache=tmp_path / "cache") for _ in range(2))
    assert (first.known, second.known) == (0, 3)
    assert first.faults == second.faults != ()


def test_breastmnist_holds_one_image_twice_with_conflicting_labels(shared_data, tmp_path):
    data = DataConfig(manifest="breastmnist.yaml")
    dataset = open_dataset(data, base=tmp_path, cache=tmp_path, task="classification", strict=False)
    wanted = {"identical_images": 1, "conflicting_labels": 1}
    faults = [fault for fault in check_dataset(dataset).faults if fault.kind in wanted]
    assert Counter(fault.kind for fault in faults) == wanted
    assert "breastmnist.npz#train/115, breastmnist.npz#test/76" in faults[0].sentence


@pytest.mark.parametrize("error", [MemoryError, RecursionError, KeyError])
def test_an_image_that_breaks_its_reader_does_not_end_the_check(tmp_path, monkeypatch, error):
    for name in "abc":
        save(tmp_path / f"{name}.png", 1)
    (tmp_path / "b.png").write_bytes((tmp_path / "b.png").read_bytes()[:-12])  # no plain PNG: the reader decides

    def broken(*_args, **_options):
        raise error

    monkeypatch.setattr(examine, "read_image", broken)
    rows = [(str(tmp_path / f"{name}.png"), "") for name in "abc"]
    sound, seen, other = examine.examine_each(iter(rows))
    assert sound == other == examine.examine(rows[0])
    (fault,) = seen.faults
    assert fault.kind == "unreadable"
    assert error.__name__ in fault.sentence
