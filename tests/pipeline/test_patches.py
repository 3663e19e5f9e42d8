"""Patches: where they lie, that they are complete and repeatable, and what their batches hold."""

from __future__ import annotations

import threading
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from medgcsam.errors import MachineError
from medgcsam.pipeline import patches as module
from medgcsam.pipeline.augment_patches import AugmentPatches
from medgcsam.pipeline.patches import PatchBatches, copy_region, place, smallest

CHANGES = SimpleNamespace(
    enabled=True,
    flip_horizontal=True,
    flip_vertical=False,
    flip_depth=True,
    rotate_degrees=15.0,
    shift=0.1,
    scale=0.1,
    brightness=0.1,
    contrast=0.1,
    gamma=0.1,
    noise=0.01,
)
SHAPES = [(14, 17, 20), (20, 16, 18), (15, 25, 16), (6, 30, 13)]
PATCH = (8, 12, 16)


class Volumes:
    """A store of arrays in memory; structures are numbered from 1, or channels where they overlap."""

    def __init__(self, images, labels, *, structures=1, overlapping=False, intensity="foreground"):
        self.images = [np.asarray(image, dtype=np.float16) for image in images]
        self.labels = [np.asarray(label, dtype=np.uint8) for label in labels]
        self.structures, self.overlapping, self.intensity = structures, overlapping, intensity

    def __len__(self):
        return len(self.images)

    def image(self, row):
        return self.images[row]

    def label(self, row):
        return self.labels[row]

    def foreground(self, row):
        label = self.labels[row]
        masks = label if self.overlapping else [label[0] == n + 1 for n in range(self.structures)]
        return tuple(np.argwhere(mask).astype(np.int32) for mask in masks)


def volumes(shapes=SHAPES, **options):
    """Noise in two channels; structure 1 is where the first channel is above 0.9."""
    generator = np.random.default_rng(0)
    images = [generator.random((2, *shape)).astype(np.float16) for shape in shapes]
    return Volumes(images, [image[:1] > 0.9 for image in images], **options)


def batches(store, rows=None, **changes):
    options = {"patch": PATCH, "batch_size": 3, "per_image": 2, "structures": ("lesion",), "seed": 1} | changes
    return PatchBatches(store, range(len(store)) if rows is None else rows, **options)


def collect(patches, number=0):
    images, targets, rows = zip(*patches.epoch(number), strict=True)
    return torch.cat(images), torch.cat(targets), torch.cat(rows)


def augment(patch=PATCH):
    return AugmentPatches(CHANGES, patch=patch, spacing=(1.0, 1.2, 2.0)[: len(patch)])


@pytest.mark.parametrize("shuffle", [True, False])
def test_each_image_gives_its_patches_once_an_epoch(shuffle):
    patches = batches(volumes(), [3, 0, 2], per_image=4, batch_size=5, shuffle=shuffle)
    images, targets, rows = collect(patches, 2)
    assert len(patches) == 3
    assert Counter(rows.tolist()) == {0: 4, 2: 4, 3: 4}
    assert (rows.tolist() == [3] * 4 + [0] * 4 + [2] * 4) is not shuffle
    assert (images.dtype, tuple(images.shape)) == (torch.float32, (12, 2, *PATCH))
    assert (targets.dtype, tuple(targets.shape)) == (torch.int64, (12, *PATCH))


@pytest.mark.parametrize("intensity", ["foreground", "display"])
def test_without_augmentation_a_patch_is_a_plain_crop_of_image_and_label(intensity):
    shapes = [(30, 40), (34, 28)]
    images = [np.arange(np.prod(shape)).reshape(1, *shape) for shape in shapes]  # float16 counts to 2048
    labels = [image % 7 for image in images]
    store = Volumes(images, labels, structures=6, intensity=intensity)
    structures = tuple("abcdef")
    found, targets, rows = collect(batches(store, patch=(8, 16), per_image=20, structures=structures))
    scale, offset = (4.0, -2.0) if intensity == "display" else (1.0, 0.0)
    starts = set()
    for image, target, row in zip((found - offset) / scale, targets, rows.tolist(), strict=True):
        at = np.unravel_index(int(image[0, 0, 0]), shapes[row])
        starts.add(at)
        part = (0, *(slice(a, a + n) for a, n in zip(at, (8, 16), strict=True)))
        np.testing.assert_array_equal(image[0], images[row][part])
        np.testing.assert_array_equal(target, labels[row][part])
    assert len(starts) > 30


def test_an_epoch_depends_on_seed_and_number_alone():
    store = volumes()
    straight = batches(store, augment=augment())
    for number in range(3):
        whole = collect(straight, number)
    resumed = collect(batches(store, augment=augment()), 2)
    assert all(torch.equal(a, b) for a, b in zip(whole, resumed, strict=True))
    for other in (collect(straight, 3), collect(batches(store, augment=augment(), seed=2), 2)):
        assert not torch.equal(whole[0], other[0])


