"""Small cohorts of NIfTI volumes with masks, and configurations for them."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from medgcsam.config import Config

STRUCTURES = {"organ": 1, "lesion": 2}


def config(**sections: Any) -> Config:
    """A segmentation; sections as in a file."""
    data = {"manifest": "manifest.csv", "structures": {"organ": ["1"], "lesion": ["2"]}} | sections.pop("data", {})
    return Config(name="trial", task="segmentation", data=data, **sections)


def write_volume(folder: Path, name: str, *, shape=(20, 24, 12), spacing=(1.0, 1.0, 2.0), flip=True, seed=0) -> None:
    """``name``.nii.gz of noise around bright structures, and ``name``_mask.nii.gz: an organ (1) with a lesion (2)."""
    random = np.random.default_rng(seed)
    index = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij"))
    centre = random.uniform(-0.2, 0.2, 3)[:, None, None, None]
    distance = np.sqrt(((index - centre) ** 2).sum(0))
    mask = (distance < 0.7).astype(np.uint8) + (distance < 0.3)
    image = (100 * mask + random.normal(0, 10, shape) + 50).astype(np.float32)
    affine = np.diag([-spacing[0] if flip else spacing[0], spacing[1], spacing[2], 1.0])
    nibabel.save(nibabel.Nifti1Image(image, affine), folder / f"{name}.nii.gz")
    nibabel.save(nibabel.Nifti1Image(mask, affine), folder / f"{name}_mask.nii.gz")


def write_cohort(folder: Path, patients: int = 6, **options: Any) -> tuple[list[str], list[str]]:
    """Volumes p0, p1, ... with a manifest.csv; returns the references of images and masks."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(patients):
        write_volume(folder, f"p{number}", seed=number, **options)
        rows.append([f"p{number}.nii.gz", f"patient {number}", f"p{number}_mask.nii.gz"])
    with open(folder / "manifest.csv", "w", newline="") as file:
        csv.writer(file).writerows([["image", "patient_id", "mask"], *rows])
    return [str(folder / row[0]) for row in rows], [str(folder / row[2]) for row in rows]
