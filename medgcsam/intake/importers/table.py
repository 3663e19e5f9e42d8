"""A folder of images with a table of labels: the table is the manifest already, its columns are mapped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from medgcsam.intake.description import Description, data_folder


def import_table(
    description: Description, root: Path | None, cache: Path, progress: Callable[[int, int], None] | None = None
) -> tuple[Path, Path]:
    """The table, and the folder that its image names count from (``images`` below the data set's folder).

    Raises:
        DataError: the data set is absent or changed.
    """
    folder = data_folder(description, root)
    return folder / str(description.file), folder / description.images
