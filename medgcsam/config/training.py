"""Section `training`: how long, on what, and which epoch is kept."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from medgcsam.config.base import Count, Natural, Positive, Section, auto_or


def _device(value: str) -> str:
    kind, _, number = value.partition(":")
    if value in ("auto", "cpu", "cuda") or (kind == "cuda" and number.isdecimal()):
        return value
    raise ValueError(f"must be 'auto', 'cpu', 'cuda' or a numbered GPU such as 'cuda:1', but is {value!r}")


Device = Annotated[str, Field(strict=True), AfterValidator(_device)]
Smoothing = Annotated[float, Field(strict=True, ge=0, lt=1)]


class TrainingConfig(Section):
    """How long, on what, and which epoch is kept."""

    epochs: Count = Field(15, description="Times that every training image is seen.")
    batch_size: auto_or(Count) = Field(
        "auto", description="Images per step, or patches; `auto`: 16, or for segmentation as memory allows."
    )
    accumulate: Count = Field(1, description="Batches whose gradients are added up before a step; for small GPUs.")
    seed: Natural = Field(0, description="Seed of the weights, the order of images and the augmentation.")
    device: Device = Field("auto", description="`auto` (a GPU where there is one), `cpu`, `cuda` or `cuda:1`.")
    precision: Literal["fp32", "bf16", "fp16"] = Field(
        "fp32", description="Number format of the passes; weights always stay in fp32. `bf16` suits recent GPUs."
    )
    patience: Count | None = Field(
        None, description="Stop after so many epochs without a better validation result; empty: never."
    )
    select: Literal["auto", "auroc", "dice", "loss"] = Field(
        "auto",
        description="What the best epoch is chosen by, on validation; `auto`: `auroc`, or for segmentation `dice`.",
    )
    loss: Literal["dice_ce", "dice_focal", "tversky"] = Field(
        "dice_ce",
        description="Segmentation: Dice with cross-entropy, Dice with focal loss, or Tversky, which weighs missed "
        "voxels more than false ones.",
    )
    class_weights: Literal["balanced", "none"] = Field(
        "balanced", description="Weigh rare classes up in the loss, or count every image alike."
    )
    label_smoothing: Smoothing = Field(0.0, description="Share of certainty taken off each training label.")
    threads: Count | None = Field(None, description="CPU threads; empty: as torch decides.")
    sharpness_radius: Positive | None = Field(
        0.05,
        description="After each epoch, for every optimizer alike, measure how much the validation loss rises this far "
        "along its gradient; changes nothing else. Empty: not measured.",
    )
    sharpness_images: Count | None = Field(
        256,
        description="Validation images that it is measured on, evenly spread and always the same; empty: all of them.",
    )
