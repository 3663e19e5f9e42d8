"""Names of metrics: what metrics.json holds is among them, and structures that would make two of them one."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from medgcsam.evaluation.one_class import Settings
from medgcsam.evaluation.segmentation_names import COUNTS, MEANS, colliding, measure_and_unit, named
from medgcsam.evaluation.segmentation_summary import Lines, segmentation_metrics

NUMBERS = ("dice", "nsd", "hd95", "asd", "size_error", "lesions_reference", "lesions_found", "lesions_false")


def lines(n: int = 16) -> Lines:
    """Two structures of images of every unit."""
    generator = np.random.default_rng(0)
    pairs = list(itertools.islice(itertools.cycle(itertools.product(("mm", "px"), ("ml", "mm2", "px"))), n))
    unit, size = ([pair[k] for pair in pairs] + [rest] * n for k, rest in enumerate(("px", "voxels")))
    number = np.arange(2 * n)
    return Lines(
        structures=number % 2, patients=number // 2, images=number // 2, status=np.array(["ok"] * 2 * n),
        numbers={name: generator.uniform(0.1, 1, 2 * n) for name in NUMBERS}, units=np.array(unit),
        size_units=np.array(size),
    )  # fmt: skip


def test_the_names_are_those_of_metrics_json() -> None:
    found = segmentation_metrics(lines(), ["organ", "lesion"], Settings(replicates=10))
    assert set(found) == {named(name, one) for name in (*MEANS, *COUNTS) for one in (None, "organ", "lesion")}
    assert measure_and_unit("volume_error_absolute_ml") == ("volume_error_absolute", "ml")
    assert measure_and_unit("false_positive_rate") == ("false_positive_rate", "")


def test_the_mean_over_structures_has_no_median_of_another_quantity() -> None:
    """Its patients do not all show the same structures, so their own means are about something else."""
    several = segmentation_metrics(lines(), ["organ", "lesion"], Settings(replicates=10))
    for name in ("median", "q1", "q3", "worst5"):
        assert name not in several["dice"]
        assert name in several["dice_lesion"]
    single = lines()
    alone = Lines(**{**vars(single), "structures": np.zeros_like(single.structures)})
    assert "median" in segmentation_metrics(alone, ["organ"], Settings(replicates=10))["dice"]


@pytest.mark.parametrize(
    ("structures", "name"),
    [
        (["organ", "rate"], "missed_rate"),
        (["with_empty"], "dice_with_empty"),
        (["tumour", "with_empty_tumour"], "dice_with_empty_tumour"),
        (["rate_a", "a"], "missed_rate_a"),
    ],
)
def test_structures_that_make_two_metrics_one_are_named(structures: list[str], name: str) -> None:
    keys = [named(one, of) for one in (*MEANS, *COUNTS) for of in (None, *structures)]
    assert keys.count(name) > 1
    said = colliding(structures)
    assert name in said
    assert any(f"'{one}'" in said for one in structures)


def test_other_names_are_free() -> None:
    assert colliding(["organ", "lesion", "mm", "dice", "empty", "Rate", "rate of growth"]) is None
