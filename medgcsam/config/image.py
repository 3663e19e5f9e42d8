"""Section `image`: the deterministic preparation of every image."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from medgcsam.config.base import Section

Side = Annotated[int, Field(strict=True, ge=8, le=4096)]


def _square(value: Any) -> Any:
    return (value, value) if isinstance(value, int) and not isinstance(value, bool) else value


Size = Annotated[tuple[Side, Side], BeforeValidator(_square, json_schema_input_type=Side | tuple[Side, Side])]


class ImageConfig(Section):
    """The deterministic preparation of every image, done once and stored."""

    size: Size = Field(
        (112, 112), description="Pixels that the network sees: `[rows, columns]`, or one number for a square."
    )
    channels: Literal[1, 3] = Field(
        1, description="1 for gray images, 3 for colour (or for weights trained on colour)."
    )
    fit: Literal["pad", "stretch", "crop"] = Field(
        "pad", description="How another aspect ratio is fitted: add a border, distort, or cut the longer side."
    )
    intensity: Literal["display", "percentile", "zscore"] = Field(
        "display",
        description="Gray values: as displayed (window or full range), cut at the 0.5th and 99.5th percentile, "
        "or zero mean and unit deviation.",
    )
    irregular: Literal["refuse", "resample"] = Field(
        "refuse",
        description="DICOM series that form no regular volume (gantry tilt, gaps, uneven steps): refused by name, or "
        "put onto a regular grid, which is recorded.",
    )
    pet: Literal["suv", "stored"] = Field(
        "suv",
        description="PET: standardised uptake values by body weight where the header allows it, or the values as "
        "stored.",
    )
