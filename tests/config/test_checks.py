"""Keys that contradict or need each other are faults of the key to change."""

from __future__ import annotations

from pathlib import Path

import pytest

from medgcsam.config import load
from medgcsam.errors import ConfigError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "job.yaml"
    file.write_text("name: x\ndata:\n  manifest: m.csv\n")
    return file


@pytest.mark.parametrize(
    ("key", "overrides"),
    [
        ("data.positive", ["data.classes=[a, b]", "data.positive=c"]),
        ("data.positive", ["task=multilabel", "data.classes=[a, b]", "data.positive=a"]),
        ("data.classes", ["data.classes=[a]"]),
        ("data.classes", ["data.classes=[a, a]"]),
        ("data.classes", ["data.classes={a: [1], b: [1]}"]),
        ("data.negative", ["data.negative=none"]),
        ("data.negative", ["task=multilabel", "data.classes=[a, b]", "data.negative=b"]),
        ("data.label_columns", ["data.label_columns={a: A}"]),
        ("data.label_columns", ["task=multilabel", "data.classes=[a, b]", "data.label_columns={a: A}"]),
        ("data.exclude_labels", ["data.classes=[a, b]", "data.exclude_labels=[b]"]),
        ("split.fold", ["split.folds=3", "split.fold=3"]),
        ("split.test_site", ["split.by=site"]),
        ("split.test_from", ["split.by=date"]),
        ("split.file", ["split.by=file"]),
        ("split.test_site", ["split.test_site=North"]),
        ("schedule.warmup_epochs", ["training.epochs=2", "schedule.warmup_epochs=3"]),
        ("training.precision", ["training.device=cpu", "training.precision=fp16"]),
        ("network.freeze_stem", ["network.freeze_stem=true"]),
        ("optimizer.ascent_fraction", ["training.batch_size=2", "optimizer.ascent_fraction=0.25"]),
        ("optimizer.ascent", ["optimizer={base: adagrad, ascent: momentum}"]),
        ("optimizer.ascent", ["optimizer={base: sgd, momentum: 0, ascent: momentum}"]),
        ("optimizer.ascent", ["optimizer={base: rmsprop, ascent: momentum}"]),
        ("optimizer.nesterov", ["optimizer={name: sgd, momentum: 0, nesterov: true}"]),
        ("compare.optimizers.m.ascent", ["optimizer.ascent=momentum", "compare.optimizers={m: {base: asgd}, n: {}}"]),
        ("compare.optimizers.m.ascent_fraction", ["compare.optimizers={m: {ascent_fraction: 0.01}}"]),
        ("evaluation.operating_point.target", ["evaluation.operating_point.rule=sensitivity"]),
        ("evaluation.operating_point.target", ["evaluation.operating_point.target=0.9"]),
        ("compare.seeds", ["compare.seeds=[1, 1]"]),
        ("compare.folds", ["compare.folds=[0, 5]"]),
        ("compare.folds", ["compare.folds=[1, 1]"]),
        ("compare.folds", ["split.by=manifest", "compare.folds=[0]"]),
        ("image.channels", ["image.channels=2"]),
        ("image.mean", ["task=segmentation", "image.channels=2", "image.mean=[1, 2, 3]"]),
        ("image.clip", ["task=segmentation", "image.channels=3", "image.clip=[[0, 1], [0, 2]]"]),
    ],
)
def test_a_contradiction_is_a_fault(path: Path, key: str, overrides: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load(path, overrides)
    (fault,) = str(caught.value).splitlines()
    assert f": {key}: " in fault


@pytest.mark.parametrize(
    "overrides",
    [
        ["data.classes=[a, b]", "data.positive=a"],
        ["task=multilabel", "data.classes=[a]", "data.negative=none", "data.label_columns={a: A}"],
        ["split.by=site", "split.test_site=North"],
        ["split.by=date", "split.test_from=2024-01-31"],
        ["split.by=file", "split.file=split.json"],
        ["training.epochs=1"],
        ["split.folds=3", "split.fold=2", "compare.folds=[0, 1, 2]"],
        ["evaluation.operating_point={rule: specificity, target: 0.9}"],
        ["network={weights: w.pt, freeze_stem: true}"],
        ["optimizer={base: sgd, ascent: momentum, nesterov: true}"],
        ["optimizer={base: rmsprop, momentum: 0.9, ascent: momentum}"],
        ["task=segmentation", "image={channels: 2, clip: [[0, 1], [0, 2]], mean: 3, std: [1, 2]}"],
        ["task=segmentation", "image={channels: 5, clip: [0, 1]}"],
    ],
)
def test_what_fits_together_is_accepted(path: Path, overrides: list[str]) -> None:
    assert load(path, overrides).name == "x"


def test_a_contradiction_with_a_faulty_key_is_not_told_twice(path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(path, ["split.folds=many", "split.fold=9"])
    assert len(str(caught.value).splitlines()) == 1


def test_a_fault_that_settings_inherit_is_told_once(path: Path) -> None:
    path.write_text(
        "name: x\ndata: {manifest: m.csv}\noptimizer:\n  base: rprop\n  ascent: momentum\n"
        "compare:\n  optimizers:\n    sam: {}\n    gcsam: {}\n    good: {base: adam}\n"
    )
    with pytest.raises(ConfigError) as caught:
        load(path)
    (fault,) = str(caught.value).splitlines()
    assert "job.yaml:5: optimizer.ascent: 'momentum' needs a base that keeps a first moment, which rprop" in fault
