"""Importers: each turns a description and a folder into the rows of a manifest, and says what it left out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from medgcsam.intake.description import Description, data_folder
from medgcsam.intake.importers.class_folders import collect_class_folders
from medgcsam.intake.importers.datalist import collect_datalist
from medgcsam.intake.importers.dicom_folder import collect_dicom
from medgcsam.intake.importers.medmnist import collect_medmnist, import_medmnist
from medgcsam.intake.importers.msd import collect_msd
from medgcsam.intake.importers.nnunet import collect_nnunet
from medgcsam.intake.importers.phantom import import_phantom
from medgcsam.intake.importers.result import Imported, LeftOut, Progress, cached_manifest
from medgcsam.intake.importers.table import collect_table, needs_rewriting

Importer = Callable[[Description, Path | None, Path, Progress], tuple[Path, Path]]
Collector = Callable[[Description, Path | None, Progress], Imported]

COLLECTORS: dict[str, Collector] = {
    "classes": collect_class_folders,
    "datalist": collect_datalist,
    "dicom": collect_dicom,
    "medmnist": collect_medmnist,
    "msd": collect_msd,
    "nnunet": collect_nnunet,
    "table": collect_table,
}
"""Kind -> function that gives the rows of a data set and what it leaves out."""


def is_rewritten(description: Description) -> bool:
    """Whether the manifest that ``IMPORTERS`` gives has standard columns, so that no column is to be mapped."""
    if description.importer == "table":
        return needs_rewriting(description)
    return description.importer not in ("medmnist", "phantom")


def _import_table(
    description: Description, root: Path | None, cache: Path, progress: Progress = None
) -> tuple[Path, Path]:
    if needs_rewriting(description):
        return _import_collected(description, root, cache, progress)
    folder = data_folder(description, root)
    return folder / str(description.file), folder / description.images


def _import_collected(
    description: Description, root: Path | None, cache: Path, progress: Progress = None
) -> tuple[Path, Path]:
    imported = COLLECTORS[description.importer](description, root, progress)
    return cached_manifest(cache, description.folder or description.title, imported), imported.root


IMPORTERS: dict[str, Importer] = {
    **dict.fromkeys(COLLECTORS, _import_collected),
    "medmnist": import_medmnist,
    "phantom": import_phantom,
    "table": _import_table,
}
"""Importer -> function that gives a manifest, made in the cache where there is none, and the folder it counts from."""

__all__ = ["COLLECTORS", "IMPORTERS", "Imported", "LeftOut", "is_rewritten"]
