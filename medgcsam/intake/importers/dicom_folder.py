"""A folder of DICOM, as a PACS exports it, becomes one row per image: per series of slices, or per file."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path

from medgcsam.errors import DataError
from medgcsam.imaging.sources import MAX_FILES, MEDIA_DIRECTORY
from medgcsam.intake.description import Description, Selection, data_folder
from medgcsam.intake.importers.dicom_faults import RESAMPLED, fault_of_mosaics, fault_of_stack, undecodable
from medgcsam.intake.importers.dicom_labels import LabelObjects, join_table
from medgcsam.intake.importers.dicom_scan import Header, scan, worker_count
from medgcsam.intake.importers.files import walk_files
from medgcsam.intake.importers.result import Imported, Progress

SLICES = {f"1.2.840.10008.5.1.4.1.1.{n}" for n in ("2", "4", "128")}
"""SOP classes whose objects are single slices of a volume: CT, MR and PET Image Storage."""
LABELS = {"1.2.840.10008.5.1.4.1.1.66.4": "seg", "1.2.840.10008.5.1.4.1.1.481.3": "rtstruct"}
LABELS["1.2.840.10008.5.1.4.1.1.66.7"] = "seg"  # Label Map Segmentation Storage
MANY_STUDIES, MANY_SERIES = 5, 20
SEVERAL_PATIENTS = "series of several patients"
"""The reason whose detail names them."""


def collect_dicom(description: Description, root: Path | None, progress: Progress = None) -> Imported:
    """Rows of the images below a folder (or in one zip archive), and everything else left out with its reason.

    CT, MR and PET slices of one SeriesInstanceUID are one image, ``FOLDER#series=UID``, and so are several Siemens
    mosaics of one; every other image, and every multi-frame object, is a row of its own. Series that the reader would
    refuse by their headers are left out by its reason. ``patient_id`` is PatientID: objects without one are left out.
    ``select`` chooses by ``modality``, ``description`` (expression searched in SeriesDescription) and, with ``labels``
    ("seg", "rtstruct", a folder or a table of labels), brings labels, see ``dicom_labels``.

    Raises:
        DataError: the folder is absent, or holds no DICOM.
    """
    start = _start(description, root)
    imported = _collected(start, description.select, progress)
    if not imported.scanned:
        raise DataError(f"{start}: it holds no DICOM object that names its patient; name another folder or --kind.")
    select = description.select
    if select.labels and select.labels not in ("seg", "rtstruct") and Path(select.labels).is_file():
        join_table(imported, Path(select.labels), description)
    return imported


def dicom_images(path: Path, *, keep_irregular: bool = False) -> Imported:
    """The same of whatever is below a folder, in a zip archive or beside a DICOMDIR, for who needs the images alone.

    No object needs a PatientID, and where there is no DICOM there are no rows.
    """
    start = Path(os.path.abspath(path.parent if path.name.upper() == "DICOMDIR" else path))
    return _collected(start, Selection(keep_irregular=keep_irregular), None, anonymous=True)


def _collected(start: Path, select: Selection, progress: Progress, *, anonymous: bool = False) -> Imported:
    """What ``collect_dicom`` returns, but for a table of labels; ``scanned`` is empty where no object is usable."""
    folder = start if start.is_dir() else start.parent
    imported = Imported(root=folder.parent)
    paths = list(walk_files(folder, imported)) if start.is_dir() else [start]
    headers = list(scan(paths, folder.parent, workers=worker_count(), progress=progress))
    objects = [header for header in headers if _usable(header, imported, anonymous)]
    if not objects:
        return imported
    labels = LabelObjects([header for header in objects if header["SOPClassUID"] in LABELS], LABELS)
    crowded = _crowded_folders(imported, headers)
    series: dict[str, list[Header]] = {}
    for header in objects:
        if _is_image(header, imported):
            series.setdefault(header["SeriesInstanceUID"], []).append(header)
    several = 0
    for uid, members in series.items():
        several += _add_series(imported, uid, _selected(imported, uid, members, select), select, crowded)
    if several:
        imported.notes.append(f"{several:,} images hold several volumes of one place, which are their channels.")
    _describe_scan(imported, headers, objects)
    if select.labels and (select.labels in ("seg", "rtstruct") or not Path(select.labels).is_file()):
        labels.match(imported, select)
    labels.leave_out_unused(imported)
    return imported


def _start(description: Description, root: Path | None) -> Path:
    """The folder to look through, or the archive; of a DICOMDIR the folder that it stands in."""
    if root is not None and root.is_file():
        path = Path(os.path.abspath(root))
        return path.parent if path.name.upper() == "DICOMDIR" else path
    return Path(os.path.abspath(data_folder(description, root) / description.images))


def _usable(header: Header, imported: Imported, anonymous: bool) -> bool:
    """Whether a file is a DICOM object of a known series and, unless ``anonymous``, patient."""
    if header["SOPClassUID"] == MEDIA_DIRECTORY:
        return False
    needed = ("SeriesInstanceUID",) if anonymous else ("PatientID", "SeriesInstanceUID")
    missing = [name for name in needed if not header[name]]
    reason = header.fault or (f"no {missing[0]}" if missing else "")
    if reason:
        imported.leave_out(header.reference, reason, header.detail, header["PatientID"])
    return not reason


def _is_image(header: Header, imported: Imported) -> bool:
    if header["SOPClassUID"] in LABELS:
        return False
    reason = undecodable(header)
    if "Image Storage" not in header.object_name or min(header.shape) == 0:
        reason = f"no image: {header.object_name}"
    if reason:
        imported.leave_out(header.reference, reason, "", header["PatientID"])
    return not reason


def _selected(imported: Imported, uid: str, members: list[Header], select: Selection) -> list[Header]:
    """The objects of a series that have the wanted modality and description."""
    groups: dict[str, list[Header]] = {}
    for header in members:
        reason = ""
        if select.modality and header["Modality"].upper() not in {name.upper() for name in select.modality}:
            reason = f"modality {header['Modality'] or 'empty'}"
        elif select.description and not re.search(select.description, header["SeriesDescription"], re.IGNORECASE):
            reason = "series description does not match"
        groups.setdefault(reason, []).append(header)
    chosen = groups.pop("", [])
    for reason, headers in groups.items():
        _leave_out_all(imported, uid, headers, reason, headers[0]["SeriesDescription"])
    return chosen


def _crowded_folders(imported: Imported, headers: Sequence[Header]) -> set[str]:
    """Folders with more files below them than the reader looks through to find a series; says which are slow."""
    counts: Counter[str] = Counter()
    series: dict[str, set[str]] = {}
    for header in headers:
        folder = _folder_of(header.reference)
        if header.shape != (0, 0) and "#" not in header.reference:
            series.setdefault(folder, set()).add(header["SeriesInstanceUID"])
        while folder:
            counts[folder] += 1
            folder = os.path.dirname(folder)
    slow = [folder for folder, found in series.items() if len(found) > MANY_SERIES]
    if slow:
        imported.notes.append(
            f"{slow[0]} holds {len(series[slow[0]]):,} series, and reading one looks through the files of all; give "
            "each series a folder of its own to read them fast."
        )
    return {folder for folder, count in counts.items() if count > MAX_FILES}


def _add_series(
    imported: Imported, uid: str, members: list[Header], select: Selection, crowded: Collection[str]
) -> bool:
    """The images of one series: a stack of slices, or files of their own; whether one has several channels."""
    if not members:
        return False
    patients = sorted({header["PatientID"] for header in members})
    if len(patients) > 1:
        _leave_out_all(imported, uid, members, SEVERAL_PATIENTS, " and ".join(patients))
        return False
    slices = _without_copies(imported, uid, [header for header in members if _is_slice(header)])
    several = False
    mixed = len(slices) > 1 and not all(_is_slice(header) for header in members)
    if mixed:
        _leave_out_all(imported, uid, slices, "slices and other images in one series", "")
    else:
        several = _add_stack(imported, uid, slices, select, crowded)
    mosaics = _without_copies(imported, uid, [header for header in members if _is_mosaic(header)])
    if len(mosaics) > 1 and len(mosaics) == len(members):
        return _add_mosaics(imported, uid, mosaics, crowded)
    seen: dict[str, str] = {}
    for header in members:
        if _is_slice(header):
            continue
        first = seen.setdefault(header["SOPInstanceUID"] or header.reference, header.reference)
        if first != header.reference:
            imported.leave_out(
                header.reference, "same SOPInstanceUID as an object that is taken", first, header["PatientID"]
            )
        else:
            imported.rows.append(_row(header, header.reference, 1))
    return several


def _is_slice(header: Header) -> bool:
    single = int(header["NumberOfFrames"] or 1) == 1 if header["NumberOfFrames"].isdecimal() else True
    return header["SOPClassUID"] in SLICES and single and "MOSAIC" not in header.image_type


def _is_mosaic(header: Header) -> bool:
    return header["SOPClassUID"] in SLICES and "MOSAIC" in header.image_type


def _without_copies(imported: Imported, uid: str, slices: list[Header]) -> list[Header]:
    """The slices, or those of the fullest folder where other folders hold some of the same objects again."""
    instances = Counter(header["SOPInstanceUID"] for header in slices)
    if not slices or max(instances.values()) == 1:
        return slices
    folders: dict[str, list[Header]] = {}
    for header in slices:
        folders.setdefault(_folder_of(header.reference), []).append(header)
    place = max(folders, key=lambda name: len(folders[name]))
    first = folders.pop(place)
    others = list(folders.values())
    wanted = {header["SOPInstanceUID"] for header in first}
    apart = len(wanted) == len(first) and not any(name.startswith(f"{place}/") for name in folders)
    if not apart or any(header["SOPInstanceUID"] not in wanted for other in others for header in other):
        return slices  # the same object twice in one image: the geometry refuses it by its reason
    for other in others:
        reason = "same SOPInstanceUIDs as a series that is taken"
        _leave_out_all(imported, uid, other, reason, place)
    return first


def _folder_of(reference: str) -> str:
    """The folder or archive that a file lies in."""
    archive, mark, _ = reference.partition("#")
    return archive if mark else os.path.dirname(reference)


def _add_stack(imported: Imported, uid: str, slices: list[Header], select: Selection, crowded: Collection[str]) -> bool:
    """One row for a stack of slices, unless the reader would refuse it; whether it has several channels."""
    if not slices:
        return False
    localisers = [header for header in slices if "LOCALIZER" in header.image_type]
    if localisers:
        what = "localiser" if len(localisers) == len(slices) else "localiser among the slices"
        _leave_out_all(imported, uid, slices, what, slices[0]["SeriesDescription"])
        return False
    reference = _reference(uid, slices)
    reason, detail, channels = fault_of_stack(slices, reference)
    reason, detail = _crowded(reference, crowded) or (reason, detail)
    if reason and not (select.keep_irregular and set(reason.split(" and ")) <= RESAMPLED):
        imported.leave_out(reference, reason, detail, slices[0]["PatientID"])
        return False
    _take(imported, slices, reference, len(slices) // channels)
    return channels > 1


def _add_mosaics(imported: Imported, uid: str, mosaics: list[Header], crowded: Collection[str]) -> bool:
    """One row for several mosaics, unless the reader would refuse them; whether there is one."""
    reference = _reference(uid, mosaics)
    reason, detail = _crowded(reference, crowded) or fault_of_mosaics(mosaics, reference)
    if reason:
        imported.leave_out(reference, reason, detail, mosaics[0]["PatientID"])
        return False
    _take(imported, mosaics, reference, len(mosaics))
    return True


def _take(imported: Imported, headers: Sequence[Header], reference: str, slices: int) -> None:
    imported.rows.append(_row(headers[0], reference, slices))
    members = [header.reference.partition("#")[2] for header in headers]
    if len(members) > 1 and all(members):
        imported.packed[reference] = os.path.commonpath([os.path.dirname(member) for member in members])


def _crowded(reference: str, crowded: Collection[str]) -> tuple[str, str] | None:
    """The reason to leave out a series of a folder with more files than are looked through."""
    if "#" in reference and reference.partition("#")[0] in crowded:
        return f"in a folder of over {MAX_FILES:,} files", "give each series a folder of its own"
    return None


def _reference(uid: str, slices: Sequence[Header]) -> str:
    """A file for one slice; else the folder (or archive) that holds all of them, and the series in it."""
    if len(slices) == 1:
        return slices[0].reference
    folders = {_folder_of(header.reference) for header in slices}
    return f"{os.path.commonpath(folders) if len(folders) > 1 else folders.pop()}#series={uid}".replace(os.sep, "/")


def _row(header: Header, reference: str, slices: int) -> dict[str, str]:
    scanner = f"{header['Manufacturer']} {header['ManufacturerModelName']}".strip()
    return {
        "image": reference,
        "patient_id": header["PatientID"],
        "label": "",
        "mask": "",
        "study": header["StudyInstanceUID"],
        "site": header["InstitutionName"],
        "scanner": scanner,
        "date": header["StudyDate"],
        "sex": header["PatientSex"],
        "age": _years(header["PatientAge"]),
        "modality": header["Modality"],
        "series": header["SeriesInstanceUID"],
        "series_description": header["SeriesDescription"],
        "instance": header["SOPInstanceUID"] if slices == 1 else "",
        "accession": header["AccessionNumber"],
        "body_part": header["BodyPartExamined"],
        "view": header["ViewPosition"],
        "slices": str(slices),
    }


def _years(age: str) -> str:
    """PatientAge such as 057Y or 006M in years; as written where it is none (PS3.5 6.2, AS)."""
    found = re.fullmatch(r"(\d{1,3})([DWMY])", age)
    if found is None:
        return age
    per_year = {"D": 365.25, "W": 365.25 / 7, "M": 12, "Y": 1}[found[2]]
    return f"{int(found[1]) / per_year:.3g}"


def _leave_out_all(imported: Imported, uid: str, headers: Sequence[Header], reason: str, detail: str) -> None:
    """Record once that objects of a series are left out."""
    number = "1 file" if len(headers) == 1 else f"{len(headers):,} files"
    told = f"{number}: {detail}" if detail else number
    imported.leave_out(_reference(uid, headers), reason, told, headers[0]["PatientID"])


def _describe_scan(imported: Imported, headers: Sequence[Header], objects: Sequence[Header]) -> None:
    names = ("PatientID", "StudyInstanceUID", "SeriesInstanceUID")
    patients, studies, series = (len({header[name] for header in objects}) for name in names)
    imported.scanned = (
        f"{len(headers):,} files: {len(objects):,} DICOM objects in {series:,} series, {studies:,} studies, "
        f"{patients:,} patients"
    )
    if patients == 1 and studies >= MANY_STUDIES:
        imported.notes.append(
            f"All {studies:,} studies carry one PatientID; if the export blanked the identities, export them again."
        )
