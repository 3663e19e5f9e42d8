"""Section `patches`: what of a picture or volume one training step sees; for segmentation."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from medgcsam.config.base import Count, Positive, Section, Share, auto_or

LONGEST = 4096
"""Voxels along an axis of a patch, at most; a power of two, so that a planned patch can end there."""

Length = Annotated[int, Field(strict=True, ge=1, le=LONGEST)]
PatchSize = auto_or(Annotated[tuple[Length, ...], Field(min_length=2, max_length=3)])


class PatchesConfig(Section):
    """What of a picture or volume one training step sees (`task: segmentation` only)."""

    size: PatchSize = Field(
        "auto",
        description="Voxels along each axis; `auto`: the median size of the training images, as far as memory allows.",
    )
    per_image: auto_or(Count) = Field("auto", description="Patches drawn from each training image per epoch.")
    foreground: Share = Field(0.5, description="Share of the patches that are placed on a structure.")
    memory_gb: auto_or(Positive) = Field(
        "auto",
        description="Memory in GB that a training step may take, which `size` and `training.batch_size` are planned "
        "for; `auto`: 80% of the GPU's, or what a CPU computes in reasonable time.",
    )
