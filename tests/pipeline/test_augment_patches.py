"""Image and label moved together: against numpy and scipy, with draws that are forced, and by what must not change."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import ndimage

from medgcsam.pipeline.augment import Augment
from medgcsam.pipeline.augment_patches import AugmentPatches, plain
from medgcsam.pipeline.patches import copy_region

OFF = {
    "enabled": True,
    "flip_horizontal": False,
    "flip_vertical": False,
    "flip_depth": False,
    "rotate_degrees": 0.0,
    "shift": 0.0,
    "scale": 0.0,
    "brightness": 0.0,
    "contrast": 0.0,
    "gamma": 0.0,
    "noise": 0.0,
}
SPACE = {"rotate_degrees": 25.0, "shift": 0.1, "scale": 0.2}
SHAPES = [((60, 70), (24, 32)), ((40, 36, 44), (16, 12, 20))]


class Extreme(AugmentPatches):
    """Every draw is its greatest value, and everything is mirrored that may be."""

    @staticmethod
    def _symmetric(size, extent, generator):
        return torch.full(size if isinstance(size, tuple) else (size,), float(extent))

    def _draw_flips(self, n, generator):
        return torch.tensor(self._flips).expand(n, -1) if self.flips else None


def make(patch, spacing=None, kind=AugmentPatches, **changes):
    return kind(SimpleNamespace(**(OFF | changes)), patch=patch, spacing=spacing)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def moved(augment, volume, label, starts, *, overlapping=False, present=None, seed=0):
    """Patches of a float (c, *spatial) volume and its label as ``PatchBatches`` makes them: images, labels, regions."""
    starts = torch.as_tensor(starts)
    regions = augment.place(starts, seeded(seed))
    images = torch.empty(len(starts), len(volume), *regions.size)
    labels = torch.empty(len(starts), len(label), *regions.size, dtype=torch.uint8)
    for low, image, mark in zip(regions.low.tolist(), images, labels, strict=True):
        copy_region(volume, low, image.numpy(), lambda: volume.min())
        copy_region(label, low, mark.numpy(), lambda: 0)
    if present is None:
        present = range(1, (len(label) if overlapping else int(label.max())) + 1)
    each = [tuple(present)] * len(starts)
    return *augment.move(images, labels, regions, present=each, overlapping=overlapping), regions


def smooth(shape, seed=0):
    values = ndimage.gaussian_filter(np.random.default_rng(seed).random(shape), 2.0)
    return ((values - values.min()) / (values.max() - values.min())).astype(np.float32)


def crop(volume, start, patch):
    return volume[(slice(None), *(slice(a, a + n) for a, n in zip(start, patch, strict=True)))]


def middle(shape, patch):
    return [(n - m) // 2 for n, m in zip(shape, patch, strict=True)]


@pytest.mark.parametrize(("shape", "patch"), SHAPES)
def test_without_a_change_of_space_a_patch_is_a_plain_crop_and_draws_nothing(shape, patch):
    volume = np.random.default_rng(0).random((2, *shape), dtype=np.float32)
    label = (volume[:1] > 0.7).astype(np.uint8)
    start, generator = middle(shape, patch), seeded()
    augment = make(patch, noise=0.1)
    before = generator.get_state()
    regions = augment.place(torch.tensor([start]), generator)
    assert torch.equal(generator.get_state(), before)
    assert regions.size == plain(torch.tensor([start]), patch).size == patch
    images, labels, _ = moved(augment, volume, label, [start])
    np.testing.assert_array_equal(images[0], crop(volume, start, patch))
    np.testing.assert_array_equal(labels[0], crop(label, start, patch))
    assert not make(patch).active
    assert not make(patch, **SPACE, enabled=False).active


@pytest.mark.parametrize("spacing", [None, "anisotropic"])
@pytest.mark.parametrize(("shape", "patch"), SHAPES)
def test_labels_of_a_tiny_change_are_bit_equal_to_the_crop(shape, patch, spacing):
    volume = np.random.default_rng(0).random((1, *shape), dtype=np.float32)
    label = np.random.default_rng(1).integers(0, 4, (1, *shape)).astype(np.uint8)
    tiny = dict.fromkeys(SPACE, 1e-7)
    start = middle(shape, patch)
    augment = make(patch, spacing and (0.7, 1.3, 5.0)[: len(patch)], **tiny)
    images, labels, _ = moved(augment, volume, label, [start] * 3)
    np.testing.assert_array_equal(labels, np.stack([crop(label, start, patch)] * 3))
    np.testing.assert_allclose(images, np.stack([crop(volume, start, patch)] * 3), atol=1e-3)


@pytest.mark.parametrize(
    ("name", "axis", "patch"),
    [
        ("flip_horizontal", 1, (24, 32)),
        ("flip_vertical", 0, (24, 32)),
        ("flip_horizontal", 0, (16, 12, 20)),
        ("flip_vertical", 1, (16, 12, 20)),
        ("flip_depth", 2, (16, 12, 20)),
    ],
)
@pytest.mark.parametrize("tiny", [0.0, 1e-7])
def test_each_flip_mirrors_its_axis_half_of_the_time(name, axis, patch, tiny):
    shape = tuple(n + 20 for n in patch)
    volume = np.random.default_rng(0).random((1, *shape), dtype=np.float32)
    label = (volume > 0.5).astype(np.uint8)
    start = middle(shape, patch)
    images, labels, _ = moved(make(patch, shift=tiny, **{name: True}), volume, label, [start] * 60)
    straight = [crop(array, start, patch) for array in (volume, label)]
    mirrored = [np.flip(array, axis + 1) for array in straight]
    flipped = np.array([np.array_equal(mark, mirrored[1]) for mark in labels.numpy()])
    assert 15 < flipped.sum() < 45
    for image, mark, turned in zip(images.numpy(), labels.numpy(), flipped, strict=True):
        expected = mirrored if turned else straight
        np.testing.assert_allclose(image, expected[0], atol=1e-3 if tiny else 0)
        np.testing.assert_array_equal(mark, expected[1])


@pytest.mark.parametrize(
    ("spacing", "planes"),
    [
        ((1.0, 1.0), [(0, 1)]),
        ((5.0, 1.0, 1.0), [(1, 2)]),
        ((1.0, 5.0, 1.0), [(0, 2)]),
        ((1.0, 1.0, 5.0), [(0, 1)]),
        ((1.0, 1.0, 2.5), [(1, 2), (0, 2), (0, 1)]),
    ],
)
def test_90_degrees_are_those_of_numpy_about_the_axes_that_may_turn(spacing, planes):
    d = len(spacing)
    patch, shape = (12,) * d, (30,) * d
    volume = np.random.default_rng(0).random((1, *shape), dtype=np.float32)
    label = np.random.default_rng(0).integers(0, 3, (1, *shape)).astype(np.uint8)
    start = middle(shape, patch)
    augment = make(patch, None if len(planes) == 3 else spacing, Extreme, rotate_degrees=90.0)
    images, labels, _ = moved(augment, volume, label, [start])
    for array, ours in ((volume, images[0]), (label, labels[0])):
        expected = crop(array, start, patch)
        for plane in planes:
            expected = np.rot90(expected, axes=[axis + 1 for axis in plane])
        np.testing.assert_allclose(ours, expected, atol=1e-3)


def turn(degrees, plane, d):
    """Rotation matrix that reads a picture turned as ``numpy.rot90`` turns it, written for scipy."""
    a, b = plane
    angle = np.deg2rad(degrees)
    matrix = np.eye(d)
    matrix[a, a] = matrix[b, b] = np.cos(angle)
    matrix[a, b], matrix[b, a] = np.sin(angle), -np.sin(angle)
    return matrix


@pytest.mark.parametrize("flips", [False, True])
@pytest.mark.parametrize(
    ("shape", "patch", "spacing", "planes"),
    [
        (*SHAPES[0], (1.0, 1.5), [(0, 1)]),
        (*SHAPES[1], (1.0, 1.2, 2.0), [(1, 2), (0, 2), (0, 1)]),
        (*SHAPES[1], (1.2, 1.0, 4.0), [(0, 1)]),
    ],
)
def test_all_changes_together_are_one_affine_transform_of_the_whole_volume(shape, patch, spacing, planes, flips):
    d = len(shape)
    volume = smooth(shape)[None]
    label = (volume > 0.55).astype(np.uint8)
    augment = make(patch, spacing, Extreme, **SPACE, flip_vertical=flips, flip_horizontal=flips)
    starts = [middle(shape, patch), [0] * d]  # the second one reads beyond the volume
    images, labels, _ = moved(augment, volume, label, starts)
    scale = np.diag(spacing)
    matrix = np.linalg.inv(scale) @ np.linalg.multi_dot([np.eye(d), *(turn(25, p, d) for p in planes), scale]) / 1.2
    mirror = np.diag([-1.0 if flips and axis < 2 else 1.0 for axis in range(d)])
    matrix, shift = mirror @ matrix, mirror @ (0.1 * np.array(patch))
    half = (np.array(patch) - 1) / 2
    for start, image, mark in zip(starts, images.numpy(), labels.numpy(), strict=True):
        offset = np.array(start) + half + shift - matrix @ half
        fill = volume.min()
        options = {"matrix": matrix, "offset": offset, "output_shape": patch, "order": 1, "mode": "grid-constant"}
        expected = ndimage.affine_transform(volume[0].astype(float), cval=fill, **options)
        np.testing.assert_allclose(image[0], expected, atol=1e-3)  # to the very border of the patch
        share = ndimage.affine_transform(label[0].astype(float), cval=0, **options)
        sure = np.abs(share - 0.5) > 0.01
        np.testing.assert_array_equal(mark[0][sure], share[sure] > 0.5)


@pytest.mark.parametrize("spacing", [(1.0, 2.2), (1.0, 1.4, 2.2), (0.9, 0.9, 4.0)])
def test_a_rotation_is_one_of_the_body_also_where_voxels_are_not_cubes(spacing):
    """The distance in mm from the centre stays as it is, however the volume is turned."""
    d = len(spacing)
    patch, shape = (16,) * d, (84,) * d
    start = middle(shape, patch)
    centre = np.array(start) + 7.5
    at = np.indices(shape) - centre.reshape(-1, *[1] * d)
    distance = np.sqrt(((at * np.reshape(spacing, (-1, *[1] * d))) ** 2).sum(0))[None].astype(np.float32)
    label = (distance < 6).astype(np.uint8)
    images, labels, _ = moved(make(patch, spacing, rotate_degrees=180.0), distance, label, [start] * 6)
    expected = crop(distance, start, patch)
    far = expected > 5  # near the tip of the cone, linear interpolation cuts it off
    assert np.abs(images.numpy() - expected)[:, far].max() < 0.25 * max(spacing)
    sure = np.abs(expected - 6) > 0.6 * max(spacing)
    assert (labels.numpy() == (expected < 6))[:, sure].all()


def test_a_thick_slice_is_not_turned_into_its_neighbours():
    volume = np.broadcast_to(np.arange(30, dtype=np.float32), (1, 40, 40, 30))
    images, _, _ = moved(make((12, 12, 8), (1.0, 1.0, 3.0), rotate_degrees=40.0), volume, volume[:] > 40, [[14, 14, 5]])
    np.testing.assert_allclose(images[0], np.broadcast_to(np.arange(5, 13), (1, 12, 12, 8)), atol=2e-3)


@pytest.mark.parametrize(("shape", "patch"), SHAPES)
def test_a_label_that_is_a_threshold_of_the_image_stays_one(shape, patch):
    volume = smooth(shape)[None]
    label = (volume > 0.5).astype(np.uint8)
    images, labels, _ = moved(make(patch, **SPACE, flip_vertical=True), volume, label, [middle(shape, patch)] * 8)
    values, marks = images.numpy(), labels.numpy().astype(bool)
    assert 0.1 < marks.mean() < 0.9
    assert 0 < (marks != (values > 0.5)).mean() < 0.05
    for value, mark in zip(values[:, 0], marks[:, 0], strict=True):
        wrong = mark != (value > 0.5)
        # A voxel's diagonal, magnified, reaches two voxels far; what lies beyond the patch is not known here.
        near = (ndimage.minimum_filter(value, 5) <= 0.5) & (ndimage.maximum_filter(value, 5) >= 0.5)
        inner = (slice(2, -2),) * len(patch)
        assert not (wrong & ~near)[inner].any()


def test_overlapping_structures_move_like_each_alone_and_absent_ones_cost_nothing():
    shape, patch = SHAPES[1]
    volume = smooth(shape)[None]
    label = np.concatenate([volume > 0.45, volume > 0.55, np.zeros_like(volume)]).astype(np.uint8)
    augment, starts = make(patch, **SPACE), [middle(shape, patch)] * 2
    images, together, _ = moved(augment, volume, label, starts, overlapping=True, present=[1, 2])
    assert together.shape == (2, 3, *patch)
    for number in (0, 1):
        alone_image, alone, _ = moved(augment, volume, label[number : number + 1], starts)
        assert torch.equal(together[:, number], alone[:, 0])
        assert torch.equal(images, alone_image)
    assert bool((together[:, 0] >= together[:, 1]).all())
    assert not together[:, 2].any()


def test_of_several_structures_a_voxel_gets_the_one_with_the_largest_share():
    label = np.zeros((1, 30, 30), dtype=np.uint8)
    label[:, :15], label[:, 15:, :15] = 7, 3
    augment = make((8, 8), kind=Extreme, shift=0.4 / 8)  # 0.4 pixels to higher rows and columns
    _, labels, regions = moved(augment, label.astype(np.float32), label, [[11, 11]], present=[3, 7])
    assert regions.size == (9, 9)
    np.testing.assert_array_equal(labels[0, 0], label[0, 11:19, 11:19])
    augment = make((8, 8), kind=Extreme, shift=0.6 / 8)
    _, labels, _ = moved(augment, label.astype(np.float32), label, [[11, 11]], present=[3, 7])
    expected = label[0, 12:20, 12:20].copy()
    expected[3, 3] = 7  # the shares there: 0.4 of structure 7, 0.6 x 0.4 of 3, 0.6 x 0.6 of none
    np.testing.assert_array_equal(labels[0, 0], expected)


def test_the_region_is_just_large_enough():
    regions = make((16, 16, 8), kind=Extreme, rotate_degrees=90.0, spacing=(1.0, 1.0, 3.0)).place(
        torch.tensor([[10, 20, 30]]), seeded()
    )
    assert all(have <= need for have, need in zip(regions.size, (19, 19, 11), strict=True))


def test_same_generator_same_draws_and_no_global_randomness():
    starts = torch.zeros(4, 3, dtype=torch.long)
    augment = make((16, 12, 20), **SPACE, flip_depth=True)
    state = torch.get_rng_state()
    first, again, other = (augment.place(starts, seeded(seed)).matrix for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert len({row.numpy().tobytes() for row in first}) == 4


def test_draws_stay_within_their_extent_and_reach_it():
    starts = torch.zeros(3000, 2, dtype=torch.long)
    matrix = make((17, 9), rotate_degrees=30.0).place(starts, seeded()).matrix.double()
    angle = torch.rad2deg(torch.atan2(matrix[:, 0, 1], matrix[:, 0, 0]))
    assert 29 < float(angle.max()) <= 30.001
    assert -30.001 <= float(angle.min()) < -29
    zoom = 1 / make((17, 9), scale=0.25).place(starts, seeded()).matrix[:, 0, 0]
    assert 1.23 < float(zoom.max()) <= 1.2501
    assert 0.7999 <= float(zoom.min()) < 0.81
    regions = make((17, 9), shift=0.2).place(starts, seeded())
    shift = regions.low + regions.matrix[:, :, 2]
    assert 3.3 < float(shift[:, 0].max()) <= 3.401
    assert 1.7 < float(shift[:, 1].max()) <= 1.801


@pytest.mark.parametrize("unit_range", [True, False])
def test_intensity_is_that_of_classification(unit_range):
    values = {"brightness": 0.1, "contrast": 0.2, "gamma": 0.2, "noise": 0.05}
    batch = torch.rand(3, 2, 16, 24, generator=seeded())
    ours = make((16, 24), **values).recolour(batch, seeded(), unit_range)
    theirs = Augment(SimpleNamespace(**(OFF | values)))(batch, seeded(), unit_range=unit_range)
    assert torch.equal(ours, theirs)


def test_intensity_of_a_volume_is_that_of_the_same_values_in_a_picture():
    values = {"brightness": 0.1, "contrast": 0.2, "gamma": 0.2, "noise": 0.05}
    batch = torch.rand(2, 1, 4, 5, 6, generator=seeded())
    before = batch.clone()
    ours = make((4, 5, 6), **values).recolour(batch, seeded(), False)
    assert torch.equal(batch, before)
    theirs = make((20, 6), **values).recolour(batch.view(2, 1, 20, 6), seeded(), False)
    torch.testing.assert_close(ours.view(2, 1, 20, 6), theirs)


def test_wrong_axes_are_refused():
    with pytest.raises(ValueError, match="2 or 3 axes"):
        make((8, 8, 8), (1.0, 1.0))
    with pytest.raises(ValueError, match=r"augment\.shift"):
        make((8, 8), shift=-0.1)
