"""Section `output`: where the runs are written and what may be in them."""

from __future__ import annotations

from pydantic import Field

from medgcsam.config.base import Bool, FilePath, Section


class OutputConfig(Section):
    """Where the runs are written and what may be in them."""

    folder: FilePath = Field(
        "runs", description="Folder of all runs; of a shipped configuration it counts from the current folder."
    )
    keep_patient_ids: Bool = Field(
        False, description="Write patient numbers and image names in the clear; otherwise outputs carry hashes only."
    )
