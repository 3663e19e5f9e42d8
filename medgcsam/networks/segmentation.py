"""A segmentation network by its name, untrained: MONAI's, and lighter ones of the same kind for CPUs."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from medgcsam.errors import ConfigError

Axes = Sequence[int]
NORM = ("INSTANCE", {"affine": True})  # never over the batch, which may hold two images
ACT = ("leakyrelu", {"inplace": True, "negative_slope": 0.01})
MOST_CHANNELS = {2: 512, 3: 320}  # nnU-Net's, by dimensions
SWIN_FACTOR = 32  # what Swin UNETR divides each axis by


def build_segmentation_network(
    network: Any,
    *,
    dimensions: int,
    channels: int,
    outputs: int,
    patch: Axes,
    kernels: Sequence[Axes],
    strides: Sequence[Axes],
) -> nn.Module:
    """An untrained network: float (n, channels, *patch) to logits (n, outputs, *patch).

    In training mode and with deep supervision it gives a sequence of logits, finest first; the coarser ones have the
    shape of their resolution. Any input is taken whose axes the strides divide.

    Args:
        network: name, width (channels of the first stage, or "auto"), dropout, deep_supervision.
        dimensions: 2 or 3.
        channels, outputs: of the input, and of the logits: structures, and one more for background if exclusive.
        patch: voxels per axis in training, (rows, cols) or (i, j, k).
        kernels, strides: per resolution, finest first, the first stride all 1 (``medgcsam.pipeline.stages``). DynUNet
            follows both, Swin UNETR none (it halves each axis five times), the others the strides, with kernels of 3.

    ``unet`` is MONAI's UNet of residual units (its first stage has half the resolution), ``segresnet`` SegResNetDS,
    ``dynunet`` DynUNet as nnU-Net configures it, ``swin_unetr`` SwinUNETR and ``attention_unet`` AttentionUnet. Those
    that end in ``_small`` are the same with fewer channels and at half the resolution: a strided convolution leads in
    and a transposed one out, which takes about an eighth of the work. All normalise each image by itself. Dropout
    follows each convolution as MONAI does it; in SegResNet the first one.

    Initial weights come from torch's global generator: seed it before.
    Raises ConfigError for an unknown name, for deep supervision or a width that the network does not have, and for a
    patch that is too small or not divisible.
    """
    if network.name not in _BUILDERS:
        near = difflib.get_close_matches(network.name, _BUILDERS, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ConfigError(
            f"network.name: there is no segmentation network {network.name!r}; {hint}known are {', '.join(_BUILDERS)}."
        )
    build, width, fewest = _BUILDERS[network.name]
    if network.deep_supervision and not network.name.startswith(("dynunet", "segresnet")):
        raise ConfigError(
            f"network.deep_supervision: {network.name} has none; set it to false, or use dynunet or segresnet "
            "(or their small ones)."
        )
    design = _Design(
        name=network.name,
        dimensions=dimensions,
        channels=channels,
        outputs=outputs,
        width=width if network.width in ("auto", None) else int(network.width),
        kernels=[tuple(k) for k in kernels],
        strides=[tuple(s) for s in strides],
        dropout=float(network.dropout or 0.0),
        deep_supervision=bool(network.deep_supervision),
    )
    _check_patch(design, patch, fewest)
    return build(design)


@dataclass(frozen=True)
class _Design:
    """What the builders need, resolved to numbers."""

    name: str
    dimensions: int
    channels: int
    outputs: int
    width: int
    kernels: list[tuple[int, ...]]
    strides: list[tuple[int, ...]]
    dropout: float
    deep_supervision: bool

    @property
    def small(self) -> bool:
        return self.name.endswith("_small")

    @property
    def work(self) -> int:
        """Index of the finest resolution that the network computes at."""
        return 1 if self.small else 0

    def widths(self, stages: int) -> list[int]:
        """Channels per stage: doubled from one to the next, up to MOST_CHANNELS."""
        return [min(self.width * 2**stage, max(self.width, MOST_CHANNELS[self.dimensions])) for stage in range(stages)]


def _check_patch(design: _Design, patch: Axes, fewest: int) -> None:
    """Raise ConfigError for a patch that the network cannot take."""
    shape = " x ".join(str(n) for n in patch)
    if len(design.strides) != len(design.kernels) or any(
        len(axes) != design.dimensions for axes in (patch, *design.kernels, *design.strides)
    ):
        raise ValueError(
            f"patch, kernels and strides must have {design.dimensions} axes, and as many kernels as strides"
        )
    if design.name.startswith("swin"):
        if any(n % SWIN_FACTOR for n in patch) or max(patch) == SWIN_FACTOR:
            raise ConfigError(
                f"patches.size: {design.name} needs axes that are multiples of {SWIN_FACTOR}, one of at least "
                f"{2 * SWIN_FACTOR}, not {shape}; change patches.size or network.name."
            )
        return
    if len(design.strides) < fewest:
        raise ConfigError(
            f"network.levels: {design.name} needs at least {fewest} and has {len(design.strides)} for a patch of "
            f"{shape}; raise network.levels, enlarge patches.size, or use another network."
        )
    factors = [prod(stride[axis] for stride in design.strides) for axis in range(design.dimensions)]
    if any(n % f for n, f in zip(patch, factors, strict=True)):
        needed = " x ".join(str(f) for f in factors)
        raise ConfigError(
            f"patches.size: {shape} cannot be divided by {needed}; choose multiples, or fewer network.levels."
        )
    if prod(n // f for n, f in zip(patch, factors, strict=True)) == 1:
        raise ConfigError(
            f"network.levels: {len(design.strides)} leave a single voxel of a patch of {shape}, which cannot be "
            "normalised; lower network.levels or enlarge patches.size."
        )


def _convolution(design: _Design, features: int, kernel: Axes, stride: Axes) -> nn.Module:
    """The strided convolution that leads into a small network."""
    layer = nn.Conv3d if design.dimensions == 3 else nn.Conv2d
    padding = tuple(k // 2 for k in kernel)
    return layer(design.channels, features, tuple(kernel), stride=tuple(stride), padding=padding, bias=False)


def _unfold(design: _Design, features: int, stride: Axes) -> nn.Module:
    """Logits at the full resolution from features of a small network: each voxel of a stride has weights of its own.

    They begin equal, as if the features were enlarged; from unequal ones it takes long to learn away the pattern.
    """
    layer = nn.ConvTranspose3d if design.dimensions == 3 else nn.ConvTranspose2d
    module = layer(features, design.outputs, tuple(stride), stride=tuple(stride))
    with torch.no_grad():
        weights = torch.randn(features, design.outputs, *[1] * design.dimensions) / features**0.5
        module.weight.copy_(weights.expand_as(module.weight))
        module.bias.zero_()
    return module


def _unet(design: _Design) -> nn.Module:
    from monai.networks.nets import UNet

    steps = design.strides[1:]
    widths = design.widths(len(steps) + 1)
    module = UNet(
        design.dimensions,
        design.channels,
        design.width,
        channels=widths,
        strides=steps,
        num_res_units=1 if design.small else 2,
        act=ACT,
        norm=NORM,
        dropout=design.dropout,
    )
    # MONAI's own last layers normalise the logits of each image, which then cannot say that there is nothing in it.
    if design.small:
        module.model[2] = _unfold(design, widths[0] + (widths[0] if len(widths) > 2 else widths[1]), steps[0])
        return module
    layer = nn.Conv3d if design.dimensions == 3 else nn.Conv2d
    return nn.Sequential(module, nn.LeakyReLU(0.01), layer(design.width, design.outputs, 1))


def _attention_unet(design: _Design) -> nn.Module:
    from monai.networks.nets import AttentionUnet
    from monai.networks.nets.attentionunet import ConvBlock

    steps = design.strides[1 + design.work :]
    widths = design.widths(len(steps) + 1)
    module = AttentionUnet(design.dimensions, design.channels, design.outputs, widths, steps, dropout=design.dropout)
    if design.small:
        stride = design.strides[1]
        module.model[0] = ConvBlock(
            design.dimensions, design.channels, widths[0], strides=stride, dropout=design.dropout
        )
        module.model[-1] = _unfold(design, widths[0], stride)
    _normalise_each_image(module)
    return module


def _normalise_each_image(module: nn.Module) -> None:
    """Put instance normalisation in the place of each batch normalisation."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d | nn.BatchNorm3d):
            layer = nn.InstanceNorm3d if isinstance(child, nn.BatchNorm3d) else nn.InstanceNorm2d
            setattr(module, name, layer(child.num_features, affine=True))
        else:
            _normalise_each_image(child)


