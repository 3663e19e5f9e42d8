"""A task of the Medical Segmentation Decathlon: dataset.json beside imagesTr, labelsTr and imagesTs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medgcsam.errors import DataError
from medgcsam.intake.description import Description, data_folder
from medgcsam.intake.importers.datalist import add_sections
from medgcsam.intake.importers.files import read_json_file
from medgcsam.intake.importers.result import Imported, Progress


def collect_msd(description: Description, root: Path | None, progress: Progress = None) -> Imported:
    """Rows of the training cases, and the class number of each structure; test cases have no masks and are left out.

    The set names cases and not patients: ``patient_id`` is what ``patient_pattern`` finds in the image's path, and
    with a pattern cases without a patient are left out.

    Raises:
        DataError: the set is absent, or its dataset.json is none of the decathlon.
    """
    folder = data_folder(description, root)
    path = folder / (description.file or "dataset.json")
    content = read_json_file(path, "a decathlon task")
    imported = Imported(root=folder)
    add_sections(imported, content, path, description)
    imported.structures, notes = structures_of(content.get("labels"), path)
    imported.notes += notes
    modalities = content.get("modality")
    if isinstance(modalities, Mapping) and len(modalities) > 1:
        named = ", ".join(str(modalities[key]) for key in sorted(modalities, key=str))
        imported.notes.append(f"Each image is a 4-D file of {len(modalities)} channels: {named}.")
    return imported


def structures_of(labels: Any, path: Path) -> tuple[dict[str, int], list[str]]:
    """Structure -> class number without background, and a note for every region that joins several numbers.

    ``labels`` is ``{"1": "liver"}`` as in the decathlon, or nnU-Net's ``{"liver": 1}`` or ``{"whole": [1, 2]}``. A
    number that occurs in regions alone is called ``class N``.

    Raises:
        DataError: ``labels`` is none of these.
    """
    if not isinstance(labels, Mapping):
        raise DataError(f"{path}: it has no 'labels', a map of structures and numbers; repair it.")
    numbers: dict[int, str] = {}
    regions: dict[str, list[int]] = {}
    for key, value in labels.items():
        name, number = (value, key) if isinstance(value, str) and str(key).isdecimal() else (key, value)
        parts = number if isinstance(number, list) else [number]
        if not parts or not all(str(part).isdecimal() for part in parts):
            raise DataError(f"{path}: the structure {name!r} has the number {number!r}; give whole numbers from 0.")
        if len(parts) > 1:
            regions[str(name)] = [int(part) for part in parts]
        elif numbers.setdefault(int(parts[0]), str(name)) != str(name):
            raise DataError(
                f"{path}: {name!r} and {numbers[int(parts[0])]!r} have the same number {parts[0]}; repair it."
            )
    for number in sorted({number for parts in regions.values() for number in parts}):
        numbers.setdefault(number, f"class {number}")
    notes = [f"The region {name!r} joins the numbers {parts} of the masks." for name, parts in regions.items()]
    return {name: number for number, name in sorted(numbers.items()) if number != 0}, notes
