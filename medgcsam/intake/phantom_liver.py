"""The liver of a synthetic abdomen: its shape, vessels, gallbladder, cysts, and the lesions that are to be found.

Coordinates and depths as in ``phantom_space``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medgcsam.intake.phantom_abdomen import Abdomen, bent, cavity_depth, spine_depth
from medgcsam.intake.phantom_space import Field, Grid, draw_field, ellipsoid, paint, share

# How far below the liver a lesion lies, in HU, drawn evenly on a log scale: this sets how hard the cohort is.
CONTRAST = (26.0, 62.0)
RADIUS = (8.0, 22.0)  # mm, drawn evenly on a log scale
SHARE_WITH_CYSTS = 0.4


@dataclass(frozen=True)
class Lesion:
    """One lesion, or a cyst, which is none: place in bent body coordinates, size, value, border."""

    centre: tuple[float, float, float]
    radii: tuple[float, float, float]
    value: float  # HU against the liver
    core: float  # HU of the middle against the rest
    rim: float  # HU of the border against the liver
    soft: float  # mm over which the border is blurred
    border: Field
    ragged: float  # mm

    @property
    def reach(self) -> float:
        """Largest radius in mm."""
        return max(self.radii)


@dataclass(frozen=True)
class Liver:
    """What belongs to the liver of one patient."""

    lobes: tuple[tuple[tuple[float, float, float], tuple[float, float, float]], ...]
    gallbladder: tuple[tuple[float, float, float], tuple[float, float, float]]
    vessels: tuple[Field, Field]
    texture: tuple[Field, Field]
    lesions: tuple[Lesion, ...]
    cysts: tuple[Lesion, ...]


def draw_liver(rng: np.random.Generator, body: Abdomen, lesions: int) -> Liver:
    """Draw the liver of one patient with ``lesions`` lesions and, at random, some cysts."""
    right, left = float(rng.normal(1, 0.06)), float(rng.uniform(0.8, 1.2))
    bare = Liver(
        lobes=(
            (body.place(56, -4, -2), body.radii(62 * right, 68 * right, 68)),
            (body.place(4, 40, 22), body.radii(66 * left, 34, 34 * left)),
        ),
        gallbladder=(body.place(38, 42, -40), body.radii(12, 15, rng.uniform(18, 30))),
        vessels=(draw_field(rng, 62), draw_field(rng, 62)),
        texture=(draw_field(rng, 70), draw_field(rng, 15)),
        lesions=(),
        cysts=(),
    )
    cysts = int(rng.integers(1, 4)) if rng.random() < SHARE_WITH_CYSTS else 0
    found: list[Lesion] = []
    for number in range(lesions + cysts):
        cyst = number >= lesions
        radius = float(np.exp(rng.uniform(*np.log((4.5, 11.0) if cyst else RADIUS))))
        found.append(_draw_lesion(rng, _free_place(rng, body, bare, radius, found), radius, body, cyst=cyst))
    return Liver(bare.lobes, bare.gallbladder, bare.vessels, bare.texture, (*found[:lesions],), (*found[lesions:],))


def liver_depth(place: np.ndarray, body: Abdomen, liver: Liver, cavity: np.ndarray, spine: np.ndarray) -> np.ndarray:
    """Depth below the surface of the liver at ``place`` (3, ...; bent), given those of cavity and spine there."""
    right, left = (ellipsoid(place, *lobe) for lobe in liver.lobes)
    united = np.maximum(right, left)
    united = united + np.clip(8 - np.abs(right - left), 0, None) ** 2 / 32  # the notch between the lobes is round
    return np.minimum(np.minimum(united, cavity - 2), -spine - 14)


def paint_liver(
    values: np.ndarray, grid: Grid, straight: np.ndarray, place: np.ndarray, body: Abdomen, liver: Liver, width: float,
    growth: float,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Paint the liver into HU ``values`` in place; returns the parts (0..1) of each voxel in liver and in lesions.

    The part of the liver includes that of the lesions. ``growth`` scales the radius of the lesions.
    """
    depth = liver_depth(place, body, liver, cavity_depth(straight, body), spine_depth(straight, body))
    gall = ellipsoid(place, *liver.gallbladder)
    inside = share(np.minimum(depth, -gall), width)
    coarse, fine = (field.on(grid) for field in liver.texture)
    flesh = body.liver + 4 * coarse + 4 * fine
    first, second = (field.on(grid) for field in liver.vessels)
    vessel = np.exp(-(first**2 + second**2) / np.float32(0.035))
    flesh += (body.blood - body.liver) * np.clip(1.5 * vessel, 0, 1)
    tumour = np.zeros_like(values)
    for cyst in liver.cysts:
        _paint_lesion(flesh, tumour, place, body, cyst, width, 1.0, counts=False)
    for lesion in liver.lesions:
        _paint_lesion(flesh, tumour, place, body, lesion, width, growth, counts=True)
    paint(values, inside, flesh)
    paint(values, share(gall, width), 12)
    return inside, tumour * inside


