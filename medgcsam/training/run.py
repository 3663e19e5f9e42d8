"""One run from configuration to numbers: the recipe of `medgcsam train`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas
import torch
from torch import nn

from medgcsam.config import Config, dump
from medgcsam.errors import DataError
from medgcsam.journal import Journal
from medgcsam.networks import build_network, count_parameters, load_weights
from medgcsam.pipeline.augment import Augment
from medgcsam.pipeline.batches import Batches
from medgcsam.pipeline.cases import Cases, prepare_cases
from medgcsam.pipeline.store import Store
from medgcsam.places import cache_folder
from medgcsam.run_folder import (
    SCHEMA,
    RunFolder,
    ensure_writable,
    read_json,
    read_table,
    write_json,
    write_table,
    write_text,
)
from medgcsam.scoring import Question, metrics_document, predictions_table
from medgcsam.training import checkpoint
from medgcsam.training.baseline import METHOD, baseline_probabilities
from medgcsam.training.device import check_precision, choose_device, describe_device, memory_errors, repeatable
from medgcsam.training.inference import predict_logits
from medgcsam.training.optimizers import named_groups
from medgcsam.training.provenance import json_digest, software, text_digest
from medgcsam.training.resume import check_same_configuration, check_same_data, set_aside, source_digest, without_places
from medgcsam.training.sharpness import evenly_spread
from medgcsam.training.smoke import smoke_config
from medgcsam.training.stepper import Stepper
from medgcsam.training.tasks import Task
from medgcsam.training.trainer import Material, Progress, Trainer

SMOKE = "TRIAL (--smoke): one epoch on few cases; the numbers below mean nothing."
SYNTHETIC = "SYNTHETIC DATA: these images are computer-made; no number below says anything about patients."


def train(config: Config, *, restart: bool = False, smoke: bool = False, journal: Journal | None = None) -> Path:
    """Train, select on validation, test once; returns the run folder.

    A finished run is left as it is; an unfinished one goes on from its last epoch, to the same result as if it had
    not been interrupted. ``restart`` sets the old run aside. ``smoke`` is a trial: one epoch, few cases.

    Raises:
        MedgcsamError: every expected fault, before any training where it can be known before.
    """
    journal = journal or Journal()
    config = smoke_config(config) if smoke else config
    output = Path(config.output.folder)
    run = RunFolder.of(output, config.name, config.setting, config.training.seed, config.split.fold)
    ensure_writable(output)
    if run.config.is_file() and not restart:
        check_same_configuration(run, config)
        check_same_data(run, config)
        if run.finished():
            return run.path
    device = choose_device(config.training.device)
    check_precision(device, config.training.precision)
    _check_optimizer(config, device)
    repeatable(config.training.threads)
    journal.say(f"{config.name}: {config.setting}, seed {config.training.seed}, fold {config.split.fold}")
    if smoke:
        journal.say(SMOKE)
    cases = prepare_cases(config, output=output, cache=cache_folder(output), journal=journal, smoke=smoke)
    # From here on the data are known to be sound; a refused command has touched no run.
    if restart and (old := set_aside(run)):
        journal.say(f"The old run is now {old.name}, beside the new one.")
    journal.open_log(run.log)
    _introduce(cases, journal)
    task = Task.of(config.task, cases.classes, cases.positive)
    _write_beginning(run, config, cases, device)
    progress = _fit(config, cases, task, device, run, journal)
    _test(config, cases, task, device, run)
    if config.evaluation.baseline:
        _write_baseline(config, cases, task, run)
    _write_metrics(config, cases, task, run, progress)
    return run.path


def _check_optimizer(config: Config, device: torch.device) -> None:
    """Refuse what only the device or the network's names can tell, before a run is begun."""
    if config.optimizer.ascent_precision is not None:
        check_precision(device, config.optimizer.ascent_precision, key="optimizer.ascent_precision")
    if config.optimizer.groups:
        with torch.device("meta"):  # names without weights; they do not depend on the number of classes
            network = build_network(config.network, channels=config.image.channels, outputs=2)
        named_groups(config.optimizer.groups, network)


def question_of(task: Task, *, patients: str) -> Question:
    """The question that predictions answer, for scoring."""
    return Question(task.kind, task.classes, task.positive, patients == "known")


