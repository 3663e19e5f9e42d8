"""Open the data set that a configuration names: a hospital's manifest, or one that a description points to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from medgcsam.cohort.faults import Fault, nearest
from medgcsam.cohort.labels import NONE
from medgcsam.cohort.manifest import read_manifest
from medgcsam.config.shipped import find_data_description
from medgcsam.errors import ConfigError
from medgcsam.intake.description import Description, file_sha256, read_description
from medgcsam.intake.importers import IMPORTERS, is_rewritten

if TYPE_CHECKING:
    from medgcsam.config import DataConfig

Classes = Sequence[str] | Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Dataset:
    """A data set ready for use.

    ``table`` is as from ``read_manifest``, ``classes`` in the order of the outputs, ``positive`` the finding of a
    two-class set (else None), ``title`` that of its description (empty without one), ``root`` the folder that its image
    names count from, ``excluded`` the number of images
    left out by reason. ``structures`` are ``names`` for ``read_label``, None where every structure of a mask counts.
    ``faults`` is empty unless the set was opened to be checked. ``labelled``: whether any row has a label.
    """

    table: pd.DataFrame
    root: Path
    classes: tuple[str, ...]
    positive: str | None
    title: str
    manifest_path: Path
    manifest_sha256: str
    licence: str = ""
    citation: str = ""
    source: str = ""
    notes: str = ""
    synthetic: bool = False
    patients: str = "known"
    excluded: Mapping[str, int] = field(default_factory=dict)
    faults: tuple[Fault, ...] = ()
    structures: Mapping[str, int] | None = None
    labelled: bool = True


def open_dataset(
    data: DataConfig,
    *,
    base: Path,
    cache: Path,
    task: str | None = None,
    strict: bool = True,
    unlabelled: bool = False,
    synthetic_patients: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Dataset:
    """Open the data set of a ``data`` section.

    Args:
        data: the section. ``data.manifest`` is a CSV, or a description (YAML) of that name or shipped under it; what
            the section says wins over the description, except that patients unknown to the description stay so.
        base: folder of the configuration, from which relative paths count.
        cache: where manifests and synthetic cohorts are made.
        task: "classification" or "multilabel"; None leaves what only one of them allows to ``encode_labels``.
        strict: False collects faults of rows in ``Dataset.faults`` instead of raising them, for ``check_dataset``.
        unlabelled: open a set without labels too, whatever the task; it has no classes then, unless they are named.
        synthetic_patients: make a synthetic cohort of so many patients instead of the described number, for a trial.
        progress: told (done, total) while a synthetic cohort is made.

    Raises:
        ConfigError: unknown column, classes or ``positive`` that do not fit, a faulty description.
        DataError: the data set or manifest is absent, empty, or has faulty rows.
    """
    path = Path(base, data.manifest)
    root = Path(base, data.root) if data.root else None
    if path.suffix.lower() in (".yaml", ".yml"):
        description = read_description(find_data_description(data.manifest, Path(base)) or path)
        if synthetic_patients is not None and description.phantom is not None:
            phantom = description.phantom.model_copy(update={"patients": synthetic_patients})
            description = description.model_copy(update={"phantom": phantom})
        manifest, folder = IMPORTERS[description.importer](description, root, Path(cache), progress)
        if is_rewritten(description):
            description = description.model_copy(update={"columns": {}})
    else:
        description, manifest, folder = None, path, root if root is not None else path.parent
    settings = _settings(data, description)
    faults: list[Fault] = []
    table = read_manifest(
        manifest,
        settings["columns"],
        root=folder,
        patients=settings["patients"],
        classes=settings["classes"],
        exclude_labels=tuple(getattr(data, "exclude_labels", None) or ()),
        negative=settings["negative"],
        label_columns=settings["label_columns"],
        uncertain=data.uncertain,
        task=task,
        unlabelled=unlabelled,
        faults=None if strict else faults,
    )
    classes = tuple(settings["label_columns"] or settings["classes"] or _seen(table["label"], task))
    labelled = table.attrs["labelled"]
    facts = {} if description is None else description.model_dump(include={*_FACTS})
    return Dataset(
        table=table,
        root=folder.absolute(),
        classes=classes,
        positive=_positive(data.positive, description, classes, task) if labelled or classes else None,
        manifest_path=manifest,
        manifest_sha256=file_sha256(manifest),
        patients=settings["patients"],
        excluded=table.attrs["excluded"],
        faults=tuple(faults),
        structures=_structures(data, description),
        labelled=labelled,
        **{"title": "", **facts},
    )


def _structures(data: DataConfig, description: Description | None) -> dict[str, int] | None:
    """Names of structures, several of one class joined by ``|``, and the number of their class."""
    if data.structures:
        return {"|".join(names): number for number, names in enumerate(data.structures.values(), 1)}
    return dict(description.structures) if description is not None and description.structures else None


_FACTS = ("title", "licence", "citation", "source", "notes", "synthetic")


def _settings(data: DataConfig, description: Description | None) -> dict[str, Any]:
    """How to read the manifest: the section laid over the description."""
    settings: dict[str, Any] = {
        "columns": dict(data.columns or {}),
        "classes": data.classes,
        "negative": data.negative,
        "label_columns": _ordered(data.label_columns, data.classes),
        "patients": data.patients or "known",
    }
    if description is None:
        return settings
    settings["columns"] = {**description.columns, **settings["columns"]}
    settings["classes"] = _choose_classes(data.classes, description.classes)
    settings["negative"] = data.negative or description.negative
    settings["label_columns"] = _ordered(data.label_columns or description.label_columns, data.classes)
    if description.patients == "unknown":
        settings["patients"] = "unknown"
    return settings


def _choose_classes(own: Classes | None, described: Classes | None) -> Classes | None:
    """A list of names that the description knows picks and orders its classes; anything else stands as it is."""
    if own is None:
        return described
    picks = not isinstance(own, Mapping) and isinstance(described, Mapping) and set(own) <= set(described)
    return {name: described[name] for name in own} if picks else own


def _ordered(columns: Mapping[str, str] | None, classes: Classes | None) -> dict[str, str] | None:
    """Label columns in the order of the classes where those are named, which is the order of the outputs."""
    if not columns:
        return None
    unknown = [name for name in classes or () if name not in columns]
    if unknown:
        raise ConfigError(f"data.label_columns has no column for the class {', '.join(unknown)}; add it.")
    return {name: columns[name] for name in classes or columns}


_LIKE_NONE = {"no finding", "no findings", "no_finding", "normal", "negative", "healthy"}


def _seen(labels: pd.Series, task: str | None) -> list[str]:
    """The classes of a manifest that nobody has named, in alphabetical order."""
    if task == "classification":
        return sorted(set(labels) - {""})
    parts = {part.strip().removeprefix("?") for text in set(labels) for part in text.split("|")} - {"", NONE}
    absence = sorted(part for part in parts if part.casefold() in _LIKE_NONE)
    if absence and task == "multilabel":
        raise ConfigError(
            f"data.negative: the label {absence[0]!r} looks like the word for none of the findings; set data.negative "
            "to it, or name the findings in data.classes."
        )
    return sorted(parts)


def _positive(
    own: str | None, description: Description | None, classes: tuple[str, ...], task: str | None
) -> str | None:
    """The class that counts as the finding: named, else described, else the last of two."""
    if own is not None and own not in classes:
        hint = nearest(own, classes)
        raise ConfigError(f"data.positive: {own!r} is not among the classes {', '.join(classes)}{hint}; name one.")
    if len(classes) != 2 or task == "multilabel":
        return own
    described = description.positive if description is not None else None
    return own or (described if described in classes else classes[-1])
