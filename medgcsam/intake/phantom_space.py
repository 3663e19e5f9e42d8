"""Space for synthetic volumes: a grid of voxels in body coordinates, smooth random fields on it, soft shapes.

Body coordinates are mm in RAS+ (x to the patient's right, y to the front, z to the head) about a point in the middle
of the upper abdomen. Depths are mm below a surface, negative outside of it; near the surface they are distances,
further away only roughly so.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Grid:
    """Where the voxels lie: body coordinates = ``origin`` + ``axes`` @ (i, j, k)."""

    shape: tuple[int, int, int]
    axes: np.ndarray  # (3, 3) mm per step, one column per voxel axis
    origin: np.ndarray  # (3,) mm, centre of voxel (0, 0, 0)

    def shifted(self, steps: float) -> Grid:
        """The grid moved by ``steps`` voxels along k."""
        return Grid(self.shape, self.axes, self.origin + self.axes[:, 2] * steps)

    def coordinates(self) -> np.ndarray:
        """(3, i, j, k) float32, x, y and z of every voxel."""
        i, j, k = (np.arange(n, dtype=np.float32) for n in self.shape)
        a = self.axes.astype(np.float32)
        return np.stack(
            [
                (np.float32(self.origin[d]) + a[d, 0] * i)[:, None, None] + (a[d, 1] * j)[:, None] + a[d, 2] * k
                for d in range(3)
            ]
        )


@dataclass(frozen=True)
class Field:
    """A smooth random function of place, about normal with zero mean and unit variance: a sum of plane waves."""

    vectors: np.ndarray  # (waves, 3) radians per mm
    phases: np.ndarray  # (waves,)

    def at(self, points: np.ndarray) -> np.ndarray:
        """Values (n,) at ``points`` (3, n)."""
        waves = np.cos(self.vectors @ points + self.phases[:, None])
        return waves.sum(axis=0) * np.sqrt(2 / len(self.phases))

    def on(self, grid: Grid) -> np.ndarray:
        """Values float32 (i, j, k): a plane wave is a product of one factor per voxel axis."""
        along = self.vectors @ grid.axes
        i, j, k = (np.exp(1j * along[:, d : d + 1] * np.arange(n)) for d, n in enumerate(grid.shape))
        first = i * np.exp(1j * (self.vectors @ grid.origin + self.phases))[:, None] * np.sqrt(2 / len(self.phases))
        plane = (first[:, :, None] * j[:, None, :]).reshape(len(along), -1)
        # Re(plane.T @ k) in real arithmetic, which is half the work.
        left = np.concatenate([plane.real, -plane.imag]).astype(np.float32)
        right = np.concatenate([k.real, k.imag]).astype(np.float32)
        return (left.T @ right).reshape(grid.shape)


def draw_field(rng: np.random.Generator, length: float, waves: int = 14) -> Field:
    """A field whose bumps are about ``length`` mm apart, in every direction."""
    direction = rng.normal(size=(waves, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    number = 2 * np.pi / length * rng.uniform(0.6, 1.4, (waves, 1))
    return Field(direction * number, rng.uniform(0, 2 * np.pi, waves))


def ellipsoid(
    place: np.ndarray, centre: tuple[float, float, float], radii: tuple[float, float, float], power: float = 2.0
) -> np.ndarray:
    """Depth in mm at ``place`` (3, ...) below an ellipsoid with its axes along x, y and z.

    The norm N has the value 1 on the surface, so (1 - N) / |grad N| is the distance from it to first order; the
    gradient is taken as that of a sphere of the mean radius. An infinite radius makes a cylinder. ``power`` above 2
    makes it boxier.
    """
    terms = [np.abs((place[d] - centre[d]) / radii[d]) ** power for d in range(3) if np.isfinite(radii[d])]
    finite = [r for r in radii if np.isfinite(r)]
    norm = np.add.reduce(terms) ** np.float32(1 / power)
    return (1 - norm) * np.float32(np.prod(finite) ** (1 / len(finite)))


def share(depth: np.ndarray, width: float) -> np.ndarray:
    """Part 0..1 of a voxel of ``width`` mm that lies below a surface whose depth at its centre is ``depth``."""
    return np.clip(depth / np.float32(width) + np.float32(0.5), 0, 1)


def paint(values: np.ndarray, part: np.ndarray, value: np.ndarray | float) -> None:
    """Replace ``part`` (0..1) of each of ``values`` by ``value``, in place."""
    values += part * (value - values)
