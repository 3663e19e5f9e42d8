"""Section `network`: what is trained, and where it starts from."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from medgcsam.config.base import Bool, Count, FilePath, Section

Dropout = Annotated[float, Field(strict=True, ge=0, lt=1)]


class NetworkConfig(Section):
    """What is trained, and where it starts from."""

    name: Literal["small", "densenet121", "resnet18", "resnet50", "efficientnet-b0"] = Field(
        "small", description="`small` suits a CPU and some hundred patients; the others want a GPU and more images."
    )
    weights: FilePath | None = Field(
        None, description="A file of weights to start from (.pt, .pth, .safetensors); nothing is ever downloaded."
    )
    freeze_stem: Bool = Field(False, description="Keep the first layers as in the weights file.")
    dropout: Dropout = Field(0.0, description="Share of features dropped at random before the last layer.")
    width: Count = Field(16, description="`small` only: channels of the first stage.")
