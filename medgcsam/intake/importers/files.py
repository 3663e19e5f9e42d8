"""Files below a folder: found in one pass, in a fixed order, never through a link that leaves the folder."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from medgcsam.errors import DataError
from medgcsam.intake.importers.result import Imported

PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".dcm")
VOLUMES = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd")
MAX_JSON_BYTES = 200_000_000
LINK_OUT, LINK_TO_FOLDER = "symbolic link out of the folder", "symbolic link to a folder"


def walk_files(folder: Path, imported: Imported | None = None) -> Iterator[Path]:
    """Every file below ``folder``, folders and files in the order of their names.

    Hidden files, and what desktop systems leave behind, are passed over. A link that leads out of the folder is not
    followed, nor is a link to a folder, and both are left out by name; so is a folder that cannot be opened.
    """
    root = os.path.realpath(folder)

    def unopened(error: OSError) -> None:
        _leave_out(imported, folder, str(error.filename), "folder that cannot be opened")

    for place, folders, names in os.walk(folder, followlinks=False, onerror=unopened):
        folders[:] = sorted(name for name in folders if not _ignored(name))
        for name in list(folders):
            if os.path.islink(os.path.join(place, name)):
                folders.remove(name)
                _leave_out(imported, folder, os.path.join(place, name), LINK_TO_FOLDER)
        for name in sorted(names):
            path = os.path.join(place, name)
            if _ignored(name):
                continue
            if os.path.islink(path) and leads_out(path, root):
                _leave_out(imported, folder, path, LINK_OUT)
            else:
                yield Path(path)


def leads_out(reference: str, folder: str | Path, below: str | Path | None = None) -> bool:
    """Whether a reference that counts from ``folder`` is of a file, or of a member of one, that does not lie below
    ``below`` (default: ``folder``), after all links are followed."""
    root = os.path.realpath(folder if below is None else below)
    stems = [reference, reference.rpartition("#")[0]] if "#" in reference else [reference]
    try:
        places = [os.path.realpath(os.path.join(folder, stem)) for stem in stems]
        return any(os.path.commonpath([root, place]) != root for place in places)
    except ValueError:  # another drive, or a NUL
        return True


def _ignored(name: str) -> bool:
    return name.startswith(".") or name in ("__MACOSX", "Thumbs.db", "desktop.ini")


def _leave_out(imported: Imported | None, folder: Path, path: str, reason: str) -> None:
    if imported is not None:
        imported.leave_out(relative(Path(path), folder), reason)


def relative(path: Path, folder: Path) -> str:
    """Path below ``folder``, with forward slashes."""
    return Path(path).relative_to(folder).as_posix()


def suffix_of(name: str) -> str:
    """The ending of a file name in lower case, ``.nii.gz`` as one."""
    lowered = name.lower()
    return ".nii.gz" if lowered.endswith(".nii.gz") else os.path.splitext(lowered)[1]


def stem_of(name: str) -> str:
    """The name of a file without folder and ending."""
    base = os.path.basename(name)
    return base[: len(base) - len(suffix_of(base))]


def is_image_name(name: str) -> bool:
    """Whether a file name looks like that of an image."""
    return suffix_of(name) in PICTURES + VOLUMES


def matched_patient(reference: str, pattern: str | None) -> str:
    """The patient that a pattern finds in a reference (its first group, else the whole match), or nothing."""
    found = re.search(pattern, reference) if pattern else None
    return "" if found is None else found[1 if found.re.groups else 0] or ""


def inside(reference: str, folder: Path) -> str:
    """A path written in a data set, from ``folder`` on and with forward slashes.

    Raises:
        DataError: it is absolute or leads out of the folder.
    """
    plain = os.path.normpath(reference.replace("\\", "/"))
    if os.path.isabs(plain) or plain.startswith("..") or re.match(r"[A-Za-z]:", plain):
        raise DataError(f"{folder}: it names the file {reference}, which lies outside; put the file into the folder.")
    return plain.replace(os.sep, "/")


def read_json_file(path: Path, what: str) -> Any:
    """The content of a JSON file that comes with a data set.

    Raises:
        DataError: it is absent, absurdly large or no JSON.
    """
    try:
        if path.exists() and not path.is_file():
            raise DataError(f"{path}: this is no file; name the file of {what}.")
        if path.stat().st_size > MAX_JSON_BYTES:
            raise DataError(f"{path}: this file is too large for {what}; name the right file.")
        return json.loads(path.read_text("utf-8-sig"))
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such file; name the folder or file of {what}.") from error
    except OSError as error:
        raise DataError(f"{path}: the file cannot be read ({error.strerror}).") from error
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:120]
        raise DataError(f"{path}: this is no readable JSON ({reason}); repair {what}.") from error
