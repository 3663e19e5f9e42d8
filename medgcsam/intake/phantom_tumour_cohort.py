"""Plan a synthetic cohort of abdominal volumes: who is in it, which volumes, how many lesions. No voxels are made here.

Site and sex are dealt out evenly over the numbers of lesions, so that they say nothing about them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np

from medgcsam.intake.phantom_cohort import deal

# Per twenty patients: lesions of a patient, and volumes of a patient.
_LESIONS = (1, 0, 2, 1, 3, 2, 1, 0, 4, 1, 2, 0, 3, 0, 1, 2, 3, 1, 2, 4)
_VOLUMES = (1, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1, 2, 1, 1, 1, 1, 2, 1)


@dataclass(frozen=True)
class VolumePlan:
    """One volume to be made."""

    name: str  # file name without suffix; says nothing about the lesions
    study: str
    date: date
    growth: float  # radius of the lesions relative to the first volume


@dataclass(frozen=True)
class PatientPlan:
    """One patient to be made, with all volumes."""

    index: int
    patient_id: str
    sex: str
    age: int  # at the first volume, years
    site: str
    lesions: int
    volumes: tuple[VolumePlan, ...]

    def age_at(self, volume: VolumePlan) -> int:
        """Age in whole years when ``volume`` was taken."""
        return self.age + (volume.date - self.volumes[0].date).days // 365


def plan_cohort(*, patients: int, seed: int) -> list[PatientPlan]:
    """Plan ``patients`` patients with one or two volumes each; the same arguments give the same plan."""
    rng = np.random.default_rng([seed, 30])
    lesions = deal(rng, [0] * patients, _LESIONS)
    ill = [count > 0 for count in lesions]
    volumes = deal(rng, ill, _VOLUMES)
    sites = deal(rng, ill, ("north", "south"))
    sexes = deal(rng, list(zip(ill, sites, strict=True)), ("F", "M"))
    ages = np.clip(np.rint(rng.normal(61, 13, patients)), 18, 90).astype(int)
    return [
        PatientPlan(
            index=index,
            patient_id=f"T{index + 1:05d}",
            sex=sexes[index],
            age=int(ages[index]),
            site=sites[index],
            lesions=lesions[index],
            volumes=_plan_volumes(rng, index, volumes[index]),
        )
        for index in range(patients)
    ]


def _plan_volumes(rng: np.random.Generator, index: int, count: int) -> tuple[VolumePlan, ...]:
    day, growth = date(2017, 1, 1) + timedelta(days=int(rng.integers(0, 2200))), 1.0
    volumes = []
    for number in range(1, count + 1):
        volumes.append(VolumePlan(f"T{index + 1:05d}_{number}", f"S{index + 1:05d}-{number}", day, growth))
        day += timedelta(days=int(rng.integers(60, 300)))
        growth = float(rng.uniform(0.88, 1.3))
    return tuple(volumes)
