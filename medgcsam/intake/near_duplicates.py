"""Copies of one picture that are not equal byte for byte: compressed again, resized, slightly cropped.

Candidates are found by a perceptual hash, the low frequencies of a thumbnail measured in standard deviations of the
data set, so that what all its pictures share (every chest looks like a chest) does not count. They are sifted by
whether a shift, a scale and a contrast explain the difference of the hashes (``frequencies.explained``), and what is
left is verified by laying the two thumbnails over each other (``alignment.similarity``), in doubt larger ones.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import numpy as np

from medgcsam.intake.alignment import similarity
from medgcsam.intake.frequencies import explained, slopes

SIMILAR, SURE = 0.85, 0.95
"""Pairs of thumbnails less alike than the first are no copies, those above the second are; the rest is looked at again.
Copies reach 0.9 to 1, different chest X-rays at most 0.86, phantoms 0.94 (see benchmarks/near_duplicates.py)."""
SIMILAR_CLOSER = 0.82
"""Least similarity of copies in thumbnails of twice the size, where different pictures stay below 0.8."""
EXPLAINED = 0.65
"""Least share of the difference from the mean picture that a shift and a scale must explain."""
NEIGHBOURS = 12
"""Candidates of each image."""
ALIKE = 0.4
"""Least correlation of the hashes of a candidate."""
FEW = 32
"""Sets so small are compared pair by pair; their standard deviations would say nothing."""
EXACT = 20_000
"""Largest set in which every hash is compared with every other."""
CELLS = 3
"""In larger sets each hash is compared with those that share one of its nearest anchors, so many of them."""
BLOCK = 1024
PAIRS, AT_ONCE, CACHED = 4096, 32, 256


def near_duplicates(
    hashes: np.ndarray,
    patients: np.ndarray,
    thumbnails: Callable[[np.ndarray], np.ndarray],
    closer: Callable[[int], np.ndarray],
    *,
    labels: np.ndarray | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of images of different patients, or of one patient with different labels, that are copies of each other.

    Args:
        hashes: (n, m), ``frequencies.coefficients`` of the thumbnails; rows of zeros take no part.
        patients: int (n,), equal for images of one patient.
        thumbnails: gives those of rows, uint8 (len(rows), size, size); closer: gives one of twice the size, of one row.
        labels: int (n,), equal for images of one label; None looks at pairs of different patients alone.
        progress: told (done, total) in pairs compared.

    Returns:
        Pairs, int64 (pairs, 2), the smaller row first and ascending, and their similarity, float32 (pairs,).
    """
    candidates = candidate_pairs(hashes, patients, labels)
    mean, deviation = _spread(hashes[hashes.any(1)])
    pairs, alike = [np.zeros((0, 2), np.int64)], [np.zeros(0, np.float32)]
    for start in range(0, len(candidates), PAIRS):
        some = candidates[start : start + PAIRS]
        rows, places = np.unique(some, return_inverse=True)
        pictures, (first, second) = thumbnails(rows), places.reshape(some.shape).T
        if len(hashes) > FEW:
            own, change = hashes[rows].astype(np.float32), slopes(pictures)
            shares = [
                explained((own[a], change[a]), (own[b], change[b]), mean, deviation)
                for a, b in zip(_cut(first), _cut(second), strict=True)
            ]
            kept = np.concatenate(shares) >= EXPLAINED
            some, first, second = some[kept], first[kept], second[kept]
        found = similarity(pictures[first], pictures[second])
        some, found = _confirmed(some[found >= SIMILAR], found[found >= SIMILAR], closer)
        pairs.append(some)
        alike.append(found)
        if progress is not None:
            progress(min(start + PAIRS, len(candidates)), len(candidates))
    return np.concatenate(pairs), np.concatenate(alike)


def _cut(rows: np.ndarray) -> list[np.ndarray]:
    """In parts so small that the processor's cache holds what is computed from them."""
    return [rows[start : start + CACHED] for start in range(0, len(rows), CACHED)]


