"""Surfaces of masks and how far they lie apart: normalized surface Dice, 95% Hausdorff and average surface distance.

The definition is that of Nikolov et al. 2018 (arXiv 1809.04430; J Med Internet Res 2021;23:e26151) and of its program
`surface-distance`: a surface passes between voxel centres. Its elements sit at the corners where 2x2x2 voxels (2x2
pixels) meet that are not all alike; an element's size is the area (length) of the surface inside the cube between
these voxel centres, and every distance counts with the size of its element. Distances are taken from corner to corner.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy.ndimage import distance_transform_edt
from scipy.spatial import cKDTree

Corner = tuple[int, ...]
VOXELS_PER_POINT, VOXELS_PER_QUERY, VOXELS_PER_FAR_QUERY = 4, 10, 10_000
"""A distance transform of this many voxels takes as long as one point in a tree, a query of it, and one from afar."""
NEAR = 10
"""In voxels: a query of the tree that finds nothing so near is from afar. From inside a large box, say, where many
points are about equally far away, it takes milliseconds."""


@dataclass(frozen=True)
class SurfaceDistances:
    """From every element of each surface to the nearest element of the other; both surfaces have elements.

    Distances are in the unit of the spacing, sizes in its square (volumes) or in it (pictures).
    """

    from_reference: np.ndarray
    """(n,) distance of each element of the reference surface."""
    from_predicted: np.ndarray
    """(m,) distance of each element of the predicted surface."""
    reference_sizes: np.ndarray
    """(n,) area of each element."""
    predicted_sizes: np.ndarray
    """(m,) area of each element."""

    def within(self, tolerance: float) -> float:
        """Normalized surface Dice (NSD): share of both surfaces that is at most tolerance away from the other."""
        agreed = self.reference_sizes[self.from_reference <= tolerance].sum()
        agreed += self.predicted_sizes[self.from_predicted <= tolerance].sum()
        return float(agreed / (self.reference_sizes.sum() + self.predicted_sizes.sum()))

    def hausdorff(self, share: float = 0.95) -> float:
        """Distance that ``share`` of each surface does not exceed: the larger of the two quantiles. 1: the maximum."""
        return max(
            _quantile(self.from_reference, self.reference_sizes, share),
            _quantile(self.from_predicted, self.predicted_sizes, share),
        )

    def average(self) -> float:
        """Average symmetric surface distance: mean over both surfaces together, each element with its size."""
        total = (self.from_reference * self.reference_sizes).sum() + (self.from_predicted * self.predicted_sizes).sum()
        return float(total / (self.reference_sizes.sum() + self.predicted_sizes.sum()))


def surface_distances(reference: np.ndarray, predicted: np.ndarray, spacing: Sequence[float]) -> SurfaceDistances:
    """Distances between the surfaces of two masks, neither of them empty.

    reference, predicted: bool, of one shape, 2-D or 3-D; beyond the border of the image is background. spacing: of
    neighbouring voxels per axis, all above 0.
    """
    scale = np.asarray(spacing, dtype=np.float64)
    sizes = element_sizes(scale)
    codes = [neighbour_codes(mask) for mask in (reference, predicted)]
    own, other = ((code != 0) & (code != len(sizes) - 1) for code in codes)
    return SurfaceDistances(
        from_reference=_nearest(own, other, scale),
        from_predicted=_nearest(other, own, scale),
        reference_sizes=sizes[codes[0][own]],
        predicted_sizes=sizes[codes[1][other]],
    )


def bounding_box(*masks: np.ndarray) -> tuple[slice, ...]:
    """Smallest box that holds everything set in any of the masks, all of one shape; empty slices if nothing is set."""
    box: list[slice] = []
    for axis in range(masks[0].ndim):
        others = tuple(other for other in range(masks[0].ndim) if other != axis)
        # What the axes before have cut off need not be looked at again.
        found = np.flatnonzero(np.logical_or.reduce([mask[tuple(box)].any(axis=others) for mask in masks]))
        box.append(slice(int(found[0]), int(found[-1]) + 1) if len(found) else slice(0, 0))
    return tuple(box)


def neighbour_codes(mask: np.ndarray) -> np.ndarray:
    """Which of the voxels that meet at each corner are set, as bits of a uint8: 4 pixels or 8 voxels.

    mask: bool (*spatial). Returns (*spatial + 1 each): corner i lies between voxels i - 1 and i. The first voxel in
    C order is the lowest bit.
    """
    padded = np.pad(mask, 1).view(np.uint8)
    codes = np.zeros([n + 1 for n in mask.shape], dtype=np.uint8)
    for bit, corner in enumerate(itertools.product((0, 1), repeat=mask.ndim)):
        window = tuple(slice(start, start + n) for start, n in zip(corner, codes.shape, strict=True))
        codes |= padded[window] << bit
    return codes


def element_sizes(spacing: np.ndarray) -> np.ndarray:
    """Area (3-D) or length (2-D) of the surface element of each neighbour code. Returns (256,) or (16,)."""
    scale = np.prod(spacing) / spacing
    return np.linalg.norm(_normals(len(spacing)) * scale, axis=2).sum(axis=1)


@cache
def _normals(ndim: int) -> np.ndarray:
    """For each code the pieces of its element as normals with the piece's size, in voxels: (codes, pieces, ndim).

    The side with fewer voxels set is cut off. Voxels of it that touch by a face are cut off together, others alone.
    """
    corners = list(itertools.product((0, 1), repeat=ndim))
    normals = np.zeros((2 ** len(corners), 2 ** (ndim - 1), ndim))
    for code in range(1, len(normals) - 1):
        inside = {corner for bit, corner in enumerate(corners) if code >> bit & 1}
        if 2 * len(inside) > len(corners):
            inside = set(corners) - inside
        pieces = [piece for group in _groups(inside) for piece in _cut_off(group)]
        normals[code, : len(pieces)] = pieces
    return normals


def _groups(corners: set[Corner]) -> list[frozenset[Corner]]:
    """Corners of the unit cube in groups that hang together along its edges."""
    groups: list[frozenset[Corner]] = []
    for corner in sorted(corners):
        touched = [group for group in groups if group & _neighbours(corner)]
        groups = [group for group in groups if group not in touched] + [frozenset({corner}).union(*touched)]
    return groups


def _neighbours(corner: Corner) -> set[Corner]:
    return {(*corner[:axis], 1 - corner[axis], *corner[axis + 1 :]) for axis in range(len(corner))}


@cache
def _cut_off(group: frozenset[Corner]) -> list[np.ndarray]:
    """Normals of the line (2-D) or of the triangles (3-D) through the middles of the edges that leave the group."""
    edges = [(inside, outside) for inside in sorted(group) for outside in sorted(_neighbours(inside) - group)]
    middles = np.mean(edges, axis=1)
    if middles.shape[1] == 2:
        along = middles[1] - middles[0]
        return [np.array([along[1], -along[0]])]
    # Around the axis from the group to the middle of the cube they form a polygon.
    axis = 0.5 - np.mean(sorted(group), axis=0)
    spokes = middles - middles.mean(axis=0)
    first = spokes[0] - axis * (spokes[0] @ axis) / (axis @ axis)
    turn = np.arctan2(spokes @ np.cross(axis, first) / np.linalg.norm(axis), spokes @ first)
    # Where it is not flat its area depends on the fan's first point, which these edges give as the reference does.
    starts = [
        len(_neighbours(inside) & group) == 1 and len(_neighbours(outside) & group) == len(group) - 2
        for inside, outside in edges
    ]
    ring = np.argsort(turn)
    ring = np.roll(ring, -int(np.argmax(np.array(starts)[ring])))
    fan = middles[ring[1:]] - middles[ring[0]]
    return list(np.cross(fan[:-1], fan[1:]) / 2)


def _nearest(own: np.ndarray, other: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Distance of each place set in own to the nearest place set in other, both bool (*spatial), in C order of own."""
    places = np.flatnonzero(own)
    distances = np.zeros(len(places))
    apart = ~other.ravel()[places]
    points = np.stack(np.unravel_index(places[apart], own.shape), axis=1)
    if len(points) == 0:
        return distances
    work = VOXELS_PER_QUERY * len(points) + VOXELS_PER_POINT * np.count_nonzero(other)
    search = _by_tree if work < own.size else _by_transform
    # From whole numbers of voxels, so that two voxels of 0.7 mm are 1.4 mm wherever they lie.
    distances[apart] = np.sqrt((((points - search(points, other, scale)) * scale) ** 2).sum(axis=1))
    return distances


