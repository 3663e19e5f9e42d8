"""Hand-made run folders of a segmentation: simulated lines of cases.csv, and metrics.json as it comes from them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from medgcsam.config import EvaluationConfig
from medgcsam.run_folder import RunFolder, read_table, write_json, write_json_lines, write_table, write_text
from medgcsam.scoring_segmentation import segmentation_document

STRUCTURES = ("organ", "lesion")
DIAGONAL = 250.0
RULES = {"missed": 0.1, "false_positive": 0.05, "both_empty": 0.1}


def case_lines(structures: tuple[str, ...], *, patients: int, skill: float, seed: int, partition: str) -> pd.DataFrame:
    """Lines of cases.csv: 1 or 2 images per patient; every structure but the first is at times absent or missed."""
    rng = np.random.default_rng(seed)
    lines = []
    for image, patient in enumerate(np.repeat(np.arange(patients), rng.integers(1, 3, patients))):
        for number, structure in enumerate(structures):
            status = "ok"
            if number:
                status = rng.choice(["ok", *RULES], p=[1 - sum(RULES.values()), *RULES.values()])
            size = float(rng.lognormal(3, 0.7)) if status in ("ok", "missed") else 0.0
            dice = float(rng.beta(12 * skill, 2)) if status == "ok" else np.nan if status == "both_empty" else 0.0
            predicted = size * float(rng.normal(1, 0.15)) if status == "ok" else 0.0
            predicted = float(rng.uniform(0.1, 2)) if status == "false_positive" else predicted
            distance = {"ok": 30 * (1 - dice), "missed": DIAGONAL}.get(status, np.nan)
            lines.append(
                {
                    "case": _hash(f"{partition} case {image}"),
                    "patient": _hash(f"{partition} {patient}"),
                    "partition": partition,
                    "structure": structure,
                    "status": status,
                    "dice": dice,
                    "nsd": dice**0.5 if status in ("ok", "missed") else np.nan,
                    "hd95": distance,
                    "asd": distance if status == "missed" else distance / 4,
                    "reference_size": size,
                    "predicted_size": predicted,
                    "size_error": predicted - size,
                    "lesions_reference": int(size > 0),
                    "lesions_found": int(status == "ok"),
                    "lesions_false": int(status == "false_positive"),
                    "unit": "mm",
                    "size_unit": "ml",
                }
            )
    return pd.DataFrame(lines)


def build_segmentation_run(
    folder: Path, structures: tuple[str, ...] = STRUCTURES, *, skill: float = 1.0, **changes: Any
) -> Path:
    """A whole run folder; ``changes`` replace keys of metrics.json."""
    parts = {
        name: case_lines(structures, patients=size, skill=skill, seed=seed, partition=name)
        for name, size, seed in (("validation", 12, 2), ("test", 30, 3))
    }
    weak = [
        case_lines(structures, patients=size, skill=0.3, seed=seed, partition=name)
        for name, size, seed in (("validation", 12, 2), ("test", 30, 3))
    ]
    cases, run = pd.concat(parts.values(), ignore_index=True), RunFolder(folder)
    components = {
        "asked": "auto",
        "chosen_on": "validation",
        "structures": {
            name: {"keep": "all" if number else "largest", "dice_all": 0.71, "dice_largest": 0.74, "patients": 12}
            for number, name in enumerate(structures)
        },
    }
    write_table(run.cases, cases)
    write_table(run.baseline, pd.concat(weak, ignore_index=True))
    metrics = {
        **segmentation_document(
            read_table(run.cases),
            EvaluationConfig(**CONFIG["evaluation"]),
            structures=structures,
            patients_known=True,
            baseline=read_table(run.baseline),
            baseline_method="best fixed threshold of the training patients",
        ),
        "components": components,
        "synthetic": False,
        "testing": "internal",
        "title": "Simulated outlines",
        "notes": None,
        "selection": {"epoch": 3, "metric": "validation dice"},
        "cost": {"seconds": 75.0, "gradient_evaluations": 480},
        "duplicates": {"policy": "error", "dropped_from_train": 0},
        **changes,
    }
    write_json(run.metrics, metrics)
    write_json(run.components, components)
    write_json(run.plan, PLAN)
    write_text(run.config, yaml.safe_dump(CONFIG, sort_keys=False))
    write_json(run.provenance, _provenance(structures))
    write_json_lines(run.history, [_epoch(number) for number in range(1, 5)])
    write_json(run.split, _split(parts))
    return folder


PLAN = {
    "image.spacing": {"asked": "auto", "value": [1.5, 1.5, 3.0], "reason": "median of 60 training images"},
    "image.clip": {"asked": "auto", "value": [-120.5, 240.0], "reason": "0.5th and 99.5th percentile of voxels inside"},
    "image.mean": {"asked": "auto", "value": 61.25, "reason": "mean of the voxels inside the structures"},
    "image.std": {"asked": "auto", "value": 33.5, "reason": "deviation of the voxels inside the structures"},
    "patches.size": {"asked": "auto", "value": [64, 64, 32], "reason": "largest patch that fits into 4 GB"},
    "training.batch_size": {"asked": "auto", "value": 2, "reason": "never fewer than 2"},
}
CONFIG: dict[str, Any] = {
    "name": "outlines",
    "task": "segmentation",
    "data": {"manifest": "/srv/volumes/of/Jane Doe/manifest.csv", "faulty_masks": "exclude"},
    "split": {"by": "folds", "folds": 5, "fold": 0, "seed": 0, "stratify": True},
    "image": {
        "dimensions": 3, "size": [112, 112], "channels": 1, "spacing": [1.5, 1.5, 3.0], "intensity": "foreground",
        "clip": [-120.5, 240.0], "mean": 61.25, "std": 33.5,
    },
    "patches": {"size": [64, 64, 32], "per_image": 2, "foreground": 0.5},
    "network": {"name": "unet_small", "weights": None},
    "optimizer": {"name": "gcsam", "base": "adamw", "lr": 0.001, "rho": 0.05, "start": 0.6},
    "evaluation": {"replicates": 100, "confidence": 0.95, "seed": 0, "nsd_tolerance": 2.0},
    "report": {"intended_use": "Measuring in a study"},
}  # fmt: skip
SPLIT = {
    "schema": 1, "by": "folds", "folds": 5, "fold": 0, "seed": 0, "duplicates": "error", "patients": "known",
    "partitions": {"train": []}, "dropped": [], "excluded": {"no mask": 4},
    "counts": {"train": {"patients": 60, "images": 120, "labels": {}}},
    "leakage": {"patients_in_two_partitions": 0, "identical_images_across_partitions": 0, "dropped_from_train": 0},
}  # fmt: skip


def _split(parts: dict[str, pd.DataFrame]) -> dict[str, Any]:
    patients = {name: sorted(set(lines["patient"])) for name, lines in parts.items()}
    counts = {
        name: {"patients": len(patients[name]), "images": lines["case"].nunique(), "labels": {}}
        for name, lines in parts.items()
    }
    return SPLIT | {"partitions": SPLIT["partitions"] | patients, "counts": SPLIT["counts"] | counts}


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _epoch(number: int) -> dict[str, Any]:
    return {
        "epoch": number, "lr": 1e-3, "train_loss": 1 / number, "validation_loss": 1.1 / number,
        "validation_dice": 0.9 - 0.3 / number, "seconds": 12.0, "gradient_evaluations": 120 * number,
        "passes_per_step": 2.0, "radius": None, "centralized_share": None, "best": number == 3,
    }  # fmt: skip


def _provenance(structures: tuple[str, ...]) -> dict[str, Any]:
    return {
        "medgcsam": "0.1.0", "python": "3.12.1", "packages": {"torch": "2.13.0"}, "device": "cpu", "threads": 2,
        "setting": "gcsam", "seed": 0, "fold": 0, "network": {"name": "unet_small", "parameters": 90123},
        "config_sha256": _hash("config") * 4,
        "data": {"title": "Simulated outlines", "licence": "CC0", "citation": None, "source": None, "notes": None,
                 "synthetic": False, "structures": list(structures), "overlapping": False},
    }  # fmt: skip
