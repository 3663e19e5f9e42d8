"""Segmentation networks: any patch of the plan, two or three axes, and nothing that depends on the batch."""

from __future__ import annotations

import copy
from math import prod
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from medgcsam.errors import ConfigError
from medgcsam.networks import SEGMENTATION_NETWORKS, build_segmentation_network, count_parameters
from medgcsam.pipeline.stages import stages

SUPERVISED = [name for name in SEGMENTATION_NETWORKS if name.startswith(("dynunet", "segresnet"))]
SMALL = [name for name in SEGMENTATION_NETWORKS if name.endswith("_small")]


def build(name, patch, *, spacing=None, levels=None, channels=1, outputs=2, **changes) -> nn.Module:
    """With few channels unless told, so that the tests are quick."""
    found = stages(patch, spacing, levels)
    width = 12 if name.startswith("swin") else 4
    network = {"name": name, "width": width, "dropout": 0.0, "deep_supervision": False} | changes
    torch.manual_seed(0)
    return build_segmentation_network(
        SimpleNamespace(**network),
        dimensions=len(patch),
        channels=channels,
        outputs=outputs,
        patch=patch,
        kernels=[kernel for kernel, _ in found],
        strides=[stride for _, stride in found],
    )


def patch_of(name: str, dimensions: int) -> tuple[int, ...]:
    return (64, 32, 32)[:dimensions] if name.startswith("swin") else (32, 48, 16)[:dimensions]


