"""Gradient centralization: a projection per output unit, for every layout of weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from medgcsam.optim import GCSAM, centralize_

LAYERS = {
    "linear": nn.Linear(6, 3),
    "conv1d": nn.Conv1d(2, 4, 3),
    "conv2d": nn.Conv2d(2, 4, 3),
    "conv3d grouped": nn.Conv3d(4, 6, 2, groups=2),
    "depthwise": nn.Conv2d(4, 4, 3, groups=4),
    "transposed": nn.ConvTranspose2d(4, 3, 2),
    "transposed grouped": nn.ConvTranspose2d(4, 6, 3, groups=2),
    "transposed 3d": nn.ConvTranspose3d(2, 5, 2),
    "transposed depthwise": nn.ConvTranspose2d(4, 4, 3, groups=4),
}


def weight_of_output(layer: nn.Module, unit: int) -> torch.Tensor:
    """Mask of the weights that an output channel depends on, found by asking autograd."""
    if isinstance(layer, nn.Linear):
        probe = torch.rand(2, layer.in_features) + 0.5
    else:
        dims = layer.weight.dim() - 2
        probe = torch.rand(2, layer.in_channels, *[5] * dims) + 0.5
    (gradient,) = torch.autograd.grad(layer(probe)[:, unit].sum(), layer.weight)
    return gradient != 0


@pytest.mark.parametrize("name", LAYERS)
def test_each_output_unit_loses_its_own_mean(name):
    layer = LAYERS[name]
    transposed = layer.groups if name.startswith("transposed") else 0
    gradient = torch.randn(layer.weight.shape, dtype=torch.float64)
    original = gradient.clone()
    centralize_([gradient], [transposed])
    units = layer.bias.numel()
    covered = torch.zeros(layer.weight.shape, dtype=torch.int)
    for unit in range(units):
        mask = weight_of_output(layer, unit)
        covered += mask.int()
        torch.testing.assert_close(gradient[mask], original[mask] - original[mask].mean(), rtol=0, atol=1e-12)
    assert (covered == 1).all()


@pytest.mark.parametrize(
    ("shape", "transposed"), [((7,), 0), ((5, 1), 0), ((8, 1, 1, 1), 0), ((), 0), ((1, 6, 1, 1), 1), ((4, 2, 1, 1), 4)]
)
def test_biases_and_fan_in_one_stay_as_they_are(shape, transposed):
    gradient = torch.randn(shape)
    before = gradient.clone()
    assert centralize_([gradient], [transposed]).lengths() == []
    assert torch.equal(gradient, before)


def test_it_is_an_orthogonal_projection_and_reports_what_it_took():
    gradients = [torch.randn(6, 5, dtype=torch.float64) + 1, torch.randn(4, 3, 2, 2, dtype=torch.float64)]
    original = [g.clone() for g in gradients]
    removed = centralize_(gradients).lengths()
    for before, after, took in zip(original, gradients, removed, strict=True):
        torch.testing.assert_close(took, (before - after).norm())
        torch.testing.assert_close((after * (before - after)).sum(), torch.zeros((), dtype=torch.float64))
    again = [g.clone() for g in gradients]
    centralize_(again)
    for once, twice in zip(gradients, again, strict=True):
        torch.testing.assert_close(once, twice)


def test_raw_norm_is_not_lost_where_nearly_all_of_the_gradient_is_mean():
    weight = nn.Parameter(torch.zeros(2, 64))
    optimizer = GCSAM([weight], norm="raw", rho=1.0)
    noise = torch.randn(2, 64, dtype=torch.float64) * 1e-3
    noise -= noise.mean(1, keepdim=True)
    weight.grad = (noise + 1).float()
    exact = weight.grad.double()
    optimizer.ascend()
    expected = (exact - exact.mean(1, keepdim=True)).norm() / exact.norm()
    assert float(optimizer.last_radius) == pytest.approx(float(expected), rel=1e-4)
