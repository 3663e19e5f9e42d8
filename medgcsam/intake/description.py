"""A data description, ``data_manifests/NAME.yaml``: what a data set is, where it lies, and what its labels mean."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from medgcsam.cohort.faults import nearest
from medgcsam.errors import ConfigError, DataError

DATA_VARIABLE = "MEDGCSAM_DATA"


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PhantomDescription(_Strict):
    """Which synthetic cohort to make."""

    name: str
    patients: int | None = Field(None, ge=4)
    seed: int = Field(0, ge=0)


class Description(_Strict):
    """One data set. ``folder`` lies below the folder that the variable MEDGCSAM_DATA names, ``file`` in ``folder``."""

    title: str
    licence: str
    citation: str
    source: str
    importer: Literal["table", "medmnist", "phantom"]
    folder: str | None = None
    file: str | None = None
    images: str = ""
    files: dict[str, str | None] = {}
    columns: dict[str, str] = {}
    classes: dict[str, tuple[str, ...]] | tuple[str, ...] | None = None
    positive: str | None = None
    negative: str | None = None
    label_columns: dict[str, str] | None = None
    patients: Literal["known", "unknown"] = "known"
    synthetic: bool = False
    notes: str = ""
    phantom: PhantomDescription | None = None


def read_description(path: Path) -> Description:
    """Read a description.

    Raises:
        ConfigError: it is absent, no YAML, or holds unknown, missing or wrong keys (all at once).
    """
    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: there is no such data description; check data.manifest.") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{path}: this data description cannot be read ({reason}).") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: this is no data description; it needs keys such as title, importer and folder.")
    try:
        description = Description.model_validate(content)
    except ValidationError as error:
        told = [_tell(entry) for entry in error.errors()]
        raise ConfigError(f"{path}: {'; '.join(told)}.") from error
    needed = ("phantom",) if description.importer == "phantom" else ("folder", "file")
    missing = [name for name in needed if getattr(description, name) is None]
    if missing:
        raise ConfigError(f"{path}: importer {description.importer} also needs the key {' and '.join(missing)}.")
    return description


def _tell(entry: dict) -> str:
    key = ".".join(str(part) for part in entry["loc"])
    if entry["type"] == "extra_forbidden":
        return f"unknown key {key!r}{nearest(key, Description.model_fields)}"
    if entry["type"] == "missing":
        return f"the key {key!r} is missing"
    return f"{key}: {entry['msg']}"


def data_folder(description: Description, root: Path | None) -> Path:
    """The folder of the data set, all its listed files there and, where a sha256 is listed, unchanged.

    ``root`` overrides the place below MEDGCSAM_DATA.

    Raises:
        DataError: the set is not there (the message says where it was looked for and where it can be had), or a file
            is not the one that the description was written for.
    """
    known = f"it can be had from: {description.source}"
    base = os.environ.get(DATA_VARIABLE, "")
    if root is None and not base:
        raise DataError(
            f"The data set '{description.title}' was not looked for, because {DATA_VARIABLE} is not set; set it to the "
            f"folder that holds {description.folder}/, or data.root to {description.folder}/ itself; {known}"
        )
    folder = root if root is not None else Path(base) / str(description.folder)
    place = "data.root" if root is not None else f"{DATA_VARIABLE}={base}"
    files = {str(description.file): None, **description.files}
    absent = [name for name in files if not (folder / name).is_file()]
    if absent:
        what = f"has no {', '.join(absent)}" if folder.is_dir() else "does not exist"
        raise DataError(
            f"The data set '{description.title}' was looked for in {folder.absolute()} ({place}), which {what}; {known}"
        )
    for name, digest in files.items():
        if digest is not None and file_sha256(folder / name) != digest:
            raise DataError(
                f"{folder / name} is not the file that the description of '{description.title}' was written for (its "
                f"sha256 differs); {known}; to use another edition, copy the description and change `files` in it."
            )
    return folder.absolute()


def file_sha256(path: Path) -> str:
    """sha256 of a file, as hex.

    Raises:
        DataError: it cannot be read.
    """
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path}: the file cannot be read ({error.strerror}).") from error
