"""The embedded synthetic cohort of abdominal CT: NIfTI volumes with masks of liver and lesions, the same for one seed.

It exists so that segmentation can be tried and tested without a patient's data. It is SYNTHETIC DATA: a number
measured on it says that the software works, and nothing about medicine.

What makes it worth a network: lesions differ from the liver by little more than the noise, muscle, spleen, bowel and
blood have the values of liver or lesion, cysts are darker than lesions and are none, two sites blur and calibrate
differently, slices are two to three times as thick as pixels are wide, and voxel axes point in several directions.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from medgcsam.errors import ConfigError
from medgcsam.intake.phantom_abdomen import draw_abdomen, paint_abdomen
from medgcsam.intake.phantom_folder import MANIFEST, make_cohort
from medgcsam.intake.phantom_liver import bend, draw_liver, paint_liver
from medgcsam.intake.phantom_scanner import SITES, draw_grid, scan, write_nifti
from medgcsam.intake.phantom_tumour_cohort import PatientPlan, VolumePlan, plan_cohort

VERSION = 2  # goes up with every change of the bytes, so that an older cohort in a cache is made anew
COLUMNS = ("image", "mask", "patient_id", "study", "site", "scanner", "date", "sex", "age")
_DARK = -30  # HU
_SUBSLICES = 3  # a thick slice is the mean of so many thin ones: what a surface cuts has a part of each tissue


def make_tumour_phantom(
    folder: Path,
    *,
    patients: int = 60,
    seed: int = 0,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Make the tumour cohort in ``folder`` and return its ``manifest.csv``; an equal cohort is returned as it is.

    ``folder`` then holds ``images/*.nii.gz`` (HU), ``masks/*.nii.gz`` (uint8, exclusive: 1 liver, 2 lesion, which lies
    in the liver; a fifth of the patients has no lesion), ``manifest.csv`` (columns ``COLUMNS``; paths relative to the
    folder) and ``PHANTOM.json``. All is written beside ``folder`` first and renamed, so half a cohort is never seen.
    ``workers`` processes share the work; the bytes do not depend on it. ``progress`` is called with (patients done,
    patients in all).

    Raises ConfigError for arguments out of range, DataError where ``folder`` holds something else, MachineError where
    it cannot be written.
    """
    if patients < 4 or seed < 0:
        raise ConfigError(
            f"The phantom cannot be made with patients={patients}, seed={seed}: "
            "give at least 4 patients and a seed of 0 or more."
        )
    wanted = {"phantom": "tumour", "version": VERSION, "patients": patients, "seed": seed}
    plans = plan_cohort(patients=patients, seed=seed)
    return make_cohort(
        Path(folder), wanted, plans, make=partial(_make_patient, seed=seed),
        write_tables=partial(_write_tables, plans=plans), workers=workers, parallel_from=24, progress=progress,
    )  # fmt: skip


def draw_volume(
    plan: PatientPlan, volume: VolumePlan, *, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.random.Generator]:
    """One volume of a patient: HU int16 and label uint8, both (i, j, k) near R, A, S; affine; the volume's generator.

    What belongs to the patient comes from a generator of the patient's own, what belongs to the scan from one of the
    volume's own, so any volume can be drawn alone.
    """
    own = np.random.default_rng([seed, 31, plan.index])
    body = draw_abdomen(own, sex=plan.sex, age=plan.age)
    liver = draw_liver(own, body, plan.lesions)
    rng = np.random.default_rng([seed, 32, plan.index, plan.volumes.index(volume)])
    site = SITES[plan.site]
    grid, affine = draw_grid(rng, site, body.half)
    spacing = np.linalg.norm(grid.axes, axis=0)
    values, inside, tumour = (np.zeros(grid.shape, np.float32) for _ in range(3))
    for step in range(_SUBSLICES):
        thin = grid.shifted((step - (_SUBSLICES - 1) / 2) / _SUBSLICES)
        straight, place = bend(thin, body)
        part = paint_abdomen(thin, straight, place, body, float(spacing[0]))
        parts = paint_liver(part, thin, straight, place, body, liver, float(spacing[0]), volume.growth)
        for total, one in zip((values, inside, tumour), (part, *parts), strict=True):
            total += one / _SUBSLICES
    # Who outlines a liver in a window of soft tissue leaves out what is mixed with lung.
    liver_seen = (inside >= 0.5) & (values > _DARK)
    label = np.where(liver_seen, np.where(tumour >= 0.5, 2, 1), 0).astype(np.uint8)
    return scan(rng, values, spacing, site), label, affine, rng


def _make_patient(folder: Path, plan: PatientPlan, *, seed: int) -> None:
    site = SITES[plan.site]
    for name in ("images", "masks"):
        (folder / name).mkdir(exist_ok=True)
    for volume in plan.volumes:
        values, label, affine, rng = draw_volume(plan, volume, seed=seed)
        codes = str(rng.choice(site.codes))
        name = f"{volume.name}.nii.gz"
        write_nifti(folder / "images" / name, values, affine, codes, unsigned=site.unsigned)
        write_nifti(folder / "masks" / name, label, affine, codes)


def _write_tables(folder: Path, *, plans: list[PatientPlan]) -> dict[str, Any]:
    volumes = [(plan, volume) for plan in plans for volume in plan.volumes]
    with open(folder / MANIFEST, "w", encoding="utf-8", newline="") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(COLUMNS)
        for plan, volume in volumes:
            site = SITES[plan.site]
            where = (f"images/{volume.name}.nii.gz", f"masks/{volume.name}.nii.gz", plan.patient_id, volume.study)
            what = (site.name, site.model, volume.date.isoformat(), plan.sex, plan.age_at(volume))
            writer.writerow(where + what)
    return {
        "patients": len(plans),
        "images": len(volumes),
        "files": 2 * len(volumes),
        "sites": dict(sorted(Counter(plan.site for plan, _ in volumes).items())),
        "lesions": dict(sorted(Counter(str(plan.lesions) for plan in plans).items())),
    }