def _introduce(cases: Cases, journal: Journal) -> None:
    dataset, counts = cases.dataset, cases.split.document["counts"]
    if dataset.synthetic:
        journal.say(SYNTHETIC)
    number = "patients unknown, each image counts as one" if dataset.patients == "unknown" else None
    patients = number or f"{cases.table['patient_id'].nunique()} patients"
    journal.say(f"data    {dataset.title or 'your manifest'}: {len(cases.table)} images, {patients}")
    for name, count in counts.items():
        labels = ", ".join(f"{label} {n}" for label, n in count["labels"].items())
        journal.say(f"        {name:<10} {count['patients']:>5} patients {count['images']:>6} images ({labels})")
    leakage = cases.split.document["leakage"]
    for reason, images in dataset.excluded.items():
        journal.say(f"        left out: {images} images ({reason})")
    if leakage["dropped_from_train"]:
        journal.say(f"        dropped: {leakage['dropped_from_train']} images identical to one in a later partition")


def _write_beginning(run: RunFolder, config: Config, cases: Cases, device: torch.device) -> None:
    """What is known before training: configuration, split, provenance. A resumed run must find the same images."""
    facts = _provenance(config, cases, device)
    if run.last_checkpoint.is_file() and run.provenance.is_file():
        before = read_json(run.provenance)
        for key, what in (("images_sha256", "images"), ("split_sha256", "split"), ("manifest_sha256", "manifest")):
            if before[key] != facts[key]:
                raise DataError(
                    f"{run.path}: the {what} changed since this run began; bring the old ones back, or begin anew "
                    "with --restart."
                )
    write_json(run.split, cases.split.document)
    write_json(run.fingerprints, {name: cases.fingerprints(name) for name in ("train", "validation")})
    write_json(run.provenance, facts)
    write_text(run.config, dump(without_places(config)))  # last: where it is, the others are


def _provenance(config: Config, cases: Cases, device: torch.device) -> dict[str, Any]:
    dataset = cases.dataset
    return {
        "schema": SCHEMA,
        **software(),
        "device": describe_device(device),
        "threads": torch.get_num_threads(),
        "precision": config.training.precision,
        "setting": config.setting,
        "seed": config.training.seed,
        "fold": config.split.fold,
        "config_sha256": text_digest(dump(without_places(config))),
        "manifest_sha256": dataset.manifest_sha256,
        "source_sha256": source_digest(config),
        "images_sha256": cases.store.images_sha256,
        "split_sha256": json_digest(cases.split.document),
        "data": {
            "title": dataset.title or config.name,
            "licence": dataset.licence,
            "citation": dataset.citation,
            "source": dataset.source,
            "notes": dataset.notes,
            "synthetic": dataset.synthetic,
            "patients": dataset.patients,
            "positive": cases.positive,
            "classes": list(cases.classes),
        },
    }


