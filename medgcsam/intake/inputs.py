"""What `predict` is given: a file, a folder, a DICOM series or a manifest becomes a list of images by name."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from medgcsam.cohort.faults import Fault
from medgcsam.cohort.manifest import read_manifest
from medgcsam.errors import ConfigError, DataError
from medgcsam.imaging.references import split_selector
from medgcsam.imaging.sniff import sniff_kind
from medgcsam.intake.importers.dicom_folder import SEVERAL_PATIENTS, dicom_images
from medgcsam.intake.importers.dicom_scan import EMPTY, NO_DICOM
from medgcsam.intake.importers.files import LINK_OUT, LINK_TO_FOLDER, is_image_name, leads_out, relative, walk_files
from medgcsam.intake.importers.result import Imported, LeftOut

SINGLE = ("png", "jpeg", "tiff", "nifti", "nrrd", "metaimage", "npz")

LISTED_TWICE = "listed twice"
_NO_IMAGE = (NO_DICOM, "no image", "same SOPInstanceUID", "label")
"""How the reasons begin for which no image is missing from the result."""
LEADS_NOWHERE = "is a link to what is no file; copy the file there"
_UNNAMED = {
    "fields": "put quotation marks around a name that holds the separator",
    "image": "name one, or take the line out",
}
"""Faults of a row that leave no image to predict, and what to do; labels, patients and partitions are not asked for."""


@dataclass(frozen=True)
class Input:
    """One image that was asked for.

    name: as the input says it, short, and its own within the input. reference: for ``read_image``; absolute, and what
    the image is known by. fault: why it cannot be taken, "" where nothing is known against it.
    """

    name: str
    reference: str
    fault: str = ""


@dataclass(frozen=True)
class Inputs:
    """The images of an input in order; how many ``excluded`` rows there are for each reason; and what is no image or
    not wanted twice, as ``passed_over`` (name, reason)."""

    images: tuple[Input, ...]
    passed_over: tuple[tuple[str, str], ...] = ()
    excluded: Mapping[str, int] = field(default_factory=dict)


def find_inputs(path: Path, *, resampled: bool = False, without: Path | None = None) -> Inputs:
    """The images of ``path``.

    - a manifest (.csv) with a column ``image``: its rows; no other column is needed
    - a folder, zip archive or DICOMDIR with DICOM: an image per series of slices, per multi-frame object and per single
      image, as `medgcsam import` takes them; and every other image file below a folder. A file that is named like an
      image and is none, a link that is not followed and a folder that cannot be opened are images with a fault.
    - a file, with or without a selector such as ``FOLDER#series=UID``: itself

    resampled: take DICOM series that are no regular volume, because the reader will resample them.
    without: a folder that is not looked into, such as that of earlier results.

    Raises:
        DataError: there is no such file, or no image in it.
    """
    if path.suffix.lower() == ".csv" and path.is_file():
        return _in_manifest(path)
    if path.is_dir() or (path.is_file() and _holds_several(path)):
        found = _in_folder(path, resampled, without)
        if not found.images:
            raise DataError(f"{path}: there is no image in it; name a file, a folder with images, or a manifest.")
        return found
    if not os.path.exists(split_selector(str(path))[0]):
        raise DataError(f"{path} does not exist; name a file, a folder with images, or a manifest.")
    return Inputs((Input(path.name, os.path.abspath(path)),))


def _in_manifest(path: Path) -> Inputs:
    faults: list[Fault] = []
    try:
        table = read_manifest(path, patients="unknown", unlabelled=True, faults=faults)
    except ConfigError as error:  # no other column is needed
        raise ConfigError(f"{path}: a manifest needs a column called image, and it has none; name it so.") from error
    again = {fault.row: fault for fault in faults if fault.kind == "listed_twice"}
    lines = {
        int(row.line): Input(row.case, row.image)
        for row in table.itertuples(index=False)
        if row.case and int(row.line) not in again
    }
    for fault in faults:
        if fault.kind in _UNNAMED:
            number, remedy = f"line {fault.row}", _UNNAMED[fault.kind]
            reason = f"{fault.sentence.removeprefix(number).strip()}; {remedy}"
            lines[fault.row] = Input(f"{path.name}, {number}", f"{rows_of(path)}{fault.row}", reason)
    return Inputs(
        tuple(image for _, image in sorted(lines.items())),
        tuple((fault.image, LISTED_TWICE) for fault in again.values()),
        dict(table.attrs["excluded"]),
    )


def rows_of(path: Path) -> str:
    """How the references of a manifest's rows begin that name no image."""
    return f"{os.path.abspath(path)}, line "


def _holds_several(path: Path) -> bool:
    try:
        return path.name.upper() == "DICOMDIR" or sniff_kind(path) == "zip"
    except OSError:  # which reading it will say
        return False