def _confirmed(
    pairs: np.ndarray, alike: np.ndarray, closer: Callable[[int], np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """The pairs that are copies in larger thumbnails too, and their similarity there; sure ones stay as they are."""
    doubtful = np.flatnonzero(alike < SURE)
    for start in range(0, len(doubtful), AT_ONCE):
        some = doubtful[start : start + AT_ONCE]
        first, second = (np.stack([closer(int(row)) for row in column]) for column in pairs[some].T)
        alike[some] = similarity(first, second)
    kept = alike >= SIMILAR_CLOSER
    return pairs[kept], alike[kept]


def candidate_pairs(hashes: np.ndarray, patients: np.ndarray, labels: np.ndarray | None = None) -> np.ndarray:
    """Pairs worth a closer look, int64 (pairs, 2), the smaller row first and ascending; see ``near_duplicates``."""
    rows = np.flatnonzero(hashes.any(1))
    if len(rows) <= FEW:
        first, second = np.triu_indices(len(rows), 1)
        pairs = np.stack([rows[first], rows[second]], axis=1)
        different = [one[pairs[:, 0]] != one[pairs[:, 1]] for one in (patients, labels) if one is not None]
        return pairs[np.logical_or.reduce(different)]
    mean, deviation = _spread(hashes[rows])
    vectors = hashes[rows].astype(np.float32)  # in place from here on: of a million images they are 250 MB
    vectors -= mean
    vectors /= deviation
    vectors /= np.maximum(np.sqrt(np.einsum("ij,ij->i", vectors, vectors)), 1e-6)[:, None]
    codes, owner = [], patients[rows]
    searches = ((cell, owner) for cell in _cells(vectors))
    if labels is not None:
        label = labels[rows]
        searches = itertools.chain(searches, ((cell, label) for cell in _disagreeing(owner, label)))
    for cell, owners in searches:
        first, second = _neighbours(vectors, owners, cell)
        low, high = np.minimum(first, second), np.maximum(first, second)
        codes.append(np.unique(rows[low] * len(hashes) + rows[high]))
    pairs = np.unique(np.concatenate(codes))
    return np.stack([pairs // len(hashes), pairs % len(hashes)], axis=1)


def _spread(hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each coefficient, float32."""
    if not len(hashes):
        return np.zeros(hashes.shape[1], np.float32), np.ones(hashes.shape[1], np.float32)
    mean, deviation = hashes.mean(0, dtype=np.float32), hashes.std(0, dtype=np.float32)
    return mean, np.maximum(deviation, 1e-4)


def _cells(vectors: np.ndarray) -> Iterator[np.ndarray]:
    """Rows to be compared with each other: all at once, or in a large set those near the same anchor."""
    if len(vectors) <= EXACT:
        yield np.arange(len(vectors))
        return
    chosen = np.random.default_rng(0).choice(len(vectors), int(2 * len(vectors) ** 0.5), replace=False)
    anchors = vectors[np.sort(chosen)]
    nearest = np.empty((len(vectors), CELLS), np.int32)
    for start in range(0, len(vectors), BLOCK):
        closeness = vectors[start : start + BLOCK] @ anchors.T
        nearest[start : start + BLOCK] = np.argpartition(-closeness, CELLS, axis=1)[:, :CELLS]
    order = np.argsort(nearest.ravel(), kind="stable")
    bounds = np.searchsorted(nearest.ravel()[order], np.arange(len(anchors) + 1))
    for start, end in itertools.pairwise(bounds):
        yield order[start:end] // CELLS


def _disagreeing(patients: np.ndarray, labels: np.ndarray) -> Iterator[np.ndarray]:
    """Rows of each patient whose images have several labels."""
    order = np.lexsort((labels, patients))
    for rows in np.split(order, np.flatnonzero(np.diff(patients[order])) + 1):
        if labels[rows[0]] != labels[rows[-1]]:
            yield rows


def _neighbours(vectors: np.ndarray, owner: np.ndarray, cell: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows, and for each up to NEIGHBOURS others of the cell that are of another owner and alike."""
    firsts, seconds = [], []
    inside, owners = vectors[cell], owner[cell]
    for start in range(0, len(cell), BLOCK):
        block = cell[start : start + BLOCK]
        closeness = vectors[block] @ inside.T
        closeness[owner[block][:, None] == owners] = -1
        count = min(NEIGHBOURS, len(cell) - 1)
        best = np.argpartition(closeness, -count, axis=1)[:, -count:] if count else np.zeros((len(block), 0), int)
        alike = np.take_along_axis(closeness, best, axis=1) >= ALIKE
        firsts.append(np.broadcast_to(block[:, None], best.shape)[alike])
        seconds.append(cell[best[alike]])
    empty = np.zeros(0, np.int64)
    return np.concatenate(firsts or [empty]), np.concatenate(seconds or [empty])
