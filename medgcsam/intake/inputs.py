"""What `predict` is given: a file, a folder, a DICOM series or a manifest becomes a list of images by name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from medgcsam.cohort.manifest import read_manifest
from medgcsam.errors import DataError
from medgcsam.imaging.sniff import sniff_kind
from medgcsam.intake.description import Description
from medgcsam.intake.importers.dicom_folder import collect_dicom
from medgcsam.intake.importers.files import relative, walk_files
from medgcsam.intake.importers.result import Imported

_ANY_DICOM = Description(title="input", licence="", citation="", source="", importer="dicom", folder=".")
SINGLE = ("png", "jpeg", "tiff", "nifti", "nrrd", "metaimage", "npz")

_NO_IMAGE = ("no DICOM file", "no image", "same SOPInstanceUID", "label", "symbolic link")
"""How the reasons begin for which nothing is missing from the result."""


@dataclass(frozen=True)
class Input:
    """One image to predict: its ``name`` as the input says it, and its ``reference`` for ``read_image``."""

    name: str
    reference: str


@dataclass(frozen=True)
class Inputs:
    """The images of an input in order; ``refused``: images that cannot be taken, and ``passed_over``: what is no image
    or not wanted twice, both as (name, reason)."""

    images: tuple[Input, ...]
    refused: tuple[tuple[str, str], ...] = ()
    passed_over: tuple[tuple[str, str], ...] = ()


def find_inputs(path: Path) -> Inputs:
    """The images of ``path``.

    - a manifest (.csv) with a column ``image``: its rows; no other column is needed
    - a folder, zip archive or DICOMDIR with DICOM: an image per series of slices, per multi-frame object and per single
      image, as `medgcsam import` takes them; and every other image file below a folder
    - a file, with or without a selector such as ``FOLDER#series=UID``: itself

    Raises:
        DataError: there is no such file, or no image in it.
    """
    text = str(path)
    if path.suffix.lower() == ".csv" and path.is_file():
        table = read_manifest(path, patients="unknown", unlabelled=True, faults=[])
        return Inputs(tuple(Input(*row) for row in table[["case", "image"]].itertuples(index=False)))
    if path.is_dir() or (path.is_file() and _holds_several(path)):
        found = _in_folder(path)
        if not found.images and not found.refused:
            raise DataError(f"{path}: there is no image in it; name a file, a folder with images, or a manifest.")
        return found
    if not path.exists() and "#" not in text:
        raise DataError(f"{path} does not exist; name a file, a folder with images, or a manifest.")
    return Inputs((Input(path.name, text),))


def _holds_several(path: Path) -> bool:
    return path.name.upper() == "DICOMDIR" or sniff_kind(path) == "zip"


def _in_folder(path: Path) -> Inputs:
    kinds: dict[str, str] = {}
    found = Imported(root=path)
    files = list(walk_files(path, found)) if path.is_dir() else []
    for file in files:
        kinds[str(file)] = "dicom" if file.name.upper() == "DICOMDIR" else sniff_kind(file)
    images = [Input(relative(Path(file), path), file) for file, kind in kinds.items() if kind in SINGLE]
    refused: list[tuple[str, str]] = []
    passed_over = [(entry.reference, entry.reason) for entry in found.left_out]
    if not path.is_dir() or "dicom" in kinds.values():
        dicom = collect_dicom(_ANY_DICOM, path)
        images += [Input(row["image"], str(dicom.root / row["image"])) for row in dicom.rows]
        for entry in dicom.left_out:
            if entry.reason.startswith(_NO_IMAGE):
                passed_over.append((entry.reference, entry.reason))
            else:
                refused.append((entry.reference, f"{entry.reason}: {entry.detail}".removesuffix(": ").rstrip(".")))
    return Inputs(tuple(sorted(images, key=lambda image: image.name)), tuple(refused), tuple(passed_over))
