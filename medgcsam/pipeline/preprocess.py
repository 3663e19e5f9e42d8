"""The deterministic part of preprocessing: one image file becomes one row of the store, once.

Intensity and padding are MONAI transforms. Resizing is torch's antialiased interpolation: MONAI's own antialiasing
(a Gaussian filter before the resampling) takes 380 ms where this takes 6 ms on a 2500x2000 radiograph.
"""

from __future__ import annotations

import itertools
import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medgcsam.errors import DataError, MachineError
from medgcsam.imaging import pixel_digest, read_image
from medgcsam.pipeline.sources import source_digests
from medgcsam.pipeline.store import Store, StoreWriter, exclusive, machine_errors, open_store, store_key

LUMINANCE = (0.299, 0.587, 0.114)  # ITU-R BT.601
PERCENTILES = (0.5, 99.5)
CHUNK = 16  # images per task of a worker process: large enough that starting tasks costs nothing
NAMED = 5  # unreadable images named in an error message

Progress = Callable[[int, int], None]


def build_store(
    images: Sequence[str], image: Any, *, cache: Path, workers: int = 0, progress: Progress | None = None
) -> Store:
    """The store of these images under this image configuration: opened where it exists, else built.

    ``images``: references as ``read_image`` takes them; the rows of the store are in the same order. ``workers``:
    number of decoding processes, 0 for none. ``progress(done, total)`` is called as images are finished.
    An interrupted build goes on where it stopped; two processes that want the same store build it once.

    Raises ``DataError`` naming the images that cannot be read, ``MachineError`` for a full disk, an unwritable cache or
    too little memory.
    """
    if not images:
        raise DataError("There are no images to preprocess: the manifest lists none that are in use.")
    cache = Path(cache)
    with machine_errors(cache):
        sources, unreadable = source_digests(images, cache=cache)
        folder = cache / "stores" / store_key(image, sources)
        store = open_store(folder)
        if store is None:
            with exclusive(folder) as partial:
                store = open_store(folder)  # built by another process while this one waited
                if store is None:
                    _build(folder, partial, images, sources, unreadable, image, workers, progress)
                    store = open_store(folder)
        if store is None:
            raise MachineError(f"The store {folder} vanished while it was being opened: run the same command again.")
    if progress:
        progress(len(images), len(images))
    return store


def prepare(image: Any, config: Any) -> np.ndarray:
    """One image as the network gets it, but for augmentation: float16 (channels, rows, cols) of ``config.size``.

    ``image``: ``Image`` with array (channels, rows, cols), or (channels, i, j, 1) of a single slice, whose row is j and
    column i. ``config``: channels, size, fit and intensity.

    fit: "stretch" ignores proportions; "pad" keeps them (in mm where the pixel spacing is known) and fills the border
    with black; "crop" keeps them and cuts the border off. intensity: "display" takes the values 0..1 as they are;
    "percentile" maps the image's 0.5th to 99.5th percentile to 0..1; "zscore" gives mean 0 and deviation 1, and pads
    with the image's smallest value. The statistics are those of the resized image without its padding.

    Raises ``DataError`` for a volume, a cine, values that are not finite, and for "display" of values without a display
    range (HU, arbitrary units).
    """
    if config.intensity == "display" and image.unit != "display":
        raise DataError(f"its values ({image.unit}) have no display range, set image.intensity to percentile or zscore")
    array, spacing = _as_picture(image)
    pixels = _to_channels(torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32)), int(config.channels))
    if not bool(torch.isfinite(pixels).all()):
        raise DataError("it holds values that are not finite")
    size = tuple(int(n) for n in config.size)
    pixels = _resize(pixels, fitted_size(pixels.shape[1:], size, config.fit, spacing))
    pixels = _scale_intensity(pixels, config.intensity)
    if tuple(pixels.shape[1:]) != size:
        from monai.transforms import ResizeWithPadOrCrop

        darkest = float(pixels.min()) if config.intensity == "zscore" else 0.0
        pixels = torch.as_tensor(ResizeWithPadOrCrop(size, value=darkest)(pixels))
    return pixels.numpy().astype(np.float16)


def fitted_size(
    shape: Sequence[int], size: Sequence[int], fit: str, spacing: Sequence[float] | None = None
) -> tuple[int, int]:
    """Rows and columns to resize to, before padding or cropping to ``size``; ``spacing`` is (row, column) in mm."""
    if fit == "stretch":
        return int(size[0]), int(size[1])
    extent = [n * mm for n, mm in zip(shape, spacing or (1.0, 1.0), strict=True)]
    factors = [target / length for target, length in zip(size, extent, strict=True)]
    if fit == "pad":
        factor = min(factors)
        return tuple(min(target, max(1, round(n * factor))) for target, n in zip(size, extent, strict=True))
    factor = max(factors)
    return tuple(max(target, round(n * factor)) for target, n in zip(size, extent, strict=True))


def _as_picture(image: Any) -> tuple[np.ndarray, tuple[float, float] | None]:
    """(channels, rows, cols) and the (row, column) spacing in mm of a picture or of a volume of one slice."""
    array = image.array
    spacing = None if image.spacing is None else tuple(float(mm) for mm in image.spacing)
    if array.ndim == 4:
        if array.shape[3] != 1:
            raise DataError(f"it is a volume of {array.shape[3]} slices, where a single picture is needed")
        array = np.swapaxes(array[..., 0], 1, 2)
        spacing = None if spacing is None else (spacing[1], spacing[0])
    if array.ndim != 3:
        raise DataError(f"it has {array.ndim - 1} spatial axes, where a picture has two")
    if spacing is not None and not (len(spacing) >= 2 and spacing[0] > 0 and spacing[1] > 0):
        spacing = None
    return array, None if spacing is None else spacing[:2]


