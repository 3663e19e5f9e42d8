"""The arithmetic of the benchmarks, on numbers that are known."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def timing(repository: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(repository / "benchmarks"))
    return importlib.import_module("timing")


def test_each_competitor_runs_once_a_round_after_its_preparation(timing) -> None:
    log: list[str] = []
    runs = {name: lambda name=name: log.append(name) for name in "abc"}
    times = timing.interleave(runs, rounds=3, warmup=1, before=lambda: log.append("-"))
    assert log[::2] == ["-"] * 12
    rounds = [log[1::2][i : i + 3] for i in range(0, 12, 3)]
    assert all(sorted(order) == ["a", "b", "c"] for order in rounds)
    assert {name: len(values) for name, values in times.items()} == {"a": 3, "b": 3, "c": 3}


def test_a_ratio_of_equal_slowdowns_does_not_see_them(timing) -> None:
    above, below = [2.0, 20.0, 4.0, 2.0, 6.0], [1.0, 10.0, 2.0, 1.0, 3.0]
    assert timing.ratio(above, below) == {"value": 2.0, "low": 2.0, "high": 2.0}
    assert timing.ratio([3.0], [2.0]) == {"value": 1.5, "low": 1.5, "high": 1.5}


def test_quartiles_of_known_numbers(timing) -> None:
    assert timing.quartiles([4.0, 1.0, 3.0, 2.0, 5.0]) == (2.0, 3.0, 4.0)


def test_mixture_is_the_mean_step_of_a_schedule(timing) -> None:
    assert timing.mixture([(0.6, [1.0, 2.0]), (0.4, [2.0, 4.0])]) == pytest.approx([1.4, 2.8])


def test_a_table_has_its_numbers_on_the_right(timing) -> None:
    assert timing.table(["a", "b"], [["x|y", "1"]], numbers=1) == ["| a | b |", "|---|---:|", "| x\\|y | 1 |"]
