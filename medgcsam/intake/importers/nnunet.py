"""An nnU-Net data set: dataset.json, imagesTr/CASE_0000.nii.gz, labelsTr/CASE.nii.gz and splits_final.json."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medgcsam.cohort.faults import shorten
from medgcsam.errors import ConfigError, DataError
from medgcsam.intake.description import Description, data_folder
from medgcsam.intake.importers.files import LINK_OUT, inside, leads_out, matched_patient, read_json_file
from medgcsam.intake.importers.msd import structures_of
from medgcsam.intake.importers.result import Imported, Progress

SPLITS = "splits_final.json"


def collect_nnunet(description: Description, root: Path | None, progress: Progress = None) -> Imported:
    """Rows of the cases that have a label, with structures, the chosen channel, and the folds of splits_final.json.

    ``fold`` is a column with the number of the fold that a case is validated in. ``partition`` is that of the chosen
    ``select.fold`` (train or validation), test for imagesTs, and empty where no fold is chosen. Both versions of the
    format are read: ``channel_names`` and names to numbers, or ``modality`` and numbers to names; with ``file_ending``
    or, before it, .nii.gz. The label ``ignore`` is no structure; its number stays in the masks. Cases in whose name
    ``patient_pattern`` finds no patient are left out.

    Raises:
        DataError: the set is absent or is no nnU-Net set, its splits name unknown cases or one case in both parts of a
            fold, no such fold.
        ConfigError: several channels and none chosen.
    """
    folder = data_folder(description, root)
    path = folder / (description.file or "dataset.json")
    content = read_json_file(path, "an nnU-Net data set")
    if not isinstance(content, Mapping):
        raise DataError(f"{path}: this is no dataset.json of nnU-Net; name the folder of one data set.")
    imported = Imported(root=folder)
    imported.structures, imported.notes = structures_of(content.get("labels"), path)
    ignored = imported.structures.pop("ignore", None)
    if ignored is not None:
        imported.notes.append(f"The number {ignored} of the masks is nnU-Net's label 'ignore', and no structure.")
    ending = str(content.get("file_ending", ".nii.gz"))
    channel = _channel(content, path, description.select.channel)
    known: set[str] = set()
    for section, partition in (("Tr", ""), ("Ts", "test")):
        for case, image, mask in _cases(content, folder, section, ending, channel):
            known.add(case)
            patient = matched_patient(case, description.select.patient_pattern)
            row = {"image": image, "patient_id": patient, "mask": mask, "partition": partition, "nnunet_case": case}
            _add(imported, row)
    _add_folds(imported, folder / SPLITS, known, description.select.fold)
    imported.leave_out_unmatched(description.select.patient_pattern)
    imported.scanned = f"{len(imported.rows) + len(imported.left_out):,} cases in {folder.name}"
    return imported


def _add(imported: Imported, row: dict[str, str]) -> None:
    folder = imported.root
    if not (folder / row["image"]).is_file():
        imported.leave_out(row["image"], "file missing", f"{row['image']} does not exist", row["patient_id"])
    elif not (folder / row["mask"]).is_file():
        reason = "test image without a label" if row["partition"] == "test" else "training image without a label"
        imported.leave_out(row["image"], reason, f"{row['mask']} does not exist", row["patient_id"])
    elif leads_out(row["image"], folder) or leads_out(row["mask"], folder):
        imported.leave_out(row["image"], LINK_OUT, "", row["patient_id"])
    else:
        imported.rows.append(row)


def _channel(content: Mapping[str, Any], path: Path, wanted: str | None) -> int:
    """The number of the channel that is taken: the only one, or the one chosen by number or name."""
    names = content.get("channel_names", content.get("modality"))
    if not isinstance(names, Mapping) or not names or not all(str(key).isdecimal() for key in names):
        raise DataError(f"{path}: it has no 'channel_names', a map of numbers and names; repair it.")
    numbers = {int(key): str(name) for key, name in names.items()}
    if wanted is None and len(numbers) == 1:
        return next(iter(numbers))
    chosen = [number for number, name in numbers.items() if wanted in (str(number), name)]
    if len(chosen) != 1:
        told = ", ".join(f"{number} ({name})" for number, name in sorted(numbers.items()))
        raise ConfigError(
            f"{path}: the channels of an image are files of their own, and a row of a manifest names one; choose it "
            f"with --channel, they are {told}."
        )
    return chosen[0]


def _cases(
    content: Mapping[str, Any], folder: Path, section: str, ending: str, channel: int
) -> list[tuple[str, str, str]]:
    """(case, image, mask) of a section, as paths below the folder; from the list in dataset.json where it has one."""
    listed = content.get("dataset")
    if isinstance(listed, Mapping) and section == "Tr":
        return [_listed_case(str(case), entry, folder, channel) for case, entry in sorted(listed.items())]
    pattern = re.compile(rf"(.+)_{channel:04d}{re.escape(ending)}$")
    names = sorted(path.name for path in (folder / f"images{section}").glob("*") if path.is_file())
    cases = [found[1] for name in names if (found := pattern.match(name))]
    if not cases and section == "Tr":
        raise DataError(
            f"{folder / 'imagesTr'}: it has no file named CASE_{channel:04d}{ending}; check the folder and file_ending."
        )
    return [
        (case, f"images{section}/{case}_{channel:04d}{ending}", f"labels{section}/{case}{ending}") for case in cases
    ]


def _listed_case(case: str, entry: Any, folder: Path, channel: int) -> tuple[str, str, str]:
    images = entry.get("images") if isinstance(entry, Mapping) else None
    if not isinstance(images, list) or channel >= len(images) or not isinstance(entry.get("label"), str):
        raise DataError(f"{folder}: 'dataset' of its dataset.json has no images and label for {case!r}; repair it.")
    return case, inside(str(images[channel]), folder), inside(entry["label"], folder)


def _add_folds(imported: Imported, path: Path, known: set[str], wanted: int | None) -> None:
    """Add the columns ``fold`` and ``partition`` from a list of ``{"train": [...], "val": [...]}``."""
    if not path.is_file():
        if wanted is not None:
            raise DataError(f"{path}: fold {wanted} was asked for, but there is no {SPLITS}; copy it into the folder.")
        return
    folds = read_json_file(path, "the splits of nnU-Net")
    if not isinstance(folds, list) or not folds or not all(_is_fold(fold) for fold in folds):
        raise DataError(f"{path}: this is no list of folds with 'train' and 'val'; take nnU-Net's own file.")
    if wanted is not None and wanted >= len(folds):
        raise DataError(f"{path}: it has the folds 0 to {len(folds) - 1}, and no fold {wanted}.")
    rows = {row["nnunet_case"]: row for row in imported.rows if row["partition"] != "test"}
    strangers = sorted({case for fold in folds for case in (*fold["train"], *fold["val"])} - known)
    if strangers:
        raise DataError(f"{path}: it names cases that are not in the data set ({shorten(strangers)}); take its own.")
    for number, fold in enumerate(folds):
        both = sorted({*fold["train"]} & {*fold["val"]})
        if both:
            raise DataError(
                f"{path}: fold {number} has {shorten(both)} in both 'train' and 'val'; take each case out of one of "
                "the two."
            )
    for case, row in rows.items():
        row["fold"] = "|".join(str(number) for number, fold in enumerate(folds) if case in fold["val"])
    if wanted is None:
        imported.notes.append(f"Column 'fold' is the fold of {SPLITS} that validates a case; --fold K sets partition.")
        return
    for name, partition in (("train", "train"), ("val", "validation")):
        for case in folds[wanted][name]:
            if case in rows:
                rows[case]["partition"] = partition
    _leave_out_unlisted(imported, f"in neither part of fold {wanted}")


def _is_fold(fold: Any) -> bool:
    return isinstance(fold, Mapping) and all(isinstance(fold.get(name), Sequence) for name in ("train", "val"))


def _leave_out_unlisted(imported: Imported, reason: str) -> None:
    for row in imported.rows:
        if not row["partition"]:
            imported.leave_out(row["image"], reason, "", row["patient_id"])
    imported.rows = [row for row in imported.rows if row["partition"]]
