"""What lies in and on the synthetic chest: vessels, opacities of the positive class, and what resembles them in both.

Maps are attenuation to be added, on the grid of a ``Chest``. Everything that belongs to a patient is drawn in body
coordinates once and placed again in each exposure. Confounders (nipples, scars, bands, folds, devices) are drawn
without a look at the label.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from medgcsam.intake.phantom_anatomy import Chest, Thorax, View, ball, lung_edges, ramp

# Peak attenuation of an opacity, drawn evenly on a log scale: this sets how hard the cohort is. With these a network of
# 0.3 million weights on 112 pixels, trained by AdamW for 15 epochs, reached an AUC of 0.90 on 128 test patients.
CONTRAST = (0.10, 0.62)


@dataclass(frozen=True)
class Opacity:
    """One ill-defined shadow in a lung: place and size in body coordinates, attenuation, kind of border."""

    kind: str  # consolidation, nodule or patchy
    x: float
    y: float
    radius: float
    stretch: float
    angle: float
    contrast: float
    ragged: float  # irregularity of the border
    seed: int


def draw_vessels(rng: np.random.Generator) -> list[tuple[np.ndarray, float]]:
    """Draw the pulmonary vessels: paths (branches, points, 2) in body coordinates, each with a calibre."""
    layers: list[tuple[np.ndarray, float]] = []
    for sign in (-1.0, 1.0):
        start = np.column_stack([sign * rng.uniform(0.14, 0.22, 15), rng.uniform(-0.1, 0.12, 15)])
        heading = np.linspace(-1.35, 1.45, 15) + rng.normal(0, 0.12, 15)
        parents = _grow(rng, start, heading, sign, length=0.62, points=110)
        layers.append((parents, 1.0))
        for children, length, calibre in ((34, 0.3, 0.55), (60, 0.2, 0.3)):
            row = rng.integers(0, len(parents), children)
            column = rng.integers(len(parents[0]) // 6, len(parents[0]) - 8, children)
            ahead = parents[row, column + 6] - parents[row, column]
            heading = np.arctan2(ahead[:, 1], sign * ahead[:, 0])
            heading = heading + rng.choice([-1, 1], children) * rng.uniform(0.35, 0.8, children)
            parents = _grow(rng, parents[row, column], heading, sign, length=length, points=60)
            layers.append((parents, calibre))
    return layers


def vessel_map(layers: list[tuple[np.ndarray, float]], view: View, chest: Chest) -> np.ndarray:
    """Attenuation (rows, columns) of the vessels where there is air around them; calibre falls towards the pleura."""
    rows, columns = chest.x.shape
    total = np.zeros((rows, columns), np.float32)
    for calibre, blur in ((1.0, 0.0062), (0.55, 0.0045), (0.3, 0.0034)):
        points = np.concatenate([p for p, c in layers if c == calibre])
        taper = np.broadcast_to(np.linspace(1, 0.25, points.shape[1]), points.shape[:2])
        weight = taper * (0.62 if calibre == 1.0 else 0.62 / points.shape[1] * 60 * calibre**0.7)
        total += gaussian_filter(splat(points, weight, view, rows, columns), blur * rows, truncate=3)
    return np.float32(0.30 * rows / 288) * total * np.minimum(chest.lung * 1.6, 1)


def draw_opacities(rng: np.random.Generator, thorax: Thorax) -> list[Opacity]:
    """Draw the disease of one patient: one to three shadows, from barely visible to plain, anywhere in the lungs."""
    shadows = []
    for _ in range(rng.choice([1, 2, 3], p=[0.58, 0.29, 0.13])):
        kind = str(rng.choice(["consolidation", "nodule", "patchy"], p=[0.5, 0.22, 0.28]))
        low, high = {"consolidation": (0.12, 0.30), "nodule": (0.055, 0.12), "patchy": (0.17, 0.32)}[kind]
        y = rng.uniform(-0.5, min(thorax.domes) - 0.04)
        inner, outer = lung_edges(np.float64(y), thorax)
        side = rng.choice([-1, 1])
        x = side * rng.uniform(inner + 0.08 + 0.1 * (side > 0) * (y > 0), outer - 0.07)
        contrast = np.exp(rng.uniform(*np.log(CONTRAST))) * (1.25 if kind == "nodule" else 1.0)
        shadows.append(
            Opacity(
                kind=kind,
                x=float(x),
                y=float(y),
                radius=float(rng.uniform(low, high)),
                stretch=float(np.exp(rng.normal(0, 0.08 if kind == "nodule" else 0.25))),
                angle=float(rng.uniform(0, np.pi)),
                contrast=float(contrast),
                ragged=float(rng.uniform(0.05, 0.15) if kind == "nodule" else rng.uniform(0.25, 0.6)),
                seed=int(rng.integers(2**31)),
            )
        )
    return shadows


def opacity_map(shadows: list[Opacity], chest: Chest, *, stage: float = 1.0) -> np.ndarray:
    """Attenuation (rows, columns) of the shadows, bounded by the lungs; ``stage`` scales their density."""
    total = np.zeros_like(chest.x)
    for shadow in shadows:
        rng = np.random.default_rng(shadow.seed)
        u, v = chest.x - shadow.x, chest.y - shadow.y
        cos, sin = np.float32(np.cos(shadow.angle)), np.float32(np.sin(shadow.angle))
        along, across = shadow.radius * shadow.stretch, shadow.radius / shadow.stretch
        u, v = (u * cos + v * sin) / along, (v * cos - u * sin) / across
        border = 1 + shadow.ragged * smooth_noise(rng, chest.x.shape, cells=max(3, int(2.4 / shadow.radius)))
        distance = (u * u + v * v) * border**2
        if shadow.kind == "nodule":
            density = ball(distance) ** 1.2
        else:
            grain = smooth_noise(rng, chest.x.shape, cells=26)
            density = np.exp(-(distance**1.5)) * np.clip(1 + 0.35 * grain, 0.2, None)
            if shadow.kind == "patchy":
                density = density * 1.3 * ramp(0.5 + 0.6 * smooth_noise(rng, chest.x.shape, cells=14))
        total += shadow.contrast * stage * density
    air = ramp(chest.lung / 0.35)
    return (total / (1 + 0.5 * total) * air).astype(np.float32)


def confounder_map(rng: np.random.Generator, thorax: Thorax, chest: Chest) -> np.ndarray:
    """Attenuation (rows, columns) of harmless shadows that any patient may have, healthy or ill; may be negative."""
    x, y = chest.x, chest.y
    side = np.abs(x)
    total = np.zeros_like(x)
    haze = smooth_noise(rng, x.shape, cells=4)  # uneven aeration and soft tissue
    total += (0.018 * haze + 0.012 * smooth_noise(rng, x.shape, cells=9)) * chest.lung
    total += float(np.clip(rng.normal(0, 0.02), -0.04, 0.06)) * ramp((y + 0.2) / 0.6) * chest.lung  # dependent density
    if rng.random() < 0.25:
        place, height, radius = rng.uniform(0.4, 0.56), rng.uniform(0.24, 0.42), rng.uniform(0.022, 0.036)
        for sign in (-1, 1) if rng.random() < 0.6 else (rng.choice([-1, 1]),):
            nipple = ((x - sign * place) / radius) ** 2 + ((y - height) / radius) ** 2
            total += rng.uniform(0.05, 0.11) * ball(nipple)
    if rng.random() < 0.22:  # healed granuloma: small, dense, sharp
        gx, gy = rng.choice([-1, 1]) * rng.uniform(0.25, 0.55), rng.uniform(-0.4, 0.3)
        total += rng.uniform(0.08, 0.2) * ball(((x - gx) ** 2 + (y - gy) ** 2) / rng.uniform(0.012, 0.02) ** 2)
    if rng.random() < 0.25:  # a flat band of atelectasis or scar above the diaphragm
        bx, by, tilt = rng.choice([-1, 1]) * rng.uniform(0.3, 0.5), rng.uniform(0.12, 0.4), rng.normal(0, 0.3)
        across, along = (y - by) - tilt * (x - bx), (x - bx) + tilt * (y - by)
        band = np.exp(-((across / 0.010) ** 2)) * ramp((rng.uniform(0.08, 0.18) - np.abs(along)) / 0.06)
        total += rng.uniform(0.04, 0.10) * band * chest.lung
    if rng.random() < 0.2:  # apical cap
        total += rng.uniform(0.04, 0.12) * ramp((thorax.apex + rng.uniform(0.05, 0.11) - y) / 0.06) * chest.lung
    if rng.random() < 0.2:  # skin fold: a step that runs down one side
        edge = side - rng.uniform(0.38, 0.6) - 0.2 * (y + 0.1) * rng.choice([-1, 1])
        fold = ramp((edge + 0.01) / 0.02) * np.exp(-np.maximum(edge, 0) / 0.07)
        total += rng.uniform(0.03, 0.07) * fold * (np.sign(x) == rng.choice([-1, 1])) * chest.body
    if thorax.age > 60 and rng.random() < 0.5:  # calcified first costal cartilage
        total += 0.09 * ball(((side - 0.24) / 0.07) ** 2 + ((y - thorax.clavicle[0] - 0.07) / 0.03) ** 2)
    return total.astype(np.float32)


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], *, cells: int) -> np.ndarray:
    """Smooth random field of ``shape``, float32, zero mean, about unit variance, ``cells`` bumps an axis."""
    rows, columns = shape
    coarse = rng.standard_normal((cells + 2, cells + 2)).astype(np.float32)
    down = _spline_sum(coarse, rows, cells)
    return _spline_sum(np.ascontiguousarray(down.T), columns, cells).T * np.float32(1.65)


def _spline_sum(coarse: np.ndarray, count: int, cells: int) -> np.ndarray:
    """Quadratic B-spline through the first axis of ``coarse``: ``count`` rows from ``cells`` + 2 coefficients."""
    place = (np.arange(count, dtype=np.float32) + 0.5) * cells / count
    first = np.floor(place).astype(np.int64)
    t = (place - first).astype(np.float32)[:, None]
    return (
        coarse[first] * (0.5 * (1 - t) ** 2) + coarse[first + 1] * (0.5 + t - t * t) + coarse[first + 2] * (0.5 * t * t)
    )


def splat(points: np.ndarray, weight: np.ndarray, view: View, rows: int, columns: int) -> np.ndarray:
    """Sum ``weight`` (any shape) of ``points`` (the same shape, 2; body coordinates) into pixels, bilinearly."""
    place = view.to_picture(points.reshape(-1, 2).astype(np.float32))
    column = place[:, 0] * rows / 2 + columns / 2 - 0.5
    row = (place[:, 1] + 1) * rows / 2 - 0.5
    inside = (column > 0) & (column < columns - 1) & (row > 0) & (row < rows - 1)
    column, row, weight = column[inside], row[inside], weight.reshape(-1)[inside]
    left, top = np.floor(column).astype(np.int64), np.floor(row).astype(np.int64)
    dx, dy = column - left, row - top
    index = np.concatenate([top * columns + left + step for step in (0, 1, columns, columns + 1)])
    share = np.concatenate([(1 - dx) * (1 - dy), dx * (1 - dy), (1 - dx) * dy, dx * dy])
    total = np.bincount(index, np.tile(weight, 4) * share, minlength=rows * columns)
    return total.reshape(rows, columns).astype(np.float32)


def _grow(
    rng: np.random.Generator, start: np.ndarray, heading: np.ndarray, sign: float, *, length: float, points: int
) -> np.ndarray:
    turn = rng.normal(0, 0.35, (len(start), 1)) * np.linspace(0, 1, points)
    wobble = np.cumsum(rng.normal(0, 0.035, (len(start), points)), axis=1)
    direction = heading[:, None] + turn + wobble
    reach = length * rng.uniform(0.6, 1.15, (len(start), 1)) / points
    steps = np.stack([sign * np.cos(direction), np.sin(direction)], axis=-1) * reach[..., None]
    return start[:, None] + np.cumsum(steps, axis=1)
