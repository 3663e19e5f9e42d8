"""A synthetic upper abdomen in Hounsfield units: body wall, spine, lung bases, spleen, kidneys, stomach, bowel.

Coordinates and depths as in ``phantom_space``. Organs are ellipsoids bent by smooth fields; they are painted from
behind to the front, each over what lies there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medgcsam.intake.phantom_space import Field, Grid, draw_field, ellipsoid, paint, share

TALL = float("inf")


@dataclass(frozen=True)
class Abdomen:
    """The build of one patient, shared by all of the patient's volumes; lengths in mm, values in HU."""

    half: tuple[float, float]  # half width and half depth of the body
    fat: float  # thickness under the skin
    scale: tuple[float, float, float]  # of all organs, along x, y and z
    dome: float  # z of the lung bases
    liver: float
    spleen: float
    cortex: float
    blood: float
    muscle: float
    fat_value: float
    bone: float
    stomach: tuple[float, float, float, float]  # shift along x and y, size, value of its content
    gas: float  # y above which the stomach holds gas
    bend: tuple[Field, Field, Field]  # deformation of everything inside
    texture: tuple[Field, Field]  # coarse and fine
    bowel: tuple[Field, Field]

    def place(self, x: float, y: float, z: float) -> tuple[float, float, float]:
        """A place of the standard abdomen in this one."""
        return x * self.scale[0], y * self.scale[1], z * self.scale[2]

    def radii(self, x: float, y: float, z: float) -> tuple[float, float, float]:
        """Half axes of an organ of the standard abdomen in this one."""
        return self.place(x, y, z)


def draw_abdomen(rng: np.random.Generator, *, sex: str, age: int) -> Abdomen:
    """Draw the build of one patient; women are narrower with more fat under the skin, age thins bone."""
    female = sex == "F"
    width = float(np.clip(rng.normal(142 if female else 150, 10), 122, 172))
    depth = width * float(rng.uniform(0.66, 0.78))
    liver = float(np.clip(rng.normal(98, 11), 72, 124))
    common = float(rng.normal(1, 0.04))
    return Abdomen(
        half=(width, depth),
        fat=float(np.clip(rng.normal(20 if female else 15, 6), 6, 34)),
        scale=(
            float(np.clip(width / 146 * common * rng.normal(1, 0.03), 0.82, 1.16)),
            float(np.clip(depth / 105 * common * rng.normal(1, 0.03), 0.82, 1.16)),
            float(np.clip(common * rng.normal(1, 0.06), 0.86, 1.14)),
        ),
        dome=float(rng.normal(40, 8)),
        liver=liver,
        spleen=float(np.clip(liver + rng.normal(12, 10), 80, 140)),
        cortex=float(rng.uniform(140, 190)),
        blood=float(np.clip(rng.normal(145, 14), 112, 178)),
        muscle=float(rng.normal(60, 5)),
        fat_value=float(rng.normal(-102, 5)),
        bone=float(np.clip(rng.normal(230 - 1.6 * (age - 50), 30), 100, 320)),
        stomach=(
            float(rng.normal(0, 7)), float(rng.normal(0, 6)), float(rng.uniform(0.75, 1.15)),
            float(rng.uniform(15, 75)),
        ),
        gas=float(rng.uniform(48, 72)),
        bend=tuple(draw_field(rng, 110) for _ in range(3)),
        texture=(draw_field(rng, 55), draw_field(rng, 17)),
        bowel=(draw_field(rng, 34), draw_field(rng, 48)),
    )  # fmt: skip


def bent(place: np.ndarray, displacement: np.ndarray, amount: float = 4.5) -> np.ndarray:
    """``place`` (3, ...) moved by the fields whose values are ``displacement`` (3, ...), by about ``amount`` mm."""
    return place + np.float32(amount) * displacement


def cavity_depth(place: np.ndarray, body: Abdomen) -> np.ndarray:
    """Depth below the inner surface of the abdominal wall."""
    wall = body.fat + 13
    return ellipsoid(place, (0, 0, 0), (body.half[0] - wall, body.half[1] - wall, TALL), power=2.3)


def spine_depth(place: np.ndarray, body: Abdomen) -> np.ndarray:
    """Depth below the surface of the vertebral bodies, which go on along z."""
    return ellipsoid(place, (0, -body.half[1] * 0.42, 0), (22, 17, TALL))


