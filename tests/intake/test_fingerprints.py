"""Fingerprints: a faulty image stops nobody, and what was seen once is not looked at again."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture

from medgcsam.errors import MachineError
from medgcsam.intake import fingerprint
from medgcsam.intake.examine import Examined, Found, examine, examine_each, file_of
from medgcsam.intake.fingerprint_cache import FORMAT, FingerprintCache, keys_of
from medgcsam.intake.fingerprints import NONE, same_groups
from medgcsam.intake.pictures import THUMBNAIL


@pytest.fixture
def images(tmp_path: Path) -> list[str]:
    """Two files of equal pixels, another, a truncated one, a constant one, and one that is not there."""
    random = np.random.default_rng(0)
    pixels = random.integers(0, 40, (40, 50), dtype=np.uint8)
    Picture.fromarray(pixels).save(tmp_path / "a.png")
    Picture.fromarray(pixels).save(tmp_path / "b.png", compress_level=0)
    Picture.fromarray(pixels.T.copy()).save(tmp_path / "c.png")
    (tmp_path / "d.png").write_bytes((tmp_path / "a.png").read_bytes()[:900])
    Picture.fromarray(np.full((40, 50), 7, np.uint8)).save(tmp_path / "e.png")
    return [str(tmp_path / f"{name}.png") for name in "abcdef"]


def kinds(prints) -> dict[int, list[str]]:
    return {row: [found.kind for found in faults] for row, faults in prints.faults.items()}


def test_digests_and_faults(images):
    told = []
    prints = fingerprint(images, progress=lambda done, total: told.append((done, total)))
    assert kinds(prints) == {3: ["unreadable"], 4: ["constant"], 5: ["missing"]}
    assert (prints.picture[0] == prints.picture[1]).all()
    assert (prints.picture[0] != prints.picture[2]).any()
    assert not prints.picture[[3, 5]].any()
    assert images[3] not in prints.faults[3][0].sentence
    assert told == [(number, 6) for number in range(1, 7)]
    assert [prints.shapes[code] for code in prints.shape[:3]] == [(1, 40, 50), (1, 40, 50), (1, 50, 40)]
    assert list(prints.shape[[3, 5]]) == [NONE, NONE]
    assert not prints.coefficients[[3, 4, 5]].any()


def test_other_processes_give_the_same_in_the_same_order(images):
    here, there = fingerprint(images), fingerprint(images, workers=2)
    for name in ("picture", "coefficients", "shape", "sort", "mask", "keys"):
        np.testing.assert_array_equal(getattr(here, name), getattr(there, name))
    assert here.faults == there.faults


def test_no_images():
    assert len(fingerprint([])) == 0


def test_entries_of_an_archive(tmp_path):
    pixels = np.random.default_rng(1).integers(0, 256, (3, 28, 28), dtype=np.uint8)
    pixels[2] = pixels[0]
    arrays = {f"{name}_images": pixels for name in ("train", "val", "test")}
    np.savez(
        tmp_path / "x.npz", **arrays, **{f"{name}_labels": np.zeros((3, 1), int) for name in ("train", "val", "test")}
    )
    prints = fingerprint([f"{tmp_path}/x.npz#{entry}" for entry in ("train/0", "train/1", "val/2", "test/9")])
    assert (prints.picture[0] == prints.picture[2]).all()
    assert (prints.picture[0] != prints.picture[1]).any()
    assert kinds(prints)[3] == ["unreadable"]
    assert kinds(fingerprint([f"{tmp_path}/y.npz#train/0"])) == {0: ["missing"]}


def test_several_at_a_time_are_seen_as_each_alone(images, tmp_path):
    colour, large = str(tmp_path / "colour.png"), str(tmp_path / "large.png")
    random = np.random.default_rng(1)
    Picture.fromarray(random.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(colour)
    Picture.fromarray(random.integers(0, 256, (900, 1200), dtype=np.uint8)).save(large)
    mask = str(tmp_path / "mask.png")
    Picture.fromarray(np.eye(40, 50, dtype=np.uint8)).save(mask)
    rows = [*((image, "") for image in images), (large, ""), (colour, mask), ("a\0b.png", ""), (images[2], mask)]
    seen = list(examine_each(iter(rows * 3)))
    assert seen == [examine(row) for row in rows] * 3
    assert len(set(seen)) > 6
    assert kinds(fingerprint(["a\0b.png"])) == {0: ["missing"]}


def counted(calls: list[str]):
    def look(rows):
        for row in rows:
            calls.append(row[0])
            yield examine(row)

    return look


def test_a_second_check_looks_at_what_has_changed_alone(images, tmp_path):
    first = fingerprint(images, cache=tmp_path / "cache")
    first.cache.close()
    Picture.fromarray(np.arange(2000, dtype=np.uint8).reshape(40, 50)).save(images[1])
    calls: list[str] = []
    second = fingerprint(images, cache=tmp_path / "cache", look=counted(calls))
    assert (calls, second.known) == ([images[1]], 5)
    same = [0, 2, 3, 4, 5]
    np.testing.assert_array_equal(second.picture[same], first.picture[same])
    np.testing.assert_array_equal(second.coefficients[same], first.coefficients[same])
    assert second.faults == first.faults
    assert (second.picture[1] != first.picture[1]).any()


def test_a_check_that_was_stopped_goes_on(images, tmp_path):
    def stopped(rows):
        for row in rows:
            if row[0] == images[3]:
                raise KeyboardInterrupt
            yield examine(row)

    with pytest.raises(KeyboardInterrupt):
        fingerprint(images, cache=tmp_path / "cache", look=stopped)
    calls: list[str] = []
    assert kinds(fingerprint(images, cache=tmp_path / "cache", look=counted(calls))) == kinds(fingerprint(images))
    assert calls == images[3:]


def test_a_changed_mask_makes_its_image_be_looked_at_again(images, tmp_path):
    mask = tmp_path / "mask.png"
    Picture.fromarray(np.eye(40, 50, dtype=np.uint8)).save(mask)
    before = list(keys_of([(images[0], str(mask)), (images[1], "")]))
    Picture.fromarray(np.zeros((40, 50), np.uint8)).save(mask)
    after = list(keys_of([(images[0], str(mask)), (images[1], "")]))
    assert [old == new for old, new in zip(before, after, strict=True)] == [False, True]


def test_a_changed_file_in_a_folder_changes_the_key_of_the_folder(tmp_path):
    (tmp_path / "series").mkdir()
    (tmp_path / "series" / "1.dcm").write_bytes(b"1")
    reference = f"{tmp_path}/series#series=1.2.3"
    before = list(keys_of([(reference, "")]))
    (tmp_path / "series" / "2.dcm").write_bytes(b"2")
    assert list(keys_of([(reference, "")])) != before


def test_the_cache_holds_no_name(images, tmp_path):
    prints = fingerprint(images, cache=tmp_path / "cache")
    prints.cache.close()
    (file,) = (tmp_path / "cache" / "checks").iterdir()
    assert file.name == f"images-{FORMAT}.sqlite"
    content = file.read_bytes()
    assert not any(os.path.basename(name).encode() in content for name in images)


def test_a_damaged_cache_is_begun_anew(images, tmp_path):
    (tmp_path / "checks").mkdir()
    (tmp_path / "checks" / f"images-{FORMAT}.sqlite").write_bytes(b"no database at all, " * 400)
    assert kinds(fingerprint(images, cache=tmp_path)) == kinds(fingerprint(images))


def test_a_cache_that_cannot_be_written_is_the_machines_fault(images, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineError, match="MEDGCSAM_CACHE"):
        fingerprint(images, cache=tmp_path / "file")


def test_what_goes_into_the_cache_comes_out(tmp_path):
    picture = bytes(range(256)) * (THUMBNAIL * THUMBNAIL // 256)
    examined = Examined(picture, (3, 5, 6), "display DX", b"s" * 16, (Found("constant", "is grey"),), (0, 2))
    cache = FingerprintCache(tmp_path)
    cache.add(b"a", examined)
    cache.add(b"b", Examined(faults=(Found("missing", "does not exist"),)))
    cache.close()
    again = FingerprintCache(tmp_path)
    assert again.find([b"a", b"b", b"c"]) == {
        b"a": examined,
        b"b": Examined(faults=(Found("missing", "does not exist"),)),
    }
    assert again.thumbnails([b"a", b"a"]).tobytes() == picture * 2


def test_the_file_of_a_reference(tmp_path):
    (tmp_path / "a#b.zip").write_text("")
    archive = str(tmp_path / "a#b.zip")
    assert file_of(archive) == archive
    assert file_of(f"{archive}#member/c#d.png") == archive
    assert file_of(f"{tmp_path}/x.npz#train/1") == f"{tmp_path}/x.npz"


def test_same_groups():
    digests = np.array([[0, 0], [1, 2], [1, 3], [1, 2], [0, 0], [2, 2], [1, 2]], np.uint64)
    assert [group.tolist() for group in same_groups(digests)] == [[1, 3, 6]]


def test_many_images_take_little_memory():
    """Nothing of an image stays but some hundred bytes, whatever its size; with a reader that invents thumbnails."""
    tracemalloc = pytest.importorskip("tracemalloc")
    count, random = 12_000, np.random.default_rng(0)
    pictures = [random.bytes(THUMBNAIL * THUMBNAIL) for _ in range(7)]
    tracemalloc.start()
    try:
        prints = fingerprint(
            [f"{number}.png" for number in range(count)],
            look=partial(map, lambda row: Examined(pictures[len(row[0]) % 7], (1, 512, 512), "display")),
        )
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(prints) == count
    assert peak / count < 1000
