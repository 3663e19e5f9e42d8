"""Fingerprints of images: digests of file and pixels, to find identical ones, and what is wrong with an image."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import numpy as np
import pandas as pd

from medgcsam.errors import DataError
from medgcsam.imaging import pixel_digest, read_image, source_digest

Progress = Callable[[int, int], None]
COLUMNS = ("source", "pixels", "kind", "fault")


def fingerprint(images: Sequence[str], *, workers: int = 0, progress: Progress | None = None) -> pd.DataFrame:
    """Read every image and fingerprint it; nothing an image has wrong stops the others.

    Args:
        images: references as ``read_image`` takes them.
        workers: processes beside this one; 0 reads here.
        progress: told (done, total) after every image.

    Returns:
        DataFrame of text, one row per image in the given order: ``source`` (sha256 of the file's bytes), ``pixels``
        (sha256 of shape and pixels), ``kind`` and ``fault`` of what is wrong (empty where nothing is). Kinds: missing,
        unreadable (no digests, or no digest of pixels), constant, not_finite.
    """
    results = []
    for result in _run(images, workers):
        results.append(result)
        if progress is not None:
            progress(len(results), len(images))
    return pd.DataFrame(results, columns=list(COLUMNS), dtype=str)


def _run(images: Sequence[str], workers: int) -> Iterator[tuple[str, str, str, str]]:
    done = 0
    if workers > 0 and len(images) > 1:
        # Spawned, not forked: the caller may run threads of torch, and a fork of those can hang.
        context = multiprocessing.get_context("spawn")
        chunk = max(1, min(32, len(images) // (4 * workers)))
        with ProcessPoolExecutor(workers, mp_context=context) as pool:
            try:
                for result in pool.map(fingerprint_one, images, chunksize=chunk):
                    done += 1
                    yield result
            except BrokenProcessPool:
                pass  # no worker can start, or the system killed one for memory: the rest is read here
    for image in images[done:]:
        yield fingerprint_one(image)


def fingerprint_one(image: str) -> tuple[str, str, str, str]:
    """Source digest, pixel digest, kind of fault and fault of one image, each empty where there is none."""
    if not os.path.exists(_file(image)):
        return "", "", "missing", "does not exist"
    source = ""
    try:
        source = source_digest(image)
        read = read_image(image)
    except DataError as error:
        return source, "", "unreadable", _reason(str(error), image)
    pixels = pixel_digest(read)
    if not np.isfinite(read.array).all():
        return source, pixels, "not_finite", "holds pixels that are NaN or infinite"
    if (read.array == read.array.flat[0]).all():
        return source, pixels, "constant", "has the same value in every pixel"
    return source, pixels, "", ""


def _file(image: str) -> str:
    """The file of a reference, which in an archive is the part before the last ``#``."""
    if "#" in image and not os.path.exists(image):
        return image.rpartition("#")[0]
    return image


def _reason(message: str, image: str) -> str:
    """The reader's sentence without the image's path in front and without its full stop."""
    reason = message.removeprefix(image)
    return ("" if reason != message else "cannot be read: ") + reason.lstrip(": ").rstrip(".")