def _by_tree(points: np.ndarray, other: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """The place set in other that is nearest to each of the points; both (n, ndim), in voxels."""
    others = np.argwhere(other)
    tree = cKDTree(others * scale, compact_nodes=False, balanced_tree=False)
    reach = NEAR * float(np.prod(scale)) ** (1 / len(scale))
    found = tree.query(points * scale, distance_upper_bound=reach)[1]
    far = found == len(others)
    if VOXELS_PER_FAR_QUERY * np.count_nonzero(far) < other.size:
        found[far] = tree.query(points[far] * scale)[1]
        return others[found]
    nearest = others[np.where(far, 0, found)]
    nearest[far] = _by_transform(points[far], other, scale)
    return nearest


def _by_transform(points: np.ndarray, other: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """The same as ``_by_tree`` from the nearest place of every voxel."""
    field = distance_transform_edt(~other, sampling=scale, return_distances=False, return_indices=True)
    return field[(slice(None), *points.T)].T


def _quantile(distances: np.ndarray, sizes: np.ndarray, share: float) -> float:
    """Smallest distance that elements with at least this share of the area do not exceed."""
    order = np.lexsort((sizes, distances))
    sizes = sizes[order]
    reached = np.searchsorted(np.cumsum(sizes) / sizes.sum(), share)
    return float(distances[order[min(reached, len(order) - 1)]])
