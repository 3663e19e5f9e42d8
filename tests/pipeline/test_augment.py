"""Augmentation against scipy and numpy, with draws that are forced or counted."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import ndimage

from medgcsam.pipeline.augment import Augment, _grid

OFF = {
    "enabled": True,
    "flip_horizontal": False,
    "flip_vertical": False,
    "rotate_degrees": 0.0,
    "shift": 0.0,
    "scale": 0.0,
    "brightness": 0.0,
    "contrast": 0.0,
    "gamma": 0.0,
    "noise": 0.0,
}
ALL = OFF | {
    "flip_horizontal": True,
    "flip_vertical": True,
    "rotate_degrees": 10.0,
    "shift": 0.1,
    "scale": 0.2,
    "brightness": 0.1,
    "contrast": 0.2,
    "gamma": 0.2,
    "noise": 0.05,
}


class Extreme(Augment):
    """Every draw is its greatest value."""

    @staticmethod
    def _symmetric(size, extent, generator):
        return torch.full(size if isinstance(size, tuple) else (size,), float(extent))


def augment(kind=Augment, **changes):
    return kind(SimpleNamespace(**(OFF | changes)))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def batch() -> torch.Tensor:
    smooth = ndimage.gaussian_filter(np.random.default_rng(0).random((6, 2, 40, 56)), (0, 0, 2, 2))
    smooth = (smooth - smooth.min()) / (smooth.max() - smooth.min())
    return torch.from_numpy(smooth.astype(np.float32))


def test_nothing_to_do_gives_the_batch_itself_and_draws_nothing(batch):
    generator = seeded()
    before = generator.get_state()
    assert augment()(batch, generator) is batch
    assert Augment(SimpleNamespace(**(ALL | {"enabled": False})))(batch, generator) is batch
    assert torch.equal(generator.get_state(), before)


def test_tiny_changes_are_the_identity(batch):
    tiny = {name: 1e-9 for name, value in ALL.items() if not isinstance(value, bool)}
    torch.testing.assert_close(augment(**tiny)(batch, seeded()), batch, atol=1e-5, rtol=0)


def test_same_generator_same_batch_and_no_global_randomness(batch):
    state = torch.get_rng_state()
    torch.manual_seed(5)
    first = Augment(SimpleNamespace(**ALL))(batch, seeded(3))
    torch.manual_seed(6)
    again = Augment(SimpleNamespace(**ALL))(batch, seeded(3))
    other = Augment(SimpleNamespace(**ALL))(batch, seeded(4))
    torch.set_rng_state(state)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first, batch)


def test_the_batch_given_is_left_alone(batch):
    before = batch.clone()
    Augment(SimpleNamespace(**ALL))(batch, seeded())
    assert torch.equal(batch, before)


def test_images_of_a_batch_are_changed_differently(batch):
    same = batch[:1].repeat(8, 1, 1, 1)
    for name in ("rotate_degrees", "shift", "scale", "brightness", "contrast", "gamma", "noise"):
        out = augment(**{name: ALL[name]})(same, seeded())
        assert len({image.numpy().tobytes() for image in out}) == 8, name


@pytest.mark.parametrize(("name", "axis"), [("flip_horizontal", -1), ("flip_vertical", -2)])
def test_flips_are_exact_and_happen_half_of_the_time(batch, name, axis):
    same = batch[:1].repeat(400, 1, 1, 1)
    out = augment(**{name: True})(same, seeded())
    kept = (out == same).flatten(1).all(1)
    flipped = (out == same.flip(axis)).flatten(1).all(1)
    assert bool((kept ^ flipped).all())
    assert 150 < int(flipped.sum()) < 250


@pytest.mark.parametrize("degrees", [13.0, 90.0])
def test_rotation_is_one_of_pixels_also_where_the_image_is_not_square(batch, degrees):
    ours = augment(Extreme, rotate_degrees=degrees)(batch, seeded()).numpy()
    theirs = ndimage.rotate(batch.numpy(), degrees, (-2, -1), reshape=False, order=1, mode="nearest")
    np.testing.assert_allclose(ours[..., 12:28, 12:44], theirs[..., 12:28, 12:44], atol=1e-4)


def test_the_grid_is_that_of_torch():
    theta = torch.randn(3, 2, 3, generator=seeded())
    expected = torch.nn.functional.affine_grid(theta, [3, 1, 7, 10], align_corners=False)
    torch.testing.assert_close(_grid(theta, torch.Size((7, 10))), expected)


def test_shift_is_a_fraction_of_each_side(batch):
    ours = augment(Extreme, shift=0.125)(batch, seeded())
    torch.testing.assert_close(ours[..., :-5, :-7], batch[..., 5:, 7:], atol=1e-5, rtol=0)
    torch.testing.assert_close(ours[..., -5:, -7:], batch[..., -1:, -1:].expand(-1, -1, 5, 7), atol=1e-5, rtol=0)


def test_scale_magnifies_about_the_centre(batch):
    ours = augment(Extreme, scale=0.5)(batch, seeded())[..., 0, :, :].numpy()
    rows, cols = np.mgrid[:40, :56].astype(float)
    points = [19.5 + (rows - 19.5) / 1.5, 27.5 + (cols - 27.5) / 1.5]
    for image, expected in zip(ours, batch[:, 0].numpy(), strict=True):
        np.testing.assert_allclose(image, ndimage.map_coordinates(expected, points, order=1), atol=1e-4)


def test_intensity_formulas(batch):
    x = batch.numpy().astype(np.float64)
    mean = x.mean((-1, -2), keepdims=True)
    expected = {
        "contrast": (0.2, mean + (x - mean) * 1.2),
        "brightness": (0.1, x + 0.1),
        "gamma": (0.3, x**1.3),
    }
    for name, (extent, value) in expected.items():
        ours = augment(Extreme, **{name: extent})(batch, seeded()).numpy()
        np.testing.assert_allclose(ours, np.clip(value, 0, 1), atol=1e-5, err_msg=name)


def test_draws_stay_within_their_extent():
    flat = torch.full((500, 1, 4, 4), 0.5)
    offsets = (augment(brightness=0.2)(flat, seeded()) - 0.5)[:, 0, 0, 0]
    assert 0.19 < float(offsets.abs().max()) <= 0.2
    assert abs(float(offsets.mean())) < 0.02
    exponents = augment(gamma=0.25)(flat, seeded())[:, 0, 0, 0].log() / np.log(0.5)
    assert 0.8 - 1e-5 <= float(exponents.min()) < 0.82
    assert 1.22 < float(exponents.max()) <= 1.25 + 1e-5


def test_noise_has_at_most_the_deviation_asked_for():
    flat = torch.full((64, 1, 64, 64), 0.5)
    deviations = augment(noise=0.05)(flat, seeded()).std(dim=(1, 2, 3))
    assert float(deviations.max()) < 0.053
    assert 0.015 < float(deviations.mean()) < 0.035


def test_values_of_the_unit_range_stay_in_it_and_zscores_are_not_cut(batch):
    strong = ALL | {"brightness": 0.5, "noise": 0.3}
    out = Augment(SimpleNamespace(**strong))(batch, seeded())
    assert 0 <= float(out.min()) <= float(out.max()) <= 1
    scores = 6 * batch - 3
    out = Augment(SimpleNamespace(**strong))(scores, seeded(), unit_range=False)
    assert bool(torch.isfinite(out).all())
    assert float(out.min()) < -1
    assert float(out.max()) > 1
    gamma = augment(Extreme, gamma=0.3)(scores, seeded(), unit_range=False)
    torch.testing.assert_close(gamma.amin((1, 2, 3)), scores.amin((1, 2, 3)))
    torch.testing.assert_close(gamma.amax((1, 2, 3)), scores.amax((1, 2, 3)))


def test_empty_batch_and_bad_extent(batch):
    assert Augment(SimpleNamespace(**ALL))(batch[:0], seeded()).shape == (0, 2, 40, 56)
    with pytest.raises(ValueError, match=r"augment\.shift"):
        augment(shift=-0.1)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_draws_what_a_cpu_draws(batch):
    on_cpu = Augment(SimpleNamespace(**ALL))(batch, seeded(1))
    on_gpu = Augment(SimpleNamespace(**ALL))(batch.cuda(), seeded(1)).cpu()
    torch.testing.assert_close(on_cpu, on_gpu, atol=1e-4, rtol=0)