def _fit(config: Config, cases: Cases, task: Task, device: torch.device, run: RunFolder, journal: Journal) -> Progress:
    training, pipeline = config.training, config.pipeline
    common = {"device": device, "memory": pipeline.memory}
    rows, validation = cases.rows("train"), cases.rows("validation")
    batches = Batches(
        cases.store, rows, cases.targets[rows], batch_size=training.batch_size, seed=training.seed,
        augment=Augment(config.augment), shuffle=True, **common,
    )  # fmt: skip
    network = _network(config, task, device, run, journal)
    stepper = Stepper(
        config.optimizer, config.schedule, network, epochs=training.epochs,
        steps_per_epoch=-(-len(batches) // training.accumulate), device=device, precision=training.precision,
    )  # fmt: skip
    loss = task.loss(
        cases.targets[rows], class_weights=training.class_weights,
        label_smoothing=training.label_smoothing, device=device,
    )  # fmt: skip
    validating = Batches(
        cases.store, validation, cases.targets[validation], batch_size=_inference_size(training.batch_size), **common
    )
    probe = None
    if training.sharpness_radius is not None:
        probed = evenly_spread(validation, training.sharpness_images)
        # Its pass is in fp32: twice the memory of the passes of training where those are in half precision.
        size = training.batch_size if training.precision == "fp32" else -(-training.batch_size // 2)
        probe = Batches(cases.store, probed, cases.targets[probed], batch_size=size, **common)
    material = Material(network, stepper, batches, validating, cases.targets, task, loss, device, probe)
    return Trainer(material, training, run, journal).fit()


def _network(config: Config, task: Task, device: torch.device, run: RunFolder, journal: Journal) -> nn.Module:
    """The network with its initial weights, which depend on the seed alone."""
    torch.manual_seed(config.training.seed)
    network = build_network(config.network, channels=config.image.channels, outputs=task.outputs)
    facts: dict[str, Any] = {"name": config.network.name, "parameters": count_parameters(network), "weights": None}
    if config.network.weights:
        report = load_weights(network, config.network.weights)
        facts["weights"] = str(report)
        journal.say(f"weights {Path(config.network.weights).name}: {report}")
    write_json(run.provenance, read_json(run.provenance) | {"network": facts})
    journal.say(
        f"network {config.network.name}, {facts['parameters']:,} weights, on {describe_device(device)}, "
        f"{config.training.precision}"
    )
    with memory_errors("building the network"):
        return network.to(device)


def _inference_size(batch_size: int) -> int:
    """Images per batch where no gradient is kept."""
    return max(64, 2 * batch_size)


def _test(config: Config, cases: Cases, task: Task, device: torch.device, run: RunFolder) -> None:
    """Predict validation and, for the only time, test cases with the selected weights."""
    rows = cases.rows("validation", "test")
    network = load_selected(run, config, task, device)
    probabilities = predict_store(network, cases.store, rows, cases.targets, config, task, device)
    write_table(run.predictions, _predictions(cases, rows, probabilities))


def load_selected(run: RunFolder, config: Config, task: Task, device: torch.device) -> nn.Module:
    """The network of a run with the weights of its selected epoch."""
    network = build_network(config.network, channels=config.image.channels, outputs=task.outputs)
    network.load_state_dict(checkpoint.load(run.best_checkpoint)["network"])
    return network.to(device)


def predict_store(
    network: nn.Module, store: Store, rows: np.ndarray, targets: np.ndarray, config: Config, task: Task,
    device: torch.device,
) -> np.ndarray:  # fmt: skip
    """Probabilities float32 (n, classes) for ``rows`` of a store whose rows have ``targets``."""
    batches = Batches(
        store, rows, targets[rows], batch_size=_inference_size(config.training.batch_size),
        device=device, memory=config.pipeline.memory,
    )  # fmt: skip
    logits, _ = predict_logits(network, batches, device=device, precision=config.training.precision)
    return task.probabilities(torch.from_numpy(logits)).numpy()


def _predictions(cases: Cases, rows: np.ndarray, probabilities: np.ndarray) -> pandas.DataFrame:
    return predictions_table(
        cases.table.iloc[rows],
        cases=cases.names("case", rows),
        patients=cases.names("patient", rows),
        partitions=list(cases.split.partition.iloc[rows]),
        probabilities=probabilities,
        classes=cases.classes,
    )


def _write_baseline(config: Config, cases: Cases, task: Task, run: RunFolder) -> None:
    rows = cases.rows("validation", "test")
    probabilities = baseline_probabilities(
        cases.store.images, cases.targets, train=cases.rows("train"), validation=cases.rows("validation"),
        classes=task.outputs,
    )  # fmt: skip
    write_table(run.baseline, _predictions(cases, rows, probabilities[rows]))


def _write_metrics(config: Config, cases: Cases, task: Task, run: RunFolder, progress: Progress) -> None:
    document = metrics_document(
        read_table(run.predictions),
        question_of(task, patients=cases.dataset.patients),
        config.evaluation,
        baseline=read_table(run.baseline) if config.evaluation.baseline else None,
        baseline_method=METHOD,
    )
    leakage = cases.split.document["leakage"]
    document |= {
        "synthetic": cases.dataset.synthetic,
        "testing": "internal",
        "title": cases.dataset.title or config.name,
        "notes": cases.dataset.notes,
        "selection": {"epoch": progress.best_epoch, "metric": f"validation {config.training.select}"},
        "cost": {
            "seconds": round(sum(record["seconds"] for record in progress.history), 3),
            "gradient_evaluations": progress.history[-1]["gradient_evaluations"],
        },
        "sharpness": _sharpness(config, cases, progress),
        "duplicates": {"policy": config.split.duplicates, "dropped_from_train": leakage["dropped_from_train"]},
    }
    write_json(run.metrics, document)


def _sharpness(config: Config, cases: Cases, progress: Progress) -> dict[str, Any] | None:
    """The selected epoch's, on validation images; None where it was not measured."""
    selected = next(record for record in progress.history if record["epoch"] == progress.best_epoch)
    if "sharpness" not in selected:
        return None
    images = len(evenly_spread(cases.rows("validation"), config.training.sharpness_images))
    return {
        "value": selected["sharpness"],
        "radius": config.training.sharpness_radius,
        "partition": "validation",
        "images": images,
    }
