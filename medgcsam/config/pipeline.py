"""Section `pipeline`: how the images are prepared and held; changes the speed, never a result."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from medgcsam.config.base import Natural, Section


def _auto_or_count(value: Any) -> str:
    return "auto" if isinstance(value, str) else "count"


Workers = Annotated[
    Annotated[Literal["auto"], Tag("auto")] | Annotated[Natural, Tag("count")], Discriminator(_auto_or_count)
]


class PipelineConfig(Section):
    """How the images are prepared and held; changes the speed, never a result."""

    workers: Workers = Field(
        "auto",
        description="Processes that prepare images once; 0 works in the main process, `auto` takes the free cores.",
    )
    memory: Literal["auto", "memory", "map"] = Field(
        "auto",
        description="Hold the prepared images in memory, read them from disk as needed, or choose by their size.",
    )
