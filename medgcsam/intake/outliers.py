"""Images unlike the rest of their data set: of another size, or with black and white exchanged."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

ENOUGH = 20
"""Images of one sort below which nothing is said about any of them."""
USUAL = 0.95
"""Share of the images that must have one size before another size is worth a word."""
OPPOSITE, TYPICAL = -0.5, 0.5
"""Correlation of an inverted image with the typical picture, and median correlation where there is a typical one."""
ROUNDS = 3


def odd_sizes(shape: np.ndarray, sizes: tuple[tuple[int, ...], ...]) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Rows of another size than nearly all others, with the usual size.

    ``shape``: int (n,), position in ``sizes``, which are (channels, *spatial), negative where unknown. The channels do
    not count: gray pictures saved in colour are mended by reading.
    """
    spatial = [size[1:] for size in sizes]
    codes = np.array([spatial.index(size) for size in spatial], np.int64)
    rows = np.flatnonzero(shape >= 0)
    if len(rows) < ENOUGH:
        return
    own = codes[shape[rows]]
    counts = np.bincount(own)
    usual = int(counts.argmax())
    if counts[usual] >= USUAL * len(rows):
        for row in rows[own != usual]:
            yield int(row), spatial[usual]


def too_few(shape: np.ndarray, sort: np.ndarray) -> Iterator[str]:
    """A sentence for what is not looked for, as fewer than ENOUGH images can be compared; arguments as above, below."""
    number = int(np.count_nonzero(shape >= 0))
    if 0 < number < ENOUGH:
        yield f"odd_size is not looked for: {number} readable images, fewer than {ENOUGH}"
    counts = np.bincount(sort[sort >= 0])
    counts = counts[(counts > 0) & (counts < ENOUGH)]
    if len(counts):
        kinds = "their kind" if len(counts) == 1 else f"each of their {len(counts)} kinds"
        yield f"inverted_contrast is not looked for among {counts.sum()} images: fewer than {ENOUGH} of {kinds}"


def inverted(coefficients: np.ndarray, sort: np.ndarray) -> np.ndarray:
    """Rows whose pattern of bright and dark is the opposite of that of their sort, ascending.

    Args:
        coefficients: (n, m) of length 1, low frequencies of the thumbnails; their product is the correlation of the
            blurred pictures. Rows of zeros take no part.
        sort: int (n,), equal for images that ought to look alike (same modality), negative where unknown.

    Nothing is said of a sort without a typical picture, or where about as many images are inverted as not.
    """
    found = [np.zeros(0, np.int64)]
    for code in range(int(sort.max(initial=-1)) + 1):
        rows = np.flatnonzero((sort == code) & coefficients.any(1))
        if len(rows) < ENOUGH:
            continue
        pictures = coefficients[rows].astype(np.float32)
        correlation = pictures @ _typical(pictures)
        middle = float(np.median(correlation))
        if abs(middle) >= TYPICAL:
            found.append(rows[correlation * np.sign(middle) <= OPPOSITE])
    return np.sort(np.concatenate(found))


def _typical(pictures: np.ndarray) -> np.ndarray:
    """The mean picture (m,) of length 1, of which each picture counts upright or inverted, whichever fits."""
    mean = pictures.mean(0)
    for _ in range(ROUNDS):
        signs = np.where(pictures @ mean < 0, -1, 1)
        mean = (pictures * signs[:, None]).mean(0)
    return mean / max(float(np.linalg.norm(mean)), 1e-12)
