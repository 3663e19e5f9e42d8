"""Section `schedule`: the learning rate over the epochs."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from medgcsam.config.base import NonNegative, Section, Share


class ScheduleConfig(Section):
    """The learning rate over the epochs."""

    name: Literal["cosine", "constant"] = Field("cosine", description="Falls as half a cosine, or stays.")
    warmup_epochs: NonNegative = Field(1.0, description="Epochs in which the rate rises from near 0 to `optimizer.lr`.")
    final: Share = Field(0.01, description="`cosine`: the last rate as a fraction of `optimizer.lr`.")
