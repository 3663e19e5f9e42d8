"""A folder per class, with or without a folder per partition above: the name of the folder is the label."""

from __future__ import annotations

import os
import re
from pathlib import Path

from medgcsam.cohort.manifest import MASK_SEPARATOR
from medgcsam.errors import DataError
from medgcsam.intake.description import Description, data_folder
from medgcsam.intake.importers.files import (
    is_image_name,
    matched_patient,
    relative,
    stem_of,
    walk_files,
)
from medgcsam.intake.importers.result import Imported, Progress

PARTITIONS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}


def collect_class_folders(description: Description, root: Path | None, progress: Progress = None) -> Imported:
    """Rows of ``CLASS/.../FILE`` or ``PARTITION/CLASS/.../FILE`` below the data set's folder (and its ``images``).

    ``select.mask_suffix`` (such as ``_mask``): files named like an image with this suffix, and perhaps a number
    (``a_mask.png``, ``a_mask_1.png``), are masks of that image. ``select.labels`` is a folder with a mask of the same
    relative path, up to the ending, for every image. An image in whose path ``patient_pattern`` finds no patient is
    left out; without a pattern no patient is made up.

    Raises:
        DataError: the set is absent, or holds images outside folders of classes only.
    """
    folder = data_folder(description, root) / description.images
    imported = Imported(root=folder)
    images = _images(folder, imported)
    suffix = description.select.mask_suffix
    masks = _masks_beside(images, suffix) if suffix else {}
    claimed = {name for names in masks.values() for name in names}
    if description.select.labels:
        masks = _masks_in(Path(description.select.labels).absolute(), images, imported)
    for position, name in enumerate(images):
        if progress is not None:
            progress(position + 1, len(images))
        if name in claimed:
            continue
        label, partition = _class_of(name)
        if not label:
            imported.leave_out(name, "in no folder of a class")
        elif suffix and _is_mask(name, suffix):
            imported.leave_out(name, "mask without an image")
        else:
            patient = matched_patient(name, description.select.patient_pattern)
            mask = MASK_SEPARATOR.join(masks.get(name, ()))
            imported.rows.append(
                {"image": name, "patient_id": patient, "label": label, "mask": mask, "partition": partition}
            )
    imported.leave_out_unmatched(description.select.patient_pattern)
    imported.notes += _doubts(imported.rows, masks=bool(suffix or description.select.labels))
    imported.scanned = f"{len(images):,} image files in {folder.name}"
    return imported


def _doubts(rows: list[dict[str, str]], *, masks: bool) -> list[str]:
    """What speaks against the rows being what the user meant, in sentences."""
    doubts = []
    classes = {row["label"] for row in rows}
    if len(classes) == 1:
        doubts.append(f"note: all images lie in one folder, {classes.pop()}, so there is one class only")
    alike = 0 if masks else sum(map(len, _masks_beside([row["image"] for row in rows], "_mask").values()))
    if alike:
        doubts.append(
            f"note: {alike:,} of the images are named like another one with _mask after it; if they are its masks, "
            "import again with --mask-suffix _mask"
        )
    return doubts


def _images(folder: Path, imported: Imported) -> list[str]:
    names = []
    for path in walk_files(folder, imported):
        name = relative(path, folder)
        if not is_image_name(name):
            imported.leave_out(name, "no image by its name")
        elif MASK_SEPARATOR in name:
            imported.leave_out(name, f"a name with {MASK_SEPARATOR!r} in it")
        else:
            names.append(name)
    if not names:
        raise DataError(f"{folder}: it holds no image file; name the folder that holds the folders of the classes.")
    return names


def _class_of(name: str) -> tuple[str, str]:
    """(class, partition) of a path; no class where the file lies in no folder but that of a partition."""
    parts = name.split("/")[:-1]
    partition = PARTITIONS.get(parts[0].lower(), "") if parts else ""
    if partition:
        parts = parts[1:]
    return (parts[0] if parts else ""), partition


def _mask_pattern(suffix: str) -> re.Pattern[str]:
    return re.compile(rf"(.+){re.escape(suffix)}(?:_?\d+)?$")


def _is_mask(name: str, suffix: str) -> bool:
    return _mask_pattern(suffix).match(stem_of(name)) is not None


def _masks_beside(images: list[str], suffix: str) -> dict[str, list[str]]:
    """Image -> its masks in the same folder, by name."""
    by_stem = {(os.path.dirname(name), stem_of(name)): name for name in images if not _is_mask(name, suffix)}
    found: dict[str, list[str]] = {}
    for name in images:
        match = _mask_pattern(suffix).match(stem_of(name))
        image = by_stem.get((os.path.dirname(name), match[1])) if match else None
        if image is not None:
            found.setdefault(image, []).append(name)
    return found


def _masks_in(folder: Path, images: list[str], imported: Imported) -> dict[str, list[str]]:
    """Image -> the mask of the same relative path, up to the ending, in another folder."""
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder of masks; correct --labels.")
    by_stem: dict[tuple[str, str], list[str]] = {}
    for path in walk_files(folder, imported):
        name = relative(path, folder)
        if is_image_name(name):
            by_stem.setdefault((os.path.dirname(name), stem_of(name)), []).append(str(path))
    found = {name: by_stem.pop((os.path.dirname(name), stem_of(name)), []) for name in images}
    for paths in by_stem.values():
        for path in paths:
            imported.leave_out(path, "mask without an image")
    return found
