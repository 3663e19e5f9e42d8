"""Who is in which partition, checked for leakage and written before any training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medgcsam.config import Config
from medgcsam.journal import Journal
from medgcsam.places import cache_folder, shown
from medgcsam.run_folder import RunFolder, ensure_writable, read_json, write_json


def write_split(config: Config, *, journal: Journal) -> dict[str, Any]:
    """Make the split of a configuration, write it as split.json of its run and say its counts; returns the document.

    The split of a run that has begun is left as it is; it is the same one unless data or configuration changed, which
    is an error.
    """
    from medgcsam.errors import DataError
    from medgcsam.pipeline.cases import prepare_cases

    output = Path(config.output.folder)
    run = RunFolder.of(output, config.name, config.setting, config.training.seed, config.split.fold)
    ensure_writable(output)
    cases = prepare_cases(config, output=output, cache=cache_folder(output), journal=journal)
    document = dict(cases.split.document)
    if run.config.is_file() and read_json(run.split) != document:
        raise DataError(
            f"{run.split}: this run was begun with another split; take the old split and data, or another name."
        )
    write_json(run.split, document)
    for name, count in document["counts"].items():
        labels = ", ".join(f"{label} {n}" for label, n in count["labels"].items())
        journal.say(f"{name:<10} {count['patients']:>6} patients {count['images']:>7} images  ({labels})")
    leakage = document["leakage"]
    journal.say(
        f"leakage: {leakage['patients_in_two_partitions']} patients in two partitions; "
        f"{leakage['identical_images_across_partitions']} identical images across partitions, "
        f"{leakage['dropped_from_train']} of them dropped"
    )
    journal.say(f"split: {shown(run.split)}")
    return document
