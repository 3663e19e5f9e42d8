"""From cases.csv to metrics.json of a segmentation: tables only, so numbers can be made again without a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas

from medgcsam.case_lines import check_lines, check_same_cases
from medgcsam.config import EvaluationConfig
from medgcsam.errors import DataError
from medgcsam.evaluation.agreement import METHOD as AGREEMENT
from medgcsam.evaluation.agreement import agreement_of
from medgcsam.evaluation.one_class import Settings
from medgcsam.evaluation.patients import patient_codes
from medgcsam.evaluation.segmentation import EMPTY_RULE, NUMBERS, STATUSES
from medgcsam.evaluation.segmentation_summary import Lines, segmentation_metrics
from medgcsam.scoring import PARTITIONS

COLUMNS = ("case", "patient", "partition", "structure", "status", *NUMBERS, "unit", "size_unit")
"""What cases.csv holds of each case and structure, before the columns of subgroups."""
AGAIN = "restore the file, or train again with --restart."


def segmentation_document(
    cases: pandas.DataFrame,
    evaluation: EvaluationConfig,
    *,
    structures: Sequence[str],
    patients_known: bool,
    baseline: pandas.DataFrame | None = None,
    baseline_method: str = "",
) -> dict[str, Any]:
    """The numbers of metrics.json: metrics per partition, and those of the simple baseline.

    Args:
        cases: as read from cases.csv, COLUMNS with numbers or their texts; partitions "validation" and "test".
        evaluation: replicates, seed, confidence and the tolerance that NSD was measured with.
        structures: names, in the order of the configuration.
        patients_known: False where each image counts as a patient.
        baseline: the simple baseline's table in the same form.
        baseline_method: what the baseline is, in words.

    Raises:
        DataError: a column is absent or not of its kind, a status or structure is unknown, a line is missing or there
            twice, or the baseline is about other cases.
    """
    tolerances = nsd_tolerances(evaluation.nsd_tolerance, structures)
    note = "" if patients_known else "; patients unknown, each image counts as one"
    settings = Settings(evaluation.replicates, evaluation.seed, evaluation.confidence, note=note)

    def partitions(table: pandas.DataFrame, file: str) -> dict[str, Any]:
        parts = {name: table[table["partition"] == name] for name in PARTITIONS}
        return {
            name: segmentation_metrics(_lines(part, structures, file), structures, settings, tolerances=tolerances)
            for name, part in parts.items()
            if len(part)
        }

    document: dict[str, Any] = {
        "schema": 1,
        "task": "segmentation",
        "structures": list(structures),
        "patients": "known" if patients_known else "unknown",
        "nsd_tolerance": tolerances,
        "empty_rule": EMPTY_RULE,
        "partitions": partitions(_checked(cases, structures, "cases.csv"), "cases.csv"),
        "agreement": _agreement(cases[cases["partition"] == "test"], structures),
    }
    if baseline is not None:
        numbers = partitions(_checked(baseline, structures, "baseline.csv"), "baseline.csv")
        check_same_cases(cases, baseline, "cases.csv", "baseline.csv", again=AGAIN)
        document["baseline"] = {"method": baseline_method, "partitions": numbers}
    return document


def _agreement(table: pandas.DataFrame, structures: Sequence[str]) -> dict[str, Any]:
    """Bias and limits of agreement of the sizes of each structure on the test partition, of each unit by itself."""
    found: dict[str, dict[str, Any]] = {name: {} for name in structures}
    shown = table[table["status"].isin(["ok", "missed"])]
    for (name, unit), own in shown.groupby(["structure", "size_unit"], sort=True):
        sizes = (_numbers(own, column, "cases.csv") for column in ("reference_size", "predicted_size"))
        one = agreement_of(*sizes, own["patient"].to_numpy(str))
        if one is not None:
            numbers = {"bias": one.bias, "low": one.low, "high": one.high}
            found[name][unit] = numbers | {"n_patients": len(one.mean), "n_images": own["case"].nunique()}
    return {"method": AGREEMENT, "test": found}


def nsd_tolerances(tolerance: float | Mapping[str, float], structures: Sequence[str]) -> dict[str, float]:
    """The tolerance of each structure; one that a map does not name has the default of the configuration."""
    if isinstance(tolerance, Mapping):
        default = EvaluationConfig().nsd_tolerance
        return {name: float(tolerance.get(name, default)) for name in structures}
    return {name: float(tolerance) for name in structures}


def _checked(table: pandas.DataFrame, structures: Sequence[str], file: str) -> pandas.DataFrame:
    missing = [name for name in COLUMNS if name not in table]
    if missing:
        raise DataError(f"{file}: the column {missing[0]!r} is missing; {AGAIN}")
    for column, known in (
        ("status", STATUSES), ("unit", ("mm", "px")),
        ("size_unit", ("ml", "mm2", "px", "voxels")), ("partition", PARTITIONS),
    ):  # fmt: skip
        strange = table.loc[~table[column].isin(known), column]
        if len(strange):
            raise DataError(f"{file}: {strange.iloc[0]!r} is no {column}, but one of {', '.join(known)} is; {AGAIN}")
    check_lines(table, structures, file, again=AGAIN)
    return table


def _lines(table: pandas.DataFrame, structures: Sequence[str], file: str) -> Lines:
    status = table["status"].to_numpy(str)
    numbers = {name: _numbers(table, name, file) for name in NUMBERS}
    present = np.isin(status, ("ok", "missed"))
    needed = {name: present for name in ("dice", "nsd", "hd95", "asd", "size_error")}
    needed |= {name: np.ones(len(table), dtype=bool) for name in NUMBERS if name.startswith("lesions")}
    needed["dice"] = present | (status == "false_positive")
    for name, rows in needed.items():
        if not np.isfinite(numbers[name][rows]).all():
            case = table["case"].to_numpy(str)[rows & ~np.isfinite(numbers[name])][0]
            raise DataError(f"{file}: case {case} has no {name} though its status needs one; {AGAIN}")
    return Lines(
        structures=np.array([list(structures).index(name) for name in table["structure"]]),
        patients=patient_codes(table["patient"].to_numpy(str))[0],
        images=np.unique(table["case"].to_numpy(str), return_inverse=True)[1],
        status=status,
        numbers=numbers,
        units=table["unit"].to_numpy(str),
        size_units=table["size_unit"].to_numpy(str),
    )


def _numbers(table: pandas.DataFrame, name: str, file: str) -> np.ndarray:
    try:
        return pandas.to_numeric(table[name].replace("", np.nan)).to_numpy(np.float64)
    except (ValueError, TypeError) as error:
        raise DataError(f"{file}: {name} is not a number ({error}); {AGAIN}") from error