def _to_channels(pixels: torch.Tensor, channels: int) -> torch.Tensor:
    """Gray to three equal channels, RGB to its luminance."""
    if pixels.shape[0] not in (1, 3):
        raise DataError(
            f"it has {pixels.shape[0]} channels or frames, where 1 or 3 are needed; name one by '#volume=0'"
        )
    if pixels.shape[0] == channels:
        return pixels
    if channels == 3:
        return pixels.expand(3, -1, -1)
    return (pixels * torch.tensor(LUMINANCE)[:, None, None]).sum(0, keepdim=True)


def _resize(pixels: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    if tuple(pixels.shape[1:]) == size:
        return pixels
    return torch.nn.functional.interpolate(pixels[None], size, mode="bilinear", antialias=True)[0]


def _scale_intensity(pixels: torch.Tensor, intensity: str) -> torch.Tensor:
    if intensity == "display":
        return pixels
    if float(pixels.min()) == float(pixels.max()):
        return torch.zeros_like(pixels)  # a flat image has neither contrast nor deviation
    from monai.transforms import NormalizeIntensity, ScaleIntensityRangePercentiles

    if intensity == "percentile":
        low, high = np.percentile(pixels.numpy(), PERCENTILES)
        if low == high:  # all but a few pixels are equal: their range is all there is
            return (pixels - pixels.min()) / (pixels.max() - pixels.min())
        transform = ScaleIntensityRangePercentiles(*PERCENTILES, 0.0, 1.0, clip=True)
    else:
        transform = NormalizeIntensity()
    return torch.as_tensor(transform(pixels))


def _build(
    folder: Path,
    partial: Path,
    images: Sequence[str],
    sources: Sequence[str],
    unreadable: dict[int, str],
    image: Any,
    workers: int,
    progress: Progress | None,
) -> None:
    writer = StoreWriter(partial, sources=sources, image=image)
    failures = {row: reason.rstrip(".") for row, reason in unreadable.items()}
    rows = [row for row in range(len(images)) if row not in writer.done and row not in failures]
    done = len(images) - len(rows)
    try:
        for row, pixels, outcome in _decode_all([(row, images[row]) for row in rows], image, workers):
            if pixels is None:
                failures[row] = outcome
            else:
                writer.write(row, pixels, outcome)
            done += 1
            if progress:
                progress(done, len(images))
        if not failures:
            writer.finish(folder)
    finally:
        writer.close()
    if failures:
        writer.discard()  # its key names the faulty files, so a corrected set never comes back to it
        raise DataError(_explain(images, failures))


def _explain(images: Sequence[str], failures: dict[int, str]) -> str:
    named = "; ".join(failures[row] for row in sorted(failures)[:NAMED])
    more = f"; and {len(failures) - NAMED} more" if len(failures) > NAMED else ""
    return (
        f"{len(failures)} of {len(images)} images cannot be used ({named}{more}): correct or exclude them; "
        "'medgcsam check' lists all."
    )


# One decoded image: its row, then either (pixels, digest of the decoded image) or (None, reason why not).
_Decoded = tuple[int, np.ndarray | None, str]


def _decode_all(jobs: Sequence[tuple[int, str]], image: Any, workers: int) -> Iterator[_Decoded]:
    """Decode in this process or in several, few chunks ahead of what is consumed, in any order."""
    chunks = (list(jobs[start : start + CHUNK]) for start in range(0, len(jobs), CHUNK))
    if workers < 1 or len(jobs) <= CHUNK:
        for row, reference in jobs:
            yield _decode(row, reference, image)
        return
    context = multiprocessing.get_context("spawn")  # a fork would copy the locks of torch's threads
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker)
    try:
        running = {pool.submit(_decode_chunk, chunk, image) for chunk in itertools.islice(chunks, 2 * workers)}
        while running:
            finished, running = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                yield from future.result()
            running |= {pool.submit(_decode_chunk, chunk, image) for chunk in itertools.islice(chunks, len(finished))}
    except BrokenProcessPool as error:
        raise MachineError(
            "A worker process of preprocessing was killed, most likely for lack of memory: lower pipeline.workers or "
            "set it to 0, then run the same command again."
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent stops its workers, with one message
    torch.set_num_threads(1)


def _decode_chunk(jobs: Sequence[tuple[int, str]], image: Any) -> list[_Decoded]:
    return [_decode(row, reference, image) for row, reference in jobs]


def _decode(row: int, reference: str, image: Any) -> _Decoded:
    try:
        decoded = read_image(reference, irregular=image.irregular, pet=image.pet, orientation=image.orientation)
        digest = pixel_digest(decoded)
    except (DataError, OSError) as error:
        return row, None, str(error).rstrip(".")  # names the file itself
    except MemoryError as error:
        raise MachineError(f"Decoding {reference} took more memory than there is: lower pipeline.workers.") from error
    try:
        return row, prepare(decoded, image), digest
    except DataError as error:
        return row, None, f"{reference} cannot be used: {error}"
