"""Whether a table of cases is whole: every case with each structure once, and all cases of the split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from medgcsam.errors import DataError

if TYPE_CHECKING:
    import pandas


def check_lines(table: pandas.DataFrame, structures: Sequence[str], file: str, *, again: str) -> None:
    """Every case must have one line for each structure, all of one patient and one partition.

    table: columns case, patient, partition, structure. file: its name for the reader, who is told to do ``again``.

    Raises:
        DataError: a column is absent, a structure unknown, or a line missing or there twice.
    """
    for name in ("case", "patient", "partition", "structure"):
        if name not in table:
            raise DataError(f"{file}: the column {name!r} is missing; {again}")
    strange = table.loc[~table["structure"].isin(structures), "structure"]
    if len(strange):
        raise DataError(f"{file}: {strange.iloc[0]!r} is no structure, but one of {', '.join(structures)} is; {again}")
    twice = table.duplicated(["case", "structure"])
    if twice.any():
        line = table[twice].iloc[0]
        raise DataError(f"{file}: case {line['case']} has two lines for {line['structure']!r}; {again}")
    lines = table.groupby("case", sort=False)
    few = lines.size().loc[lambda number: number < len(structures)]
    if len(few):
        held = set(table.loc[table["case"] == few.index[0], "structure"])
        absent = ", ".join(name for name in structures if name not in held)
        number = f"{len(few)} cases have" if len(few) > 1 else "a case has"
        raise DataError(
            f"{file}: {number} no line for a structure (case {few.index[0]} none for {absent}), so its numbers would "
            f"be wrong; {again}"
        )
    for name in ("patient", "partition"):
        several = lines[name].nunique().loc[lambda number: number > 1]
        if len(several):
            raise DataError(f"{file}: case {several.index[0]} has lines of more than one {name}; {again}")


def check_same_cases(
    table: pandas.DataFrame, other: pandas.DataFrame, file: str, other_file: str, *, again: str
) -> None:
    """Two tables must be about the same cases, of the same patients in the same partitions.

    Raises:
        DataError: one has a case that the other has not.
    """
    first, second = _cases(table), _cases(other)
    for more, less, missing, where in ((first, second, other_file, file), (second, first, file, other_file)):
        if lacking := sorted(more - less):
            raise DataError(
                f"{missing}: {len(lacking)} of the cases of {where} are missing, or of another patient or partition "
                f"(such as {lacking[0][0]}); {again}"
            )


def check_split(table: pandas.DataFrame, split: Mapping[str, Any], file: str, *, again: str) -> None:
    """The table must hold the validation and test patients of split.json, and as many cases of each as it counts.

    Raises:
        DataError: it does not.
    """
    for name in ("validation", "test"):
        own = table[table["partition"] == name]
        found, known = set(own["patient"]), set(split["partitions"].get(name, ()))
        if found != known:
            what = "is missing" if known - found else "is not in split.json"
            patient = min(known - found or found - known)
            raise DataError(
                f"{file}: {len(found)} {name} patients, where split.json has {len(known)} (patient {patient} {what}); "
                f"{again}"
            )
        cases, counted = own["case"].nunique(), split["counts"][name]["images"]
        if cases != counted:
            raise DataError(f"{file}: {cases} {name} cases, where split.json counts {counted} images; {again}")


def _cases(table: pandas.DataFrame) -> set[tuple[str, str, str]]:
    return set(zip(table["case"], table["patient"], table["partition"], strict=True))
