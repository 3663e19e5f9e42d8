"""The description that an import works by: a file that is named, or one made from a folder and what the user says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from medgcsam.cohort.columns import STANDARD
from medgcsam.cohort.faults import nearest
from medgcsam.config import load
from medgcsam.config.messages import wrong_value
from medgcsam.config.shipped import find_config, find_data_description, shipped_names
from medgcsam.errors import ConfigError, DataError
from medgcsam.imaging import sniff_kind
from medgcsam.intake.description import Description, Selection, read_description
from medgcsam.intake.importers.files import is_image_name, read_json_file, suffix_of, walk_files
from medgcsam.intake.importers.result import LEFT_OUT

KINDS = ("classes", "datalist", "dicom", "medmnist", "msd", "nnunet", "table")
CHOICES = {
    "modality": ("dicom",),
    "description": ("dicom",),
    "labels": ("dicom", "classes"),
    "label_description": ("dicom",),
    "patient_pattern": ("classes", "datalist", "msd", "nnunet"),
    "mask_suffix": ("classes",),
    "channel": ("nnunet", "datalist"),
    "fold": ("nnunet",),
    "keep_irregular": ("dicom",),
}
"""Choice of the command -> the kinds that it belongs to."""
_LOOKED_AT = 200


def find_description(name: str) -> Description:
    """The description called ``name``: a YAML file, a shipped description, or that of a run's configuration.

    Raises:
        ConfigError: there is none, or it is a configuration whose data.manifest names no description.
    """
    bare = name if Path(name).suffix in (".yaml", ".yml") else f"{name}.yaml"
    path = find_data_description(bare, Path.cwd())
    if path is not None and "importer" in _keys(path):
        return read_description(path)
    try:
        found = find_config(name)
    except ConfigError as error:
        known = ", ".join(shipped_names("data_manifests"))
        raise ConfigError(f"{error} The shipped data descriptions are {known}.") from error
    config = load(found)
    manifest = Path(config.data.manifest)
    path = find_data_description(manifest, config.base) if manifest.suffix in (".yaml", ".yml") else None
    if path is None:
        raise ConfigError(
            f"--config {name}: its data.manifest is {manifest.name}, which is no data description; name the folder to "
            "import instead."
        )
    return read_description(path)


def _keys(path: Path) -> list[Any]:
    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return ["importer"]  # read_description says what is wrong with it
    return list(content) if isinstance(content, Mapping) else []


def describe_folder(source: Path, kind: str | None, columns: Mapping[str, str]) -> tuple[Description, Path]:
    """A description of a folder (or file) that nobody has described, and the folder that it counts from.

    Raises:
        ConfigError: the kind is unknown or cannot be seen, or a column is no standard one.
        DataError: the folder does not exist.
    """
    if not source.exists():
        raise DataError(f"{source}: there is no such folder or file; correct the path.")
    if kind is not None and kind not in KINDS:
        raise ConfigError(f"--kind {kind}: the kinds are {', '.join(KINDS)}{nearest(kind, KINDS)}.")
    unknown = [name for name in columns if name not in STANDARD]
    if unknown:
        raise ConfigError(f"--column: {unknown[0]!r} is no standard column; they are {', '.join(STANDARD)}.")
    kind = kind or guess_kind(source)
    if columns and kind != "table" and (kind != "dicom" or set(columns) != {"label"}):
        raise ConfigError(
            f"--column and --patient-column belong to the kind table, and this is {kind}; leave them out."
        )
    plain_file = source.is_file() and kind != "dicom"
    content = {
        "title": source.absolute().name,
        "licence": "",
        "citation": "",
        "source": "",
        "importer": kind,
        "folder": source.absolute().name,
        "file": source.name if plain_file else None,
        "columns": dict(columns),
    }
    if kind in ("table", "datalist", "medmnist") and not plain_file:
        content["file"] = _only_file(source, {"table": ".csv", "datalist": ".json", "medmnist": ".npz"}[kind])
    return Description.model_validate(content), source.parent if plain_file else source


def with_selection(described: Description, given: Mapping[str, Any]) -> Description:
    """The description with the choices of the command (keys of ``Selection``) laid over its own.

    Raises:
        ConfigError: an expression that is none, or a choice that the kind of the data set does not have.
    """
    wanted = {name: value for name, value in given.items() if value is not None and value != () and value is not False}
    for name in wanted:
        if described.importer not in CHOICES[name]:
            kinds = " and ".join(CHOICES[name])
            option = f"--{name.replace('_', '-')}"
            raise ConfigError(f"{option} belongs to the kind {kinds}, and this is {described.importer}; leave it out.")
    try:
        select = Selection.model_validate(described.select.model_dump() | wanted)
    except ValidationError as error:
        told = "; ".join(
            f"--{str(entry['loc'][0]).replace('_', '-')}: {wrong_value(entry)}" for entry in error.errors()
        )
        raise ConfigError(f"{told}; correct the option.") from error
    # Whoever gives a pattern says where the patients are named, also in a set that names none by itself.
    patients = "known" if "patient_pattern" in wanted else described.patients
    return described.model_copy(update={"select": select, "patients": patients})


def with_images(described: Description, folder: Path) -> Description:
    """The description of a table with the folder that its images count from.

    Raises:
        ConfigError: it is no table.
        DataError: there is no such folder.
    """
    if described.importer != "table":
        raise ConfigError(f"--images belongs to the kind table, and this is {described.importer}; leave it out.")
    if not folder.is_dir():
        raise DataError(f"--images {folder}: there is no such folder; correct the path.")
    return described.model_copy(update={"images": str(folder.absolute())})


def guess_kind(source: Path) -> str:
    """What a folder or file holds, by its files.

    Raises:
        ConfigError: it cannot be seen, or is a table beside folders that may be classes.
        DataError: the folder is empty.
    """
    if source.is_file():
        by_ending = {".json": "datalist", ".csv": "table", ".npz": "medmnist", ".zip": "dicom"}
        kind = "dicom" if source.name.upper() == "DICOMDIR" else by_ending.get(suffix_of(source.name))
        if kind == "datalist" and source.name == "dataset.json":
            kind = _kind_of_dataset(source)
    else:
        kind = _kind_of_folder(source)
    if kind is None:
        raise ConfigError(f"{source}: it is not clear what this holds; say --kind, one of {', '.join(KINDS)}.")
    return kind


def _kind_of_folder(source: Path) -> str | None:
    if (source / "dataset.json").is_file():
        return _kind_of_dataset(source / "dataset.json")
    if next(walk_files(source), None) is None:
        raise DataError(f"{source}: there is no file in this folder; correct the path.")
    if _holds_dicom(source):
        return "dicom"
    tables = _tables(source)
    classes = any(path.is_dir() and _holds_images(path) for path in source.iterdir())
    if tables and classes:
        raise ConfigError(
            f"{source}: it holds a table ({', '.join(tables)}) and folders of images; name the table to import its "
            "rows, or say --kind classes if each folder is a class."
        )
    if tables or classes:
        return "table" if tables else "classes"
    return "medmnist" if any(source.glob("*.npz")) else None


def _tables(source: Path) -> list[str]:
    """The tables of a folder, but for manifests that an earlier import wrote into it."""
    names = sorted(path.name for path in source.glob("*.csv"))
    written = {name for name in names if name.endswith(LEFT_OUT)}
    written |= {name.removesuffix(LEFT_OUT) + ".csv" for name in written}
    return [name for name in names if name not in written]


def _kind_of_dataset(path: Path) -> str:
    content = read_json_file(path, "a data set")
    if isinstance(content, Mapping) and isinstance(content.get("training"), list):
        return "msd"
    return "nnunet"


def _holds_dicom(folder: Path) -> bool:
    """Whether the first files of a folder are DICOM, in part."""
    for number, path in enumerate(walk_files(folder)):
        if number >= _LOOKED_AT:
            return False
        try:
            if sniff_kind(path) == "dicom" or suffix_of(path.name) == ".zip":
                return True
        except OSError:
            continue
    return False


def _holds_images(folder: Path) -> bool:
    return any(is_image_name(path.name) for path, _ in zip(walk_files(folder), range(_LOOKED_AT), strict=False))


def _only_file(folder: Path, ending: str) -> str:
    """The only file of a folder with an ending."""
    names = sorted(path.name for path in folder.glob(f"*{ending}"))
    if len(names) != 1:
        told = ", ".join(names) if names else "none"
        raise ConfigError(f"{folder}: it should hold one {ending} file ({told}); name the file itself.")
    return names[0]
