"""One row of a manifest looked at: its digest, its thumbnail, and what is wrong with its image and its mask.

Worker processes import this module, so it imports nothing heavy.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image as Pillow

from medgcsam.errors import DataError, MachineError
from medgcsam.imaging import Image, read_image, read_label
from medgcsam.intake.pictures import THUMBNAIL, gray_picture, has_text, thumbnail
from medgcsam.intake.plain_png import SIGNATURE, plain_png

MASK_SEPARATOR = "|"  # as in cohort.manifest, which is too heavy for a worker
CLOSER = 2 * THUMBNAIL
AT_ONCE = 2**20
"""Pixels of plain pictures that are read before they are looked at."""
SMALLEST = 16
"""Pixels per side below which nothing can be learned from an image."""
MASK_FAULTS = {
    "mask_values": re.compile(r"which is no class|none of the structures"),
    "mask_overlap": re.compile(r"overlap another structure"),
    "mask_off_grid": re.compile(r"for an image of|in space|frame of reference|outside|\bgrid\b", re.IGNORECASE),
}
"""What the sentences of ``read_label`` say of a mask, the first that fits."""


class Found(NamedTuple):
    """A fault of one image, for people: ``sentence`` goes on after the name of the image, of masks after that of the
    image's mask number ``mask``."""

    kind: str
    sentence: str
    mask: int = 0


@dataclass(frozen=True)
class Examined:
    """What is known of one image, all that a check keeps of it; small, whatever the size of the image.

    ``thumbnail``: THUMBNAIL squared bytes, empty where the image cannot be decoded. ``shape``: (channels, *spatial).
    ``sort``: unit and modality, such as "display DX".
    ``study``: 16 bytes of a digest of its StudyInstanceUID, empty where it has none. ``mask``: the class numbers that
    its mask holds, ascending, 0 is background; None where there is no mask or a faulty one.
    """

    thumbnail: bytes = b""
    shape: tuple[int, ...] = ()
    sort: str = ""
    study: bytes = b""
    faults: tuple[Found, ...] = ()
    mask: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Reading:
    """How images and masks are read: see ``read_image``, and ``names`` of ``read_label``."""

    irregular: str = "refuse"
    pet: str = "suv"
    names: Mapping[str, int] | None = None
    orientation: str = "refuse"


PLAIN = Reading()
Opened = tuple[Image, Pillow.Image]
"""An image, and a gray picture of it (mode L)."""


def examine(row: tuple[str, str], reading: Reading = PLAIN) -> Examined:
    """Look at one (image reference, mask references joined by "|" or ""); nothing that is wrong raises.

    Kinds of faults: missing, unreadable, not_finite, constant, too_small, burned_in_text; mask_missing,
    mask_unreadable, mask_off_grid, mask_overlap, mask_values.
    """
    return _examine(row, reading, _plain(row[0]))


def examine_each(rows: Iterable[tuple[str, str]], reading: Reading = PLAIN) -> Iterator[Examined]:
    """``examine`` of each of ``rows``, in order. Plain pictures are read a few at a time and then looked at: each of
    the two goes quicker where the processor has just done the same."""
    waiting: list[tuple[tuple[str, str], Opened | None]] = []
    pixels = 0
    for row in itertools.chain(rows, (None,)):
        plain = None if row is None else _plain(row[0])
        if row is not None:
            waiting.append((row, plain))
        pixels += 0 if plain is None else plain[0].array.size
        if plain is None or pixels >= AT_ONCE:
            ready, waiting, pixels = waiting, [], 0
            yield from (_examine(row, reading, opened) for row, opened in ready)


def _examine(row: tuple[str, str], reading: Reading, opened: Opened | None) -> Examined:
    try:
        return _looked_at(*row, reading, opened)
    except Exception as error:  # one hostile file does not end the check of all
        return Examined(faults=(Found("unreadable", f"cannot be read ({type(error).__name__})"),))


def _looked_at(image: str, mask: str, reading: Reading, opened: Opened | None) -> Examined:
    try:
        read, picture = opened or _read(image, reading)
    except (DataError, MachineError) as error:
        if not os.path.exists(file_of(image)):
            return Examined(faults=(Found("missing", "does not exist"),))
        kind = "not_finite" if "NaN or infinite" in str(error) else "unreadable"
        return Examined(faults=(Found(kind, reason(str(error), image)),))
    faults = _picture_faults(read, read.array[0] if read.array.dtype == np.uint8 else np.asarray(picture))
    values, mask_fault = (None, None) if not mask else _mask_values(mask, read, reading)
    return Examined(
        thumbnail=thumbnail(picture),
        shape=read.array.shape,
        sort=f"{read.unit} {read.source.get('modality', '')}".strip(),
        study=_study(read),
        faults=(*faults, *([mask_fault] if mask_fault else [])),
        mask=values,
    )


def closer_look(reference: str, reading: Reading = PLAIN) -> np.ndarray:
    """A thumbnail of twice the size, uint8 (CLOSER, CLOSER); zeros where the image cannot be read any more."""
    try:
        picture = thumbnail((_plain(reference) or _read(reference, reading))[1], CLOSER)
    except (DataError, MachineError):
        picture = bytes(CLOSER * CLOSER)
    return np.frombuffer(picture, np.uint8).reshape(CLOSER, CLOSER)


