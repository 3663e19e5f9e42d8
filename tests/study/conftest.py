"""Studies made by simulation: run folders with predictions, as a training would leave them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from medgcsam.cohort import decode_labels
from medgcsam.config import Config, dump, load
from medgcsam.run_folder import RunFolder, write_json, write_table, write_text
from medgcsam.scoring import Question, metrics_document, predictions_table
from medgcsam.study import PlannedRun, plan_runs

CLASSES = {"binary": ("normal", "opacity"), "multiclass": ("a", "b", "c"), "multilabel": ("a", "b", "c")}
TASKS = {"binary": "classification", "multiclass": "classification", "multilabel": "multilabel"}


@pytest.fixture
def config(tmp_path: Path) -> Callable[..., Config]:
    """``config(compare={...}, ...)``: a configuration whose data are never read."""

    def make(**changes: dict) -> Config:
        content = {
            "name": "made",
            "data": {"manifest": "none.csv", "classes": ["normal", "opacity"]},
            "evaluation": {"replicates": 200},
            "optimizer": {"name": "gcsam", "start": 0.6},
            "output": {"folder": str(tmp_path / "runs")},
        }
        path = tmp_path / "made.yaml"
        path.write_text(yaml.safe_dump(content | changes))
        return load(path)

    return make


def softmax(logits: np.ndarray) -> np.ndarray:
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return odds / odds.sum(axis=1, keepdims=True)


def make_cases(kind: str, *, patients: int, fold: int) -> dict[str, np.ndarray]:
    """Labels, patients and a difficulty shared by all models of a fold, for 1 to 3 images per patient."""
    rng = np.random.default_rng([fold, patients])
    codes = np.repeat(np.arange(patients), rng.integers(1, 4, patients))
    classes = CLASSES[kind]
    if kind == "multilabel":
        labels = (rng.random((patients, len(classes))) < 0.4)[codes].astype(float)
        labels[rng.random(labels.shape) < 0.1] = np.nan
        truth = np.nan_to_num(labels, nan=0.5)
    else:
        labels = (np.arange(patients) % len(classes))[codes]
        truth = np.eye(len(classes))[labels]
    noise = rng.normal(size=(patients, len(classes)))[codes] + 0.5 * rng.normal(size=truth.shape)
    return {"labels": labels, "truth": truth, "noise": noise, "codes": codes}


def write_run(
    run: PlannedRun,
    *,
    kind: str = "binary",
    skill: float = 1.5,
    patients: int = 120,
    own_noise: float = 0.3,
    passes: float = 100.0,
    full: bool = False,
) -> tuple[PlannedRun, RunFolder]:
    """One finished run: logits are ``skill`` x truth + the fold's shared noise + noise of this very run.

    ``full`` writes all of metrics.json, not only what a comparison reads of it.
    """
    cases = make_cases(kind, patients=patients, fold=run.fold)
    rng = np.random.default_rng([run.seed, run.fold, sum(map(ord, run.setting))])
    logits = skill * cases["truth"] + cases["noise"] + own_noise * rng.normal(size=cases["noise"].shape)
    n = len(cases["codes"])
    names = [f"{run.fold}p{code}" for code in cases["codes"]]

    def table(values: np.ndarray) -> pd.DataFrame:
        probabilities = 1 / (1 + np.exp(-values)) if kind == "multilabel" else softmax(values)
        return predictions_table(
            pd.DataFrame({"label": decode_labels(cases["labels"], CLASSES[kind], TASKS[kind])}),
            cases=[f"{run.fold}c{k}" for k in range(n)], patients=names, partitions=["test"] * n,
            probabilities=probabilities, classes=CLASSES[kind],
        )  # fmt: skip

    positive = CLASSES[kind][-1] if kind == "binary" else None
    folder = run.folder
    write_table(folder.predictions, table(logits))
    write_table(folder.baseline, table(0.5 * cases["truth"] + cases["noise"]))
    write_text(folder.config, dump(run.config))
    document = {"task": kind, "classes": list(CLASSES[kind]), "positive": positive, "patients": "known"}
    if full:
        document = metrics_document(table(logits), Question(kind, CLASSES[kind], positive, True), run.config.evaluation)
    document |= {
        "synthetic": True, "testing": "internal", "title": "Made up", "notes": "",
        "selection": {"epoch": 3, "metric": "validation auroc"},
        "cost": {"seconds": passes / 10, "gradient_evaluations": passes},
        "sharpness": {"value": skill / 100, "radius": 0.05, "partition": "validation", "images": 20},
        "baseline": {"method": "a simple model"},
    }  # fmt: skip
    write_json(folder.metrics, document)
    return run, folder


@pytest.fixture
def study() -> Callable[..., list[tuple[PlannedRun, RunFolder]]]:
    """``study(config, **{setting: keywords of write_run})`` writes every planned run."""

    def make(
        config: Config, *, kind: str = "binary", full: bool = False, **settings: dict
    ) -> list[tuple[PlannedRun, RunFolder]]:
        return [write_run(run, kind=kind, full=full, **settings.get(run.setting, {})) for run in plan_runs(config)]

    return make
