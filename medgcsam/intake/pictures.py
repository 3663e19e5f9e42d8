"""What can be told of a picture without knowing what it shows: a thumbnail, and whether text is burned in."""

from __future__ import annotations

import numpy as np
from PIL import Image as Pillow

from medgcsam.imaging import Image

THUMBNAIL = 48
"""Rows and columns of a thumbnail."""
SAMPLED = 65536
"""Pixels looked at to find the range of values of a picture that has none."""
PERCENTILES = (0.5, 99.5)

EDGE = 0.25
"""Jump from one pixel to the next, as a share of the picture's range, that counts as the edge of a letter."""
TEXT_WIDTH, TEXT_EDGES, TEXT_ROWS = 48, 10, 3
"""Text: in each of so many rows in succession, so many edges within this many pixels."""
CROWDED = 3
"""There must also be so many times more edges than in the same number of the picture's pixels elsewhere."""


def gray_picture(image: Image) -> np.ndarray:
    """An image as a gray picture, uint8 (row, column): of a volume the middle slice, of a cine the middle frame.

    Display values 0..1 become 0..255; others are spread between their 0.5th and 99.5th percentile.
    """
    array = image.array
    if array.ndim == 4:
        array = array[..., array.shape[3] // 2].swapaxes(1, 2)  # (i, j) = (column, row)
    picture = array.mean(0, dtype=np.float32) if len(array) == 3 else array[len(array) // 2].astype(np.float32)
    picture = np.nan_to_num(picture, nan=0.0, posinf=0.0, neginf=0.0)
    low, high = 0.0, 1.0
    if image.unit != "display":
        sample = picture.ravel()[:: max(1, picture.size // SAMPLED)]
        low, high = (float(value) for value in np.percentile(sample, PERCENTILES))
    scaled = (picture - low) * (255.0 / max(high - low, 1e-12))
    return np.rint(scaled.clip(0, 255)).astype(np.uint8)


def thumbnail(gray: Pillow.Image, size: int = THUMBNAIL) -> bytes:
    """``size`` rows of ``size`` bytes from a picture of mode L: means over areas, proportions given up."""
    factors = tuple(max(1, length // size) for length in gray.size)
    reduced = gray if factors == (1, 1) else gray.reduce(factors)
    return reduced.resize((size, size), Pillow.Resampling.BILINEAR).tobytes()


def has_text(gray: np.ndarray, span: int) -> bool:
    """Whether (row, column) uint8 looks as if it had lines of text burned in; ``span``: its largest - smallest value.

    Rendered letters are many sharp edges close together, in several rows in succession, which anatomy, speckle, lead
    markers of one or two letters, wires and calipers are not. Text along columns, text over a background as bright as
    itself and letters higher than about 40 pixels are not found.
    """
    width = min(TEXT_WIDTH, gray.shape[1] - 1)
    if gray.shape[0] < TEXT_ROWS or width < TEXT_EDGES:
        return False
    threshold = max(30, int(EDGE * span))
    # Of so many rows in succession one is among every third, so most pictures are done after a third of the work.
    some = np.ascontiguousarray(gray[::TEXT_ROWS])
    every = np.add.reduceat(_edges(some.ravel(), threshold), np.arange(0, some.size - 1, some.shape[1]), dtype=np.int32)
    needed = max(TEXT_EDGES, CROWDED * width * int(every.sum()) / some.size)  # noise has edges everywhere
    suspected = TEXT_ROWS * np.flatnonzero(every >= needed)
    if not len(suspected):
        return False
    around = np.zeros(len(gray) + 2 * TEXT_ROWS, bool)  # of row r at r + TEXT_ROWS
    for offset in range(1, 2 * TEXT_ROWS):
        around[suspected + offset] = True
    rows = np.flatnonzero(around[TEXT_ROWS:-TEXT_ROWS])
    edges = _edges(gray[rows], threshold)
    before = np.zeros((len(rows), edges.shape[1] + 1), np.int32)
    np.cumsum(edges, axis=1, out=before[:, 1:])
    dense = before[:, width:] - before[:, :-width] >= needed
    count = len(rows) - TEXT_ROWS + 1
    together = np.logical_and.reduce([dense[offset : offset + count] for offset in range(TEXT_ROWS)]).any(1)
    in_succession = rows[TEXT_ROWS - 1 :] - rows[:count] == TEXT_ROWS - 1
    return bool((together & in_succession).any())


def _edges(gray: np.ndarray, threshold: int) -> np.ndarray:
    left, right = gray[..., :-1], gray[..., 1:]
    difference = np.maximum(left, right)
    difference -= np.minimum(left, right)
    return difference > threshold
