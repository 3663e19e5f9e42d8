"""A trained network on another site's data: external testing, with the threshold frozen where it was."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medgcsam.config import Config, dump
from medgcsam.errors import ConfigError, DataError
from medgcsam.journal import Journal
from medgcsam.recipes.evaluate import run_config
from medgcsam.recipes.summary import say_summary
from medgcsam.run_folder import RunFolder, ensure_writable, read_json, write_json, write_table, write_text

_LOCAL = ("data.manifest", "data.root")


def evaluate_external(
    path: Path, manifest: str, overrides: Sequence[str], *, name: str | None, journal: Journal
) -> dict[str, Any]:
    """Test a run's network on the cases of another manifest, written to RUN/external/NAME; returns {"run", "metrics"}.

    Classes, preprocessing, weights and threshold are those of the run. Images that the run was trained or selected on
    are an error: a test on them would not be external.
    """
    from medgcsam.report import write_report
    from medgcsam.training.resume import without_places

    run = RunFolder.existing(path)
    name = name or Path(manifest).stem
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise ConfigError(f"--name {name}: use letters, digits, dots, dashes and underscores.")
    config = run_config(run, overrides, sections=("data", "evaluation", "report"))
    data = config.data.model_copy(update={"manifest": str(Path(manifest).absolute())} | _own_root(overrides))
    config = config.model_copy(update={"data": data})
    target = run.external(name)
    ensure_writable(target.path)
    document = _test(run, target, config, journal)
    write_text(target.config, dump(without_places(config)))
    write_json(target.metrics, document)
    write_report(target.path)
    say_summary(target, journal)
    return {"run": str(target.path), "metrics": read_json(target.metrics)}


def _own_root(overrides: Sequence[str]) -> dict[str, Any]:
    """Images of the other manifest lie beside it, not below the root of the training data, unless --set says so."""
    return {} if any(text.startswith("data.root=") for text in overrides) else {"root": None}


def _test(run: RunFolder, target: RunFolder, config: Config, journal: Journal) -> dict[str, Any]:
    from medgcsam.cohort import encode_labels
    from medgcsam.intake import open_dataset
    from medgcsam.pipeline.cases import load_images
    from medgcsam.places import cache_folder
    from medgcsam.privacy import hash_id, load_salt
    from medgcsam.scoring import metrics_document, predictions_table
    from medgcsam.training.device import choose_device, describe_device
    from medgcsam.training.run import load_selected, predict_store, question_of
    from medgcsam.training.tasks import Task

    before, facts = read_json(run.metrics), read_json(run.provenance)
    output = output_of(run)
    cache = cache_folder(output)
    classes = tuple(before["classes"])
    if config.data.classes is None:
        config = config.model_copy(update={"data": config.data.model_copy(update={"classes": classes})})
    dataset = open_dataset(config.data, base=Path.cwd(), cache=cache, task=config.task)
    targets = encode_labels(dataset.table["label"], classes, config.task)
    store = load_images(config, list(dataset.table["image"]), cache=cache, journal=journal)
    device = choose_device(config.training.device)
    task = Task.of(config.task, classes, before["positive"])
    network = load_selected(run, config, task, device)
    rows = np.arange(len(store))
    probabilities = predict_store(network, store, rows, targets, config, task, device)
    salt = load_salt(output)
    predictions = predictions_table(
        dataset.table,
        cases=[hash_id(salt, "case", value) for value in dataset.table["case"]],
        patients=[hash_id(salt, "patient", value) for value in dataset.table["patient_id"]],
        partitions=["test"] * len(rows),
        probabilities=probabilities,
        classes=classes,
    )
    _refuse_known_patients(run, predictions["patient"].unique())
    write_table(target.predictions, predictions)
    document = metrics_document(
        predictions,
        question_of(task, patients=dataset.patients),
        config.evaluation,
        operating_point=before["operating_point"],
    )
    write_json(
        target.provenance,
        facts
        | {
            "device": describe_device(device),
            "manifest_sha256": dataset.manifest_sha256,
            "images_sha256": store.images_sha256,
            "data": facts["data"] | {"title": dataset.title, "notes": dataset.notes, "synthetic": dataset.synthetic},
        },
    )
    return document | {
        "synthetic": dataset.synthetic,
        "testing": "external",
        "title": dataset.title,
        "notes": dataset.notes,
        "trained_on": before["title"],
    }


def _refuse_known_patients(run: RunFolder, patients: Sequence[str]) -> None:
    partitions = read_json(run.split)["partitions"]
    known = {*partitions["train"], *partitions["validation"]} & set(patients)
    if known:
        raise DataError(
            f"{len(known)} patients of this manifest were trained or selected on in {run.path} (such as "
            f"{sorted(known)[0]}); external testing needs other patients."
        )


def output_of(run: RunFolder) -> Path:
    """The output folder of a run, OUTPUT/NAME/SETTING/seed-S/fold-F, which holds the salt."""
    return run.path.absolute().parents[3]