def file_of(reference: str) -> str:
    """The file or folder of a reference: the part before ``#`` unless a file of that whole name exists."""
    if "#" not in reference or os.path.exists(reference):
        return reference
    parts = reference.split("#")
    stems = ("#".join(parts[:count]) for count in range(len(parts) - 1, 0, -1))
    return next((stem for stem in stems if os.path.exists(stem)), parts[0])


def reason(message: str, image: str) -> str:
    """The reader's sentence without the image's path in front and without its full stop."""
    rest = message.removeprefix(image)
    return ("" if rest != message else "cannot be read: ") + rest.lstrip(": ").rstrip(".")


def _read(reference: str, reading: Reading) -> Opened:
    image = read_image(reference, irregular=reading.irregular, pet=reading.pet, orientation=reading.orientation)
    return image, Pillow.fromarray(gray_picture(image))


def _plain(reference: str) -> Opened | None:
    """A plain PNG; it stays uint8, its display values times 255: the checks need no floats, and making them takes long
    beside the decoding."""
    try:
        with open(reference, "rb") as file:
            start = file.read(len(SIGNATURE))
            picture = plain_png(start + file.read()) if start == SIGNATURE else None
    except Exception:  # a folder, a member of an archive, or a fault that the reader will tell
        return None
    if picture is None:
        return None
    samples = np.asarray(picture)
    array = samples[None] if samples.ndim == 2 else np.moveaxis(samples, -1, 0)
    image = Image(array=array, unit="display", source={"kind": "png"})
    return image, picture if picture.mode == "L" else picture.convert("L")


def _picture_faults(image: Image, gray: np.ndarray) -> list[Found]:
    array, span = image.array, int(gray.max()) - int(gray.min())
    if array.dtype.kind == "f" and not np.isfinite([array.min(), array.max()]).all():
        return [Found("not_finite", "holds pixels that are NaN or infinite")]
    if span == 0 and array.min() == array.max():
        return [Found("constant", "has the same value in every pixel")]
    faults = []
    if min(gray.shape) < SMALLEST:
        size = "x".join(str(length) for length in image.spatial_shape)
        faults.append(Found("too_small", f"has only {size} pixels"))
    if str(image.source.get("burned_in_annotation", "")).strip().upper() == "YES":
        faults.append(Found("burned_in_text", "has text burned into its pixels, its header says so"))
    elif has_text(gray, span):
        faults.append(Found("burned_in_text", "seems to have text burned into its pixels"))
    return faults


def _study(image: Image) -> bytes:
    uid = getattr(getattr(image, "reference", None), "study_uid", None)
    return hashlib.blake2b(str(uid).encode(), digest_size=16).digest() if uid else b""


def _mask_values(masks: str, image: Image, reading: Reading) -> tuple[tuple[int, ...] | None, Found | None]:
    """The class numbers in all masks of an image together, or what is wrong with the first faulty one."""
    values: set[int] = set()
    parts = masks.split(MASK_SEPARATOR)
    for number, mask in enumerate(parts):
        if not os.path.exists(file_of(mask)):
            return None, Found("mask_missing", "does not exist", number)
        try:
            values |= _values_of(mask, image, reading)
        except Exception as error:  # one hostile file does not end the check of all, nor is the image at fault
            return None, _mask_fault(error, mask, number)
    if len(parts) > 1 and reading.names is not None:  # together, the names of the files may say which structures
        try:
            values = {0} | _channels_used(parts, image, reading)
        except Exception as error:
            number = next((n for n, mask in enumerate(parts) if str(error).startswith(f"{mask} is ")), 0)
            return None, _mask_fault(error, parts[number], number)
    return tuple(sorted(values)), None


def _mask_fault(error: Exception, mask: str, number: int) -> Found:
    if not isinstance(error, DataError | MachineError):
        return Found("mask_unreadable", f"cannot be read ({type(error).__name__})", number)
    sentence = str(error).removeprefix(mask)
    kind = next((kind for kind, words in MASK_FAULTS.items() if words.search(sentence)), "mask_unreadable")
    return Found(kind, reason(str(error), mask), number)


def _values_of(mask: str, image: Image, reading: Reading) -> set[int]:
    """Class numbers of one mask. Where nobody has named the classes, structures may overlap, as BODY and lung do."""
    options = {"names": reading.names, "irregular": reading.irregular, "orientation": reading.orientation}
    try:
        label = read_label(mask, like=image, **options)
    except DataError as error:
        if reading.names is not None or not MASK_FAULTS["mask_overlap"].search(str(error)):
            raise
        return _channels_used(mask, image, reading)
    return set(np.flatnonzero(np.bincount(label.array.ravel())).tolist())


def _channels_used(masks: str | list[str], image: Image, reading: Reading) -> set[int]:
    """Class numbers of one mask, or of several together, whose structures may overlap."""
    options = {"names": reading.names, "irregular": reading.irregular, "orientation": reading.orientation}
    label = read_label(masks, like=image, overlapping=True, **options)
    numbers = label.source.get("channels") or range(1, len(label.array) + 1)
    return {number for number, channel in zip(numbers, label.array, strict=True) if channel.any()}
