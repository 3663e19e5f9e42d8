"""Identical images across partitions are found by their pixels, and the copy that is learned from goes."""

from __future__ import annotations

import pandas as pd
import pytest

from medgcsam.cohort import drop_leaked, leaked_rows, twin_groups
from medgcsam.errors import DataError


def frame(pixels: str, source: str | None = None) -> pd.DataFrame:
    return pd.DataFrame({"source": list(source or "123456789"[: len(pixels)]), "pixels": list(pixels)}, dtype=str)


@pytest.mark.parametrize(
    ("partition", "pixels", "leaked"),
    [
        ("t v s", "aaa", "110"),
        ("t t s", "aab", "000"),
        ("t v t", "aba", "000"),
        ("v s v", "aab", "100"),
        ("t v t", "aaa", "101"),
        ("d s t", "aab", "000"),
    ],
)
def test_the_lower_partition_leaks(partition, pixels, leaked):
    names = {"t": "train", "v": "validation", "s": "test", "d": "dropped"}
    series = pd.Series([names[letter] for letter in partition.split()], index=[5, 9, 2])
    assert leaked_rows(series, frame(pixels)).astype(int).tolist() == [int(one) for one in leaked]


def test_bytes_decide_where_pixels_are_unknown():
    digests = pd.DataFrame({"source": ["x", "x", "y"], "pixels": ["", "", "p"]}, dtype=str)
    groups = twin_groups(digests)
    assert groups[0] == groups[1] != groups[2]
    assert (twin_groups(pd.DataFrame({"source": ["", ""], "pixels": ["", ""]}, dtype=str)) == "").all()


def test_unreadable_images_are_not_identical_to_each_other():
    digests = pd.DataFrame({"source": ["", ""], "pixels": ["", ""]}, dtype=str)
    assert not leaked_rows(pd.Series(["train", "test"]), digests).any()


def test_many_leaks_are_counted_and_some_are_named():
    partition = pd.Series(["train"] * 20 + ["test"] * 20)
    digests = pd.DataFrame({"pixels": [str(number) for number in range(20)] * 2}, dtype=str)
    names = [f"i{number}.png" for number in range(40)]
    with pytest.raises(DataError, match=r"20 images.*i0.png \(train\) = i20.png \(test\).*and 17 more"):
        drop_leaked(partition, digests, names, policy="error")
    dropped = drop_leaked(partition, digests, names, policy="drop_from_train")
    assert dropped.value_counts().to_dict() == {"dropped": 20, "test": 20}
