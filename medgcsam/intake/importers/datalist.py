"""A MONAI datalist (JSON with lists under training, validation, test) becomes rows; MSD's dataset.json is one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medgcsam.cohort.columns import STANDARD
from medgcsam.cohort.manifest import MASK_SEPARATOR
from medgcsam.errors import ConfigError, DataError
from medgcsam.intake.description import Description, data_folder
from medgcsam.intake.importers.files import (
    LINK_OUT,
    inside,
    is_image_name,
    leads_out,
    matched_patient,
    read_json_file,
)
from medgcsam.intake.importers.result import Imported, Progress

SECTIONS = {"training": "train", "train": "train", "validation": "validation", "val": "validation"}
SECTIONS |= {"test": "test", "testing": "test"}
PATIENT_KEYS = ("patient_id", "PatientID", "patient", "subject_id", "subject")
_MASK_KEYS = ("label", "mask", "seg", "segmentation")


def collect_datalist(description: Description, root: Path | None, progress: Progress = None) -> Imported:
    """Rows of a datalist: items with ``image`` and ``label``, or bare paths.

    A label that is the path of a file is a mask; a number or word is a label; a list of numbers is a multi-label one,
    the positions that hold 1. The patient is what the item says under one of ``PATIENT_KEYS``, or what
    ``patient_pattern`` finds in the image's path; with a pattern, items without a patient are left out. Other plain
    values of an item (``fold``) become columns. An item that repeats another is left out, and so are all items of an
    image that they contradict each other about.

    Raises:
        DataError: the file is absent or no datalist, names files outside its folder, or one image in two partitions.
        ConfigError: images of several files without a choice of channel.
    """
    folder = data_folder(description, root)
    path = folder / str(description.file)
    imported = Imported(root=folder)
    add_sections(imported, read_json_file(path, "the datalist"), path, description)
    return imported


def add_sections(imported: Imported, content: Any, path: Path, description: Description) -> None:
    """Add the items of all sections of a datalist."""
    if not isinstance(content, dict) or not any(isinstance(content.get(name), list) for name in SECTIONS):
        raise DataError(f"{path}: this is no datalist; it needs lists under training, validation or test.")
    count = 0
    for name, partition in SECTIONS.items():
        items = content.get(name)
        for position, item in enumerate(items if isinstance(items, list) else []):
            count += 1
            where = f"{path}: item {position} of {name}"
            _add_item(imported, item, where, partition, description)
    imported.rows = _one_item_per_image(imported, path)
    imported.leave_out_unmatched(description.select.patient_pattern)
    imported.scanned = f"{count:,} items in {path.name}"


def _add_item(imported: Imported, item: Any, where: str, partition: str, description: Description) -> None:
    folder = imported.root
    content = {"image": item} if isinstance(item, str | list) else item
    if not isinstance(content, Mapping) or not content.get("image"):
        raise DataError(f"{where} names no image; repair the datalist.")
    image = inside(_one_image(content["image"], where, description.select.channel), folder)
    row = {"image": image, "patient_id": "", "label": "", "mask": "", "partition": partition}
    named = next((str(content[key]) for key in PATIENT_KEYS if content.get(key) not in (None, "")), "")
    row["patient_id"] = named or matched_patient(image, description.select.patient_pattern)
    for key in _MASK_KEYS:
        if content.get(key) is not None:
            _set_label(row, content[key], where, folder)
    for key, value in content.items():
        if key not in ("image", *PATIENT_KEYS, *_MASK_KEYS) and isinstance(value, str | int | float):
            row.setdefault(key, str(value))
    absent = [name for name in (image, *_masks(row)) if not (folder / name).exists()]
    if absent:
        imported.leave_out(image, "file missing", f"{absent[0]} does not exist", row["patient_id"])
    elif any(leads_out(name, folder) for name in (image, *_masks(row))):
        imported.leave_out(image, LINK_OUT, "", row["patient_id"])
    elif partition == "test" and not row["mask"] and not row["label"]:
        imported.leave_out(image, "test image without a label", "", row["patient_id"])
    else:
        imported.rows.append(row)


def _one_item_per_image(imported: Imported, path: Path) -> list[dict[str, str]]:
    """The rows without those that repeat an image; none of an image whose items contradict each other."""
    first: dict[str, dict[str, str]] = {}
    contradictory: set[str] = set()
    for row in imported.rows:
        before = first.setdefault(row["image"], row)
        if before["partition"] != row["partition"]:
            where = f"{before['partition']} and in {row['partition']}"
            raise DataError(f"{path}: the image {row['image']} is in {where}; take it out of one of the lists.")
        if any(before.get(name, "") != row.get(name, "") for name in STANDARD):
            contradictory.add(row["image"])
    for row in imported.rows:
        image, patient = row["image"], row["patient_id"]
        if image in contradictory:
            imported.leave_out(image, "items of one image contradict each other", "", patient)
        elif first[image] is not row:
            imported.leave_out(image, "another item of an image that is taken", "", patient)
    return [row for image, row in first.items() if image not in contradictory]


def _masks(row: Mapping[str, str]) -> list[str]:
    return [name for name in row["mask"].split(MASK_SEPARATOR) if name]


def _one_image(image: Any, where: str, channel: str | None) -> str:
    """The path of an item's image, or of the chosen one of several files."""
    if isinstance(image, str):
        return image
    if not isinstance(image, list) or not all(isinstance(name, str) for name in image) or not image:
        raise DataError(f"{where} names its image neither as a path nor as a list of paths; repair the datalist.")
    if len(image) == 1:
        return image[0]
    if channel is None or not channel.isdecimal() or int(channel) >= len(image):
        raise ConfigError(
            f"{where} has its channels in {len(image)} files, and a row of a manifest names one; choose it with "
            f"--channel 0 to {len(image) - 1}."
        )
    return image[int(channel)]


def _set_label(row: dict[str, str], label: Any, where: str, folder: Path) -> None:
    """Fill ``label`` or ``mask``, by what the label looks like."""
    if isinstance(label, int) or (isinstance(label, float) and label.is_integer()):
        row["label"] = str(int(label))
    elif isinstance(label, list) and label and all(value in (0, 1) for value in label):
        row["label"] = "|".join(str(position) for position, value in enumerate(label) if value) or "none"
    elif isinstance(label, list) and label and all(isinstance(name, str) for name in label):
        row["mask"] = MASK_SEPARATOR.join(_mask(name, where, folder) for name in label)
    elif isinstance(label, str) and is_image_name(label):
        row["mask"] = _mask(label, where, folder)
    elif isinstance(label, str):
        row["label"] = label
    else:
        raise DataError(f"{where} has the label {str(label)[:60]!r}, neither a path nor a class; repair the datalist.")


def _mask(name: str, where: str, folder: Path) -> str:
    if MASK_SEPARATOR in name:
        raise DataError(f"{where} has a mask with {MASK_SEPARATOR!r} in its name; rename the file.")
    return inside(name, folder)
