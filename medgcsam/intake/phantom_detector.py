"""From attenuation to a stored radiograph: devices, side marker, scatter, noise, 12-bit values, window."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from medgcsam.intake.phantom_anatomy import Chest, View, ball, ramp
from medgcsam.intake.phantom_findings import splat

MAXIMUM = 4095  # 12 bits stored


@dataclass(frozen=True)
class Site:
    """One hospital's X-ray unit: how it blurs, adds noise, maps attenuation to numbers and sets the window."""

    name: str
    maker: str
    model: str
    modality: str  # DX or CR
    aspect: float  # columns per row
    blur: float  # in half detector heights
    noise: float
    grain: float  # correlation length of the noise in half detector heights; 0 is white
    scatter: float
    offset: float  # stored value of air
    gain: float  # stored values per unit of attenuation
    window: tuple[float, float]  # attenuation shown as black and as white


SITES = {
    "north": Site(
        "north", "Synthetic Imaging", "Phantom DX-1", "DX", 1.0, 0.002, 0.013, 0.0, 0.06, 260, 2450, (0.04, 1.30)
    ),
    "south": Site(
        "south", "Synthetic Imaging", "Phantom CR-7", "CR", 0.9, 0.004, 0.018, 0.005, 0.18, 900, 1700, (0.10, 1.16)
    ),
}

_LETTERS = {"L": "1000 1000 1000 1000 1000 1111", "R": "1110 1001 1001 1110 1010 1001"}


def expose(
    rng: np.random.Generator, attenuation: np.ndarray, *, site: Site, darkness: float
) -> tuple[np.ndarray, tuple[int, int]]:
    """Turn ``attenuation`` (rows, columns) into stored values (uint16, 0..4095, dense is high) and (center, width).

    ``darkness`` shifts the exposure of this picture in units of attenuation. Noise grows where few photons arrive.
    """
    rows, _ = attenuation.shape
    seen = gaussian_filter(attenuation, site.blur * rows / 2, truncate=3)
    veil = gaussian_filter(seen[::4, ::4], 0.25 * rows / 8, truncate=2).repeat(4, 0).repeat(4, 1)
    veil = gaussian_filter(veil[: seen.shape[0], : seen.shape[1]], 3, truncate=2)
    seen = (1 - site.scatter) * seen + site.scatter * veil + darkness
    grain = rng.standard_normal(seen.shape, dtype=np.float32)
    if site.grain:
        sigma = site.grain * rows / 2
        grain = gaussian_filter(grain, sigma, truncate=3) * np.float32(2 * np.sqrt(np.pi) * max(sigma, 0.3))
    seen = seen + site.noise * grain * np.exp(0.45 * (seen - 0.7))
    stored = np.clip(np.rint(site.offset + site.gain * seen), 0, MAXIMUM).astype(np.uint16)
    low, high = (site.offset + site.gain * (edge + darkness) for edge in site.window)
    jitter = rng.uniform(0.95, 1.05)
    return stored, (round((low + high) / 2), round((high - low) * jitter))


def device_map(rng: np.random.Generator, view: View, chest: Chest) -> np.ndarray:
    """Attenuation (rows, columns) of what is attached: leads with electrodes, a line, a pacemaker, or nothing."""
    rows, columns = chest.x.shape
    total = np.zeros_like(chest.x)
    wires: list[np.ndarray] = []
    if rng.random() < 0.25:  # electrocardiogram: snaps with leads
        for _ in range(rng.integers(2, 5)):
            ex, ey = rng.choice([-1, 1]) * rng.uniform(0.3, 0.72), rng.uniform(-0.45, 0.5)
            r2 = (chest.x - ex) ** 2 + (chest.y - ey) ** 2
            total += 0.09 * ramp((0.042 - np.sqrt(r2)) / 0.008) + 0.35 * ball(r2 / 0.014**2)
            wires.append(_curve(rng, (ex, ey), (rng.uniform(-1, 1), rng.choice([-1.0, 1.0])), sag=0.3))
    if rng.random() < 0.15:  # venous catheter from the neck or the clavicle to the heart
        side = rng.choice([-1, 1])
        wires.append(_curve(rng, (side * rng.uniform(0.2, 0.5), -0.62), (-0.06, rng.uniform(-0.12, 0.12)), sag=0.12))
    if rng.random() < 0.07:  # pacemaker with its lead
        px, py = rng.uniform(0.45, 0.55), rng.uniform(-0.42, -0.3)
        box = ((chest.x - px) / 0.11) ** 4 + ((chest.y - py) / 0.085) ** 4
        total += 0.55 * ramp((1 - box) / 0.25) + 0.12 * np.exp(-(((box - 0.35) / 0.2) ** 2))
        wires += [_curve(rng, (px, py), (0.02, -0.1), sag=0.12), _curve(rng, (0.02, -0.1), (0.2, 0.38), sag=0.12)]
    if wires:
        lines = splat(np.stack(wires), np.ones((len(wires), len(wires[0]))), view, rows, columns)
        total += 0.16 * np.tanh(gaussian_filter(lines, 0.0035 * rows, truncate=3) * 1.2)
    return total.astype(np.float32)


def add_marker(rng: np.random.Generator, attenuation: np.ndarray) -> None:
    """Lay the lead letter of a side into an upper corner of ``attenuation`` (rows, columns), in place."""
    rows, columns = attenuation.shape
    letter = str(rng.choice(["L", "R"]))
    glyph = np.array([[int(bit) for bit in line] for line in _LETTERS[letter].split()], bool)
    dots = max(1, round(rows / 144))
    glyph = glyph.repeat(dots, 0).repeat(dots, 1)
    top = int(rng.uniform(0.03, 0.10) * rows)
    margin = int(rng.uniform(0.03, 0.09) * columns)
    left = columns - margin - glyph.shape[1] if letter == "L" else margin
    attenuation[top : top + glyph.shape[0], left : left + glyph.shape[1]][glyph] = 1.3


def _curve(
    rng: np.random.Generator, start: tuple[float, float], end: tuple[float, float], *, sag: float, points: int = 420
) -> np.ndarray:
    t = np.linspace(0, 1, points)[:, None]
    a, d = np.asarray(start), np.asarray(end)
    b, c = a + (d - a) / 3 + rng.normal(0, sag, 2), a + (d - a) * 2 / 3 + rng.normal(0, sag, 2)
    return (1 - t) ** 3 * a + 3 * t * (1 - t) ** 2 * b + 3 * t**2 * (1 - t) * c + t**3 * d
