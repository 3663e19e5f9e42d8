"""From Hounsfield units to a stored volume: grid of the scan, kernel, noise, storage as NIfTI with its affine."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, ornt_transform
from scipy.ndimage import gaussian_filter

from medgcsam.intake.phantom_folder import NOTICE
from medgcsam.intake.phantom_space import Grid


@dataclass(frozen=True)
class Site:
    """One hospital's CT scanner and what it sends."""

    name: str
    model: str
    pixel: tuple[float, float]  # mm in the slice
    slices: tuple[float, ...]  # mm between slices
    blur: float  # mm, standard deviation of the kernel
    noise: float  # HU
    grain: float  # mm, correlation length of the noise; 0 is white
    offset: float  # HU that the scanner is off
    tilt: float  # largest angle of the slices against the patient, degrees
    codes: tuple[str, ...]  # directions that voxel axes point in, as nibabel names them
    unsigned: bool  # stored as uint16 with an intercept instead of int16


SITES = {
    "north": Site(
        "north", "Phantom CT-64", (2.6, 3.1), (5.0, 6.0), 1.1, 15.0, 0.0, 0.0, 6.0, ("LPS", "LPS", "LPI"), False
    ),
    "south": Site(
        "south", "Phantom CT-16", (2.9, 3.5), (6.0, 7.5), 1.9, 11.0, 1.6, -4.0, 12.0, ("RAS", "LAS", "PLS"), True
    ),
}


def draw_grid(rng: np.random.Generator, site: Site, half: tuple[float, float]) -> tuple[Grid, np.ndarray]:
    """The grid of one scan over a body of half axes ``half`` mm, voxel axes near R, A and S; and its affine.

    The affine differs from the grid by where the table stood: scanner coordinates are not body coordinates.
    """
    pixel, step = float(rng.uniform(*site.pixel)), float(rng.choice(site.slices))
    spacing = np.round([pixel, pixel, step], 4)
    extent = np.array([2 * half[0] + 18, 2 * half[1] + 18, rng.uniform(138, 156)])
    shape = tuple(int(n) for n in np.ceil(extent / spacing))
    axes = _rotation(np.radians(rng.uniform(-site.tilt, site.tilt, 3) * [1, 0.4, 0.6])) * spacing
    middle = rng.normal(0, [4, 4, 7])
    origin = middle - axes @ ((np.array(shape) - 1) / 2)
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = axes, origin + rng.uniform(-60, 60, 3).round(1)
    return Grid(shape, axes, origin), affine


def scan(rng: np.random.Generator, values: np.ndarray, spacing: np.ndarray, site: Site) -> np.ndarray:
    """HU int16 (i, j, k) as the scanner of ``site`` shows HU ``values`` (float32): blurred in the slice, noisy.

    Noise is strongest in the middle of the body, where the fewest photons arrive.
    """
    sigma = site.blur / spacing[:2]
    seen = gaussian_filter(values, (*sigma, 0), truncate=3)
    grain = rng.standard_normal(values.shape, dtype=np.float32)
    if site.grain:
        width = site.grain / spacing[:2]
        grain = gaussian_filter(grain, (*width, 0), truncate=3)
        grain /= grain.std()
    i, j = (np.linspace(-1, 1, n, dtype=np.float32) for n in values.shape[:2])
    dose = site.noise * float(rng.uniform(0.8, 1.25))
    seen += dose * (1.15 - 0.45 * np.clip(i[:, None] ** 2 + j**2, 0, 1))[:, :, None] * grain
    seen += site.offset + float(rng.normal(0, 2))
    return np.clip(np.rint(seen), -1024, 3071).astype(np.int16)


def write_nifti(path: Path, array: np.ndarray, affine: np.ndarray, codes: str, *, unsigned: bool = False) -> None:
    """Write ``array`` (i, j, k near R, A, S) with its affine, voxel axes turned to ``codes``; the same bytes each time.

    ``unsigned``: stored as uint16 with scl_inter -1024, as some converters write CT.
    """
    turn = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(codes))
    stored = nibabel.orientations.apply_orientation(array, turn)
    image = nibabel.Nifti1Image(stored, affine @ inv_ornt_aff(turn, array.shape))
    if unsigned:
        image = nibabel.Nifti1Image((stored.astype(np.int32) + 1024).astype(np.uint16), image.affine)
        image.header.set_slope_inter(1, -1024)
    image.set_sform(image.affine, code=1)
    image.set_qform(image.affine, code=1)
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = NOTICE
    path.write_bytes(gzip.compress(image.to_bytes(), compresslevel=4, mtime=0))


def _rotation(angles: np.ndarray) -> np.ndarray:
    """Rotation matrix (3, 3) about x, then y, then z, by ``angles`` in radians."""
    matrix = np.eye(3)
    for axis, angle in enumerate(angles):
        cos, sin = np.cos(angle), np.sin(angle)
        one = np.eye(3)
        first, second = [d for d in range(3) if d != axis]
        one[first, first], one[first, second], one[second, first], one[second, second] = cos, -sin, sin, cos
        matrix = one @ matrix
    return matrix