def paint_abdomen(grid: Grid, straight: np.ndarray, place: np.ndarray, body: Abdomen, width: float) -> np.ndarray:
    """HU float32 (i, j, k) of everything but the liver.

    straight: body coordinates (3, i, j, k). place: the same, bent. width: edge of a voxel in mm, over which
    surfaces are soft.
    """
    values = np.full(grid.shape, -1000, np.float32)
    skin = ellipsoid(straight, (0, 0, 0), (*body.half, TALL), power=2.2)
    coarse, fine = (field.on(grid) for field in body.texture)
    paint(values, share(skin, width), body.muscle)
    paint(values, share(skin - 2, width), body.fat_value + 5 * fine)
    cavity = cavity_depth(straight, body)
    paint(values, share(cavity + 13, width), body.muscle + 5 * fine - 18 * np.clip(coarse - 0.8, 0, None))
    paint(values, share(cavity, width), body.fat_value + 4 * coarse + 6 * fine)
    _paint_bowel(values, grid, cavity, body, width)
    _paint_lungs(values, place, cavity, body, width)
    _paint_spine(values, straight, body, width)
    _paint_ribs(values, straight, cavity, body, width)
    _paint_organs(values, place, cavity, coarse, fine, body, width)
    return values


def _paint_bowel(values: np.ndarray, grid: Grid, cavity: np.ndarray, body: Abdomen, width: float) -> None:
    """Loops with fluid of all values between water and enhanced wall, some with gas, everywhere behind the organs."""
    loops, content = (field.on(grid) for field in body.bowel)
    inside = np.minimum(cavity - 4, 13 * (loops - 0.25))
    paint(values, share(inside, width), 45 + 26 * content)
    paint(values, share(np.minimum(inside - 4, 14 * (content - 1.35)), width), -850)


def _paint_lungs(values: np.ndarray, place: np.ndarray, cavity: np.ndarray, body: Abdomen, width: float) -> None:
    """Lung bases above the diaphragm, lower at the back, and the heart between them."""
    base = body.dome - 0.005 * (place[0] ** 2 + place[1] ** 2) * 0.6 - 12 * np.clip(-place[1] / 60, 0, 1)
    lung = np.minimum(place[2] - base, cavity + 3)
    paint(values, share(lung, width), -840)
    heart = np.minimum(ellipsoid(place, body.place(-22, 38, 92), body.radii(58, 46, 50)), cavity)
    paint(values, share(heart, width), 0.8 * body.blood)


def _paint_spine(values: np.ndarray, place: np.ndarray, body: Abdomen, width: float) -> None:
    y = -body.half[1] * 0.42
    for side in (-1, 1):
        muscle = ellipsoid(place, (side * 36, y - 24, 0), (27, 20, TALL))
        paint(values, share(muscle, width), body.muscle - 4)
    depth = spine_depth(place, body)
    disc = np.cos(2 * np.pi * place[2] / 34) > 0.86
    spongy = np.where(disc, 85, body.bone * 0.75)
    paint(values, share(depth, width), np.where(disc, 85, body.bone + 180))
    paint(values, share(depth - 2.5, width), spongy)
    arch = ellipsoid(place, (0, y - 27, 0), (13, 14, TALL))
    paint(values, share(arch, width), body.bone + 120)
    paint(values, share(ellipsoid(place, (0, y - 23, 0), (8, 7, TALL)), width), 30)


def _paint_ribs(values: np.ndarray, place: np.ndarray, cavity: np.ndarray, body: Abdomen, width: float) -> None:
    """Ribs run in the wall, falling towards the front."""
    height = place[2] + 0.35 * place[1]
    along = 14 * (np.cos(2 * np.pi * height / 29) - 0.55)
    depth = np.minimum(4.5 - np.abs(cavity + 6), along)
    depth = np.minimum(depth, np.abs(place[0]) - 0.45 * body.half[0])
    paint(values, share(depth, width), body.bone + 150)


def _paint_organs(
    values: np.ndarray, place: np.ndarray, cavity: np.ndarray, coarse: np.ndarray, fine: np.ndarray, body: Abdomen,
    width: float,
) -> None:  # fmt: skip
    shift_x, shift_y, size, content = body.stomach
    stomach = ellipsoid(place, body.place(-58 + shift_x, 34 + shift_y, 12), body.radii(38 * size, 34 * size, 42 * size))
    stomach = np.minimum(stomach, cavity - 3)
    paint(values, share(stomach, width), body.muscle + 25)
    paint(values, share(stomach - 4, width), content + 10 * coarse)
    paint(values, share(np.minimum(stomach - 4, place[1] - body.gas), width), -900)
    spleen = ellipsoid(place, body.place(-96, -28, 16), body.radii(28, 43, 48))
    spleen = np.minimum(np.minimum(spleen, cavity - 2), -stomach - 1)
    paint(values, share(spleen, width), body.spleen + 3 * coarse + 4 * fine)
    for side in (-1, 1):
        kidney = ellipsoid(place, body.place(side * 58, -40, -42 - 6 * side), body.radii(25, 27, 50))
        paint(values, share(np.minimum(kidney, cavity - 2), width), body.cortex)
        paint(values, share(kidney - 9, width), body.cortex - 45)
        paint(values, share(kidney - 17, width), body.fat_value + 30)
    front = -body.half[1] * 0.42
    for x, y, radius in ((-9, front + 29, 10), (22, front + 30, 11)):  # aorta, inferior vena cava
        paint(values, share(ellipsoid(place, (x, y, 0), (radius, radius, TALL)), width), body.blood)
