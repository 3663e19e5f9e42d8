"""Preprocessing against independent references (Pillow, numpy), and the building of stores."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import nibabel
import numpy as np
import pytest
from PIL import Image as Pillow

from medgcsam.errors import DataError, MachineError
from medgcsam.imaging import Image, pixel_digest, read_image
from medgcsam.pipeline import preprocess
from medgcsam.pipeline.preprocess import build_store, fitted_size, prepare


def config(**changes) -> SimpleNamespace:
    usual = {"size": (24, 32), "channels": 1, "fit": "pad", "intensity": "display"}
    usual |= {"irregular": "refuse", "pet": "suv", "orientation": "refuse"}
    return SimpleNamespace(**(usual | changes))


def picture(array: np.ndarray, **facts) -> Image:
    return Image(array=np.asarray(array, dtype=np.float32), **({"unit": "display"} | facts))


@pytest.fixture
def pictures(tmp_path: Path) -> list[str]:
    rng = np.random.default_rng(0)
    folder = tmp_path / "images"
    folder.mkdir()
    paths = []
    for number in range(9):
        path = folder / f"{number}.png"
        Pillow.fromarray(rng.integers(0, 256, (40 + number, 50), dtype=np.uint8)).save(path)
        paths.append(str(path))
    return paths


def test_resizing_equals_pillows_antialiased_bilinear():
    array = np.random.default_rng(1).random((97, 131), dtype=np.float32)
    expected = np.asarray(Pillow.fromarray(array).resize((32, 24), Pillow.Resampling.BILINEAR))
    ours = prepare(picture(array[None]), config(fit="stretch"))
    assert ours.shape == (1, 24, 32)
    assert ours.dtype == np.float16
    np.testing.assert_allclose(ours[0], expected, atol=1e-3)


def test_resizing_keeps_the_mean_where_point_sampling_would_not():
    stripes = np.tile(np.float32([0, 0, 0, 1]), (96, 32))[None]
    ours = prepare(picture(stripes), config(fit="stretch", size=(24, 32)))
    np.testing.assert_allclose(ours[:, :, 2:-2], 0.25, atol=0.05)


def test_an_image_of_the_wanted_size_is_kept_exactly():
    array = (np.arange(24 * 32).reshape(1, 24, 32) % 256 / 255).astype(np.float32)
    for fit in ("pad", "crop", "stretch"):
        np.testing.assert_array_equal(prepare(picture(array), config(fit=fit)), array.astype(np.float16))


@pytest.mark.parametrize(
    ("shape", "fit", "spacing", "expected"),
    [
        ((100, 100), "pad", None, (24, 24)),
        ((100, 100), "crop", None, (32, 32)),
        ((50, 100), "pad", None, (16, 32)),
        ((50, 100), "pad", (2.0, 1.0), (24, 24)),
        ((100, 100), "pad", (1.0, 4.0), (8, 32)),
        ((100, 100), "crop", (1.0, 4.0), (24, 96)),
        ((100, 100), "stretch", (1.0, 4.0), (24, 32)),
        ((1, 5000), "pad", None, (1, 32)),
    ],
)
def test_proportions_are_kept_in_millimetres(shape, fit, spacing, expected):
    assert fitted_size(shape, (24, 32), fit, spacing) == expected


def test_padding_is_black_and_centred():
    ours = prepare(picture(np.ones((1, 60, 60))), config())[0]
    np.testing.assert_array_equal(ours[:, 4:28], 1)
    np.testing.assert_array_equal(ours[:, :4], 0)
    np.testing.assert_array_equal(ours[:, 28:], 0)


def test_cropping_keeps_the_centre():
    array = np.zeros((1, 64, 64), np.float32)
    array[:, 16:48] = 1  # the middle half of the rows, of which the crop keeps three quarters
    ours = prepare(picture(array), config(fit="crop"))[0]
    assert ours[[0, -1]].max() < 0.1
    assert ours[8:16].min() > 0.9


def test_percentile_and_zscore_take_their_statistics_without_the_padding():
    array = 1000 + 300 * np.random.default_rng(2).standard_normal((1, 24, 24)).astype(np.float32)
    image = picture(array, unit="raw")
    low, high = np.percentile(array, (0.5, 99.5))
    ours = prepare(image, config(intensity="percentile"))[0]
    np.testing.assert_allclose(ours[:, 4:28], np.clip((array[0] - low) / (high - low), 0, 1), atol=1e-3)
    assert ours[:, :4].max() == 0
    ours = prepare(image, config(intensity="zscore"))[0]
    np.testing.assert_allclose(ours[:, 4:28], (array[0] - array.mean()) / array.std(), atol=3e-3)
    np.testing.assert_allclose(ours[:, :4], ours.min())


@pytest.mark.parametrize("intensity", ["percentile", "zscore"])
def test_flat_and_nearly_flat_images_stay_finite(intensity):
    assert not prepare(picture(np.full((1, 24, 32), 7)), config(intensity=intensity)).any()
    spot = np.zeros((1, 24, 32), np.float32)
    spot[0, 12, 16] = 5
    ours = prepare(picture(spot), config(intensity=intensity))
    assert np.isfinite(ours).all()
    assert ours.argmax() == spot.argmax()


def test_channels():
    rgb = np.random.default_rng(3).random((3, 24, 32)).astype(np.float32)
    gray = prepare(picture(rgb), config())
    np.testing.assert_allclose(gray[0], 0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2], atol=1e-3)
    three = prepare(picture(rgb[:1]), config(channels=3))
    assert three.shape == (3, 24, 32)
    np.testing.assert_array_equal(three[0], three[2])


def test_a_single_slice_is_a_picture_with_rows_along_j():
    volume = np.random.default_rng(4).random((1, 32, 24, 1)).astype(np.float32)
    ours = prepare(picture(volume, spacing=(1.0, 1.0, 5.0)), config())
    np.testing.assert_array_equal(ours[0], volume[0, :, :, 0].T.astype(np.float16))
    wide = prepare(picture(volume, spacing=(2.0, 1.0, 5.0)), config(size=(24, 64)))
    assert (wide[0] > 0).any(axis=0).sum() == 64  # 32 columns of 2 mm beside 24 rows of 1 mm


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (picture(np.zeros((1, 8, 8, 3))), "volume of 3 slices"),
        (picture(np.zeros((5, 8, 8))), "5 channels or frames"),
        (picture(np.full((1, 8, 8), np.nan)), "not finite"),
        (picture(np.zeros((1, 8, 8, 1)), unit="HU"), "percentile or zscore"),
    ],
)
def test_what_cannot_become_a_picture_is_refused(image, message):
    with pytest.raises(DataError, match=message):
        prepare(image, config())


def test_store_rows_are_aligned_with_the_images(pictures, tmp_path):
    steps = []
    store = build_store(pictures, config(), cache=tmp_path / "c", progress=lambda *step: steps.append(step))
    assert store.images.dtype == np.float16
    assert store.images.shape == (9, 1, 24, 32)
    assert steps[-1] == (9, 9)
    assert [done for done, _ in steps] == sorted(done for done, _ in steps)
    for row, path in enumerate(pictures):
        np.testing.assert_array_equal(store.images[row], prepare(read_image(path), config()))
        assert store.digests["source"][row] == hashlib.sha256(Path(path).read_bytes()).hexdigest()
        assert store.digests["pixels"][row] == pixel_digest(read_image(path))


def test_store_of_real_radiographs(shared_data, tmp_path):
    paths = sorted(str(p) for p in (shared_data / "chest_xray_nih").rglob("*.png"))[:40]
    store = build_store(paths, config(size=(64, 64)), cache=tmp_path)
    reference = [
        np.asarray(Pillow.open(p).convert("F").resize((64, 64), Pillow.Resampling.BILINEAR)) / 255 for p in paths
    ]
    np.testing.assert_allclose(store.images[:, 0], np.stack(reference), atol=2e-3)


def test_worker_processes_give_the_same_store(pictures, tmp_path):
    many = pictures * 3  # more than one chunk
    alone = build_store(many, config(fit="stretch"), cache=tmp_path / "a")
    shared = build_store(many, config(fit="stretch"), cache=tmp_path / "b", workers=2)
    assert alone.key == shared.key
    for name in ("images.npy", "digests.csv", "store.json"):
        assert (alone.folder / name).read_bytes() == (shared.folder / name).read_bytes()


def test_a_store_is_reused_without_reading_an_image(pictures, tmp_path, monkeypatch):
    first = build_store(pictures, config(), cache=tmp_path / "c")
    monkeypatch.setattr(preprocess, "read_image", lambda _: pytest.fail("decoded again"))
    again = build_store(pictures, config(), cache=tmp_path / "c")
    np.testing.assert_array_equal(first.images, again.images)
    assert again.digests.equals(first.digests)


def test_the_key_follows_bytes_order_and_image_configuration(pictures, tmp_path):
    def key(images, **changes):
        return build_store(images, config(**changes), cache=tmp_path / "c").key

    keys = {key(pictures), key(pictures[::-1]), key(pictures, size=(24, 33)), key(pictures, fit="crop")}
    keys |= {key(pictures, channels=3), key(pictures, intensity="zscore")}
    keys |= {key(pictures, irregular="resample"), key(pictures, pet="stored"), key(pictures, orientation="sform")}
    state = os.stat(pictures[0])
    content = bytearray(Path(pictures[0]).read_bytes())
    Pillow.open(pictures[0]).transpose(Pillow.Transpose.FLIP_LEFT_RIGHT).save(pictures[0])
    Path(pictures[0]).write_bytes(Path(pictures[0]).read_bytes().ljust(len(content), b"\0"))
    os.utime(pictures[0], ns=(state.st_atime_ns, state.st_mtime_ns))  # as a careless copy would leave it
    keys.add(key(pictures))
    assert len(keys) == 10


def test_the_orientation_that_is_named_is_believed(tmp_path):
    slice_ = nibabel.Nifti1Image(np.arange(48, dtype=np.int16).reshape(8, 6, 1), None)
    slice_.set_sform(np.diag([2.0, 1.0, 3.0, 1.0]), 1)
    slice_.set_qform(np.diag([1.0, 1.0, 3.0, 1.0]), 1)
    nibabel.save(slice_, tmp_path / "s.nii")
    options = {"intensity": "percentile", "size": (12, 16)}
    with pytest.raises(DataError, match=r"1 of 1 images.*sform and a qform"):
        build_store([str(tmp_path / "s.nii")], config(**options), cache=tmp_path / "c")
    drawn = {
        choice: build_store([str(tmp_path / "s.nii")], config(orientation=choice, **options), cache=tmp_path / "c")
        for choice in ("sform", "qform")
    }
    # 8 columns of 2 mm and 6 rows of 1 mm are wide, of 1 mm nearly square: other rows are left black
    black = {choice: int((store.images[0, 0] == 0).all(axis=1).sum()) for choice, store in drawn.items()}
    assert black == {"sform": 6, "qform": 0}


def test_all_unreadable_images_are_named_at_once_and_nothing_is_left(pictures, tmp_path):
    Path(pictures[2]).write_bytes(Path(pictures[2]).read_bytes()[:300])
    Path(pictures[4]).write_text("not an image")
    Path(pictures[6]).unlink()
    with pytest.raises(DataError, match=r"3 of 9 images.*medgcsam check") as caught:
        build_store(pictures, config(), cache=tmp_path / "c")
    for row in (2, 4, 6):
        assert str(caught.value).count(pictures[row]) == 1
    assert not list((tmp_path / "c" / "stores").glob("*.partial"))
    with pytest.raises(DataError, match="no images"):
        build_store([], config(), cache=tmp_path / "c")


def test_many_unreadable_images_are_counted_not_listed(tmp_path):
    missing = [str(tmp_path / f"{n}.png") for n in range(30)]
    with pytest.raises(DataError, match=r"30 of 30 images.*and 25 more") as caught:
        build_store(missing, config(), cache=tmp_path / "c")
    assert len(str(caught.value)) < 2000


def test_an_interrupted_build_goes_on_where_it_stopped(pictures, tmp_path, monkeypatch):
    read = []

    def interrupted(reference, **options):
        if len(read) == 5:
            raise KeyboardInterrupt
        read.append(reference)
        return read_image(reference, **options)

    monkeypatch.setattr(preprocess, "read_image", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build_store(pictures, config(), cache=tmp_path / "c")
    read.clear()
    monkeypatch.setattr(preprocess, "read_image", lambda name, **given: read.append(name) or read_image(name, **given))
    resumed = build_store(pictures, config(), cache=tmp_path / "c")
    assert read == pictures[5:]
    whole = build_store(pictures, config(), cache=tmp_path / "other")
    for name in ("images.npy", "digests.csv", "store.json"):
        assert (resumed.folder / name).read_bytes() == (whole.folder / name).read_bytes()


BUILD_AND_COUNT = """
import json, sys
from pathlib import Path
from types import SimpleNamespace
from medgcsam.pipeline import preprocess
original, read = preprocess.read_image, []
preprocess.read_image = lambda name, **options: read.append(name) or original(name, **options)
cache, *images = sys.argv[1:]
config = SimpleNamespace(
    size=(24, 32), channels=1, fit="stretch", intensity="display", irregular="refuse", pet="suv", orientation="refuse"
)
store = preprocess.build_store(images, config, cache=Path(cache))
print(json.dumps([store.key, len(read), len(store)]))
"""


def test_two_processes_build_one_store_once(pictures, tmp_path):
    command = [sys.executable, "-c", BUILD_AND_COUNT, str(tmp_path / "c"), *pictures]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    results = [json.loads(process.communicate(timeout=120)[0]) for process in processes]
    assert results[0][0] == results[1][0]
    assert [count for _, _, count in results] == [9, 9]
    assert sum(read for _, read, _ in results) == 9


def test_unusable_cache_folder(pictures, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineError, match="MEDGCSAM_CACHE"):
        build_store(pictures, config(), cache=tmp_path / "file" / "cache")
