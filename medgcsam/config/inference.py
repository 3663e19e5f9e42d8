"""Section `inference`: how a whole picture or volume is segmented; for segmentation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from medgcsam.config.base import Bool, Section

Overlap = Annotated[float, Field(strict=True, ge=0, le=0.9)]


class InferenceConfig(Section):
    """How a whole picture or volume is segmented (`task: segmentation` only)."""

    overlap: Overlap = Field(0.5, description="Overlap of neighbouring windows as a share of the patch.")
    mirror: Bool = Field(
        False, description="Average over mirrored copies; takes 4 times as long for pictures, 8 times for volumes."
    )
    components: Literal["auto", "all", "largest"] = Field(
        "auto",
        description="Keep `all` parts of a structure or the `largest` alone; `auto`: the largest where that is better "
        "on the validation patients, for each structure.",
    )
    stitch: Literal["auto", "device", "cpu", "disk"] = Field(
        "auto", description="Where windows are joined; `auto`: on the device, or on the CPU where that is too small."
    )
