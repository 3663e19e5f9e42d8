from __future__ import annotations

import time

import numpy as np
import pytest

from medgcsam.errors import DataError
from medgcsam.imaging import read_image, source_digest

RANDOM = np.random.default_rng(1)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize(
    ("shape", "expected"), [((4, 6, 5), (1, 6, 5)), ((4, 6, 5, 3), (3, 6, 5)), ((4, 6, 5, 7), (1, 6, 5, 7))]
)
def test_entries_of_every_layout_stored_or_compressed(tmp_path, save, shape, expected):
    images = RANDOM.integers(0, 256, shape, dtype=np.uint8)
    save(tmp_path / "set.npz", val_images=images, val_labels=np.zeros((4, 1)))
    image = read_image(f"{tmp_path}/set.npz#val/2")
    assert image.array.shape == expected
    assert image.unit == "display"
    back = np.rint(image.array * 255).astype(np.uint8)
    np.testing.assert_array_equal(np.moveaxis(back, 0, -1).reshape(shape[1:]), images[2])


def test_a_changed_archive_is_read_anew(tmp_path):
    for value in (10, 20):
        np.savez_compressed(tmp_path / "set.npz", train_images=np.full((value, 3, 3), value, np.uint8))
        assert read_image(f"{tmp_path}/set.npz#train/0").array.max() == pytest.approx(value / 255)


def test_digests_tell_entries_apart_by_content(tmp_path):
    images = np.stack([np.zeros((3, 3)), np.ones((3, 3)), np.zeros((3, 3))]).astype(np.uint8)
    np.savez(tmp_path / "set.npz", test_images=images)
    first, second, third = (source_digest(f"{tmp_path}/set.npz#test/{i}") for i in range(3))
    assert first == third != second


@pytest.mark.parametrize(
    ("selector", "message"),
    [
        ("", "many images"),
        ("#train/0", "no array train_images"),
        ("#test/2", "last image, number 1"),
    ],
)
def test_wrong_selectors_are_one_clear_sentence(tmp_path, selector, message):
    np.savez(tmp_path / "set.npz", test_images=np.zeros((2, 3, 3), np.uint8))
    with pytest.raises(DataError, match=message):
        read_image(f"{tmp_path}/set.npz{selector}")


def test_pickled_objects_are_never_executed(tmp_path):
    np.savez(tmp_path / "set.npz", test_images=np.array([[[{"a": 1}]]], dtype=object))
    np.savez_compressed(tmp_path / "packed.npz", test_images=np.array([[[{"a": 1}]]], dtype=object))
    for name in ("set", "packed"):
        with pytest.raises(DataError):
            read_image(f"{tmp_path}/{name}.npz#test/0")


def test_a_truncated_archive_is_refused(tmp_path):
    np.savez_compressed(tmp_path / "set.npz", test_images=RANDOM.integers(0, 256, (9, 9, 9), dtype=np.uint8))
    data = (tmp_path / "set.npz").read_bytes()
    (tmp_path / "set.npz").write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match=r"set\.npz"):
        read_image(f"{tmp_path}/set.npz#test/0")


def test_medmnist_is_read_fast_and_as_numpy_has_it(shared_data):
    file = shared_data / "medmnist" / "pneumoniamnist.npz"
    with np.load(file) as archive:
        images = archive["train_images"]
    start = time.perf_counter()
    sums = [float(read_image(f"{file}#train/{i}").array.sum()) for i in range(len(images))]
    assert time.perf_counter() - start < 10
    np.testing.assert_allclose(sums, images.sum(axis=(1, 2)) / 255, rtol=1e-4)
