"""Every fault of a data set in one table."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from medgcsam.config import Config
from medgcsam.journal import Journal
from medgcsam.places import cache_folder


def check_data(config: Config, *, journal: Journal) -> dict[str, Any]:
    """Read every image of the configuration's data set; says each fault, returns {"manifest", "images", "faults"}."""
    from medgcsam.intake import check_dataset, open_dataset
    from medgcsam.pipeline.cases import worker_count

    cache = cache_folder(Path(config.output.folder))
    dataset = open_dataset(config.data, base=config.base, cache=cache, task=config.task, strict=False)
    images = len(dataset.table)
    with journal.bar("checking images") as advance:
        workers = worker_count(config.pipeline.workers, images)
        faults = check_dataset(dataset, workers=workers, progress=advance)
    for fault in faults:
        journal.say(f"{fault.kind:<26} {fault.sentence}")
    patients = dataset.table["patient_id"].nunique()
    journal.say(
        f"{dataset.title or dataset.manifest_path.name}: {images} images of {patients} patients, {len(faults)} fault(s)"
    )
    return {
        "manifest": str(dataset.manifest_path),
        "images": images,
        "patients": patients,
        "excluded": dict(dataset.excluded),
        "faults": [asdict(fault) for fault in faults],
    }