def test_leaving_an_epoch_early_changes_no_later_one_and_ends_the_thread():
    patches = batches(volumes(), augment=augment(), batch_size=2)
    before = collect(patches, 1)
    for _ in patches.epoch(1):
        break
    assert all(torch.equal(a, b) for a, b in zip(before, collect(patches, 1), strict=True))
    assert not [thread for thread in threading.enumerate() if thread.name == "medgcsam-batches"]


def test_fixed_patches_are_the_same_in_every_epoch_and_held_in_memory_or_not():
    store = volumes()
    first = collect(batches(store, shuffle=False, memory="map"), 0)
    second = collect(batches(store, shuffle=False, memory="memory"), 5)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert batches(store).held == batches(store, memory="map").held == "map"
    assert batches(store, memory="memory").held == "ram"


@pytest.mark.parametrize(("share", "size"), [(0.0, 4), (0.25, 4), (0.5, 4), (0.33, 2), (0.5, 1), (1.0, 3)])
def test_the_share_on_a_structure_holds_in_each_batch_and_over_the_epoch(share, size):
    label = np.zeros((1, 200, 200))
    label[0, 100, 120] = 1  # so that a patch elsewhere hardly ever has it: 16 of 38,809 places
    store = Volumes([label] * 6, [label] * 6)
    patches = batches(store, patch=(4, 4), per_image=30, batch_size=size, foreground=share)
    for number in range(2):
        counts = [int(targets.flatten(1).any(1).sum()) for _, targets, _ in patches.epoch(number)]
        assert all(np.floor(share * size) <= count <= np.ceil(share * size) + (share < 1) for count in counts)
        assert abs(sum(counts) - 180 * share) <= 2


def test_a_voxel_of_a_structure_lies_in_the_middle_half_of_its_patch_but_not_always_in_its_centre():
    draws = np.random.default_rng(0).random((500, 5))
    voxel = np.array([50, 60, 8])
    within = np.array([voxel - place((100, 100, 17), (16, 8, 4), draw, [voxel[None]]) for draw in draws])
    assert within.min(0).tolist() == [4, 2, 1]
    assert within.max(0).tolist() == [11, 5, 2]
    assert max(Counter(within[:, 0].tolist()).values()) < 120


@pytest.mark.parametrize("voxel", [(0, 0), (99, 39), (3, 38)])
def test_near_the_border_the_patch_stays_in_the_volume_and_has_the_voxel(voxel):
    for draw in np.random.default_rng(0).random((50, 4)):
        start = place((100, 40), (16, 32), draw, [np.array([voxel])])
        assert (start >= 0).all()
        assert (start + [16, 32] <= [100, 40]).all()
        assert ((start <= voxel) & (voxel < start + [16, 32])).all()


def test_each_structure_that_is_there_is_chosen_equally_often_and_each_of_its_voxels():
    large = np.stack([np.arange(900), np.full(900, 5)], axis=1)
    small = np.array([[950, 5], [970, 5]])
    draws = np.random.default_rng(0).random((600, 4))
    starts = [int(place((1000, 11), (1, 1), draw, [large, np.empty((0, 2)), small])[0]) for draw in draws]
    counts = Counter(start for start in starts if start >= 900)
    assert set(counts) == {950, 970}
    assert all(110 < count < 190 for count in counts.values())


def test_elsewhere_places_are_uniform_over_those_in_the_volume_or_around_it():
    draws = np.random.default_rng(0).random((4000, 4))
    counts = Counter(tuple(place((11, 5), (8, 6), draw).tolist()) for draw in draws)
    assert set(counts) == {(row, column) for row in range(4) for column in (-1, 0)}
    assert all(400 < count < 600 for count in counts.values())
    no_structures = [np.empty((0, 2))] * 2
    assert all((place((11, 5), (8, 6), d, no_structures) == place((11, 5), (8, 6), d)).all() for d in draws[:20])


@pytest.mark.parametrize("changes", [None, "tiny"])
def test_a_volume_smaller_than_the_patch_goes_on_with_its_smallest_value_and_no_structure(changes):
    generator = np.random.default_rng(0)
    image = (generator.random((2, 5, 6)) + [[[3.0]], [[7.0]]]).astype(np.float16)
    store = Volumes([image], [np.ones((1, 5, 6))])
    tiny = changes and AugmentPatches(SimpleNamespace(**(vars(CHANGES) | dict.fromkeys(
        ("brightness", "contrast", "gamma", "noise", "flip_horizontal"), 0.0) | dict.fromkeys(
        ("rotate_degrees", "shift", "scale"), 1e-7))), patch=(8, 16))  # fmt: skip
    images, targets, _ = collect(batches(store, patch=(8, 16), per_image=6, augment=tiny))
    for found, target in zip(images.numpy(), targets.numpy(), strict=True):
        rows, columns = np.nonzero(target.any(1))[0], np.nonzero(target.any(0))[0]
        assert (len(rows), len(columns), int(target.sum())) == (5, 6, 30)
        inner = np.ix_([0, 1], rows, columns)
        np.testing.assert_allclose(found[inner], image, atol=1e-3)
        outside = found[:, target == 0]
        np.testing.assert_allclose(outside, image.min((1, 2), keepdims=True)[:, 0] + 0 * outside, atol=2e-3)


