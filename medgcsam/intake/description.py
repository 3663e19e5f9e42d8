"""A data description, ``data_manifests/NAME.yaml``: what a data set is, where it lies, and what its labels mean."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from medgcsam.cohort.columns import STANDARD
from medgcsam.cohort.faults import nearest
from medgcsam.config.messages import wrong_value
from medgcsam.errors import ConfigError, DataError

DATA_VARIABLE = "MEDGCSAM_DATA"
MAX_BYTES = 10_000_000
Kind = Literal["table", "medmnist", "phantom", "dicom", "datalist", "msd", "nnunet", "classes"]
Partition = Literal["train", "validation", "test"]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _standard(name: str) -> str:
    if name not in STANDARD:
        raise ValueError(f"{name!r} is no standard column{nearest(name, STANDARD)}, they are {', '.join(STANDARD)}")
    return name


def _expression(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"{text!r} is no regular expression ({error})") from None
    return text


StandardColumn = Annotated[str, AfterValidator(_standard)]
Pattern = Annotated[str, AfterValidator(_expression)]


class PhantomDescription(_Strict):
    """Which synthetic cohort to make."""

    name: str
    patients: int | None = Field(None, ge=4)
    seed: int = Field(0, ge=0)


class Computed(_Strict):
    """A cell made from the columns of its row: ``text`` with ``{column}`` filled in, then what ``pattern`` finds in it.

    ``take`` is what is kept of a match, as in ``re.Match.expand``; without a match the cell is empty. Where the column
    ``each`` holds several values between ``separator``, the cell is made for each, and they are joined by ``|``.
    """

    text: str
    pattern: Pattern | None = None
    take: str = r"\g<0>"
    each: str | None = None
    separator: str = ";"


class NoFinding(_Strict):
    """The column that holds 1 where no class of ``label_columns`` is present, those in ``not_about`` set aside."""

    column: str
    not_about: tuple[str, ...] = ()


class Selection(_Strict):
    """What an importer takes of a folder; which keys count depends on the importer."""

    modality: tuple[str, ...] = ()
    description: Pattern | None = None
    labels: str | None = None
    label_description: Pattern | None = None
    patient_pattern: Pattern | None = None
    mask_suffix: str | None = None
    channel: str | None = None
    fold: int | None = Field(None, ge=0)
    keep_irregular: bool = False


class Description(_Strict):
    """One data set. ``folder`` lies below the folder that the variable MEDGCSAM_DATA names, ``file`` in ``folder``.

    A ``table`` may need more than names of columns: ``compute`` makes cells out of others, ``where`` keeps the rows
    whose column holds one of the words, ``one_row_per_image`` joins rows that repeat an image, ``search`` finds images
    by their file name anywhere below ``images``, ``partitions`` names text files that list the images of a partition.
    Where editions of a table name a column differently, ``columns`` may list the names; the first that is there counts.
    ``structures`` gives the class number of each structure in a mask. ``verified`` says where a fact was looked up (URL
    or DOI), ``unverified`` which one could not be, and why: both by key, or by what it is about.
    """

    title: str
    licence: str
    citation: str
    source: str
    importer: Kind
    folder: str | None = None
    file: str | None = None
    images: str = ""
    files: dict[str, str | None] = {}
    columns: dict[StandardColumn, str | tuple[str, ...]] = {}
    compute: dict[StandardColumn, Computed] = {}
    where: dict[str, tuple[str, ...]] = {}
    one_row_per_image: bool = False
    search: bool = False
    partitions: dict[Partition, str] = {}
    classes: dict[str, tuple[str, ...]] | tuple[str, ...] | None = None
    positive: str | None = None
    negative: str | None = None
    label_columns: dict[str, str] | None = None
    no_finding: NoFinding | None = None
    structures: dict[str, int] | None = None
    patients: Literal["known", "unknown"] = "known"
    synthetic: bool = False
    notes: str = ""
    verified: dict[str, str] = {}
    unverified: dict[str, str] = {}
    phantom: PhantomDescription | None = None
    select: Selection = Selection()


_NEEDED: dict[str, tuple[str, ...]] = {
    "phantom": ("phantom",),
    "dicom": ("folder",),
    "classes": ("folder",),
    "msd": ("folder",),
    "nnunet": ("folder",),
}


def read_description(path: Path) -> Description:
    """Read a description.

    Raises:
        ConfigError: it is absent, no YAML, or holds unknown, missing or wrong keys (all at once).
    """
    try:
        if path.exists() and (not path.is_file() or path.stat().st_size > MAX_BYTES):
            raise ConfigError(f"{path}: this is no data description, which is a small text file; check data.manifest.")
        content = yaml.safe_load(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: there is no such data description; check data.manifest.") from error
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"{path}: this data description cannot be read ({reason}).") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: this is no data description; it needs keys such as title, importer and folder.")
    try:
        description = Description.model_validate(content)
    except ValidationError as error:
        told = [_tell(entry) for entry in error.errors()]
        raise ConfigError(f"{path}: {'; '.join(told)}.") from error
    needed = _NEEDED.get(description.importer, ("folder", "file"))
    missing = [name for name in needed if getattr(description, name) is None]
    if missing:
        raise ConfigError(f"{path}: importer {description.importer} also needs the key {' and '.join(missing)}.")
    rule = description.no_finding
    strangers = [] if rule is None else [n for n in rule.not_about if n not in (description.label_columns or {})]
    if strangers or (rule is not None and not description.label_columns):
        told = f"names {strangers[0]!r}, which is" if strangers else "needs classes, but there are"
        raise ConfigError(f"{path}: no_finding {told} none of label_columns; correct it.")
    return description


def _tell(entry: dict) -> str:
    key = ".".join(str(part) for part in entry["loc"])
    if entry["type"] == "extra_forbidden":
        return f"unknown key {key!r}{nearest(key, Description.model_fields)}"
    if entry["type"] == "missing":
        return f"the key {key!r} is missing"
    return f"{key}: {wrong_value(entry)}"


def data_folder(description: Description, root: Path | None) -> Path:
    """The folder of the data set, all its listed files there and, where a sha256 is listed, unchanged.

    ``root`` overrides the place below MEDGCSAM_DATA.

    Raises:
        DataError: the set is not there (the message says where it was looked for and where it can be had), or a file
            is not the one that the description was written for.
    """
    known = f"it can be had from: {description.source}" if description.source else "name another folder."
    base = os.environ.get(DATA_VARIABLE, "")
    if root is None and not base:
        raise DataError(
            f"The data set '{description.title}' was not looked for, because {DATA_VARIABLE} is not set; set it to the "
            f"folder that holds {description.folder}/, or data.root to {description.folder}/ itself; {known}"
        )
    folder = root if root is not None else Path(base) / str(description.folder)
    place = "data.root" if root is not None else f"{DATA_VARIABLE}={base}"
    own = [description.file] if description.file is not None else []
    files = {**dict.fromkeys(own), **dict.fromkeys(description.partitions.values()), **description.files}
    absent = [name for name in files if not (folder / name).is_file()]
    if absent or not folder.is_dir():
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
