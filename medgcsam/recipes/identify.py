"""From a hash back to the patient, with the manifest and the salt that only the hospital has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medgcsam.config import Config
from medgcsam.errors import DataError
from medgcsam.places import cache_folder
from medgcsam.privacy import SALT_NAME, hash_id, load_salt


def find_by_hash(config: Config, hashed: str) -> dict[str, Any]:
    """The patient or the image whose hash is ``hashed``: {"kind", "patient_id", "images"}.

    Raises:
        DataError: no salt in the output folder, or nothing in the manifest has this hash.
    """
    from medgcsam.intake import open_dataset

    output = Path(config.output.folder)
    if not (output / SALT_NAME).is_file():
        raise DataError(f"{output / SALT_NAME}: there is no salt, so no run of this folder has hashes to look up.")
    salt = load_salt(output)
    wanted = hashed.strip().lower()
    table = open_dataset(config.data, base=config.base, cache=cache_folder(output), task=config.task).table
    for patient, rows in table.groupby("patient_id", sort=False):
        if hash_id(salt, "patient", patient) == wanted:
            return {"kind": "patient", "patient_id": patient, "images": list(rows["image"])}
    for case, patient, image in zip(table["case"], table["patient_id"], table["image"], strict=True):
        if hash_id(salt, "case", case) == wanted:
            return {"kind": "case", "patient_id": patient, "images": [image]}
    raise DataError(
        f"{hashed}: no patient or image of this manifest has this hash under the salt of {output}; check that "
        "--config and output.folder are those of the run."
    )
