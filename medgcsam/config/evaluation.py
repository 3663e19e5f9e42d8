"""Section `evaluation`: how predictions become numbers with intervals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from medgcsam.config.base import Bool, Natural, OpenShare, Positive, Section, Text

Confidence = Annotated[float, Field(strict=True, ge=0.5, lt=1)]
Replicates = Annotated[int, Field(strict=True, ge=100)]


def _one_or_map(value: Any) -> str:
    return "map" if isinstance(value, Mapping) else "one"


Tolerance = Annotated[
    Annotated[Positive, Tag("one")] | Annotated[dict[Text, Positive], Tag("map")], Discriminator(_one_or_map)
]


class OperatingPointConfig(Section):
    """How the threshold is chosen, always on the validation partition."""

    rule: Literal["youden", "sensitivity", "specificity"] = Field(
        "youden", description="Best sum of sensitivity and specificity, or reach the target in one of the two."
    )
    target: OpenShare | None = Field(
        None, description="The sensitivity or specificity to reach, such as 0.95; needed by those two rules."
    )


class EvaluationConfig(Section):
    """How predictions become numbers with intervals."""

    replicates: Replicates = Field(
        2000, description="Bootstrap samples of patients behind each interval; of segmentations in `compare` alone."
    )
    confidence: Confidence = Field(0.95, description="Coverage of the intervals.")
    seed: Natural = Field(0, description="Seed of the bootstrap.")
    operating_point: OperatingPointConfig = Field(
        default_factory=OperatingPointConfig, description="How the threshold is chosen, always on validation."
    )
    prevalence: OpenShare | None = Field(
        None,
        description="Share of patients with the finding where the network will be used; predictive values are "
        "also given for it.",
    )
    nsd_tolerance: Tolerance = Field(
        2.0,
        description="Segmentation: distance of two surfaces that does not matter, in mm (pixels where the spacing is "
        "unknown); one number, or `{structure: number}`.",
    )
    baseline: Bool = Field(
        True, description="Also test a simple model on the same split: no network should lose to it."
    )
