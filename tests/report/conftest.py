"""Run folders made by real computation: simulated patients and scores, then the evaluation's own functions."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from medgcsam.cohort.labels import decode_labels
from medgcsam.evaluation import (
    apply_temperature,
    calibration_numbers,
    choose_operating_point,
    choose_operating_points,
    classification_metrics,
    fit_temperature,
)
from medgcsam.report import write_report
from medgcsam.run_folder import RunFolder, write_json, write_json_lines, write_table, write_text

CLASSES = {
    "binary": ["No finding", "Pneumonia"],
    "multiclass": ["benign", "malignant", "normal"],
    "multilabel": ["Effusion", "Cardiomegaly", "Nodule"],
}


def simulate(task: str, classes: list[str], *, n_patients: int, skill: float, seed: int) -> dict[str, np.ndarray]:
    """Labels, probabilities and patients of images in clusters of 1 to 3, correlated within the patient."""
    rng = np.random.default_rng(seed)
    patients = np.repeat(np.arange(n_patients), rng.integers(1, 4, n_patients))
    n, k = len(patients), len(classes)
    shared = rng.normal(size=(n_patients, k))[patients]
    noise = 0.6 * shared + 0.8 * rng.normal(size=(n, k))
    if task == "multilabel":
        truth = (rng.random((n_patients, k)) < 0.35)[patients].astype(np.float64)
        probabilities = 1 / (1 + np.exp(-2 * (skill * (truth - 0.5) + noise)))
        truth[rng.random((n, k)) < 0.1] = np.nan
    else:
        truth = rng.integers(0, k, n_patients)[patients]
        logits = 2 * (noise + skill * np.eye(k)[truth])
        probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    # What predictions.csv can hold, so that the file and the numbers agree to the last digit.
    probabilities = np.vectorize(lambda p: float(f"{p:.9g}"))(probabilities)
    return {"labels": truth, "probabilities": probabilities, "patients": patients}


def predictions_table(parts: dict[str, dict[str, np.ndarray]], task: str, classes: list[str]) -> pd.DataFrame:
    """predictions.csv of the given partitions."""
    tables = []
    kind = "multilabel" if task == "multilabel" else "classification"
    for name, part in parts.items():
        hashes = [hashlib.sha256(f"{name} {patient}".encode()).hexdigest()[:16] for patient in part["patients"]]
        cases = [hashlib.sha256(f"{name} case {i}".encode()).hexdigest()[:16] for i in range(len(hashes))]
        labels = decode_labels(part["labels"], classes, kind)
        table = pd.DataFrame({"case": cases, "patient": hashes, "partition": name, "label": labels})
        for column, one in enumerate(classes):
            table[f"p_{one}"] = part["probabilities"][:, column]
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def computed_metrics(parts: dict[str, dict[str, np.ndarray]], task: str, classes: list[str]) -> dict[str, Any]:
    """The computed half of metrics.json: operating point on validation, metrics of both partitions, calibration."""
    validation, test = parts["validation"], parts["test"]
    truth, scores = validation["labels"], validation["probabilities"]
    point = None
    if task == "binary":
        point = choose_operating_point(truth, scores[:, 1], validation["patients"])
    elif task == "multilabel":
        point = choose_operating_points(truth, scores, validation["patients"], classes=classes)
    found: dict[str, Any] = {"operating_point": point, "partitions": {}}
    for name, part in parts.items():
        found["partitions"][name] = classification_metrics(
            part["labels"],
            part["probabilities"],
            part["patients"],
            classes=classes,
            task=task,
            operating_point=point,
            replicates=100,
        )
    if task == "binary":
        temperature = fit_temperature(truth, scores)
        after = apply_temperature(test["probabilities"], temperature)[:, 1]
        found["calibration"] = {
            "temperature": temperature,
            "test_before": calibration_numbers(test["labels"], test["probabilities"][:, 1]),
            "test_after": calibration_numbers(test["labels"], after),
        }
    elif task == "multiclass":
        found["calibration"] = {"temperature": fit_temperature(truth, scores)}
    return found


def history(epochs: int = 12, ascent_from: int = 8, best: int = 10) -> list[dict[str, Any]]:
    """Epochs of a run whose ascent begins late."""
    lines, evaluations = [], 0
    for epoch in range(1, epochs + 1):
        passes = 2.0 if epoch >= ascent_from else 1.0
        evaluations += int(40 * passes)
        lines.append(
            {
                "epoch": epoch,
                "lr": 1e-3,
                "train_loss": 0.7 * 0.85**epoch,
                "validation_loss": 0.5 + 0.02 * abs(epoch - best),
                "validation_auroc": 0.9 - 0.01 * abs(epoch - best),
                "seconds": 3.0,
                "gradient_evaluations": evaluations,
                "passes_per_step": passes,
                "radius": None,
                "centralized_share": None,
                "best": epoch == best,
            }
        )
    return lines


def split_json(parts: dict[str, dict[str, np.ndarray]], task: str, classes: list[str]) -> dict[str, Any]:
    """split.json whose counts are those of the simulated partitions."""
    counts = {}
    for name, part in parts.items():
        present = part["labels"] == 1 if task == "multilabel" else part["labels"][:, None] == np.arange(len(classes))
        counts[name] = {
            "patients": len(np.unique(part["patients"])),
            "images": len(part["patients"]),
            "labels": dict(zip(classes, present.sum(axis=0).tolist(), strict=True)),
        }
    leakage = {"patients_in_two_partitions": 0, "identical_images_across_partitions": 0, "dropped_from_train": 0}
    how = {"by": "folds", "folds": 5, "fold": 0, "seed": 0, "duplicates": "error", "patients": "known"}
    return {
        "schema": 1,
        **how,
        "partitions": {},
        "counts": counts,
        "leakage": leakage,
        "dropped": [],
        "excluded": {"no label": 7},
    }


def config(task: str, classes: list[str]) -> dict[str, Any]:
    """A resolved configuration with an absolute path in it."""
    return {
        "name": "trial",
        "task": "multilabel" if task == "multilabel" else "classification",
        "data": {"manifest": "/srv/pictures/of/Jane Doe/manifest.csv", "classes": classes, "negative": None},
        "split": {"by": "folds", "folds": 5, "fold": 0, "seed": 0, "stratify": True},
        "image": {"size": [128, 128], "channels": 1, "fit": "pad", "intensity": "display"},
        "network": {"name": "small", "weights": None},
        "optimizer": {"name": "gcsam", "base": "adamw", "lr": 0.001, "rho": 0.05, "start": 0.6},
        "evaluation": {"replicates": 100, "confidence": 0.95, "seed": 0},
        "report": {
            "title": None,
            "intended_use": "Second reader in a study",
            "not_for": None,
            "reference_standard": None,
        },
    }


@cache
def simulated(task: str, classes: tuple[str, ...], skill: float) -> tuple[dict[str, Any], dict[str, Any]]:
    """Partitions and the computed half of metrics.json, made once per session."""
    sizes = {"train": (120, 1), "validation": (40, 2), "test": (70, 3)}
    parts = {
        name: simulate(task, list(classes), n_patients=size, skill=skill, seed=seed)
        for name, (size, seed) in sizes.items()
    }
    return parts, computed_metrics({name: parts[name] for name in ("validation", "test")}, task, list(classes))


def build_run(folder: Path, task: str = "binary", classes: list[str] | None = None, **changes: Any) -> Path:
    """A whole run folder; ``changes`` replace keys of metrics.json."""
    classes = classes or CLASSES[task]
    parts, numbers = simulated(task, tuple(classes), 1.6)
    weak, weak_numbers = simulated(task, tuple(classes), 0.7)
    held_out, weak = ({name: one[name] for name in ("validation", "test")} for one in (parts, weak))
    lines = history()
    metrics = {
        "schema": 1,
        "task": task,
        "classes": classes,
        "positive": classes[-1] if task == "binary" else None,
        "synthetic": False,
        "patients": "known",
        "testing": "internal",
        "title": "Simulated scores",
        "notes": None,
        **numbers,
        "baseline": {"method": "logistic regression", "partitions": weak_numbers["partitions"]},
        "selection": {"epoch": 10, "metric": "validation auroc"},
        "cost": {"seconds": 36.0, "gradient_evaluations": lines[-1]["gradient_evaluations"]},
        "duplicates": {"policy": "error", "dropped_from_train": 0},
        **changes,
    }
    run = RunFolder(folder)
    write_json(run.metrics, metrics)
    write_json_lines(run.history, lines)
    write_json(run.split, split_json(parts, task, classes))
    write_table(run.predictions, predictions_table(held_out, task, classes))
    write_table(run.baseline, predictions_table(weak, task, classes))
    write_text(run.config, yaml.safe_dump(config(task, classes), sort_keys=False))
    digest = hashlib.sha256(json.dumps(metrics).encode()).hexdigest()
    hashes = {f"{what}_sha256": digest for what in ("config", "code", "manifest", "images", "split")}
    machine = {"python": "3.12.1", "platform": "Linux x86_64", "device": "cpu", "threads": 2, "precision": "fp32"}
    write_json(
        run.provenance,
        {
            "medgcsam": "0.1.0",
            "packages": {"torch": "2.13.0", "numpy": "2.4.6"},
            **machine,
            "setting": "gcsam",
            "seed": 0,
            "fold": 0,
            "network": {"name": "small", "parameters": 212345, "weights": None},
            **hashes,
            "data": {
                "title": "Simulated scores",
                "licence": "CC0",
                "citation": None,
                "source": "https://example.org/data",
                "notes": None,
                "synthetic": False,
            },
        },
    )
    return folder


_VOID = {"meta", "link", "br", "hr", "img", "input", "base"}


@dataclass
class Element:
    """An element of a page, its attributes, its children in order (elements and text)."""

    tag: str
    attributes: dict[str, str]
    children: list[Element | str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """All text inside, spaces collapsed."""
        return " ".join(self.raw.split())

    @property
    def raw(self) -> str:
        """All text inside, as it stands."""
        return "".join(one if isinstance(one, str) else one.raw for one in self.children)

    def all(self, *tags: str) -> list[Element]:
        """Descendants with one of the tags, in document order; all descendants where none is given."""
        found: list[Element] = []
        for child in self.children:
            if isinstance(child, Element):
                found += [child] if not tags or child.tag in tags else []
                found += child.all(*tags)
        return found

    def by_id(self, name: str) -> Element:
        """The descendant with this id."""
        return next(one for one in self.all() if one.attributes.get("id") == name)


class _Reader(HTMLParser):
    """Builds the tree and asserts that elements are closed in the order in which they were opened."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Element("document", {})
        self.open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open[-1].children.append(Element(tag, {name: value or "" for name, value in attrs}))
        if tag not in _VOID:
            self.open.append(self.open[-1].children[-1])

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open[-1].children.append(Element(tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1].tag == tag, f"</{tag}> closes <{self.open[-1].tag}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.open[-1].children.append(data)


def _read(path: Path) -> Element:
    reader = _Reader()
    reader.feed(path.read_text("utf-8"))
    reader.close()
    assert reader.open == [reader.root], "an element is never closed"
    return reader.root


@pytest.fixture(scope="session")
def read_page():
    """Reads a report file into a tree of elements, as a browser would."""
    return _read


@pytest.fixture(scope="session", params=["binary", "multiclass", "multilabel"])
def any_run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of each task; tests must not change it but for its report."""
    return build_run(tmp_path_factory.mktemp(request.param) / "run", request.param)


@pytest.fixture(scope="session")
def binary_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a binary task; tests must not change it but for its report."""
    return build_run(tmp_path_factory.mktemp("two") / "run")


@pytest.fixture(scope="session")
def make_run():
    """The builder itself, for runs that a test changes."""
    return build_run


@pytest.fixture(scope="session")
def any_page(any_run: Path) -> Element:
    """The report of ``any_run``."""
    return _read(write_report(any_run))


@pytest.fixture(scope="session")
def binary_page(binary_run: Path) -> Element:
    """The report of ``binary_run``."""
    return _read(write_report(binary_run))
