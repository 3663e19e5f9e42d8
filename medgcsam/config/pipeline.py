"""Section `pipeline`: how the images are prepared and held; changes the speed, never a result."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from medgcsam.config.base import Natural, Section, auto_or


class PipelineConfig(Section):
    """How the images are prepared and held; changes the speed, never a result."""

    workers: auto_or(Natural) = Field(
        "auto",
        description="Processes that prepare images once; 0 works in the main process, `auto` takes the free cores.",
    )
    memory: Literal["auto", "memory", "map"] = Field(
        "auto",
        description="Hold the prepared images in memory, read them from disk as needed, or choose by their size; with "
        "`auto` volumes are read from disk, where the system's file cache holds them.",
    )
