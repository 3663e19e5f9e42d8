"""Coverage of the intervals of segmentation: the benchmark runs, and designs that were badly covered are not again."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def script(repository: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(repository / "benchmarks"))
    return importlib.import_module("coverage_segmentation")


@pytest.mark.parametrize(
    ("patients", "shown"),
    [(7, (1,)), (8, (0.6,) * 4), (12, (1, 0.6)), (12, (1, 0.6, 0.5, 0.4)), (24, (1, 1, 0.6, 0.5, 0.4, 0.3))],
)
def test_a_run_of_few_patients_is_covered(script: ModuleType, patients: int, shown: tuple[float, ...]) -> None:
    found = script.run_coverage(script.Design(patients, shown), 1500)
    assert 0.92 < found["mean"] < 0.97
    assert found["studies"] > 1100


@pytest.mark.parametrize(
    ("patients", "shown", "folds"), [(4, (0.6,) * 4, 5), (5, (0.6, 0.6), 5), (7, (1,), 5), (12, (1, 0.6), 1)]
)
def test_a_comparison_of_few_patients_is_covered(script: ModuleType, patients: int, shown: tuple, folds: int) -> None:
    """Drawn within the structures that patients show, the first of these was covered in 74%, the second in 86%."""
    found = script.study_coverage(script.Design(patients, shown, folds, 2, 0.05), 150, 100)
    # 150 studies: two standard errors are 3.6 percent.
    for kind in ("mean", "difference", "beyond"):
        assert found[kind] > 0.91
    assert found["studies"] > 140


def test_it_writes_a_table_of_all_designs(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    output = tmp_path / "coverage_segmentation.json"
    few = ["--repeats", "20", "--studies", "2", "--replicates", "20"]
    monkeypatch.setattr(sys, "argv", ["coverage_segmentation.py", *few, "--output", str(output)])
    script.main()
    report, page = json.loads(output.read_text("utf-8")), output.with_suffix(".md").read_text("utf-8")
    assert page in capsys.readouterr().out
    assert (len(report["runs"]), len(report["studies"])) == (len(script.RUNS), len(script.STUDIES))
    assert "| 5 folds of 4; 60%, 60%, 60%, 60% | 3 |" in page
    assert str(tmp_path) not in page