def _dynunet(design: _Design) -> nn.Module:
    from monai.networks.nets import DynUNet

    class SupervisedDynUNet(DynUNet):
        """MONAI's, except that coarser logits keep their own resolution instead of being enlarged and stacked."""

        def forward(self, x: Tensor) -> Tensor | list[Tensor]:
            out = self.output_block(self.skip_layers(x))
            if not (self.training and self.deep_supervision):
                return out
            coarser = list(self.heads)
            self.heads[:] = [out.new_empty(0)] * len(coarser)  # kept tensors would keep their graph, and forbid copies
            return [out, *coarser]

    strides = design.strides[design.work :]
    levels, widths = len(strides), design.widths(len(strides))
    module = SupervisedDynUNet(
        design.dimensions,
        design.channels,
        design.outputs,
        kernel_size=design.kernels[design.work :],
        strides=strides,
        upsample_kernel_size=strides[1:],
        filters=widths,
        dropout=design.dropout or None,
        norm_name=NORM,
        act_name=ACT,
        deep_supervision=design.deep_supervision,
        deep_supr_num=_coarser(levels),
    )
    if design.small:  # its first stride is that of the input block
        module.output_block = _unfold(design, widths[0], strides[0])
    return module


def _segresnet(design: _Design) -> nn.Module:
    from monai.networks.nets import SegResNetDS

    inner = design.strides[1 + design.work :]
    stages = len(inner) + 1
    module = SegResNetDS(
        design.dimensions,
        init_filters=design.width,
        in_channels=design.channels,
        out_channels=design.outputs,
        act=ACT,
        norm=NORM,
        blocks_down=(1,) * stages if design.small else (1, 2, 2, *[4] * stages)[:stages],
        dsdepth=1 + _coarser(stages) if design.deep_supervision else 1,
    )
    _halve_by(module, inner)
    if design.small:
        stride = design.strides[1]
        module.encoder.conv_init = _convolution(design, design.width, design.kernels[1], stride)
        module.up_layers[-1]["head"] = _unfold(design, design.width, stride)
    if design.dropout:
        drop = nn.Dropout3d if design.dimensions == 3 else nn.Dropout2d
        module.encoder.conv_init = nn.Sequential(module.encoder.conv_init, drop(design.dropout))
    return module


