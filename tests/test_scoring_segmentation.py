"""From cases.csv to the document of metrics.json, through the file itself."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas
import pytest

from medgcsam.config import EvaluationConfig
from medgcsam.errors import DataError
from medgcsam.evaluation import case_metrics
from medgcsam.run_folder import read_table, write_table
from medgcsam.scoring_segmentation import COLUMNS, nsd_tolerances, segmentation_document

STRUCTURES = ("organ", "lesion")
EVALUATION = EvaluationConfig(replicates=200)


def cases_table(n_patients: int = 14) -> pandas.DataFrame:
    """Boxes on a small grid: organs found a little beside where they are, lesions missed, invented, or both absent."""
    rows = []
    for patient in range(n_patients):
        for image in range(1 + patient % 2):
            for structure in STRUCTURES:
                reference, predicted = np.zeros((2, 12, 12, 6), dtype=bool)
                lesion = structure == "lesion"
                if not lesion or patient % 4:
                    reference[2:8, 3:8, 1:4] = True
                if not lesion or patient % 3:
                    predicted[2 + patient % 2 : 8, 3 : 8 + image, 1:4] = True
                found = case_metrics(reference, predicted, spacing=(1.0, 1.0, 2.5), tolerance=2.0)
                partition = "test" if patient % 2 else "validation"
                head = {"case": f"c{patient}-{image}", "patient": f"p{patient}", "partition": partition}
                rows.append(head | {"structure": structure} | found | {"site": "A"})
    return pandas.DataFrame(rows)


def document(table: pandas.DataFrame, **options) -> dict:
    given = {"structures": STRUCTURES, "patients_known": True} | options
    return segmentation_document(table, EVALUATION, **given)


def test_the_document_through_the_file(tmp_path: Path) -> None:
    table = cases_table()
    write_table(tmp_path / "cases.csv", table)
    read = read_table(tmp_path / "cases.csv")
    assert set(COLUMNS) <= set(read)
    found = document(read, baseline=read, baseline_method="best fixed threshold")
    # No NaN, and nothing that json does not know.
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert (found["schema"], found["task"], found["structures"]) == (1, "segmentation", list(STRUCTURES))
    test = found["partitions"]["test"]
    named = {"dice", "dice_organ", "dice_with_empty", "nsd", "hd95_mm", "asd_mm", "volume_error_ml", "missed_lesion"}
    assert named <= set(test)
    for entry in test.values():
        assert {"value", "low", "high", "n_patients", "n_images", "method"} <= set(entry)
        assert None not in (entry["value"], entry["low"], entry["high"]) or entry["reason"]
    assert found["baseline"]["partitions"]["test"] == test
    assert found["baseline"]["method"] == "best fixed threshold"
    assert "tolerance 2 mm" in test["nsd"]["method"]


def test_the_numbers_are_those_of_the_table() -> None:
    table = cases_table()
    found = document(table)["partitions"]["validation"]
    own = table[table["partition"] == "validation"]
    shown = own[own["status"].isin(["ok", "missed"])]
    per_patient = shown.groupby(["structure", "patient"])["dice"].mean()
    assert found["dice"]["value"] == pytest.approx(per_patient.groupby("structure").mean().mean())
    assert found["missed_lesion"]["value"] == ((own["status"] == "missed") & (own["structure"] == "lesion")).sum()
    assert found["false_positive"]["value"] == (own["status"] == "false_positive").sum() > 0


def test_the_order_of_the_lines_does_not_matter() -> None:
    table = cases_table()
    first = document(table)["partitions"]["test"]
    turned = document(table.sort_values(["structure", "case"], kind="stable"))["partitions"]["test"]
    assert turned["hd95_mm"]["value"] == pytest.approx(first["hd95_mm"]["value"])
    assert turned["missed"] == first["missed"]


def test_unknown_patients_are_said_in_every_method() -> None:
    found = document(cases_table(), patients_known=False)
    assert found["patients"] == "unknown"
    with_value = [entry for entry in found["partitions"]["test"].values() if entry["value"] is not None]
    assert with_value
    assert all("patients unknown" in entry["method"] for entry in with_value)


def test_tolerances_of_each_structure() -> None:
    assert nsd_tolerances(3.0, STRUCTURES) == {"organ": 3.0, "lesion": 3.0}
    assert nsd_tolerances({"lesion": 1.0}, STRUCTURES) == {"organ": 2.0, "lesion": 1.0}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda table: table.drop(columns="hd95"), "column 'hd95' is missing"),
        (lambda table: table.assign(status="fine"), "'fine' is no status"),
        (lambda table: table.assign(structure="liver"), "'liver' is no structure"),
        (lambda table: table.assign(partition="train"), "'train' is no partition"),
        (lambda table: table.assign(unit="cm"), "'cm' is no unit"),
        (lambda table: table.assign(dice="much"), "dice is not a number"),
        (lambda table: table.assign(nsd=""), "has no nsd"),
        (lambda table: pandas.concat([table, table.iloc[:1]]), "has two lines for 'organ'"),
        (lambda table: table.assign(patient=""), "no patient identifier"),
    ],
)
def test_a_damaged_table_is_refused(spoil, message: str) -> None:
    with pytest.raises(DataError, match=message):
        document(spoil(cases_table()))
