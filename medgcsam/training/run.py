"""One run from configuration to numbers: the recipe of `medgcsam train`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from medgcsam.config import Config, dump
from medgcsam.journal import Journal
from medgcsam.networks import count_parameters, load_weights
from medgcsam.places import cache_folder
from medgcsam.run_folder import (
    SCHEMA,
    RunFolder,
    ensure_writable,
    write_json,
    write_text,
)
from medgcsam.training.device import check_precision, choose_device, describe_device, memory_errors, repeatable
from medgcsam.training.jobs import Job, open_job
from medgcsam.training.provenance import json_digest, software, text_digest
from medgcsam.training.resume import (
    begun_plan,
    check_same_cases,
    check_same_configuration,
    check_same_data,
    set_aside,
    source_digest,
    without_places,
)
from medgcsam.training.smoke import smoke_config
from medgcsam.training.stepper import Stepper
from medgcsam.training.trainer import Progress, Trainer

SMOKE = "TRIAL (--smoke): one epoch on few cases; the numbers below mean nothing."
SYNTHETIC = "SYNTHETIC DATA: these images are computer-made; no number below says anything about patients."


def train(config: Config, *, restart: bool = False, smoke: bool = False, journal: Journal | None = None) -> Path:
    """Train, select on validation, test once; returns the run folder.

    A finished run is left as it is; an unfinished one goes on from its last epoch, to the same result as if it had
    not been interrupted, on whatever device. ``restart`` sets the old run aside. ``smoke`` is a trial: one epoch, few
    cases. Nothing of the run is written before all that can be refused without training has been.

    Raises:
        MedgcsamError: every expected fault, before any training where it can be known before.
    """
    journal = journal or Journal()
    config = smoke_config(config) if smoke else config
    output = Path(config.output.folder)
    run = RunFolder.of(output, config.name, config.setting, config.training.seed, config.split.fold)
    ensure_writable(output)
    begun = run.config.is_file() and not restart
    if begun:
        check_same_configuration(run, config)
        check_same_data(run, config)
        if run.finished():
            return run.path
    device = choose_device(config.training.device)
    check_precision(device, config.training.precision)
    if config.optimizer.ascent_precision is not None:
        check_precision(device, config.optimizer.ascent_precision, key="optimizer.ascent_precision")
    repeatable(config.training.threads)
    journal.say(f"{config.name}: {config.setting}, seed {config.training.seed}, fold {config.split.fold}")
    if smoke:
        journal.say(SMOKE)
    plan = begun_plan(run) if begun else None
    job = open_job(
        config, output=output, cache=cache_folder(output), device=device, journal=journal, smoke=smoke, begun=plan
    )
    facts = _provenance(config, job, device)
    if begun:
        check_same_cases(run, facts)
    network, facts["network"] = _network(job, device)
    trainer = _trainer(job, network, device, run, journal)
    if begun and run.last_checkpoint.is_file():
        trainer.take_up()
    # From here on configuration and data are known to be sound; a refused command has touched no run.
    if restart and (old := set_aside(run)):
        journal.say(f"The old run is now {old.name}, beside the new one.")
    journal.open_log(run.log)
    _introduce(job.cases, journal)
    _introduce_network(config, facts, journal)
    _write_beginning(run, job, facts)
    progress = trainer.fit()
    job.test(run, journal)
    _write_metrics(job, run, progress)
    return run.path


def _introduce(cases: Any, journal: Journal) -> None:
    dataset, counts = cases.dataset, cases.split.document["counts"]
    if dataset.synthetic:
        journal.say(SYNTHETIC)
    number = "patients unknown, each image counts as one" if dataset.patients == "unknown" else None
    patients = number or f"{cases.table['patient_id'].nunique()} patients"
    journal.say(f"data    {dataset.title or 'your manifest'}: {len(cases.table)} images, {patients}")
    for name, count in counts.items():
        labels = ", ".join(f"{label} {n}" for label, n in count["labels"].items())
        told = f" ({labels})" if labels else ""
        journal.say(f"        {name:<10} {count['patients']:>5} patients {count['images']:>6} images{told}")
    leakage = cases.split.document["leakage"]
    for reason, images in dataset.excluded.items():
        journal.say(f"        left out: {images} images ({reason})")
    if leakage["dropped_from_train"]:
        journal.say(f"        dropped: {leakage['dropped_from_train']} images identical to one in a later partition")


def _introduce_network(config: Config, facts: dict[str, Any], journal: Journal) -> None:
    if config.network.weights:
        journal.say(f"weights {Path(config.network.weights).name}: {facts['network']['weights']}")
    journal.say(
        f"network {config.network.name}, {facts['network']['parameters']:,} weights, on {facts['device']}, "
        f"{config.training.precision}"
    )


def _write_beginning(run: RunFolder, job: Job, facts: dict[str, Any]) -> None:
    """What is known before training: configuration, split, plan, provenance (``facts``)."""
    cases, plan = job.cases, job.plan
    write_json(run.split, cases.split.document)
    write_json(run.fingerprints, {name: cases.fingerprints(name) for name in ("train", "validation")})
    write_json(run.provenance, facts)
    if plan is not None:
        planned = {"asked": "auto"}
        write_json(run.plan, {k: planned | {"value": v, "reason": plan.reasons[k]} for k, v in plan.values.items()})
    reasons = None if plan is None else plan.reasons
    write_text(run.config, dump(without_places(job.config), reasons))  # last: where it is, the others are


def _provenance(config: Config, job: Job, device: torch.device) -> dict[str, Any]:
    cases, dataset = job.cases, job.cases.dataset
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
            **job.data_facts(),
        },
    }


def _trainer(job: Job, network: nn.Module, device: torch.device, run: RunFolder, journal: Journal) -> Trainer:
    training, batches = job.config.training, job.batches()
    stepper = Stepper(
        job.config.optimizer, job.config.schedule, network, epochs=training.epochs,
        steps_per_epoch=-(-len(batches) // training.accumulate), device=device, precision=training.precision,
    )  # fmt: skip
    return Trainer(job.material(network, stepper, batches), training, run, journal)


def _network(job: Job, device: torch.device) -> tuple[nn.Module, dict[str, Any]]:
    """The network with its initial weights, which depend on the seed alone; what provenance.json says of it."""
    config = job.config
    torch.manual_seed(config.training.seed)
    network = job.network()
    facts: dict[str, Any] = {"name": config.network.name, "parameters": count_parameters(network), "weights": None}
    if config.network.weights:
        facts["weights"] = str(load_weights(network, config.network.weights))
    with memory_errors("building the network"):
        return network.to(device), facts


def _write_metrics(job: Job, run: RunFolder, progress: Progress) -> None:
    config, cases, document = job.config, job.cases, job.numbers(run)
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
        "sharpness": _sharpness(job, progress),
        "duplicates": {"policy": config.split.duplicates, "dropped_from_train": leakage["dropped_from_train"]},
    }
    write_json(run.metrics, document)


def _sharpness(job: Job, progress: Progress) -> dict[str, Any] | None:
    """The selected epoch's, on validation images; None where it was not measured."""
    selected = next(record for record in progress.history if record["epoch"] == progress.best_epoch)
    if "sharpness" not in selected:
        return None
    rows = job.probed()
    return {
        "value": selected["sharpness"],
        "radius": job.config.training.sharpness_radius,
        "partition": "validation",
        "images": 0 if rows is None else len(rows),
    }
