"""Copies of one picture that are not equal byte for byte: compressed again, resized, slightly cropped.

Candidates are found by a perceptual hash, the low frequencies of a thumbnail measured in standard deviations of the
data set, so that what all its pictures share (every chest looks like a chest) does not count. They are sifted by
whether a shift, a scale and a contrast explain the difference of the hashes (``frequencies.explained``), and what is
left is verified by laying the two thumbnails over each other (``alignment.similarity``), in doubt larger ones.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

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
BLOCK = 512
PAIRS, AT_ONCE, CACHED, MANY = 4096, 32, 256, 2_000_000

Spread = Callable[..., Iterable]
"""As ``map``: a function of one or several sequences, results in order; that of a pool of threads, or ``map``."""


def near_duplicates(
    hashes: np.ndarray,
    patients: np.ndarray,
    thumbnails: Callable[[np.ndarray], np.ndarray],
    closer: Callable[[int], np.ndarray],
    *,
    labels: np.ndarray | None = None,
    threads: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of images of different patients, or of one patient with different labels, that are copies of each other.

    Args:
        hashes: (n, m), ``frequencies.coefficients`` of the thumbnails; rows of zeros take no part.
        patients: int (n,), equal for images of one patient.
        thumbnails: gives those of rows, uint8 (len(rows), size, size); closer: gives one of twice the size, of one row.
        labels: int (n,), equal for images of one label; None looks at pairs of different patients alone.
        threads: how many work at a time; numpy computes outside of the interpreter's lock.
        progress: told (done, total) in pairs compared.

    Returns:
        Pairs, int64 (pairs, 2), the smaller row first and ascending, and their similarity, float32 (pairs,).
    """
    with ThreadPoolExecutor(threads) as pool:
        spread = map if threads == 1 else pool.map
        candidates = candidate_pairs(hashes, patients, labels, spread)
        return _verified(hashes, candidates, thumbnails, closer, spread, progress)


def _verified(
    hashes: np.ndarray,
    candidates: np.ndarray,
    thumbnails: Callable[[np.ndarray], np.ndarray],
    closer: Callable[[int], np.ndarray],
    spread: Spread,
    progress: Callable[[int, int], None] | None,
) -> tuple[np.ndarray, np.ndarray]:
    """The candidates that are copies, and their similarity; see ``near_duplicates``."""
    statistics = _mean_and_deviation(hashes[hashes.any(1)])
    pairs, alike = [np.zeros((0, 2), np.int64)], [np.zeros(0, np.float32)]
    for start in range(0, len(candidates), PAIRS):
        some = candidates[start : start + PAIRS]
        rows, places = np.unique(some, return_inverse=True)
        pictures, (first, second) = thumbnails(rows), places.reshape(some.shape).T
        if len(hashes) > FEW:
            own, change = hashes[rows].astype(np.float32), slopes(pictures)

            def share(a: np.ndarray, b: np.ndarray, own: np.ndarray = own, change: np.ndarray = change) -> np.ndarray:
                return explained((own[a], change[a]), (own[b], change[b]), *statistics)

            kept = np.concatenate(list(spread(share, _cut(first), _cut(second)))) >= EXPLAINED
            some, first, second = some[kept], first[kept], second[kept]
        found = similarity(pictures[first], pictures[second], spread)
        some, found = _confirmed(some[found >= SIMILAR], found[found >= SIMILAR], closer, spread)
        pairs.append(some)
        alike.append(found)
        if progress is not None:
            progress(min(start + PAIRS, len(candidates)), len(candidates))
    return np.concatenate(pairs), np.concatenate(alike)


def _cut(rows: np.ndarray) -> list[np.ndarray]:
    """In parts so small that the processor's cache holds what is computed from them."""
    return [rows[start : start + CACHED] for start in range(0, len(rows), CACHED)]


