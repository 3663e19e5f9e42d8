"""A network by its name, untrained; its stem frozen on request."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any

from torch import nn

from medgcsam.errors import ConfigError
from medgcsam.networks.small import Head, SmallNet

# Layer whose activations Grad-CAM shows: the last one with spatial extent that hooks leave intact
# (it fails at DenseNet's features.norm5, which an in-place ReLU follows).
GRADCAM_LAYER = {
    "small": "stages.3",
    "densenet121": "features.denseblock4",
    "resnet18": "layer4",
    "resnet50": "layer4",
    "efficientnet-b0": "_conv_head",
}

# What ``freeze_stem`` freezes: the first convolution and its normalisation.
STEM = {
    "small": ("stages.0",),
    "densenet121": ("features.conv0", "features.norm0"),
    "resnet18": ("conv1", "bn1"),
    "resnet50": ("conv1", "bn1"),
    "efficientnet-b0": ("_conv_stem", "_bn0"),
}


def build_network(network: Any, *, channels: int, outputs: int) -> nn.Module:
    """An untrained network: float (n, channels, rows, cols) to logits (n, outputs), any size of at least 32x32.

    ``network``: name, dropout (before the last linear layer), width ("small" only), freeze_stem. ``channels``: 1 or 3.
    Initial weights come from torch's global generator: seed it before. Weights of a file are loaded by
    ``load_weights``, not here.

    "small" is described at ``SmallNet``; the others are MONAI's, with 7x7 stems of stride 2 in the ResNets (MONAI's
    default of stride 1 is five times slower at 224 pixels) and no bias in their shortcuts, as in torchvision, so that
    its weights fit name by name. Raises ``ConfigError`` for an unknown name.
    """
    builder = _BUILDERS.get(network.name)
    if builder is None:
        near = difflib.get_close_matches(network.name, _BUILDERS, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]}? " if near else ""
        known = ", ".join(_BUILDERS)
        raise ConfigError(f"network.name: there is no network {network.name!r}; {hint}known are {known}.")
    module = builder(network, channels, outputs)
    if network.freeze_stem:
        freeze_stem(module, network.name)
    return module


def count_parameters(module: nn.Module, *, trainable: bool = False) -> int:
    """Number of weights; ``trainable`` leaves frozen ones out."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not trainable)


def _small(network: Any, channels: int, outputs: int) -> nn.Module:
    return SmallNet(channels=channels, outputs=outputs, width=int(network.width), dropout=network.dropout or 0.0)


def _densenet121(network: Any, channels: int, outputs: int) -> nn.Module:
    from monai.networks.nets import DenseNet121

    module = DenseNet121(spatial_dims=2, in_channels=channels, out_channels=outputs, pretrained=False)
    module.class_layers.out = Head(module.class_layers.out.in_features, outputs, network.dropout or 0.0)
    return module


def _resnet(name: str) -> Callable[[Any, int, int], nn.Module]:
    def build(network: Any, channels: int, outputs: int) -> nn.Module:
        from monai.networks import nets

        module = getattr(nets, name)(
            pretrained=False,
            spatial_dims=2,
            n_input_channels=channels,
            num_classes=outputs,
            conv1_t_size=7,
            conv1_t_stride=2,
            bias_downsample=False,
        )
        module.fc = Head(module.fc.in_features, outputs, network.dropout or 0.0)
        return module

    return build


def _efficientnet(network: Any, channels: int, outputs: int) -> nn.Module:
    from monai.networks.nets import EfficientNetBN

    # MONAI's momentum of 0.01 wants some hundred steps before running statistics, and so validation, mean anything.
    norm = ("batch", {"eps": 1e-3, "momentum": 0.1})
    module = EfficientNetBN(
        "efficientnet-b0", pretrained=False, spatial_dims=2, in_channels=channels, num_classes=outputs, norm=norm
    )
    module._dropout.p = float(network.dropout or 0.0)
    return module


_BUILDERS = {
    "small": _small,
    "densenet121": _densenet121,
    "resnet18": _resnet("resnet18"),
    "resnet50": _resnet("resnet50"),
    "efficientnet-b0": _efficientnet,
}


class _FrozenBatchNorm(nn.BatchNorm2d):
    """Batch normalisation that stays in evaluation mode when its network is put into training mode."""

    def train(self, mode: bool = True) -> _FrozenBatchNorm:
        return super().train(False)


def freeze_stem(module: nn.Module, name: str) -> None:
    """Freeze the layers of ``STEM[name]``: no gradients, and their running statistics stay as loaded."""
    for part in STEM[name]:
        for layer in module.get_submodule(part).modules():
            layer.requires_grad_(False)
            if isinstance(layer, nn.BatchNorm2d):
                layer.__class__ = _FrozenBatchNorm
                layer.train(False)