@pytest.mark.parametrize("name", SEGMENTATION_NETWORKS)
def test_every_weight_learns_and_any_divisible_size_is_taken(name):
    patch = patch_of(name, 2)
    module = build(name, patch, channels=3, outputs=4)
    logits = module(torch.randn(2, 3, *patch))
    assert logits.shape == (2, 4, *patch)
    logits.square().mean().backward()
    without = [n for n, p in module.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
    assert without == []
    module.eval()
    with torch.no_grad():
        assert module(torch.randn(1, 3, 2 * patch[0], patch[1])).shape == (1, 4, 2 * patch[0], patch[1])


@pytest.mark.parametrize("name", SEGMENTATION_NETWORKS)
def test_volumes(name):
    patch = patch_of(name, 3)
    with torch.no_grad():
        assert build(name, patch, channels=2)(torch.randn(1, 2, *patch)).shape == (1, 2, *patch)


@pytest.mark.parametrize("name", SEGMENTATION_NETWORKS)
def test_an_image_does_not_depend_on_its_neighbours_in_the_batch(name):
    patch = patch_of(name, 2)
    module = build(name, patch)
    assert not [layer for layer in module.modules() if isinstance(layer, _BatchNorm)]
    images = torch.randn(2, 1, *patch)
    with torch.no_grad():
        torch.testing.assert_close(module(images)[:1], module(images[:1]), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", SEGMENTATION_NETWORKS)
def test_the_seed_decides_the_initial_weights(name):
    one, other = (build(name, patch_of(name, 2)).state_dict() for _ in range(2))
    assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("name", ["unet", "dynunet", "segresnet", "unet_small", "dynunet_small", "segresnet_small"])
def test_a_coarse_axis_keeps_its_voxels_while_the_others_are_halved(name):
    patch, spacing = (64, 64, 16), (1.0, 1.0, 4.0)
    found = stages(patch, spacing, 4)
    assert [stride for _, stride in found] == [(1, 1, 1), (2, 2, 1), (2, 2, 1), (2, 2, 2)]
    module = build(name, patch, spacing=spacing, levels=4)
    seen = []
    for layer in module.modules():
        if isinstance(layer, nn.Conv3d):
            layer.register_forward_hook(lambda _, __, output: seen.append(tuple(output.shape[2:])))
    with torch.no_grad():
        assert module(torch.randn(1, 1, *patch)).shape[2:] == patch
    assert {(32, 32, 16), (16, 16, 16), (8, 8, 8)} <= set(seen) <= {patch, (32, 32, 16), (16, 16, 16), (8, 8, 8)}


@pytest.mark.parametrize("name", [name for name in SEGMENTATION_NETWORKS if not name.startswith("swin")])
def test_a_short_axis_ends_before_the_others(name):
    patch = (64, 64, 8)
    assert [stride for _, stride in stages(patch, None)] == [(1, 1, 1), (2, 2, 2), (2, 2, 1), (2, 2, 1), (2, 2, 1)]
    with torch.no_grad():
        assert build(name, patch)(torch.randn(1, 1, *patch)).shape[2:] == patch


@pytest.mark.parametrize("name", SUPERVISED)
def test_deep_supervision_in_training_and_one_output_after_it(name):
    patch = (32, 64, 16)
    module = build(name, patch, deep_supervision=True, outputs=3)
    logits = module(torch.randn(1, 1, *patch))
    assert len(logits) >= 2
    sizes = [tuple(part.shape[2:]) for part in logits]
    assert sizes[0] == patch
    assert all(part.shape[:2] == (1, 3) for part in logits)
    assert all(all(n % m == 0 for n, m in zip(patch, size, strict=True)) for size in sizes)
    assert [prod(size) for size in sizes] == sorted({prod(size) for size in sizes}, reverse=True)
    sum(part.square().mean() for part in logits).backward()
    assert [n for n, p in module.named_parameters() if p.grad is None] == []
    again = copy.deepcopy(module)  # also right after a step
    with torch.no_grad():
        images = torch.randn(1, 1, *patch)
        given = again.eval()(images)
        assert isinstance(given, torch.Tensor)
        torch.testing.assert_close(given, module(images)[0], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", [name for name in SEGMENTATION_NETWORKS if name not in SUPERVISED])
def test_deep_supervision_is_refused_elsewhere(name):
    with pytest.raises(ConfigError, match=r"network\.deep_supervision: .* has none"):
        build(name, patch_of(name, 2), deep_supervision=True)


@pytest.mark.parametrize("name", [name for name in SMALL if not name.startswith("swin")])
def test_a_small_network_learns_discs_in_noise(name):
    generator = torch.Generator().manual_seed(1)
    axis = torch.arange(64.0)
    module = build(name, (64, 64), width=8, outputs=1)
    optimizer = torch.optim.AdamW(module.parameters(), lr=5e-3)
    for _ in range(25):
        centre = torch.rand(3, 2, 1, 1, generator=generator) * 40 + 12
        discs = ((axis[:, None] - centre[:, :1]) ** 2 + (axis - centre[:, 1:]) ** 2 < 81).float()
        images = discs + torch.randn(3, 1, 64, 64, generator=generator)
        logits = module(images)
        loss = nn.functional.binary_cross_entropy_with_logits(logits, discs)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    found = (logits > 0).float()
    assert 2 * float((found * discs).sum()) / float(found.sum() + discs.sum()) > 0.7


@pytest.mark.parametrize(("name", "millions"), [("dynunet", 16.5), ("swin_unetr", 62.2)])
def test_published_sizes(name, millions):
    """nnU-Net's plain network of five stages in 3-D, and Swin UNETR of feature size 48 (Hatamizadeh et al. 2022)."""
    patch = (64, 64, 64)
    module = build(name, patch, levels=None if name == "swin_unetr" else 5, width="auto")
    assert count_parameters(module) / 1e6 == pytest.approx(millions, rel=0.01)


@pytest.mark.parametrize("name", SMALL)
def test_a_small_network_begins_without_a_pattern_inside_its_strides(name):
    patch = patch_of(name, 2)
    with torch.no_grad():
        logits = build(name, patch)(torch.randn(1, 1, *patch))
    torch.testing.assert_close(logits[..., ::2, ::2], logits[..., 1::2, 1::2])


@pytest.mark.parametrize("name", ["unet", "unet_small"])
def test_an_image_without_a_structure_can_get_low_logits_throughout(name):
    """MONAI's UNet normalises the logits of each image before its last convolution: their spread is always alike."""
    module, images = build(name, (32, 32)), torch.randn(2, 1, 32, 32)
    last = module[-1] if name == "unet" else module.model[2]
    with torch.no_grad():
        last.weight.zero_()
        last.bias.fill_(-7)
        assert torch.equal(module(images), torch.full((2, 2, 32, 32), -7.0))


@pytest.mark.parametrize("name", SEGMENTATION_NETWORKS)
def test_dropout_acts_in_training_alone(name):
    patch = patch_of(name, 2)
    module, images = build(name, patch, dropout=0.5), torch.randn(1, 1, *patch)
    with torch.no_grad():
        assert not torch.equal(module(images), module(images))
        module.eval()
        assert torch.equal(module(images), module(images))


@pytest.mark.parametrize(
    ("name", "patch", "changes", "message"),
    [
        ("dynunet_smal", (32, 32), {}, "did you mean dynunet_small"),
        ("dynunet", (32, 32), {"levels": 2}, r"network\.levels: dynunet needs at least 3 and has 2"),
        ("dynunet_small", (16, 16), {}, "needs at least 4 and has 3"),
        ("swin_unetr", (96, 48), {}, r"patches\.size: swin_unetr needs axes that are multiples of 32.*not 96 x 48"),
        ("swin_unetr_small", (32, 32, 32), {}, "one of at least 64"),
        ("swin_unetr", (64, 64), {"width": 16}, r"network\.width: swin_unetr needs a multiple of 12"),
    ],
)
def test_what_cannot_be_built_is_said(name, patch, changes, message):
    with pytest.raises(ConfigError, match=message):
        build(name, patch, **changes)


def test_a_patch_that_the_strides_do_not_divide_is_refused():
    network = SimpleNamespace(name="unet", width=4, dropout=0.0, deep_supervision=False)
    shape = {"dimensions": 2, "channels": 1, "outputs": 2, "kernels": [(3, 3)] * 3}
    strides = [(1, 1), (2, 2), (2, 2)]
    with pytest.raises(ConfigError, match=r"patches\.size: 30 x 32 cannot be divided by 4 x 4"):
        build_segmentation_network(network, patch=(30, 32), strides=strides, **shape)
    with pytest.raises(ConfigError, match="a single voxel"):
        build_segmentation_network(network, patch=(4, 4), strides=strides, **shape)
    with pytest.raises(ValueError, match="2 axes"):
        build_segmentation_network(network, patch=(32, 32, 32), strides=strides, **shape)
