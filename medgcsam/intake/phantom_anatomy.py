"""A synthetic chest as a sum of analytic attenuation maps: body, lungs, heart, spine, ribs, shoulders.

Coordinates are those of the picture, centred: x to the right (the patient's left), y downwards, the height of the
detector spans -1..1. Maps are line integrals in arbitrary units: 0 is air, about 0.3 well-aerated lung, about 1 the
mediastinum and abdomen. They add, as attenuation does along a ray. Edges are soft, so nothing is jagged.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Thorax:
    """The build of one patient, shared by all of the patient's images; lengths in half detector heights."""

    sex: str
    age: int
    width: float  # lateral border of the lungs at the base
    apex: float  # y of the lung tops
    medial: float  # half width of the mediastinum
    domes: tuple[float, float]  # y of the right and the left diaphragm at its top
    dome_curve: float
    fat: float  # soft tissue outside the rib cage
    heart: tuple[float, float, float, float]  # half axes, horizontal offset, tilt
    knob: float  # radius of the aortic arch
    rib_start: float
    rib_step: float
    rib_drop: float
    rib_width: float
    bone: float  # density of bone, lower with age
    clavicle: tuple[float, float]  # height at the sternum, rise to the shoulder
    breast: float  # 0 without breast shadow
    warp: tuple[float, ...]  # phases of a smooth individual deformation


@dataclass(frozen=True)
class View:
    """How one exposure saw the patient: position on the detector, breathing depth, turn of the body."""

    shift: tuple[float, float]
    scale: float
    angle: float  # radians
    breath: float  # lowers (positive) or raises the diaphragm
    turn: float  # moves the mediastinum against the ribs

    def to_picture(self, points: np.ndarray) -> np.ndarray:
        """Map body coordinates (..., 2) as (x, y) to picture coordinates of the same shape."""
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        rotation = np.array([[cos, -sin], [sin, cos]], np.float32)
        return (points * np.float32(self.scale)) @ rotation.T + np.asarray(self.shift, np.float32)


@dataclass(frozen=True)
class Chest:
    """One projected chest: coordinate grids and maps, each (rows, columns) float32."""

    x: np.ndarray  # body coordinates of every pixel
    y: np.ndarray
    attenuation: np.ndarray
    lung: np.ndarray  # air depth along the ray, 0..1
    body: np.ndarray  # soft tissue depth, 0..1


def draw_thorax(rng: np.random.Generator, *, sex: str, age: int) -> Thorax:
    """Draw the build of one patient; women are narrower, with breast shadows; age thins bone and widens the aorta."""
    female = sex == "F"
    old = (age - 55) / 35.0
    right = rng.normal(0.44, 0.06)
    return Thorax(
        sex=sex,
        age=age,
        width=float(np.clip(rng.normal(0.66 if female else 0.70, 0.04), 0.56, 0.8)),
        apex=float(rng.normal(-0.66, 0.035)),
        medial=float(np.clip(rng.normal(0.14, 0.018), 0.1, 0.2)),
        domes=(float(right), float(right + np.clip(rng.normal(0.05, 0.03), -0.02, 0.12))),
        dome_curve=float(rng.uniform(0.10, 0.24)),
        fat=float(np.clip(rng.normal(0.17, 0.06), 0.07, 0.32)),
        heart=(
            float(np.clip(rng.normal(0.27 + 0.02 * old, 0.035), 0.19, 0.38)),
            float(np.clip(rng.normal(0.33, 0.03), 0.25, 0.42)),
            float(rng.normal(0.11, 0.03)),
            float(rng.uniform(0.45, 0.95)),
        ),
        knob=float(np.clip(rng.normal(0.095 + 0.02 * old, 0.012), 0.06, 0.14)),
        rib_start=float(rng.uniform(-0.62, -0.5)),
        rib_step=float(rng.normal(0.148, 0.008)),
        rib_drop=float(rng.uniform(0.18, 0.30)),
        rib_width=float(rng.normal(0.25, 0.025)),
        bone=float(np.clip(rng.normal(1.0 - 0.15 * old, 0.14), 0.55, 1.35)),
        clavicle=(float(rng.normal(-0.47, 0.035)), float(rng.uniform(0.08, 0.26))),
        breast=float(rng.uniform(0.35, 1.0)) if female else 0.0,
        warp=tuple(float(p) for p in rng.uniform(0, 2 * np.pi, 6)),
    )


