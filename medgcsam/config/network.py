"""Section `network`: what is trained, and where it starts from."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from medgcsam.config.base import Bool, Count, FilePath, Section, auto_or

Dropout = Annotated[float, Field(strict=True, ge=0, lt=1)]

CLASSIFIERS = ("small", "densenet121", "resnet18", "resnet50", "efficientnet-b0")
_FULL = ("unet", "segresnet", "dynunet", "swin_unetr", "attention_unet")
SEGMENTERS = (*_FULL, *(f"{name}_small" for name in _FULL))


class NetworkConfig(Section):
    """What is trained, and where it starts from."""

    name: Literal["auto", *CLASSIFIERS, *SEGMENTERS] = Field(
        "auto",
        description="Classification: `small` (`auto`) suits a CPU and some hundred patients, the others want a GPU and "
        "more images. Segmentation: those that end in `_small` suit a CPU (`auto`: `unet_small`).",
    )
    weights: FilePath | None = Field(
        None, description="A file of weights to start from (.pt, .pth, .safetensors); nothing is ever downloaded."
    )
    freeze_stem: Bool = Field(False, description="Keep the first layers as in the weights file.")
    dropout: Dropout = Field(
        0.0,
        description="Share of features dropped at random before the last layer; of a segmentation after convolutions.",
    )
    width: auto_or(Count) = Field(
        "auto", description="`small` and segmentation: channels of the first stage; `auto`: 16, or the network's own."
    )
    levels: auto_or(Count) = Field(
        "auto", description="Segmentation: resolutions, the first included; `auto`: until the patch has 4 voxels."
    )
    deep_supervision: Bool = Field(
        False, description="Segmentation with dynunet or segresnet: the loss also sees the coarser resolutions."
    )
