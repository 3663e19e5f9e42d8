"""A MedMNIST archive (npz) becomes a manifest with one row per image and the official partitions."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from medgcsam.errors import DataError
from medgcsam.intake.description import Description, data_folder
from medgcsam.intake.importers.result import Imported, as_csv
from medgcsam.run_folder import write_text

_PARTITIONS = {"train": "train", "val": "validation", "test": "test"}


def import_medmnist(
    description: Description, root: Path | None, cache: Path, progress: Callable[[int, int], None] | None = None
) -> tuple[Path, Path]:
    """Write ``cache/manifests/NAME.csv``, whose images are ``NAME.npz#PARTITION/INDEX`` below the returned folder.

    Labels are the archive's numbers as text, several (multi-label sets) joined by ``|`` as the positions of the ones.

    Raises:
        DataError: the archive is absent, changed or no MedMNIST archive.
    """
    imported = collect_medmnist(description, root, progress)
    rows = ((row["image"], row["label"], row["partition"]) for row in imported.rows)
    manifest = cache / "manifests" / f"{Path(str(description.file)).stem}.csv"
    write_text(manifest, as_csv(["image", "label", "partition"], rows))
    return manifest, imported.root


def collect_medmnist(
    description: Description, root: Path | None, progress: Callable[[int, int], None] | None = None
) -> Imported:
    """The rows of ``import_medmnist``.

    Raises:
        DataError: the archive is absent, changed or no MedMNIST archive.
    """
    folder = data_folder(description, root)
    archive = folder / str(description.file)
    imported = Imported(root=folder)
    for partition, labels in _read_labels(archive).items():
        for index, row in enumerate(labels):
            image = f"{archive.relative_to(folder).as_posix()}#{partition}/{index}"
            imported.rows.append({"image": image, "label": _label(row), "partition": _PARTITIONS[partition]})
    imported.scanned = f"{len(imported.rows):,} images in {archive.name}"
    return imported


def _read_labels(archive: Path) -> dict[str, np.ndarray]:
    """Partition -> integer labels (n, 1), or (n, k) of zeros and ones in a multi-label set."""
    try:
        with np.load(archive, allow_pickle=False) as content:
            labels = {name: content[f"{name}_labels"] for name in _PARTITIONS}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{archive}: this is no readable MedMNIST archive ({error}); fetch it again.") from error
    if any(array.ndim != 2 for array in labels.values()):
        raise DataError(f"{archive}: its label arrays are not tables of images by labels; fetch it again.")
    return labels


def _label(row: np.ndarray) -> str:
    if len(row) == 1:
        return str(int(row[0]))
    return "|".join(str(position) for position in np.flatnonzero(row)) or "none"