def test_image_and_label_stay_together_at_the_border_too():
    disc = np.hypot(*(np.indices((40, 40)) - 25)) < 17  # over the border, where the fill is -1 and no structure
    store = Volumes([[np.where(disc, 1.0, -1.0)]], [[disc]])
    spatial = AugmentPatches(SimpleNamespace(**(vars(CHANGES) | dict.fromkeys(
        ("brightness", "contrast", "gamma", "noise"), 0.0))), patch=(24, 24))  # fmt: skip
    images, targets, _ = collect(batches(store, patch=(24, 24), per_image=40, augment=spatial))
    sure = images[:, 0].abs() > 0.01
    assert (images[:, 0].abs() < 0.9).float().mean() > 0.03  # interpolated ones
    assert torch.equal((images[:, 0] > 0)[sure], targets.bool()[sure])
    assert 0.2 < targets.float().mean() < 0.8


@pytest.mark.parametrize("change", [None, augment()])
def test_overlapping_structures_are_channels(change):
    store = volumes(overlapping=True, structures=3)
    store.labels = [np.concatenate([i[:1] > 0.5, i[:1] > 0.8, i[:1] > 9]).astype(np.uint8) for i in store.images]
    patches = batches(store, structures=tuple("abc"), overlapping=True, augment=change)
    _, targets, _ = collect(patches)
    assert (targets.dtype, tuple(targets.shape)) == (torch.float32, (8, 3, *PATCH))
    assert set(targets.unique().tolist()) == {0.0, 1.0}
    assert bool((targets[:, 0] >= targets[:, 1]).all())
    assert targets[:, 1].any()
    assert not targets[:, 2].any()


def test_a_region_is_copied_from_where_it_is_and_filled_elsewhere():
    volume = np.arange(40).reshape(2, 4, 5)
    out = np.full((2, 3, 4), -1)
    copy_region(volume, (1, 0), out, lambda: pytest.fail("nothing to fill"))
    np.testing.assert_array_equal(out, volume[:, 1:4, 0:4])
    copy_region(volume, (-2, 3), out, lambda: np.array([90, 91]))
    assert out[0].tolist() == [[90] * 4, [90] * 4, [3, 4, 90, 90]]
    assert out[1].tolist() == [[91] * 4, [91] * 4, [23, 24, 91, 91]]
    copy_region(volume, (7, 0), out, lambda: 0)
    assert not out.any()


def test_the_smallest_value_is_found_over_all_parts(monkeypatch):
    volume = np.random.default_rng(0).normal(size=(2, 7, 11)).astype(np.float16)
    monkeypatch.setattr(module, "_CHUNK", 10)
    np.testing.assert_array_equal(smallest(volume), volume.min((1, 2)))


def test_a_reading_error_reaches_the_consumer():
    store = volumes()
    patches = batches(store)

    def broken(row):
        raise OSError("disk unplugged")

    store.label = broken
    with pytest.raises(OSError, match="unplugged"):
        collect(patches)


def test_more_than_memory_holds_is_a_machine_error(monkeypatch):
    def full(*_):
        raise MemoryError

    store = volumes()
    monkeypatch.setattr(module.np, "array", full)
    with pytest.raises(MachineError, match=r"pipeline\.memory"):
        batches(store, memory="memory")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": [0, 4]}, "rows must lie"),
        ({"batch_size": 0}, "at least 1"),
        ({"per_image": 0}, "at least 1"),
        ({"foreground": 1.5}, "foreground"),
        ({"memory": "disk"}, "memory must be"),
        ({"augment": augment((8, 8))}, "augment is for patches"),
    ],
)
def test_wrong_arguments(change, message):
    with pytest.raises(ValueError, match=message):
        batches(volumes(), **change)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gets_what_a_cpu_gets():
    on_cpu, on_gpu = (collect(batches(volumes(), augment=augment(), device=d), 1) for d in ("cpu", "cuda"))
    assert on_gpu[0].is_cuda
    assert on_gpu[1].is_cuda
    torch.testing.assert_close(on_cpu[0], on_gpu[0].cpu(), atol=2e-3, rtol=0)
    assert (on_cpu[1] != on_gpu[1].cpu()).float().mean() < 1e-3