def _in_folder(path: Path, resampled: bool, without: Path | None) -> Inputs:
    whole = Path(os.path.abspath(path))
    images, passed_over, dicom_files = [], [], set()
    for file, kind, fault in _files(whole, without):
        if kind in ("dicom", "zip"):
            dicom_files.add(str(file))
        elif kind in SINGLE or fault:
            images.append(Input(relative(file, whole), str(file), fault))
        else:
            passed_over.append((relative(file, whole), "no image"))
    if not whole.is_dir() or dicom_files:
        taken, others = _dicom(whole, dicom_files, resampled)
        images += taken
        passed_over += others
    return Inputs(tuple(sorted(images, key=lambda image: image.name)), tuple(passed_over))


def _files(folder: Path, without: Path | None) -> list[tuple[Path, str, str]]:
    """Every file below a folder, what kind it is, and why an image cannot be taken; nothing of an archive."""
    if not folder.is_dir():
        return []
    links = Imported(root=folder)
    found = [_looked_at(file) for file in walk_files(folder, links)]
    found += [(folder / entry.reference, *_not_followed(entry, folder)) for entry in links.left_out]
    return [entry for entry in found if without is None or not entry[0].is_relative_to(without)]


def _looked_at(file: Path) -> tuple[Path, str, str]:
    if not file.is_file():  # a named pipe, which would be waited for, or a link
        lost = file.is_symlink() and _could_be_image(file)
        return file, "unknown", LEADS_NOWHERE if lost else ""
    if file.name.upper() == "DICOMDIR":
        return file, "dicom", ""
    try:
        kind = sniff_kind(file)
    except OSError as error:
        return file, "unknown", f"cannot be opened ({error.strerror or error}); correct its permissions"
    if kind != "unknown" or not is_image_name(file.name):
        return file, kind, ""
    if not file.stat().st_size:
        return file, kind, "is an empty file; export it again"
    return file, kind, "is named like an image, but its content is of no kind that can be read here; export it again"


def _could_be_image(file: Path) -> bool:
    """By its name alone; DICOM often has no ending."""
    return is_image_name(file.name) or not file.suffix


def _not_followed(entry: LeftOut, folder: Path) -> tuple[str, str]:
    """Of a link or a folder that is not gone into: no image may be missing without a word."""
    if entry.reason == LINK_OUT and not _could_be_image(Path(entry.reference)):
        return "unknown", ""
    if entry.reason == LINK_TO_FOLDER and not leads_out(entry.reference, folder):
        return "unknown", ""  # what it leads to is met on its own
    if entry.reason == LINK_OUT and not (folder / entry.reference).is_file():
        return "unknown", LEADS_NOWHERE
    return "unknown", f"is not followed ({entry.reason}); name what it leads to as the input, or copy that here"


def _dicom(path: Path, files: Collection[str], resampled: bool) -> tuple[list[Input], list[tuple[str, str]]]:
    """The images among the DICOM files of a folder, archive or medium, and what of them is no image."""
    found = dicom_images(path, keep_irregular=resampled)
    place = path.parent if path.name.upper() == "DICOMDIR" else path
    names = _names(found.rows, place, found.packed)
    images = [Input(name, str(found.root / row["image"])) for name, row in zip(names, found.rows, strict=True)]
    known = {parent for file in files for parent in (file, *map(str, Path(file).parents))}
    passed_over = []
    for entry in found.left_out:
        name, reference = _below(entry.reference, place), str(found.root / entry.reference)
        file, member = split_selector(reference)
        if files and file not in known:
            continue  # no DICOM, and told of already
        picture = is_image_name(member) and not any(part[:1] in (".", "_") for part in member.split("/"))
        if entry.reason == NO_DICOM and picture:
            images.append(Input(name, reference))
        elif entry.reason.startswith(_NO_IMAGE) or (entry.reason == EMPTY and not is_image_name(reference)):
            passed_over.append((name, entry.reason))
        else:
            detail = "" if entry.reason == SEVERAL_PATIENTS else entry.detail
            images.append(Input(name, reference, f"{entry.reason}: {detail}".removesuffix(": ").rstrip(".")))
    return images, passed_over


def _names(rows: Sequence[Mapping[str, str]], place: Path, packed: Mapping[str, str]) -> list[str]:
    """The shortest of these that is an image's own: its folder or file; the same with its folder in the archive, with
    the description of the series, or with the UID of the series."""
    choices = []
    for row in rows:
        whole = _below(row["image"], place)
        file = whole.rpartition("#series=")[0] or whole
        described = " ".join(row["series_description"].split())
        inside = packed.get(row["image"])
        choices.append((file, inside and f"{file}#{inside}", described and f"{file}#{described}", whole))
    names = [choice[-1] for choice in choices]
    for step in (2, 1, 0):
        counts = Counter(choice[step] for choice in choices)
        for number, choice in enumerate(choices):
            if choice[step] and counts[choice[step]] == 1:
                names[number] = choice[step]
    return names


def _below(reference: str, place: Path) -> str:
    """A reference of ``dicom_images``, from the folder ``place`` on; of an archive, from its own name on."""
    folder = place if place.is_dir() else place.parent
    return reference.removeprefix(f"{folder.name}/")
