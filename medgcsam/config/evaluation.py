"""Section `evaluation`: how predictions become numbers with intervals."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from medgcsam.config.base import Bool, Natural, OpenShare, Section

Confidence = Annotated[float, Field(strict=True, ge=0.5, lt=1)]
Replicates = Annotated[int, Field(strict=True, ge=100)]


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

    replicates: Replicates = Field(2000, description="Bootstrap samples of patients behind each interval.")
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
    baseline: Bool = Field(
        True, description="Also test a simple model on the same split: no network should lose to it."
    )