def draw_view(rng: np.random.Generator) -> View:
    """Draw the positioning of one exposure."""
    return View(
        shift=(float(rng.normal(0, 0.035)), float(rng.normal(0.02, 0.04))),
        scale=float(np.clip(rng.normal(1.0, 0.045), 0.88, 1.12)),
        angle=float(rng.normal(0, 0.028)),
        breath=float(np.clip(rng.normal(0, 0.05), -0.14, 0.1)),
        turn=float(rng.normal(0, 0.022)),
    )


def project_chest(thorax: Thorax, view: View, *, rows: int, columns: int) -> Chest:
    """Project a patient onto ``rows`` x ``columns`` square pixels: everything but findings and devices."""
    x, y = body_grid(view, rows=rows, columns=columns)
    x, y = _individual(x, y, thorax.warp)
    side = np.abs(x)
    body = _body(side, y, thorax)
    lung = _lungs(x, side, y, thorax, view)
    centre = x - np.float32(view.turn)
    heart = _heart_and_mediastinum(centre, y, thorax, view)
    lung = lung * (1 - 0.88 * heart)  # what displaces air needs no seam against the soft tissue beside it
    belly = ramp((y - diaphragm(x, thorax, view) + 0.03) / 0.35)
    tissue = 0.96 + 0.16 * belly + 0.10 * heart * (1 - ramp(2 * belly))
    total = tissue * body - 0.80 * lung * np.minimum(body + 0.15, 1)
    total += thorax.bone * (_spine(centre, y, thorax) + _ribs(side, y, thorax) + _shoulders(x, side, y, thorax)) * body
    total += _airways_and_stomach(centre, y, thorax, view)
    if thorax.breast:
        total += _breasts(side, y, thorax) * body
    return Chest(x=x, y=y, attenuation=total.astype(np.float32), lung=lung, body=body)


