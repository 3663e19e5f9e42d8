"""Identical images in two partitions: found, refused, or dropped from the lower partition and counted."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from medgcsam.cohort.faults import shorten
from medgcsam.errors import DataError

_RANK = {"train": 0, "validation": 1, "test": 2}


def twin_groups(digests: pd.DataFrame) -> pd.Series:
    """A name for every row such that identical images, and only they, share one; empty where there is no digest.

    ``digests`` has the columns ``pixels`` and/or ``source`` (hex). Files equal byte for byte decode to equal pixels,
    so the pixels decide wherever they are known.
    """
    names = pd.Series([""] * len(digests), index=digests.index, dtype=str)
    for column in ("source", "pixels"):
        if column in digests:
            known = digests[column] != ""
            names = names.where(~known, column + ":" + digests[column])
    return names


def leaked_rows(partition: pd.Series, digests: pd.DataFrame) -> pd.Series:
    """Rows of the train and validation partition that have an identical image in a higher one, as a bool Series.

    The order is train, validation, test: what is tested stays, what would have been learned from it goes.
    """
    groups = twin_groups(digests).set_axis(partition.index)
    rank = partition.map(_RANK)
    usable = rank.notna() & (groups != "")
    highest = rank[usable].groupby(groups[usable]).transform("max")
    leaked = pd.Series(False, index=partition.index)
    leaked[usable] = rank[usable] < highest
    return leaked


def drop_leaked(partition: pd.Series, digests: pd.DataFrame, names: Sequence[str], *, policy: str) -> pd.Series:
    """The partition with leaked images marked ``dropped``.

    Args:
        partition: train, validation, test (or dropped) per row.
        digests: aligned with it by position.
        names: image names, for the error alone.
        policy: "error" or "drop_from_train".

    Raises:
        DataError: identical images lie in two partitions and the policy is "error".
    """
    leaked = leaked_rows(partition, digests)
    number = int(leaked.sum())
    if number and policy != "drop_from_train":
        groups = twin_groups(digests).set_axis(partition.index)
        names = pd.Series(list(names), index=partition.index, dtype=str)
        examples = []
        for row in partition.index[leaked]:
            twins = (groups == groups[row]) & (partition.map(_RANK) > _RANK[partition[row]])
            twin = partition.index[twins][0]
            examples.append(f"{names[row]} ({partition[row]}) = {names[twin]} ({partition[twin]})")
            if len(examples) > 5:
                break
        raise DataError(
            f"{number} images of the train or validation partition are identical to one in another partition: "
            f"{shorten(examples + [''] * (number - len(examples)), 3)}; give identical images the same patient_id, "
            "exclude one of each, or set split.duplicates: drop_from_train."
        )
    return partition.mask(leaked, "dropped")
