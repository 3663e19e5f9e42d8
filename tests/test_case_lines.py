"""A table of cases that is not whole gives wrong numbers, so it is refused with the case that shows it."""

from __future__ import annotations

import pandas
import pytest

from medgcsam.case_lines import check_lines, check_same_cases, check_split
from medgcsam.errors import DataError

AGAIN = "run again."
SPLIT = {
    "partitions": {"validation": ["v"], "test": ["p", "q"]},
    "counts": {"validation": {"images": 1}, "test": {"images": 3}},
}


@pytest.fixture
def table() -> pandas.DataFrame:
    cases = [("c0", "v", "validation"), ("c1", "p", "test"), ("c2", "p", "test"), ("c3", "q", "test")]
    rows = [(*case, name) for case in cases for name in ("organ", "lesion")]
    return pandas.DataFrame(rows, columns=["case", "patient", "partition", "structure"])


def check(table: pandas.DataFrame) -> None:
    check_lines(table, ("organ", "lesion"), "cases.csv", again=AGAIN)


def test_a_whole_table_is_taken(table: pandas.DataFrame) -> None:
    check(table)
    check(table.sample(frac=1, random_state=1))
    check_same_cases(table, table.iloc[::-1], "cases.csv", "baseline.csv", again=AGAIN)
    check_split(table, SPLIT, "cases.csv", again=AGAIN)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda table: table.drop(index=3), "a case has no line for a structure .case c1 none for lesion.*; run again"),
        (lambda table: table[table["structure"] == "organ"], "4 cases have no line .*c0 none for lesion"),
        (lambda table: pandas.concat([table, table.iloc[2:3]]), "case c1 has two lines for 'organ'"),
        (lambda table: table.assign(patient=[*"vvpqppqq"]), "case c1 has lines of more than one patient"),
        (
            lambda table: table.assign(partition=["test"] + ["validation"] * 7),
            "c0 has lines of more than one partition",
        ),
        (lambda table: table.assign(structure="liver"), "'liver' is no structure, but one of organ, lesion is"),
        (lambda table: table.drop(columns="case"), "column 'case' is missing"),
    ],
)
def test_lines_that_are_missing_or_too_many(table: pandas.DataFrame, spoil, message: str) -> None:
    with pytest.raises(DataError, match=rf"^cases\.csv: .*{message}"):
        check(spoil(table))


@pytest.mark.parametrize(
    ("own", "other", "message"),
    [
        (slice(None), slice(0, 6), r"baseline\.csv: 1 of the cases of cases\.csv are missing.*such as c3"),
        (slice(2, None), slice(None), r"cases\.csv: 1 of the cases of baseline\.csv are missing.*such as c0"),
    ],
)
def test_two_tables_must_have_the_same_cases(table: pandas.DataFrame, own, other, message: str) -> None:
    with pytest.raises(DataError, match=message):
        check_same_cases(table[own], table[other], "cases.csv", "baseline.csv", again=AGAIN)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda table: table[table["patient"] != "q"], "1 test patients, where split.json has 2 .patient q is missing"),
        (lambda table: table[table["case"] != "c0"], "0 validation patients, where split.json has 1"),
        (lambda table: table.replace({"patient": {"q": "z"}}), "2 test patients, .*patient q is missing"),
        (lambda table: table[table["case"] != "c2"], "2 test cases, where split.json counts 3 images"),
    ],
)
def test_a_table_must_hold_what_the_split_says(table: pandas.DataFrame, spoil, message: str) -> None:
    with pytest.raises(DataError, match=rf"^cases\.csv: {message}.*run again"):
        check_split(spoil(table), SPLIT, "cases.csv", again=AGAIN)
