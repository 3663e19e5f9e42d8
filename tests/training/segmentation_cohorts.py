"""Small cohorts with outlines: pictures of bright discs, and oblique volumes of balls."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import yaml
from PIL import Image

from medgcsam.config import Config, load

CONFIG = {
    "name": "discs",
    "task": "segmentation",
    "data": {"manifest": "manifest.csv", "structures": {"disc": ["1", "255"]}},
    "split": {"folds": 4},
    "image": {"size": 48},
    "patches": {"size": [32, 32], "per_image": 2},
    "network": {"name": "unet_small", "width": 8, "levels": 3},
    "optimizer": {"name": "gcsam", "lr": 1e-2, "start": 0.0},
    "training": {"epochs": 3, "batch_size": 4, "device": "cpu", "threads": 1},
    "evaluation": {"replicates": 100},
    "pipeline": {"workers": 0},
    "output": {"folder": "runs"},
}


def draw_discs(folder: Path, patients: int = 16) -> Path:
    """PNG pictures of noise with one bright disc, their masks (0 and 255), and manifest.csv."""
    rng = np.random.default_rng(0)
    rows, cols = np.mgrid[:48, :56]
    lines = ["image,mask,patient_id"]
    for number in range(patients):
        r, c, radius = rng.uniform(14, 34), rng.uniform(14, 42), rng.uniform(6, 11)
        mask = (rows - r) ** 2 + (cols - c) ** 2 < radius**2
        pixels = rng.normal(90, 20, mask.shape) + 70 * mask
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"p{number:02d}.png")
        Image.fromarray(mask.astype(np.uint8) * 255).save(folder / f"p{number:02d}_mask.png")
        lines.append(f"p{number:02d}.png,p{number:02d}_mask.png,P{number:02d}")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    return folder


def draw_balls(folder: Path, patients: int = 12) -> Path:
    """Oblique, left-handed and anisotropic NIfTI volumes with a bright ball, their masks, and manifest.csv."""
    rng = np.random.default_rng(1)
    lines = ["image,mask,patient_id"]
    for number in range(patients):
        spacing = np.array([2.0, 2.0, 4.0]) * rng.uniform(0.9, 1.1)
        angle = rng.uniform(-0.3, 0.3)
        turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
        affine = np.eye(4)
        affine[:3, :3] = turn @ np.diag(spacing * np.array([-1, 1, 1] if number % 2 else [1, 1, 1]))
        affine[:3, 3] = rng.uniform(-50, 50, 3)
        shape = (28, 30, 14)
        centre, radius = rng.uniform(0.35, 0.65, 3) * shape * spacing, rng.uniform(8, 14)
        place = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), -1) * spacing
        mask = ((place - centre) ** 2).sum(-1) < radius**2
        values = rng.normal(0, 20, shape) + 60 * mask
        for name, array in ((f"p{number:02d}", values.astype(np.float32)), (f"p{number:02d}_mask", mask)):
            nibabel.save(nibabel.Nifti1Image(array.astype(np.float32), affine), folder / f"{name}.nii.gz")
        lines.append(f"p{number:02d}.nii.gz,p{number:02d}_mask.nii.gz,P{number:02d}")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    return folder


def segmentation_config(cohort: Path, folder: Path, overrides: tuple[str, ...] = (), **changes: dict) -> Config:
    """CONFIG for a cohort with the sections of ``changes`` laid over it; runs go to ``folder``."""
    changes["data"] = {"root": str(cohort), "manifest": str(cohort / "manifest.csv"), **changes.get("data", {})}
    changes["output"] = {"folder": str(folder / "runs")}
    content = {**CONFIG, **{k: {**CONFIG.get(k, {}), **v} if isinstance(v, dict) else v for k, v in changes.items()}}
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(content))
    return load(path, overrides)
