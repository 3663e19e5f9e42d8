"""Importers: each turns a description and a folder into a manifest and the folder that its image names count from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from medgcsam.intake.description import Description
from medgcsam.intake.importers.medmnist import import_medmnist
from medgcsam.intake.importers.phantom import import_phantom
from medgcsam.intake.importers.table import import_table

Progress = Callable[[int, int], None] | None
Importer = Callable[[Description, Path | None, Path, Progress], tuple[Path, Path]]

IMPORTERS: dict[str, Importer] = {
    "table": import_table,
    "medmnist": import_medmnist,
    "phantom": import_phantom,
}
