"""Sliding windows: equal to MONAI's, whatever the size, and in bounded memory."""

from __future__ import annotations

import itertools
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from medgcsam.errors import MachineError
from medgcsam.training import sliding_window as module
from medgcsam.training import stitching
from medgcsam.training.sliding_window import sliding_window
from medgcsam.training.stitching import gaussian, starts

MODES = {"device": "cpu", "precision": "fp32", "intensity": "zscore"}


class Local(nn.Module):
    """Two convolutions whose zero padding makes a window's edge differ from its middle."""

    def __init__(self, dimensions: int, channels: int = 1, outputs: int = 3, seed: int = 0):
        super().__init__()
        torch.manual_seed(seed)
        layer = nn.Conv3d if dimensions == 3 else nn.Conv2d
        self.layers = nn.Sequential(layer(channels, 4, 3, padding=1), nn.ReLU(), layer(4, outputs, 3, padding=1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return 4 * self.layers(images)


def volume(*shape: int, dtype=np.float16) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(dtype)


def monai(network, array: np.ndarray, patch, overlap: float) -> torch.Tensor:
    """Logits (1, outputs, *spatial) of MONAI's."""
    from monai.inferers import sliding_window_inference

    with torch.no_grad():
        images = torch.from_numpy(array.astype(np.float32))[None]
        return sliding_window_inference(images, patch, 1, network.eval(), overlap=overlap, mode="gaussian")


@pytest.mark.parametrize(
    ("shape", "patch", "overlap"),
    [
        ((20, 23, 17), (8, 8, 8), 0.5),
        ((20, 23, 17), (8, 6, 8), 0.25),
        ((16, 9, 21), (8, 8, 4), 0.7),
        ((12, 12, 12), (12, 12, 12), 0.5),
        ((31, 8, 8), (8, 8, 8), 0.0),
        ((33, 26), (16, 8), 0.5),
        ((16, 40), (16, 16), 0.6),
    ],
)
@pytest.mark.parametrize("windows", [1, 3])
def test_equal_to_monai(shape, patch, overlap, windows):
    network, array = Local(len(shape), channels=2), volume(2, *shape)
    expected = monai(network, array, patch, overlap)
    given = sliding_window(
        network, array, patch=patch, overlap=overlap, outputs=3, overlapping=False, windows=windows, **MODES
    )
    assert given.dtype == np.float16
    assert given.shape == (3, *shape)
    np.testing.assert_allclose(given, torch.softmax(expected, 1)[0].numpy(), atol=1e-3)
    given = sliding_window(network, array, patch=patch, overlap=overlap, outputs=3, overlapping=True, **MODES)
    np.testing.assert_allclose(given, torch.sigmoid(expected)[0].numpy(), atol=1e-3)


@pytest.mark.parametrize(("shape", "patch"), [((5, 30, 7), (8, 16, 8)), ((30, 5, 8), (8, 8, 8)), ((9, 30), (16, 16))])
def test_a_volume_smaller_than_the_patch_lies_amid_the_smallest_value_of_each_channel(shape, patch):
    network, array = Local(len(shape), channels=2), volume(2, *shape)
    array[1] += 5
    around = [(max(p - n, 0) // 2, max(p - n, 0) - max(p - n, 0) // 2) for n, p in zip(shape, patch, strict=True)]
    padded = np.stack([np.pad(channel, around, constant_values=channel.min()) for channel in array])
    expected = torch.softmax(monai(network, padded, patch, 0.5), 1)[0].numpy()
    inside = tuple(slice(before, before + n) for (before, _), n in zip(around, shape, strict=True))
    given = sliding_window(network, array, patch=patch, overlap=0.5, outputs=3, overlapping=False, **MODES)
    np.testing.assert_allclose(given, expected[(slice(None), *inside)], atol=1e-3)


@pytest.mark.parametrize("length", [8, 9, 17, 40])
@pytest.mark.parametrize("overlap", [0.0, 0.3, 0.5, 0.9])
def test_windows_cover_an_axis_to_its_end(length, overlap):
    first = starts(length, 8, overlap)
    assert first == sorted(set(first))
    covered = set(itertools.chain.from_iterable(range(s, s + 8) for s in first))
    assert covered == set(range(length))
    assert all(b - a <= max(1, int(8 * (1 - overlap))) for a, b in itertools.pairwise(first))


def test_weights_are_a_gaussian_of_an_eighth():
    weights = gaussian((16, 9))
    expected = np.exp(-((np.arange(9) - 4) ** 2) / 2 / (9 / 8) ** 2)
    middle = weights[7].numpy()
    np.testing.assert_allclose(middle, np.maximum(expected * middle.max(), 1e-3), rtol=1e-5)
    assert float(weights.min()) == pytest.approx(1e-3)


def test_a_network_that_sees_each_voxel_alone_gives_the_same_whatever_the_windows():
    network = nn.Conv3d(1, 2, 1)
    array = volume(1, 19, 11, 13)
    with torch.no_grad():
        expected = torch.softmax(network(torch.from_numpy(array.astype(np.float32))[None]), 1)[0].numpy()
    for patch, overlap, mirror in [((8, 4, 8), 0.5, True), ((19, 11, 13), 0.5, False), ((24, 4, 4), 0.8, (0, 2))]:
        given = sliding_window(
            network, array, patch=patch, overlap=overlap, outputs=2, overlapping=False, mirror=mirror, **MODES
        )
        np.testing.assert_allclose(given, expected, atol=1e-3)


@pytest.mark.parametrize(("mirror", "axes"), [(True, (0, 1, 2)), ((1,), (1,)), (False, ())])
def test_mirror_images_are_averaged_as_logits(mirror, axes):
    network, array = Local(3).eval(), volume(1, 8, 8, 8)
    images = torch.from_numpy(array.astype(np.float32))[None]
    with torch.no_grad():
        logits = [
            network(images.flip([2 + a for a in chosen])).flip([2 + a for a in chosen])
            for n in range(len(axes) + 1)
            for chosen in itertools.combinations(axes, n)
        ]
    expected = torch.softmax(torch.stack(logits).mean(0), 1)[0].numpy()
    given = sliding_window(
        network, array, patch=(8, 8, 8), overlap=0.5, outputs=3, overlapping=False, mirror=mirror, **MODES
    )
    np.testing.assert_allclose(given, expected, atol=1e-3)


def test_networks_are_averaged_as_probabilities():
    networks, array = [Local(2, seed=seed) for seed in range(3)], volume(1, 30, 20)
    expected = np.mean([torch.softmax(monai(n, array, (16, 16), 0.5), 1)[0].numpy() for n in networks], axis=0)
    given = sliding_window(networks, array, patch=(16, 16), overlap=0.5, outputs=3, overlapping=False, **MODES)
    np.testing.assert_allclose(given, expected, atol=1e-3)
    assert not any(network.training for network in networks)


def test_values_are_standardised_as_in_training():
    network, array = nn.Conv2d(1, 2, 1), np.random.default_rng(0).random((1, 20, 20)).astype(np.float16)
    options = {"patch": (16, 16), "overlap": 0.5, "outputs": 2, "overlapping": False}
    given = sliding_window(network, array, **options, **(MODES | {"intensity": "display"}))
    standardised = ((array.astype(np.float32) - 0.5) / 0.25).astype(np.float32)
    np.testing.assert_allclose(given, sliding_window(network, standardised, **options, **MODES), atol=1e-3)


def test_reduced_precision_stays_with_the_network():
    network, array = Local(2), volume(1, 24, 24)
    options = {"patch": (16, 16), "overlap": 0.5, "outputs": 3, "overlapping": False}
    full = sliding_window(network, array, **options, **MODES)
    reduced = sliding_window(network, array, **options, **(MODES | {"precision": "bf16"}))
    assert 0 < np.abs(full - reduced).max() < 0.1


def test_the_disk_holds_the_result_without_leaving_a_file(tmp_path):
    network, array = Local(3), volume(1, 20, 12, 9)
    options = {"patch": (8, 8, 8), "overlap": 0.5, "outputs": 3, "overlapping": False, **MODES}
    given = sliding_window(network, array, stitch="disk", scratch=tmp_path / "new", **options)
    assert isinstance(given, np.memmap)
    assert list((tmp_path / "new").iterdir()) == []
    np.testing.assert_array_equal(given, sliding_window(network, array, **options))


def test_large_results_go_to_disk_by_themselves(tmp_path, monkeypatch):
    options = {"patch": (8, 8), "overlap": 0.5, "outputs": 3, "overlapping": False, "scratch": tmp_path, **MODES}
    network, array = Local(2), volume(1, 20, 20)
    assert not isinstance(sliding_window(network, array, **options), np.memmap)
    monkeypatch.setattr(module, "free_ram", lambda: 2400.0)  # the result takes 2400 bytes
    assert isinstance(sliding_window(network, array, **options), np.memmap)


def test_a_full_disk_is_a_fault_of_the_machine(tmp_path):
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full on this system")
    writer = stitching._OnDisk((2, 4, 600), tmp_path)
    writer._file = open(full, "wb", buffering=0)  # noqa: SIM115
    with pytest.raises(MachineError, match="free some space"):
        writer.write(0, np.zeros((2, 4, 600), np.float16))


class Hungry(nn.Module):
    """Runs out of memory with more than ``most`` windows at a time."""

    def __init__(self, most: int, error: Exception):
        super().__init__()
        self.most, self.error, self.seen = most, error, []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen.append(len(images))
        if len(images) > self.most:
            raise self.error
        return images.repeat(1, 2, 1, 1)


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_out_of_memory_is_tried_again_with_less_and_then_said(error):
    array = volume(1, 20, 20)
    options = {"patch": (8, 8), "overlap": 0.5, "outputs": 2, "overlapping": False, "windows": 4, **MODES}
    network = Hungry(1, error)
    given = sliding_window(network, array, **options)
    assert network.seen == [4] + [1] * 16
    np.testing.assert_allclose(given, 0.5, atol=1e-3)
    with pytest.raises(MachineError, match=r"20 x 20 voxels is out of memory.*inference\.stitch"):
        sliding_window(Hungry(0, error), array, **options)
    with pytest.raises(RuntimeError, match="another"):
        sliding_window(Hungry(0, RuntimeError("another")), array, **options)


def test_memory_depends_on_the_open_planes_and_not_on_their_number(monkeypatch):
    """Open planes and finished chunks are all there is in float32: counted by the largest tensor that is made."""
    largest = []
    zeros = torch.zeros
    monkeypatch.setattr(stitching.torch, "zeros", lambda *s, **k: largest.append(np.prod(s)) or zeros(*s, **k))
    network = nn.Conv3d(1, 2, 1)
    for planes in (16, 64):
        sliding_window(
            network, volume(1, planes, 20, 20), patch=(8, 8, 8), overlap=0.5, outputs=2, overlapping=False, **MODES
        )
    assert largest == [2 * 8 * 20 * 20] * 2


def test_the_volume_is_not_copied_as_a_whole(tmp_path):
    array = volume(1, 400, 64, 64)
    np.save(tmp_path / "volume.npy", array)
    mapped = np.load(tmp_path / "volume.npy", mmap_mode="r")
    options = {"patch": (8, 64, 64), "overlap": 0.0, "outputs": 1, "overlapping": True, "scratch": tmp_path, **MODES}
    network = nn.Conv3d(1, 1, 1)
    tracemalloc.start()  # numpy reports what it takes
    try:
        given = sliding_window(network, mapped, stitch="disk", **options)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < array.nbytes / 5
    np.testing.assert_array_equal(given, sliding_window(network, array, **options))


def test_progress_is_told_window_by_window():
    told = []
    options = {"patch": (8, 8), "overlap": 0.5, "outputs": 3, "overlapping": False, "windows": 3, **MODES}
    sliding_window(Local(2), volume(1, 20, 20), advance=lambda done, total: told.append((done, total)), **options)
    assert told[0] == (3, 16)
    assert told[-1] == (16, 16)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"patch": (8, 8, 8)}, "2 axes"), ({"overlap": 1.0}, "overlap"), ({"stitch": "disk"}, "scratch")],
)
def test_wrong_calls_are_refused(change, message):
    options = {"patch": (8, 8), "overlap": 0.5, "outputs": 3, "overlapping": False, **MODES}
    with pytest.raises(ValueError, match=message):
        sliding_window(Local(2), volume(1, 20, 20), **(options | change))
