"""The door for masks: label maps, DICOM segmentations and contours, checked and put onto the grid of their image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from medgcsam.errors import DataError
from medgcsam.imaging.faults import faults_of
from medgcsam.imaging.image import Image
from medgcsam.imaging.labels.label_maps import of_picture, of_volume
from medgcsam.imaging.labels.resample import Grid, Placed
from medgcsam.imaging.labels.structures import Structures, by_words, label_of, matches
from medgcsam.imaging.references import WITH_VOLUMES, Found, find
from medgcsam.imaging.sniff import kind_of_bytes
from medgcsam.imaging.sources import Item

MAX_OUTSIDE = 0.05
LOOK_BYTES = 2**13
"""The SOP class of a DICOM object is among these first bytes."""


def label_at(
    reference: str | Path,
    like: Image,
    *,
    names: Mapping[str, int] | None = None,
    overlapping: bool = False,
    max_outside: float = MAX_OUTSIDE,
    **options: Any,
) -> Image:
    """One reference as a label on the grid of ``like``; see ``read.read_label`` for all arguments.

    A mask of 0 and 1 whose file is named as one of several structures is that one, where no key of ``names`` is a
    number; else its values are class numbers.
    """
    found = find(reference)
    structures = _structures(found, like, **options)
    if names and by_words(names) and structures.numeric and structures.numbers == (1,):
        named = {number for key, number in names.items() if matches(_stem(reference), key)}
        names = {**names, "1": named.pop()} if len(named) == 1 else names
    return label_of(structures, found.where, like=like, names=names, overlapping=overlapping, max_outside=max_outside)


def labels_at(references: Sequence[str | Path], like: Image, *, names: Mapping[str, int] | None, **options) -> Image:
    """Several files that together are the label of one image.

    Where keys of ``names`` mean these files by their names (without folder and ending), each file is the mask of that
    structure, and those that no key means are left out. Otherwise the files are united; a voxel that two of them give
    different numbers is refused, and so is a mask of 0 and 1 where ``names`` are words, which do not say what its 1 is.
    """
    if not references:
        raise DataError("the list of masks is empty; name at least one.")
    stems = [_stem(reference) for reference in references]
    if _named_by_files(references, stems, like, names, **options):
        return _one_structure_each(references, stems, like, names=names, **options)
    labels = [label_at(reference, like, names=names, **options) for reference in references]
    if names and by_words(names) and len(references) > 1:
        for reference, label in zip(references, labels, strict=True):
            _refuse_unsaid(reference, label)
    united = labels[0].array
    for reference, label in zip(references[1:], labels[1:], strict=True):
        if names is None and "structures" in label.source:
            raise DataError(f"{reference} is one of several masks with names of their own; say which class each is.")
        if ((united > 0) & (label.array > 0) & (united != label.array)).any():
            raise DataError(f"{reference} overlaps the masks beside it, with other classes; ask for channels instead.")
        united = np.maximum(united, label.array)
    source = dict(labels[0].source) | {"files": len(references), "empty": not united.any()}
    return Image(array=united, unit="label", affine=like.affine, spacing=like.spacing, source=source)


def names_at(reference: str | Path, like: Image, **options: Any) -> tuple[str, ...]:
    """What the structures of one mask may be named by in ``names``: words, or the numbers of a label map."""
    found = _structures(find(reference), like, **options)
    return tuple(name for position in range(len(found.names)) for name in found.called(position))


def _named_by_files(
    references: Sequence[str | Path],
    stems: Sequence[str],
    like: Image,
    names: Mapping[str, int] | None,
    *,
    overlapping: bool = False,
    max_outside: float = MAX_OUTSIDE,
    **options: Any,
) -> bool:
    """Whether ``names`` mean these files, rather than what is named inside of them (ROIs, segments)."""
    keys = list(names or {})
    literal = {part.strip().casefold() for key in keys for part in [key, *key.split("|")]}
    if any(stem.casefold() in literal for stem in stems):
        return True
    meant = [one for one, stem in zip(references, stems, strict=True) if any(matches(stem, key) for key in keys)]
    return bool(meant) and all(_structures(find(one), like, **options).numeric for one in meant)


def _refuse_unsaid(reference: str | Path, label: Image) -> None:
    """Raises DataError for a mask whose 1 could be any structure: neither its file nor its content says which."""
    array = label.array
    if "structures" not in label.source and array.max() == 1 and not array[1:].any():
        raise DataError(
            f"{reference} is one of several masks, holds 0 and 1 alone, and none of the structures is named as its "
            "file, so nothing says which it is; add its name to data.structures, where * stands for any text."
        )


def _one_structure_each(
    references: Sequence[str | Path],
    stems: Sequence[str],
    like: Image,
    *,
    names: Mapping[str, int] | None,
    overlapping: bool = False,
    max_outside: float = MAX_OUTSIDE,
    **options: Any,
) -> Image:
    """Binary masks, one file per structure, named by their files."""

    def placed(position: int, grid: Grid) -> Placed:
        label = label_at(references[position], like, max_outside=max_outside, **options)
        if label.array.max() > 1:
            raise DataError(f"{references[position]} is to be one structure and holds several; name its own instead.")
        share = label.array[0].reshape(grid.shape) > 0
        return Placed(tuple(slice(0, n) for n in grid.shape), share, empty=bool(label.source["empty"]))

    found = Structures(tuple(stems), tuple(range(1, len(stems) + 1)), placed, {"files": len(references)})
    where = f"{references[0]} and the masks beside it"
    return label_of(found, where, like=like, names=names, overlapping=overlapping, max_outside=max_outside)


def _stem(reference: str | Path) -> str:
    """The name of a file without folder and endings: ``liver`` for ``masks/liver.nii.gz``."""
    name = PurePath(str(reference)).name
    return name.removesuffix(".gz").rpartition(".")[0] or name


def _structures(
    found: Found, like: Image, *, volume: int | None = None, orientation: str = "refuse", irregular: str = "refuse"
) -> Structures:
    where, kind = found.where, found.kind
    by_index = orientation == "index"
    if kind in ("png", "tiff"):
        return of_picture(found.data, where, kind=kind, like=like)
    if kind == "dicom":
        return _of_dicom(found.data, where, like, irregular=irregular, by_index=by_index)
    if kind == "series":
        item = _label_among(found)
        if item is not None:
            return _of_dicom(item.read(), item.name, like, irregular=irregular, by_index=by_index)
    if kind == "series" or kind in WITH_VOLUMES:
        from medgcsam.imaging.read import image_of

        keep = "keep" if kind in WITH_VOLUMES else irregular  # masks go by their affine, so a sheared one will do
        mask = image_of(found, irregular=keep, pet="stored", volume=volume, orientation=orientation)
        return of_volume(mask, where, like=like, by_index=by_index)
    why = "JPEG smears the edges of a mask" if kind == "jpeg" else f"a {kind} file is not read as a mask"
    raise DataError(f"{where} cannot be a mask, because {why}; save the mask as PNG or NIfTI.")


def _of_dicom(data: bytes, where: str, like: Image, *, irregular: str, by_index: bool) -> Structures:
    """A segmentation, a structure set, or an image whose pixels are class numbers."""
    from medgcsam.imaging.dicom.file import open_dataset, sop_class
    from medgcsam.imaging.dicom.objects import read_dicom
    from medgcsam.imaging.labels import rtstruct, seg

    ds = open_dataset(data, where)
    with faults_of(where, "DICOM"):
        storage = sop_class(ds)
    if storage in seg.STORAGES:
        return seg.of_seg(ds, where, like=like)
    if storage == rtstruct.STORAGE:
        return rtstruct.of_rtstruct(ds, where, like=like)
    mask = read_dicom(data, where, irregular=irregular, pet="stored")
    return of_volume(mask, where, like=like, by_index=by_index)


def _label_among(found: Found) -> Item | None:
    """The one segmentation or structure set in a folder or archive; None where it holds none."""
    from medgcsam.imaging.dicom.file import open_dataset, sop_class
    from medgcsam.imaging.labels import rtstruct, seg

    labels = []
    for item in found.items:
        head = item.read(LOOK_BYTES)
        if kind_of_bytes(head) != "dicom" or not any(u.encode() in head for u in (*seg.STORAGES, rtstruct.STORAGE)):
            continue
        ds = open_dataset(item.read(), item.name, stop_before_pixels=True)
        with faults_of(item.name, "DICOM"):
            series, storage = str(ds.get("SeriesInstanceUID") or ""), sop_class(ds)
        if storage in (*seg.STORAGES, rtstruct.STORAGE) and found.series_uid in (None, series):
            labels.append(item)
    if len(labels) > 1:
        raise DataError(f"{found.where} holds {len(labels)} DICOM labels; name the file of one of them.")
    return labels[0] if labels else None
