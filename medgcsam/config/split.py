"""Section `split`: which patients are trained on, chosen on and tested on."""

from __future__ import annotations

import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from medgcsam.config.base import Bool, FilePath, Natural, OpenShare, Section, Text


def _iso_date(value: Any) -> str:
    try:
        return datetime.datetime.strptime(value, "%Y-%m-%d").date().isoformat()
    except ValueError:
        raise ValueError(f"must be a date written as YYYY-MM-DD, but is {value!r}") from None


Date = Annotated[Text, AfterValidator(_iso_date)]


class SplitConfig(Section):
    """Which patients are trained on, chosen on and tested on; a patient is never in two partitions."""

    by: Literal["folds", "manifest", "site", "date", "file"] = Field(
        "folds",
        description="`folds`: cross-validation by patient; `manifest`: its `partition` column; `site`: one site "
        "left out; `date`: the newest studies; `file`: an earlier split.json.",
    )
    folds: Annotated[int, Field(strict=True, ge=2)] = Field(
        5, description="Number of folds; each is the test partition once, so 5 tests on a fifth of the patients."
    )
    fold: Natural = Field(0, description="The fold that is the test partition of this run, counted from 0.")
    seed: Natural = Field(0, description="Seed of the split; other seeds give other partitions.")
    validation: OpenShare = Field(
        0.2, description="Share of the patients outside the test partition that is held back for choosing the epoch."
    )
    test_site: Text | None = Field(None, description="`by: site`: the value of the site column that is tested on.")
    test_from: Date | None = Field(
        None, description="`by: date`: studies from this date (YYYY-MM-DD) on are tested on."
    )
    file: FilePath | None = Field(None, description="`by: file`: the split.json of an earlier run.")
    duplicates: Literal["error", "drop_from_train"] = Field(
        "error",
        description="Identical images in two partitions: stop, or leave them out of training "
        "(and say so in every output).",
    )
    stratify: Bool = Field(True, description="Keep the share of each class alike in all partitions.")
