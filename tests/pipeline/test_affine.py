"""Linear interpolation at affine positions, against scipy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from medgcsam.pipeline.affine import sample

SIZES = [
    ((12, 17), (6, 8)),
    ((9, 31), (7, 5)),  # no slabs of equal size
    ((20, 30, 25), (8, 16, 12)),
    ((12, 14, 13), (5, 6, 7)),
    ((2, 14, 13), (1, 6, 7)),
    ((1, 9, 11), (3, 6, 7)),  # a single plane
]


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize(("region", "shape"), SIZES)
def test_values_are_those_of_scipy_inside_and_outside(region, shape):
    d = len(region)
    images = torch.rand(3, 2, *region, generator=seeded())
    turn = torch.eye(d) + 0.3 * torch.randn(3, d, d, generator=seeded())
    offset = torch.tensor(region) * torch.tensor([[0.25], [-0.1], [0.6]])  # the second and third also leave the region
    ours = sample(images, torch.cat([turn, offset[:, :, None]], dim=2), shape)
    assert ours.shape == (3, 2, *shape)
    for image, matrix, shift, mine in zip(images, turn, offset, ours, strict=True):
        for channel, values in zip(image.numpy(), mine.numpy(), strict=True):
            theirs = ndimage.affine_transform(
                channel, matrix.numpy(), shift.numpy(), output_shape=shape, order=1, mode="nearest"
            )
            np.testing.assert_allclose(values, theirs, atol=2e-4)


def test_positions_of_a_large_region_are_right_to_thousandths_of_a_voxel():
    region = (160, 200, 200)
    axes = torch.meshgrid(*(torch.arange(n, dtype=torch.float32) for n in region), indexing="ij")
    matrix = torch.tensor([[0.9, 0.1, -0.2, 30.0], [0.1, 0.95, 0.3, 12.0], [0.2, -0.3, 0.9, 40.0]])
    shape = (64, 32, 48)
    ours = sample(torch.stack(axes)[None], matrix[None], shape)[0].double().numpy()
    expected = np.tensordot(matrix[:, :3].double(), np.indices(shape), 1) + matrix[:, 3].double().numpy().reshape(
        3, 1, 1, 1
    )
    np.testing.assert_allclose(ours, expected, atol=6e-3)


def test_whole_steps_are_exact_to_rounding():
    images = torch.rand(1, 1, 16, 18, 20, generator=seeded())
    matrix = torch.cat([torch.eye(3), torch.tensor([[3.0], [5.0], [7.0]])], dim=1)[None]
    torch.testing.assert_close(sample(images, matrix, (8, 8, 8)), images[..., 3:11, 5:13, 7:15], atol=1e-4, rtol=0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize(("region", "shape"), SIZES)
def test_a_gpu_gives_what_a_cpu_gives(region, shape):
    d = len(region)
    images = torch.rand(3, 2, *region, generator=seeded())
    matrix = torch.cat([torch.eye(d), torch.ones(d, 1)], dim=1) + 0.3 * torch.randn(3, d, d + 1, generator=seeded())
    on_gpu = sample(images.cuda(), matrix.cuda(), shape).cpu()
    torch.testing.assert_close(sample(images, matrix, shape), on_gpu, atol=1e-3, rtol=0)
