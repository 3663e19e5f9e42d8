"""Fingerprints of all images of a data set: little enough of each to find copies and faults among a million."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medgcsam.intake import workers as pool
from medgcsam.intake.examine import Examined, Found, examine_each
from medgcsam.intake.fingerprint_cache import KEY_BYTES, FingerprintCache, keys_of
from medgcsam.intake.frequencies import COEFFICIENTS, coefficients
from medgcsam.intake.pictures import THUMBNAIL

Progress = Callable[[int, int], None]
BATCH = 2000
NONE = -1


@dataclass(frozen=True, eq=False)
class Fingerprints:
    """What is known of n images, about 200 bytes each.

    ``picture``, ``study``: uint64 (n, 2), digests of thumbnail and StudyInstanceUID, zero where there is none.
    ``coefficients``: float16 (n, COEFFICIENTS) of the thumbnails (``frequencies.coefficients``), zero where there is
    none. ``shape``, ``sort``, ``mask``: int32 (n,), positions in ``shapes``, ``sorts`` and ``masks`` (see
    ``Examined``), NONE where there is none. ``faults``: by row. ``keys``: uint8 (n, KEY_BYTES), of the thumbnails in
    ``cache``. ``known``: how many were not looked at, since an earlier check had done so.
    """

    picture: np.ndarray
    study: np.ndarray
    coefficients: np.ndarray
    shape: np.ndarray
    sort: np.ndarray
    mask: np.ndarray
    keys: np.ndarray
    shapes: tuple[tuple[int, ...], ...]
    sorts: tuple[str, ...]
    masks: tuple[tuple[int, ...], ...]
    faults: dict[int, tuple[Found, ...]]
    cache: FingerprintCache
    known: int

    def __len__(self) -> int:
        return len(self.keys)

    def thumbnails(self, rows: np.ndarray) -> np.ndarray:
        """uint8 (len(rows), THUMBNAIL, THUMBNAIL); the rows must have one."""
        return self.cache.thumbnails([key.tobytes() for key in self.keys[rows]])


def fingerprint(
    images: Sequence[str],
    masks: Sequence[str] | None = None,
    *,
    cache: Path | None = None,
    workers: int | str = 0,
    progress: Progress | None = None,
    look: Callable[[Iterable[tuple[str, str]]], Iterator[Examined]] = examine_each,
) -> Fingerprints:
    """Examine every image, and the mask beside it; nothing that is wrong with one stops the others.

    Args:
        images: references as ``read_image`` takes them; masks: as ``read_label`` takes them, "" where there is none.
        cache: folder that remembers what was seen, so that an interrupted check goes on; None remembers nothing.
        workers: processes beside this one; "auto" uses every core where there are enough images.
        progress: told (done, total) after every image.
        look: gives what is known of each of some (image, mask), in order.

    Raises:
        MachineError: the cache cannot be written.
    """
    total = len(images)
    table, unknown = _Table(total, FingerprintCache(cache)), np.ones(total, bool)
    for start in range(0, total, BATCH):
        rows = [_row(images, masks, row) for row in range(start, min(start + BATCH, total))]
        keys = list(keys_of(rows))
        table.keys[start : start + len(keys)] = np.frombuffer(b"".join(keys), np.uint8).reshape(-1, KEY_BYTES)
        seen = table.cache.find(keys)
        for row, key in enumerate(keys, start):
            if key in seen:
                unknown[row] = False
                table.put(row, seen[key])
    missing = np.flatnonzero(unknown)
    known = total - len(missing)
    if progress is not None and known:
        progress(known, total)
    helpers = pool.helpers(workers, len(missing))
    results = pool.several_in_order(look, (_row(images, masks, row) for row in missing), len(missing), helpers)
    try:
        for done, (row, examined) in enumerate(zip(missing, results, strict=True), known + 1):
            table.cache.add(table.keys[row].tobytes(), examined)
            table.put(row, examined)
            if progress is not None:
                progress(done, total)
    finally:
        results.close()  # stops the workers where this one was stopped
        table.cache.save()
    return table.finished(known)


def _row(images: Sequence[str], masks: Sequence[str] | None, row: int) -> tuple[str, str]:
    return images[row], "" if masks is None else masks[row]


class _Table:
    """Fills the arrays row by row, coefficients in batches."""

    def __init__(self, total: int, cache: FingerprintCache) -> None:
        self.cache = cache
        self.digests = {name: np.zeros((total, 2), np.uint64) for name in ("picture", "study")}
        self.codes = {name: np.full(total, NONE, np.int32) for name in ("shape", "sort", "mask")}
        self.words: dict[str, dict] = {name: {} for name in self.codes}
        self.keys = np.zeros((total, KEY_BYTES), np.uint8)
        self.coefficients = np.zeros((total, COEFFICIENTS), np.float16)
        self.faults: dict[int, tuple[Found, ...]] = {}
        self._known: dict[tuple[Found, ...], tuple[Found, ...]] = {}  # a million files that are absent have one fault
        self._waiting: list[tuple[int, bytes]] = []

    def put(self, row: int, examined: Examined) -> None:
        if examined.study:
            self.digests["study"][row] = np.frombuffer(examined.study, np.uint64)
        if examined.faults:
            self.faults[row] = self._known.setdefault(examined.faults, examined.faults)
        if examined.mask is not None:
            self._code("mask", row, examined.mask)
        if examined.thumbnail:
            self._code("shape", row, examined.shape)
            self._code("sort", row, examined.sort)
            self._waiting.append((row, examined.thumbnail))
            if len(self._waiting) == BATCH // 10:
                self._transform()

    def _code(self, name: str, row: int, word: object) -> None:
        known = self.words[name]
        self.codes[name][row] = known.setdefault(word, len(known))

    def _transform(self) -> None:
        rows, pictures = map(list, zip(*self._waiting, strict=True))
        thumbnails = np.frombuffer(b"".join(pictures), np.uint8).reshape(-1, THUMBNAIL, THUMBNAIL)
        self.coefficients[rows] = coefficients(thumbnails)
        shapes = list(self.words["shape"])
        contents = (repr(shapes[self.codes["shape"][row]]).encode() + picture for row, picture in self._waiting)
        digests = b"".join(hashlib.blake2b(content, digest_size=16).digest() for content in contents)
        self.digests["picture"][rows] = np.frombuffer(digests, np.uint64).reshape(-1, 2)
        self._waiting.clear()

    def finished(self, known: int) -> Fingerprints:
        if self._waiting:
            self._transform()
        words = {f"{name}s": tuple(known) for name, known in self.words.items()}
        return Fingerprints(
            **self.digests,
            **self.codes,
            **words,
            coefficients=self.coefficients,
            keys=self.keys,
            faults=self.faults,
            cache=self.cache,
            known=known,
        )


def same_groups(digests: np.ndarray) -> Iterator[np.ndarray]:
    """Rows that share a digest, uint64 (n, 2), for every digest that several rows have; zero counts as none."""
    rows = np.flatnonzero(digests.any(1))
    if not len(rows):
        return
    _, codes = np.unique(digests[rows], axis=0, return_inverse=True)
    order = np.argsort(codes.ravel(), kind="stable")
    bounds = np.flatnonzero(np.diff(codes.ravel()[order])) + 1
    for group in np.split(rows[order], bounds):
        if len(group) > 1:
            yield group