def _confirmed(
    pairs: np.ndarray, alike: np.ndarray, closer: Callable[[int], np.ndarray], spread: Spread
) -> tuple[np.ndarray, np.ndarray]:
    """The pairs that are copies in larger thumbnails too, and their similarity there; sure ones stay as they are."""
    doubtful = np.flatnonzero(alike < SURE)
    for start in range(0, len(doubtful), AT_ONCE):
        some = doubtful[start : start + AT_ONCE]
        rows, places = np.unique(pairs[some], return_inverse=True)
        pictures, (first, second) = np.stack([closer(int(row)) for row in rows]), places.reshape(-1, 2).T
        alike[some] = similarity(pictures[first], pictures[second], spread)
    kept = alike >= SIMILAR_CLOSER
    return pairs[kept], alike[kept]


def candidate_pairs(
    hashes: np.ndarray, patients: np.ndarray, labels: np.ndarray | None = None, spread: Spread = map
) -> np.ndarray:
    """Pairs worth a closer look, int64 (pairs, 2), the smaller row first and ascending; see ``near_duplicates``."""
    rows = np.flatnonzero(hashes.any(1))
    if len(rows) <= FEW:
        first, second = np.triu_indices(len(rows), 1)
        pairs = np.stack([rows[first], rows[second]], axis=1)
        different = [one[pairs[:, 0]] != one[pairs[:, 1]] for one in (patients, labels) if one is not None]
        return pairs[np.logical_or.reduce(different)]
    mean, deviation = _mean_and_deviation(hashes[rows])
    vectors = hashes[rows].astype(np.float32)  # in place from here on: of a million images they are 250 MB
    vectors -= mean
    vectors /= deviation
    vectors /= np.maximum(np.sqrt(np.einsum("ij,ij->i", vectors, vectors)), 1e-6)[:, None]
    owner = patients[rows]
    blocks = ((cell, start) for cell in _cells(vectors) for start in range(0, len(cell), BLOCK))
    codes = spread(lambda block: _neighbours(vectors, owner, *block), blocks)
    if labels is not None:
        label = labels[rows]
        codes = itertools.chain(codes, (_neighbours(vectors, label, cell, 0) for cell in _disagreeing(owner, label)))
    first, second = np.divmod(_merged(codes), len(rows))
    return np.stack([rows[first], rows[second]], axis=1)


def _merged(codes: Iterable[np.ndarray]) -> np.ndarray:
    """All that occur, ascending and once, int64; sorted now and then, so that only few wait there several times."""
    merged, waiting, number = np.zeros(0, np.int64), [], 0
    for some in itertools.chain(codes, (None,)):
        if some is not None:
            waiting.append(some)
            number += len(some)
        if some is None or number > max(MANY, len(merged)):
            merged, waiting, number = np.unique(np.concatenate([merged, *waiting])), [], 0
    return merged


def _mean_and_deviation(hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
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
    starts = np.flatnonzero(np.diff(patients[order], prepend=-1))
    ends = np.append(starts[1:], len(order))
    several = labels[order[starts]] != labels[order[ends - 1]]
    for start, end in zip(starts[several], ends[several], strict=True):
        yield order[start:end]


def _neighbours(vectors: np.ndarray, owner: np.ndarray, cell: np.ndarray, start: int) -> np.ndarray:
    """Pairs of each of BLOCK rows of a cell and up to NEIGHBOURS others of it that are alike and of another owner:
    smaller * len(vectors) + larger, int64."""
    block = cell[start : start + BLOCK]
    count = min(NEIGHBOURS, len(cell) - 1)
    if count < 1:
        return np.zeros(0, np.int64)
    closeness = vectors[block] @ vectors[cell].T
    closeness[owner[block][:, None] == owner[cell]] = -1
    best = np.argpartition(closeness, -count, axis=1)[:, -count:]
    alike = np.take_along_axis(closeness, best, axis=1) >= ALIKE
    first, second = np.broadcast_to(block[:, None], best.shape)[alike].astype(np.int64), cell[best[alike]]
    return np.minimum(first, second) * len(vectors) + np.maximum(first, second)
