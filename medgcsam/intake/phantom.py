"""The embedded synthetic cohort of chest radiographs: DICOM files with a manifest, the same for the same seed.

It exists so that every station can be tried and tested without a patient's data. It is SYNTHETIC DATA: a number
measured on it says that the software works, and nothing about medicine.
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
from medgcsam.intake.phantom_anatomy import draw_thorax, draw_view, project_chest
from medgcsam.intake.phantom_cohort import ImagePlan, PatientPlan, plan_cohort
from medgcsam.intake.phantom_detector import SITES, add_marker, device_map, expose
from medgcsam.intake.phantom_dicom import Header, write_radiograph
from medgcsam.intake.phantom_findings import (
    confounder_map,
    draw_opacities,
    draw_vessels,
    opacity_map,
    vessel_map,
)
from medgcsam.intake.phantom_folder import MANIFEST, make_cohort
from medgcsam.intake.phantom_tumour import make_tumour_phantom

VERSION = 1  # goes up with every change of the bytes, so that an older cohort in a cache is made anew
COLUMNS = ("image", "patient_id", "label", "study", "site", "scanner", "date", "sex", "age")


def make_chest_phantom(
    folder: Path,
    *,
    patients: int = 640,
    seed: int = 0,
    size: int = 256,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Make the chest cohort in ``folder`` and return its ``manifest.csv``; an equal cohort is returned as it is.

    ``folder`` then holds ``images/*.dcm``, ``manifest.csv`` (columns ``COLUMNS``; image paths relative to the folder;
    label ``normal`` or ``opacity``) and ``PHANTOM.json``. ``size`` is the height of an image in pixels; those of the
    second site are narrower. All is written beside ``folder`` first and renamed, so half a cohort is never seen.
    ``workers`` processes share the work (by default as many as there are cores); the bytes do not depend on it.
    ``progress`` is called with (patients done, patients in all).

    Raises ConfigError for arguments out of range, DataError where ``folder`` holds something else, MachineError where
    it cannot be written.
    """
    if patients < 4 or seed < 0 or not 64 <= size <= 1024:
        raise ConfigError(
            f"The phantom cannot be made with patients={patients}, seed={seed}, size={size}: "
            "give at least 4 patients, a seed of 0 or more and a size from 64 to 1024 pixels."
        )
    wanted = {"phantom": "chest_xray", "version": VERSION, "patients": patients, "seed": seed, "size": size}
    plans = plan_cohort(patients=patients, seed=seed)
    make, tables = partial(_make_patient, seed=seed, size=size), partial(_write_tables, plans=plans)
    return make_cohort(Path(folder), wanted, plans, make=make, write_tables=tables, workers=workers, progress=progress)


PHANTOMS: dict[str, tuple[Callable[..., Path], int]] = {
    "chest_xray": (make_chest_phantom, 640),
    "tumour": (make_tumour_phantom, 60),
}


def ensure_phantom(
    name: str,
    cache: Path,
    *,
    patients: int | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Return the manifest of phantom ``name`` in the ``cache`` folder, made there if need be.

    Raises ConfigError for an unknown name, else as the phantom's own function.
    """
    if name not in PHANTOMS:
        raise ConfigError(f"There is no phantom named {name!r}: choose one of {', '.join(sorted(PHANTOMS))}.")
    make, default = PHANTOMS[name]
    count = default if patients is None else patients
    folder = Path(cache) / "phantoms" / f"{name}-{count}-patients-seed-{seed}"
    return make(folder, patients=count, seed=seed, progress=progress)


def draw_radiograph(plan: PatientPlan, image: ImagePlan, *, seed: int, size: int) -> tuple[np.ndarray, tuple[int, int]]:
    """Draw one image of a patient: stored values (rows, columns; uint16, dense is high) and window (center, width).

    What belongs to the patient comes from a generator of the patient's own, what belongs to the exposure from one of
    the image's own, so any image can be drawn alone.
    """
    own = np.random.default_rng([seed, 21, plan.index])
    thorax = draw_thorax(own, sex=plan.sex, age=plan.age)
    vessels = draw_vessels(own)
    shadows = draw_opacities(own, thorax)
    habitus = int(own.integers(2**31))  # confounders stay with the patient
    rng = np.random.default_rng([seed, 22, plan.index, plan.images.index(image)])
    site = SITES[plan.site]
    view = draw_view(rng)
    chest = project_chest(thorax, view, rows=size, columns=2 * round(size * site.aspect / 2))
    attenuation = chest.attenuation + vessel_map(vessels, view, chest)
    attenuation += confounder_map(np.random.default_rng(habitus), thorax, chest)
    attenuation += device_map(rng, view, chest)
    stage = float(rng.uniform(0.75, 1.15))
    darkness = float(rng.normal(0, 0.03))
    add_marker(rng, attenuation)
    if image.label == "opacity":
        attenuation += opacity_map(shadows, chest, stage=stage)
    return expose(rng, attenuation, site=site, darkness=darkness)


def _make_patient(folder: Path, plan: PatientPlan, *, seed: int, size: int) -> None:
    (folder / "images").mkdir(exist_ok=True)
    for image in plan.images:
        stored, window = draw_radiograph(plan, image, seed=seed, size=size)
        header = Header(
            cohort=f"chest_xray {VERSION} {seed} {size}",
            patient_id=plan.patient_id,
            study=image.study,
            sex=plan.sex,
            age=plan.age_at(image),
            date=image.date,
            site=SITES[plan.site],
            photometric=image.photometric,
            compression=image.compression,
        )
        write_radiograph(folder / "images" / f"{image.name}.dcm", stored, window, header)


def _write_tables(folder: Path, *, plans: list[PatientPlan]) -> dict[str, Any]:
    images = [(plan, image) for plan in plans for image in plan.images]
    with open(folder / MANIFEST, "w", encoding="utf-8", newline="") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(COLUMNS)
        for plan, image in images:
            site = SITES[plan.site]
            where = (f"images/{image.name}.dcm", plan.patient_id, image.label, image.study)
            what = (site.name, site.model, image.date.isoformat(), plan.sex, plan.age_at(image))
            writer.writerow(where + what)
    return {
        "patients": len(plans),
        "images": len(images),
        "labels": dict(sorted(Counter(image.label for _, image in images).items())),
        "sites": dict(sorted(Counter(plan.site for plan, _ in images).items())),
        "photometric": dict(sorted(Counter(image.photometric for _, image in images).items())),
        "compression": dict(sorted(Counter(image.compression for _, image in images).items())),
    }
