"""A reference, such as a cell of a manifest, is resolved to the bytes behind it, and to what they are.

``FILE``, ``FOLDER``, ``ZIP`` and ``DICOMDIR`` as they are (one image each), or with a selector behind a hash sign:
``FOLDER#series=UID``, ``ZIP#series=UID``, ``DICOMDIR#series=UID``, ``ZIP#member/path.png``, ``FILE.nii.gz#volume=3``
(counted from 0; of a series ``FOLDER#volume=3`` or ``FOLDER#series=UID#volume=3``) and ``FILE.npz#train/12``. A hash
sign is part of the name where a file of that whole name exists.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from medgcsam.errors import DataError
from medgcsam.imaging import sources
from medgcsam.imaging.faults import said
from medgcsam.imaging.sniff import HEAD_BYTES, kind_of_bytes
from medgcsam.imaging.sources import MEDIA_DIRECTORY, Item, file_item, list_items

READABLE = "PNG, JPEG, TIFF, DICOM, NIfTI (.nii, .nii.gz), NRRD, MetaImage or an entry of a MedMNIST .npz"
PARTITIONS = ("train", "val", "test")
PICTURES = ("png", "jpeg", "tiff")
MAX_PICTURE_BYTES = 2**30
LOOK_BYTES = 2**21
"""Of larger files of voxels the header is asked first, and no more is read than it promises."""
WITH_VOLUMES = ("nifti", "nrrd", "metaimage")


@dataclass(frozen=True, eq=False)
class Found:
    """What a reference names.

    where: its name in messages. kind: see ``sniff.py``; ``series`` for the files of a folder, archive, list or medium.
    data: the bytes of one file, b"" for ``series`` and ``npz``. items: the files among which the series is.
    series_uid, volume, entry: the parts of a selector that say which series, which volume, (file, partition, index).
    sibling: reads a file of the same folder or archive by its name.
    """

    where: str
    kind: str
    data: bytes = b""
    items: Sequence[Item] = ()
    series_uid: str | None = None
    volume: int | None = None
    entry: tuple[str, str, int] | None = None
    sibling: Callable[..., bytes] | None = None


def find(reference: str | Path | Sequence[str | Path]) -> Found:
    """Resolve a reference, or a list of the files of one series. Raises DataError."""
    if not isinstance(reference, (str, os.PathLike)):
        items = list_items(list(reference))
        return Found(where=f"the series of {items[0].name}", kind="series", items=items)
    where = str(reference)
    file, selector = split_selector(where)
    if os.path.isdir(file):
        series, volume = _series_of(selector)
        if selector and series is None and volume is None:
            raise DataError(f"{where} selects nothing of a folder; write FOLDER#series=UID.")
        return Found(where=file, kind="series", items=sources.folder_items(file), series_uid=series, volume=volume)
    item = file_item(file)
    head = item.read(HEAD_BYTES)
    if not head:
        raise DataError(f"{file} is an empty file; export it again.")
    kind = kind_of_bytes(head)
    if kind == "npz":
        return Found(where=where, kind=kind, entry=_entry(where, file, selector))
    if kind == "zip":
        return _in_archive(where, file, selector)
    if kind == "dicom" and MEDIA_DIRECTORY.encode() in head:
        series, volume = _series_of(selector)
        return Found(where=file, kind="series", items=sources.dicomdir_items(file), series_uid=series, volume=volume)
    return _one(where, item, head, kind, selector, _beside(file))


def split_selector(reference: str) -> tuple[str, str]:
    """(path, selector) at the first hash sign before which there is a file or a folder; ("", no selector) else."""
    if not os.path.lexists(reference):
        at = reference.find("#")
        while at >= 0:
            if os.path.exists(reference[:at]):
                return reference[:at], reference[at + 1 :]
            at = reference.find("#", at + 1)
    return reference, ""


def _series_of(selector: str) -> tuple[str | None, int | None]:
    """What ``series=UID``, ``volume=N`` and ``series=UID#volume=N`` say; of anything else nothing."""
    first, _, second = selector.partition("#")
    series = first.removeprefix("series=").strip() if first.startswith("series=") else None
    number = (second if series is not None else selector).removeprefix("volume=")
    chosen = (second if series is not None else selector).startswith("volume=") and number.isdecimal()
    if series is not None and second and not chosen:
        return None, None
    return series, int(number) if chosen else None


def _entry(where: str, file: str, selector: str) -> tuple[str, str, int]:
    partition, _, index = selector.partition("/")
    if partition not in PARTITIONS or not index.isdecimal():
        raise DataError(f"{where} is an archive of many images; name one as FILE.npz#train/0 (train, val or test).")
    return file, partition, int(index)


def _in_archive(where: str, file: str, selector: str) -> Found:
    items, (series, volume) = sources.zip_items(file), _series_of(selector)
    if not selector or series is not None or volume is not None:
        return Found(where=file, kind="series", items=items, series_uid=series, volume=volume)
    by_name = {item.name: item for item in items}
    item = by_name.get(f"{file}#{selector}")
    if item is None:
        raise DataError(f"{file} holds no {selector!r}; correct the path behind the hash sign.")
    head = item.read(HEAD_BYTES)

    def beside(name: str, limit: int = -1) -> bytes:
        found = by_name.get(f"{file}#{selector.rpartition('/')[0]}/{name}".replace("#/", "#"))
        if found is None or "/" in name:
            raise DataError(f"{where} needs the file {said(name)!r} beside it, which is not there; pack both together.")
        return found.read(limit if limit >= 0 else None)

    return _one(where, item, head, kind_of_bytes(head), "", beside)


def _beside(file: str) -> Callable[..., bytes]:
    def read(name: str, limit: int = -1) -> bytes:
        from medgcsam.imaging.formats.voxels import sibling_reader

        return sibling_reader(file)(name, limit)

    return read


def _one(where: str, item: Item, head: bytes, kind: str, selector: str, sibling: Callable[..., bytes] | None) -> Found:
    """A file that is one image, or one of its volumes."""
    number = selector.removeprefix("volume=")
    chosen = selector.startswith("volume=") and number.isdecimal() and kind in (*WITH_VOLUMES, "dicom")
    if kind in ("unknown", "npz", "zip") or (selector and not chosen):
        raise DataError(f"{where} is of no kind that can be read here; give {READABLE}.")
    if kind in PICTURES and item.size > MAX_PICTURE_BYTES:
        raise DataError(f"{where} has {item.size:,} bytes, too many for one picture; leave it out.")
    limit = None  # else one byte more than promised, which is enough to be refused
    if kind in WITH_VOLUMES and item.size > LOOK_BYTES:
        promised = importlib.import_module(f"medgcsam.imaging.formats.{kind}").promised(item.read(LOOK_BYTES), where)
        limit = None if promised is None else min(max(promised, LOOK_BYTES) + 1, item.size)
    data = head if len(head) == item.size else item.read(limit)
    return Found(where=where, kind=kind, data=data, volume=int(number) if chosen else None, sibling=sibling)