def _halve_by(module: nn.Module, inner: list[tuple[int, ...]]) -> None:
    """Set the strides of a SegResNetDS, which by itself halves all axes each time; its kernels are 3 long."""
    module.anisotropic_scales = [*inner, inner[-1]]  # what it checks a shape with, the last left out
    for level, stride in zip(module.encoder.layers, inner, strict=False):
        level["downsample"].stride = stride
    for level, stride in zip(module.up_layers, reversed(inner), strict=True):
        level["upsample"].deconv.stride = stride
        level["upsample"].deconv.output_padding = tuple(s - 1 for s in stride)


def _coarser(levels: int) -> int:
    """How many coarser resolutions deep supervision sees: not the two lowest, as nnU-Net, and at most three."""
    return max(1, min(levels - 2, 3))


def _swin_unetr(design: _Design) -> nn.Module:
    from monai.networks.nets import SwinUNETR

    if design.width % 12:
        raise ConfigError(f"network.width: {design.name} needs a multiple of 12, not {design.width}.")
    module = SwinUNETR(
        in_channels=design.channels,
        out_channels=design.outputs,
        feature_size=design.width,
        depths=(1,) * 4 if design.small else (2,) * 4,
        window_size=4 if design.small else 7,
        norm_name=NORM,
        drop_rate=design.dropout,
        spatial_dims=design.dimensions,
    )
    if design.small:  # without the stage at the full resolution, which takes two thirds of the time
        module.encoder1 = nn.Identity()
        module.decoder1 = _WithoutSkip(_unfold(design, design.width, (2,) * design.dimensions))
        module.out = nn.Identity()
    return module


class _WithoutSkip(nn.Module):
    """A layer in the place of a decoder stage that leaves the skip connection unused."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer

    def forward(self, features: Tensor, skip: Tensor) -> Tensor:
        return self.layer(features)


# name -> (builder, width of the first stage, fewest levels)
_BUILDERS: dict[str, tuple[Callable[[_Design], nn.Module], int, int]] = {
    "unet": (_unet, 32, 2),
    "segresnet": (_segresnet, 32, 2),
    "dynunet": (_dynunet, 32, 3),
    "swin_unetr": (_swin_unetr, 48, 1),
    "attention_unet": (_attention_unet, 32, 2),
    "unet_small": (_unet, 16, 2),
    "segresnet_small": (_segresnet, 16, 3),
    "dynunet_small": (_dynunet, 16, 4),
    "swin_unetr_small": (_swin_unetr, 12, 1),
    "attention_unet_small": (_attention_unet, 16, 3),
}
SEGMENTATION_NETWORKS = tuple(_BUILDERS)
