"""A trained network on another site's data: external testing, with the threshold frozen where it was."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medgcsam.config import Config, dump
from medgcsam.errors import ConfigError, DataError
from medgcsam.journal import Journal
from medgcsam.places import shown
from medgcsam.recipes.evaluate import run_config
from medgcsam.recipes.summary import say_summary
from medgcsam.run_folder import RunFolder, ensure_writable, read_json, write_json, write_table, write_text

if TYPE_CHECKING:
    import pandas

    from medgcsam.intake import Dataset
    from medgcsam.pipeline.store import Store


def evaluate_external(
    path: Path, manifest: str, overrides: Sequence[str], *, name: str | None, journal: Journal
) -> dict[str, Any]:
    """Test a run's network on the cases of another manifest, written to RUN/external/NAME; returns {"run", "metrics"}.

    Classes, preprocessing, weights and threshold are those of the run. Images that the run was trained or selected on
    are an error: a test on them would not be external. Reference standard, annotators and ethics approval are those of
    the other data, given by ``--set report.KEY=...``.

    Raises:
        ConfigError: the run is a segmentation; an override of a section that cannot be changed; a name for no folder.
        DataError: images or patients that the run was trained or selected on.
    """
    from medgcsam.report import write_report
    from medgcsam.training.resume import without_places

    run = RunFolder.existing(path)
    name = name or Path(manifest).stem
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise ConfigError(f"--name {name}: use letters, digits, dots, dashes and underscores.")
    config = run_config(run, overrides, sections=("data", "evaluation", "report"))
    if config.task == "segmentation":
        raise ConfigError(
            f"{shown(run.path)}: external testing of a segmentation is not there yet; "
            f"`medgcsam predict {shown(run.path)} INPUT` segments the images of another site."
        )
    data = config.data.model_copy(update={"manifest": str(Path(manifest).absolute())} | _own_root(overrides))
    report = config.report.model_copy(update=dict.fromkeys(_unsaid(overrides)))
    config = config.model_copy(update={"data": data, "report": report})
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


def _unsaid(overrides: Sequence[str]) -> list[str]:
    """Facts of the training data that nobody has given for the other: these read "not provided", not the old ones."""
    given = {text.split("=")[0] for text in overrides}
    return [key for key in ("reference_standard", "annotators", "ethics_approval") if f"report.{key}" not in given]


def _test(run: RunFolder, target: RunFolder, config: Config, journal: Journal) -> dict[str, Any]:
    """Predict the cases of ``config`` with the run's network; writes predictions and provenance, returns metrics."""
    from medgcsam.cohort import encode_labels
    from medgcsam.intake import open_dataset
    from medgcsam.pipeline.cases import load_images
    from medgcsam.places import cache_folder
    from medgcsam.privacy import hash_id, load_salt
    from medgcsam.scoring import metrics_document, predictions_table
    from medgcsam.training.classification import load_selected, predict_store, question_of
    from medgcsam.training.device import choose_device
    from medgcsam.training.tasks import Task

    before = read_json(run.metrics)
    output = output_of(run)
    cache, salt, classes = cache_folder(output), load_salt(output), tuple(before["classes"])
    if config.data.classes is None:
        config = config.model_copy(update={"data": config.data.model_copy(update={"classes": classes})})
    dataset = open_dataset(config.data, base=Path.cwd(), cache=cache, task=config.task)
    targets = encode_labels(dataset.table["label"], classes, config.task)
    patients = [hash_id(salt, "patient", value) for value in dataset.table["patient_id"]]
    _refuse_known(run, "partitions", patients, "patients", "prefix the numbers if these are other people")
    store = load_images(config, list(dataset.table["image"]), cache=cache, journal=journal)
    pixels = [hash_id(salt, "pixels", digest) for digest in store.digests["pixels"]]
    _refuse_known(run, "fingerprints", pixels, "images", "take the copies out of the manifest")
    task, device = Task.of(config.task, classes, before["positive"]), choose_device(config.training.device)
    rows = np.arange(len(store))
    network = load_selected(run, config, task, device)
    predictions = predictions_table(
        dataset.table,
        cases=[hash_id(salt, "case", value) for value in dataset.table["case"]],
        patients=patients,
        partitions=["test"] * len(rows),
        probabilities=predict_store(network, store, rows, targets, config, task, device),
        classes=classes,
    )
    write_table(target.predictions, predictions)
    title = dataset.title or target.path.name
    write_json(target.provenance, _provenance(run, dataset, store, title))
    question = question_of(task, patients=dataset.patients)
    document = metrics_document(predictions, question, config.evaluation, operating_point=before["operating_point"])
    return document | {
        "synthetic": dataset.synthetic,
        "testing": "external",
        "title": title,
        "notes": dataset.notes,
        "trained_on": before["title"],
        "counts": _counts(dataset.table, targets, classes),
        "overlap": {"patients": 0, "identical_images": 0, "compared": "patient numbers and decoded pixels"},
    }


def _counts(table: pandas.DataFrame, targets: np.ndarray, classes: Sequence[str]) -> dict[str, Any]:
    """Patients, images and images per class, as split.json counts a partition."""
    shown = [(targets == k) if targets.ndim == 1 else (targets[:, k] == 1) for k in range(len(classes))]
    labels = {name: int(rows.sum()) for name, rows in zip(classes, shown, strict=True)}
    return {"patients": int(table["patient_id"].nunique()), "images": len(table), "labels": labels}


def _provenance(run: RunFolder, dataset: Dataset, store: Store, title: str) -> dict[str, Any]:
    """Provenance of the run, with the facts of the other data set in place of its own."""
    facts = read_json(run.provenance)
    own = {name: getattr(dataset, name) for name in ("licence", "citation", "source", "notes", "synthetic", "patients")}
    digests = {"manifest_sha256": dataset.manifest_sha256, "images_sha256": store.images_sha256, "source_sha256": None}
    return facts | digests | {"data": facts["data"] | own | {"title": title}}


def _refuse_known(run: RunFolder, kind: str, hashes: Sequence[str], what: str, remedy: str) -> None:
    """Refuse patients or images that the run was trained or selected on."""
    held = read_json(run.split)["partitions"] if kind == "partitions" else read_json(run.fingerprints)
    known = {*held["train"], *held["validation"]} & set(hashes)
    if known:
        raise DataError(
            f"{len(known)} {what} of this manifest were trained or selected on in {shown(run.path)} (such as "
            f"{min(known)}); external testing needs others, {remedy}."
        )


def output_of(run: RunFolder) -> Path:
    """The output folder of a run, OUTPUT/NAME/SETTING/seed-S/fold-F, which holds the salt."""
    return run.path.absolute().parents[3]