def _paint_lesion(
    flesh: np.ndarray, tumour: np.ndarray, place: np.ndarray, body: Abdomen, lesion: Lesion, width: float,
    growth: float, *, counts: bool,
) -> None:  # fmt: skip
    reach = lesion.reach * growth + 3 * lesion.ragged + lesion.soft + width
    near = np.ones(flesh.shape, bool)
    for axis in range(3):
        near &= np.abs(place[axis] - lesion.centre[axis]) < reach
    where = np.nonzero(near)
    if not len(where[0]):
        return
    box = tuple(slice(axis.min(), axis.max() + 1) for axis in where)
    own = place[(slice(None), *box)]
    depth = ellipsoid(own, lesion.centre, tuple(radius * growth for radius in lesion.radii))
    depth += lesion.ragged * lesion.border.at(own.reshape(3, -1)).reshape(depth.shape).astype(np.float32)
    value = body.liver + lesion.value + lesion.core * share(depth - 0.45 * lesion.reach, 4)
    paint(flesh[box], share(depth + 3, 2 + width), body.liver + lesion.rim if lesion.rim else flesh[box])
    paint(flesh[box], share(depth, lesion.soft + width), value)
    if counts:
        np.maximum(tumour[box], share(depth, width), out=tumour[box])


def _draw_lesion(
    rng: np.random.Generator, centre: tuple[float, float, float], radius: float, body: Abdomen, *, cyst: bool
) -> Lesion:
    stretch = np.exp(rng.normal(0, 0.06 if cyst else 0.13, 3))
    radii = tuple(float(r) for r in radius * stretch / np.prod(stretch) ** (1 / 3))
    border = draw_field(rng, max(12.0, 1.6 * radius))
    if cyst:
        return Lesion(centre, radii, float(rng.uniform(0, 14)) - body.liver, 0.0, 0.0, 0.5, border, 0.2)
    contrast = float(np.exp(rng.uniform(*np.log(CONTRAST)))) * (1.15 if radius < 9 else 1.0)
    return Lesion(
        centre,
        radii,
        value=-contrast,
        core=-float(rng.uniform(8, 25)) if radius > 11 and rng.random() < 0.4 else 0.0,
        rim=float(rng.uniform(10, 28)) if rng.random() < 0.3 else 0.0,
        soft=float(rng.uniform(0.5, 3.5)),
        border=border,
        ragged=float(rng.uniform(0.05, 0.13) * radius),
    )


def _free_place(
    rng: np.random.Generator, body: Abdomen, liver: Liver, radius: float, others: list[Lesion]
) -> tuple[float, float, float]:
    """A centre (bent coordinates) that lies in the liver, also near its surface, and apart from the others."""
    best, room = np.zeros(3), -np.inf
    low, high = np.array([-40, -55, -50]), np.array([110, 65, 55])
    for _ in range(400):
        place = np.array(body.place(*rng.uniform(low, high)))[:, None]
        # The wall and the spine are not bent, which moves them by some mm against the liver: 6 more are kept off.
        depth = liver_depth(place, body, liver, cavity_depth(place, body) - 6, spine_depth(place, body) + 6)
        gap = float(min(depth[0] - 0.75 * radius, -ellipsoid(place, *liver.gallbladder)[0] - radius))
        for other in others:
            gap = min(gap, float(np.linalg.norm(place[:, 0] - other.centre)) - 1.35 * (radius + other.reach) - 7)
        if gap > room:
            best, room = place[:, 0], gap
        if gap > 0 and abs(place[2, 0]) < 48:
            break
    return tuple(float(value) for value in best)


def bend(grid: Grid, body: Abdomen) -> tuple[np.ndarray, np.ndarray]:
    """Body coordinates (3, i, j, k) of a grid, straight and bent."""
    straight = grid.coordinates()
    return straight, bent(straight, np.stack([field.on(grid) for field in body.bend]))
