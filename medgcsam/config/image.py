"""Section `image`: the deterministic preparation of every image."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from medgcsam.config.base import Count, Positive, Section, auto_or, one_or_each

Side = Annotated[int, Field(strict=True, ge=8, le=4096)]


def _square(value: Any) -> Any:
    return (value, value) if isinstance(value, int) and not isinstance(value, bool) else value


Size = Annotated[tuple[Side, Side], BeforeValidator(_square, json_schema_input_type=Side | tuple[Side, Side])]

Number = Annotated[float, Field(strict=True)]
Spacing = auto_or(Annotated[tuple[Positive, ...], Field(min_length=2, max_length=3)])
Range = tuple[Number, Number]
Clip = auto_or(one_or_each(Range))


class ImageConfig(Section):
    """The deterministic preparation of every image, done once and stored."""

    size: Size = Field(
        (112, 112),
        description="Pixels that the network sees: `[rows, columns]`, or one number for a square. Segmentation: "
        "pictures without a pixel spacing are made smaller to fit in.",
    )
    channels: Count = Field(
        1,
        description="1 for gray images, 3 for colour (or for weights trained on colour). Segmentation: as many as the "
        "images have, such as 2 for PET and CT in one file.",
    )
    fit: Literal["pad", "stretch", "crop"] = Field(
        "pad", description="How another aspect ratio is fitted: add a border, distort, or cut the longer side."
    )
    intensity: Literal["auto", "display", "percentile", "zscore", "foreground"] = Field(
        "auto",
        description="Gray values: as displayed (window or full range), cut at the 0.5th and 99.5th percentile, zero "
        "mean and unit deviation, or (segmentation) by mean and deviation inside the structures of the training "
        "patients. `auto`: as displayed; for segmentation by the unit.",
    )
    dimensions: Literal["auto", 2, 3] = Field(
        "auto", description="Segmentation: pictures or volumes; `auto`: as the images are."
    )
    spacing: Spacing | None = Field(
        "auto",
        description="Segmentation: mm between voxels, along right-left, front-back and head-feet, or rows and columns "
        "of pictures; `auto`: the median of the training images; empty: pictures as they are.",
    )
    clip: Clip | None = Field(
        "auto",
        description="Segmentation, `foreground`: lowest and highest value, or such a pair for each channel; `auto`: "
        "0.5th and 99.5th percentile of each.",
    )
    mean: auto_or(one_or_each(Number)) | None = Field(
        "auto", description="Segmentation, `foreground`: the value that becomes 0, or one for each channel."
    )
    std: auto_or(one_or_each(Positive)) | None = Field(
        "auto", description="Segmentation, `foreground`: the deviation that becomes 1, or one for each channel."
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
    orientation: Literal["refuse", "sform", "qform"] = Field(
        "refuse",
        description="NIfTI files, images and masks, whose sform and qform say different things: refused by name, or "
        "laid out by the one named here.",
    )
