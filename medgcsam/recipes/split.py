"""Who is in which partition, checked for leakage and written before any training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from medgcsam.config import Config
from medgcsam.journal import Journal
from medgcsam.places import cache_folder, shown
from medgcsam.run_folder import RunFolder, ensure_writable, read_json, write_json

if TYPE_CHECKING:
    from medgcsam.cohort import Split


def write_split(config: Config, *, journal: Journal) -> dict[str, Any]:
    """Make the split of a configuration, write it as split.json of its run and say its counts; returns the document.

    The split of a run that has begun is left as it is; it is the same one unless data or configuration changed, which
    is an error. A set without labels is split by patient alone; its files are compared byte for byte, not decoded.
    """
    from medgcsam.errors import DataError

    output = Path(config.output.folder)
    run = RunFolder.of(output, config.name, config.setting, config.training.seed, config.split.fold)
    ensure_writable(output)
    document = dict(_split(config, output, journal).document)
    if run.config.is_file() and read_json(run.split) != document:
        raise DataError(
            f"{run.split}: this run was begun with another split; take the old split and data, or another name."
        )
    write_json(run.split, document)
    for name, count in document["counts"].items():
        labels = ", ".join(f"{label} {n}" for label, n in count["labels"].items())
        sizes = f"{name:<10} {count['patients']:>6} patients {count['images']:>7} images"
        journal.say(f"{sizes}  ({labels})" if labels else sizes)
    leakage = document["leakage"]
    journal.say(
        f"leakage: {leakage['patients_in_two_partitions']} patients in two partitions; "
        f"{leakage['identical_images_across_partitions']} identical images across partitions, "
        f"{leakage['dropped_from_train']} of them dropped"
    )
    journal.say(f"split: {shown(run.split)}")
    return document


def _split(config: Config, output: Path, journal: Journal) -> Split:
    import pandas as pd

    from medgcsam.cohort import make_split
    from medgcsam.imaging import source_digest
    from medgcsam.intake import open_dataset
    from medgcsam.pipeline.cases import prepare_cases
    from medgcsam.privacy import hash_id, load_salt

    cache = cache_folder(output)
    with journal.bar("opening the data set") as advance:
        dataset = open_dataset(
            config.data, base=config.base, cache=cache, task=config.task, unlabelled=True, progress=advance
        )
    if dataset.labelled:
        return prepare_cases(config, output=output, cache=cache, journal=journal).split
    unusable = "" if config.task == "segmentation" else ", not usable for training yet"
    journal.say(f"{dataset.manifest_path.name} has no labels: split by patient alone{unusable}")
    salt = load_salt(output)
    return make_split(
        dataset.table,
        config.split,
        classes=(),
        task=config.task,
        hash_patient=lambda value: hash_id(salt, "patient", value),
        hash_case=lambda value: hash_id(salt, "case", value),
        digests=pd.DataFrame({"source": [source_digest(name) for name in dataset.table["image"]]}),
        patients=dataset.patients,
        base=config.base,
    )
