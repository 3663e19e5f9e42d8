"""Plan a synthetic chest cohort: who is in it, which images, which label. No pixels are made here.

Whatever a network could use as a shortcut (site, photometric interpretation, compression, sex) is dealt out evenly
within each label, like cards, so that it says nothing about the label.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import cycle
from typing import TypeVar

import numpy as np

LABELS = ("normal", "opacity")
POSITIVE_SHARE = 0.45
MIXED_SHARE = 0.15  # of the patients with several images: one image belongs to the other class

# Every prefix is nearly balanced; of twelve images six are MONOCHROME1 and four are compressed.
_FORMATS = tuple(
    zip("121212212121", ("none", "none", "rle", "none", "none", "jpeg2000") * 2, strict=True),
)
_COUNTS = (1, 2, 1, 1, 3, 1, 2, 1, 2, 1, 1, 2, 1, 3, 1, 2, 1, 1, 2, 3)  # images per patient, in this proportion

Item = TypeVar("Item")


@dataclass(frozen=True)
class ImagePlan:
    """One image to be made."""

    name: str  # file name without suffix; says nothing about the label
    study: str
    label: str
    date: date
    photometric: str
    compression: str


@dataclass(frozen=True)
class PatientPlan:
    """One patient to be made, with all images."""

    index: int
    patient_id: str
    sex: str
    age: int  # at the first image, years
    site: str
    images: tuple[ImagePlan, ...]

    def age_at(self, image: ImagePlan) -> int:
        """Age in whole years when ``image`` was taken."""
        return self.age + (image.date - self.images[0].date).days // 365


def plan_cohort(*, patients: int, seed: int) -> list[PatientPlan]:
    """Plan ``patients`` patients with one to three images each; the same arguments give the same plan."""
    rng = np.random.default_rng([seed, 20])
    ill = np.arange(patients) < round(POSITIVE_SHARE * patients)
    rng.shuffle(ill)
    counts = deal(rng, ill.tolist(), _COUNTS)
    labels = _label_images(rng, ill, counts)
    sites = deal(rng, ill.tolist(), ("north", "south"))
    sexes = deal(rng, list(zip(ill.tolist(), sites, strict=True)), ("F", "M"))
    flat = [(label, site) for site, own in zip(sites, labels, strict=True) for label in own]
    formats = iter(deal(rng, flat, _FORMATS))
    ages = np.clip(np.rint(rng.normal(57, 16, patients)), 18, 90).astype(int)
    return [
        PatientPlan(
            index=index,
            patient_id=f"P{index + 1:05d}",
            sex=sexes[index],
            age=int(ages[index]),
            site=sites[index],
            images=_plan_images(rng, index, labels[index], formats),
        )
        for index in range(patients)
    ]


def _label_images(rng: np.random.Generator, ill: np.ndarray, counts: Sequence[int]) -> list[list[str]]:
    labels = [[LABELS[int(sick)]] * count for sick, count in zip(ill, counts, strict=True)]
    several = [index for index, count in enumerate(counts) if count > 1]
    for index in rng.permutation(several)[: round(MIXED_SHARE * len(several))].tolist():
        labels[index][int(rng.integers(counts[index]))] = LABELS[1 - int(ill[index])]
    return labels


def _plan_images(
    rng: np.random.Generator, index: int, labels: list[str], formats: Iterator[tuple[str, str]]
) -> tuple[ImagePlan, ...]:
    day = date(2016, 1, 1) + timedelta(days=int(rng.integers(0, 2200)))
    images = []
    for number, label in enumerate(labels, start=1):
        photometric, compression = next(formats)
        images.append(
            ImagePlan(
                name=f"P{index + 1:05d}_{number}",
                study=f"S{index + 1:05d}-{number}",
                label=label,
                date=day,
                photometric=f"MONOCHROME{photometric}",
                compression=compression,
            )
        )
        day += timedelta(days=int(rng.integers(20, 400)))
    return tuple(images)


def deal(rng: np.random.Generator, groups: Sequence[Hashable], cards: Sequence[Item]) -> list[Item]:
    """Deal ``cards`` in turn to the members of each group in random order; the turn goes on from group to group."""
    hand = cycle(cards)
    dealt: list[Item | None] = [None] * len(groups)
    for group in sorted(set(groups)):
        for member in rng.permutation([i for i, own in enumerate(groups) if own == group]).tolist():
            dealt[member] = next(hand)
    return dealt