def body_grid(view: View, *, rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Body coordinates x and y, each (rows, columns) float32, of the pixel centres under ``view``."""
    py = ((np.arange(rows, dtype=np.float32) + 0.5) * 2 / rows - 1)[:, None] - np.float32(view.shift[1])
    px = ((np.arange(columns, dtype=np.float32) + 0.5 - columns / 2) * 2 / rows)[None] - np.float32(view.shift[0])
    cos, sin = np.float32(np.cos(view.angle) / view.scale), np.float32(np.sin(view.angle) / view.scale)
    return px * cos + py * sin, py * cos - px * sin


def lung_edges(y: np.ndarray, thorax: Thorax) -> tuple[np.ndarray, np.ndarray]:
    """Distance from the midline of the medial and the lateral lung border at height ``y`` (same shape)."""
    depth = np.clip((y - thorax.apex) / (0.62 - thorax.apex), 0, 1)
    wide = np.sqrt(np.maximum(1 - (1 - np.minimum(depth / 0.78, 1)) ** 2.1, 0))
    slim = np.sqrt(np.maximum(1 - (1 - np.minimum(depth / 0.22, 1)) ** 2, 0))
    top = 0.29
    return top - (top - thorax.medial) * slim, top + (thorax.width - top) * wide


def diaphragm(x: np.ndarray, thorax: Thorax, view: View) -> np.ndarray:
    """Height of the diaphragm above position ``x`` (same shape): two domes that fall off to the costophrenic angles."""
    right, left = thorax.domes
    top = right + (left - right) * ramp((x + 0.1) / 0.2) + view.breath
    offset = (np.abs(x) - 0.28) / 0.42
    return top + thorax.dome_curve * offset**2 * (1 + 0.9 * np.maximum(offset, 0))


def ramp(z: np.ndarray) -> np.ndarray:
    """Smooth step: 0 below 0, 1 above 1, with a continuous slope."""
    z = np.clip(z, 0, 1)
    return z * z * (3 - 2 * z)


def ball(z: np.ndarray) -> np.ndarray:
    """Chord length through a unit ball at squared distance ``z`` from its centre, relative to its diameter."""
    return np.sqrt(np.maximum(1 - z, 0))


def _individual(x: np.ndarray, y: np.ndarray, phase: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    dx = 0.016 * np.sin(2.3 * y + phase[0]) + 0.012 * np.sin(3.1 * x + phase[1]) + 0.006 * np.sin(7 * y + phase[2])
    dy = 0.016 * np.sin(2.7 * x + phase[3]) + 0.012 * np.sin(2.9 * y + phase[4]) + 0.006 * np.sin(6 * x + phase[5])
    return (x + dx).astype(np.float32), (y + dy).astype(np.float32)


def _rounded(z: np.ndarray) -> np.ndarray:
    """Depth of a round body at relative distance ``z`` behind its edge: a quarter circle, then flat."""
    return np.sqrt(np.maximum(1 - (1 - np.clip(z, 0, 1)) ** 2, 0))


def _body(side: np.ndarray, y: np.ndarray, thorax: Thorax) -> np.ndarray:
    flank = thorax.width + thorax.fat + 0.02 + 0.7 * ramp((-0.22 - y) / 0.3)
    slope = np.maximum(side - 0.30, 0)
    shoulder = -0.92 + 0.30 * slope + 0.25 * slope**2 - 0.9 * ramp((0.42 - side) / 0.22) ** 2
    trunk = _rounded((flank - side) / 0.42) * _rounded((y - shoulder) / 0.5)
    arm = 0.55 * ball(((side - flank - 0.24) / 0.17) ** 2) * ramp((y + 0.3) / 0.2)
    neck = 0.62 + 0.38 * ramp((y + 1.1) / 0.7)  # the neck is thinner than the trunk
    return np.maximum(trunk * neck, arm)


def _lungs(x: np.ndarray, side: np.ndarray, y: np.ndarray, thorax: Thorax, view: View) -> np.ndarray:
    inner, outer = lung_edges(y, thorax)
    inner = inner + np.sign(x) * np.float32(view.turn)
    floor = diaphragm(x, thorax, view) - y
    dome = ramp(floor / 0.035) * 0.9 + 0.1 * ramp((floor + 0.14) / 0.14)  # some lung lies behind the dome
    top = ramp((y - thorax.apex) / 0.35) * 0.45 + 0.55 * ramp((y - thorax.apex + 0.005) / 0.03)
    wall = 0.35 * ramp((outer - side) / 0.02) + 0.65 * _rounded((outer - side) / 0.30)
    return wall * (0.55 * ramp((side - inner) / 0.04) + 0.45 * _rounded((side - inner) / 0.2)) * dome * top


def _heart_and_mediastinum(x: np.ndarray, y: np.ndarray, thorax: Thorax, view: View) -> np.ndarray:
    a, b, offset, tilt = thorax.heart
    low = 0.27 + 0.5 * view.breath
    u, v = x - offset, y - low
    cos, sin = float(np.cos(tilt)), float(np.sin(tilt))
    ventricle = (np.abs(u * cos + v * sin) / (1.32 * a)) ** 2.3 + (np.abs(v * cos - u * sin) / (0.74 * b)) ** 2.3
    atrium = ((x + 0.05) / (0.66 * a)) ** 2 + ((y - low + 0.01) / (0.72 * b)) ** 2
    knob = ((x - 0.085) / thorax.knob) ** 2 + ((y + 0.27) / thorax.knob) ** 2
    trunk = ((x - 0.10) / 0.10) ** 2 + ((y + 0.05) / 0.15) ** 2
    cava = ((x + 0.07) / 0.085) ** 2 + ((y + 0.14) / 0.3) ** 2
    shadow = np.maximum(ball(ventricle) ** 0.55, 0.9 * ball(atrium) ** 0.6)
    vessels = np.maximum(0.85 * ball(knob), np.maximum(0.7 * ball(trunk), 0.6 * ball(cava)))
    hila = 0.22 * np.exp(-(((np.abs(x) - 0.2) / 0.065) ** 2) - ((y + 0.03 * np.sign(x)) / 0.12) ** 2)
    band = 0.45 * np.exp(-((x / 0.15) ** 4)) * ramp((y + 0.9) / 0.5)
    return 1 - (1 - shadow) * (1 - vessels) * (1 - hila) * (1 - band)


def _spine(x: np.ndarray, y: np.ndarray, thorax: Thorax) -> np.ndarray:
    beat = (y + 1.4 + 0.02 * np.cos(6 * x)) / (0.085 + 0.022 * (y + 1))
    plates = np.exp(-(((beat - np.round(beat)) / 0.16) ** 2))
    column = ramp((0.088 - np.abs(x)) / 0.03)
    process = np.exp(-((x / 0.02) ** 2) - ((beat - np.floor(beat) - 0.5) / 0.2) ** 2)
    pedicles = np.exp(-(((np.abs(x) - 0.055) / 0.016) ** 2) - ((beat - np.floor(beat) - 0.35) / 0.14) ** 2)
    return (0.10 + 0.035 * plates) * column + 0.035 * process + 0.03 * pedicles


def _ribs(side: np.ndarray, y: np.ndarray, thorax: Thorax) -> np.ndarray:
    """Ribs as tilted rings: seen from the front the back half is the upper arc, the front half the lower one.

    All ribs at once: a phase that grows by one from rib to rib, divided by its gradient, is the distance to a rib.
    """
    reach = lung_edges(y + 0.1, thorax)[1] + 0.035
    arc = np.sqrt(np.maximum(1 - (side / reach) ** 2, 0.0))
    back = (y + thorax.rib_drop * arc - thorax.rib_start) / thorax.rib_step
    front = (y - 1.25 * thorax.rib_drop * arc - thorax.rib_start) / (1.12 * thorax.rib_step)
    inside = ramp((reach + 0.01 - side) / 0.03)
    cage = inside * ramp((0.8 - y) / 0.5) * ramp((y - thorax.apex + 0.14) / 0.12)
    cage = cage * ramp((side - 0.05) / 0.04)
    posterior = _bars(back, thorax.rib_width, thorax.rib_step, len(side)) * ramp((back + 1.4) / 0.1)
    anterior = _bars(front, 1.15 * thorax.rib_width, thorax.rib_step, len(side)) * ramp((front + 0.6) / 0.1)
    return cage * (0.10 * posterior + 0.06 * anterior * ramp((side - 0.26) / 0.16) * ramp((0.5 - y) / 0.2))


def _bars(phase: np.ndarray, width: float, step: float, rows: int) -> np.ndarray:
    """Tubes with a dense rim around every whole number of ``phase``; ``width`` is the half width of a level rib."""
    dy, dx = np.gradient(phase)
    slope = np.maximum(np.sqrt(dy * dy + dx * dx) * np.float32(rows * step / 2), 1)
    distance = np.abs(phase - np.round(phase)) / (width * np.minimum(slope, 3))
    edge = ramp((1.12 - distance) / 0.24)
    rim = np.exp(-(((distance - 0.88) / 0.2) ** 2))
    return edge * (0.78 + 0.3 * rim) / np.sqrt(np.minimum(slope, 3))


def _shoulders(x: np.ndarray, side: np.ndarray, y: np.ndarray, thorax: Thorax) -> np.ndarray:
    sternal, rise = thorax.clavicle
    along = np.clip((side - 0.09) / 0.68, 0, 1)
    bend = sternal - rise * along - 0.035 * np.sin(2 * np.pi * along) + 0.02 * np.sign(x) * thorax.warp[0] / 6
    thick = 0.034 + 0.012 * np.cos(2 * np.pi * along)
    distance = np.abs(y - bend) / thick
    ends = ramp((side - 0.075) / 0.03) * ramp((0.83 - side) / 0.05)
    clavicle = ramp((1.15 - distance) / 0.3) * (0.8 + 0.5 * np.exp(-(((distance - 0.85) / 0.22) ** 2))) * ends
    blade_x, blade_y = side - 0.86, y + 0.28
    blade = ((blade_x + 0.32 * blade_y) / 0.17) ** 2 + (blade_y / 0.34) ** 2
    scapula = 0.5 * ramp((1 - blade) / 0.1) + 0.5 * np.exp(-(((blade - 0.93) / 0.09) ** 2))
    head = ((side - 1.0) / 0.14) ** 2 + ((y + 0.56) / 0.15) ** 2
    shaft = ((side - 1.04) / 0.075) ** 2
    humerus = np.maximum(ball(head), 0.8 * ball(shaft) * ramp((y + 0.5) / 0.1))
    return 0.14 * clavicle + 0.07 * scapula + 0.2 * humerus


def _airways_and_stomach(x: np.ndarray, y: np.ndarray, thorax: Thorax, view: View) -> np.ndarray:
    trachea = np.exp(-(((x + 0.012) / 0.038) ** 4)) * ramp((-0.14 - y) / 0.1)
    lean = np.abs(x) - 0.9 * (y + 0.2)
    bronchi = np.exp(-((lean / 0.035) ** 2)) * ramp((y + 0.22) / 0.05) * ramp((0.02 - y) / 0.1)
    bubble_y = y - thorax.domes[1] - view.breath - 0.13
    bubble = ball(((x - 0.36) / 0.13) ** 2 + (bubble_y / 0.075) ** 2) * ramp((bubble_y + 0.09) / 0.05)
    return -0.11 * trachea * ramp((y + 1.15) / 0.4) - 0.08 * bronchi - 0.16 * bubble * (thorax.warp[2] > 2)


def _breasts(side: np.ndarray, y: np.ndarray, thorax: Thorax) -> np.ndarray:
    size = 0.26 + 0.1 * thorax.breast
    u, v = (side - 0.46) / (size * 1.05), (y - 0.20 - 0.10 * thorax.breast) / size
    return 0.15 * thorax.breast * ball(u**2 + np.where(v > 0, v, 0.55 * v) ** 2) ** 0.8
