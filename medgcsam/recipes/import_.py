"""From a folder to a manifest, with what was taken, what was left out, and why."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from medgcsam.errors import ConfigError
from medgcsam.journal import Journal
from medgcsam.places import shown
from medgcsam.recipes.stopping import resumable

if TYPE_CHECKING:
    from medgcsam.intake.description import Description
    from medgcsam.intake.importers import Imported

_SHOWN = 12
_ADVICE = {"label, and none was asked for": "--labels rtstruct or --labels seg takes those that refer to a series"}
"""Reason of what is left out -> how to take it."""
_WHERE_PATIENTS = {
    "table": "--patient-column names the column of the patients",
    **dict.fromkeys(("classes", "datalist", "msd", "nnunet"), "--patient-pattern finds the patient in an image's path"),
}
"""Kind of data set -> how to say whose the images are."""


def import_folder(
    description: Description, folder: Path | None, output: Path, *, overwrite: bool = False, journal: Journal
) -> dict[str, Any]:
    """Write the manifest of a data set, and beside it a table of everything left out; say the summary.

    Args:
        description: of the data set, or made from the command (``intake.described``).
        folder: where it lies; None: below MEDGCSAM_DATA.
        output: the manifest; ``NAME.left_out.csv`` lies beside it.
        overwrite: replace a manifest that is there.

    Returns:
        {"manifest", "left_out_file", "scanned", "images", "patients", "patients_known", "groups", "multilabel",
        "labels", "labels_not_known", "without_label", "masks", "modalities", "partitions", "left_out", "structures",
        "notes"}; ``labels`` are images per class, ``labels_not_known`` those that do not say whether it is present,
        ``left_out`` items per reason; ``patients`` is None where unknown, and ``groups`` says whether the column
        patient_id holds something else then.

    Raises:
        ConfigError: the manifest exists or is no CSV by its name, or the data set has no importer of files.
        DataError: nothing was taken, or the data set cannot be read.
        Interrupted: SIGINT or SIGTERM; nothing was written.
    """
    from medgcsam.intake.importers import COLLECTORS
    from medgcsam.intake.importers.result import LEFT_OUT, write_left_out, write_manifest

    if description.importer not in COLLECTORS:
        raise ConfigError(
            f"'{description.title}' is made by medgcsam itself and needs no import; train on it directly."
        )
    output = Path(output)
    if output.suffix.lower() != ".csv":
        raise ConfigError(f"--output {output}: the manifest is a CSV file; give it a name that ends in .csv.")
    if output.exists() and not overwrite:
        raise ConfigError(f"{output}: this file exists; name another one with --output, or add --overwrite.")
    stopped = resumable("import", "nothing was written; run the same command again")
    with stopped, journal.bar("looking through files") as advance:
        imported = COLLECTORS[description.importer](description, folder, advance)
    if description.patients == "known" and any(row.get("patient_id") for row in imported.rows):
        imported.keep_patients("no patient")
    imported = _in_class_words(imported, description)
    if not imported.structures and description.structures:
        imported.structures = dict(description.structures)
    left_out = output.with_name(output.stem + LEFT_OUT)
    write_left_out(left_out, imported.left_out)
    write_manifest(output, imported)
    result = _summary(imported, description, output, left_out)
    _say(result, description, journal)
    return result


def _in_class_words(imported: Imported, description: Description) -> Imported:
    """Labels in the words of the classes, where the description says which words mean a class; others as they are."""
    from medgcsam.cohort.labels import label_rules, translate

    if description.classes is None or description.label_columns:
        return imported
    rules = label_rules(description.classes, negative=description.negative)
    words = {text: translate(text, rules) for text in {row.get("label", "") for row in imported.rows}}
    changed = {text: found.label for text, found in words.items() if found.fault is None and not found.excluded}
    rows = [row | {"label": changed.get(row.get("label", ""), row.get("label", ""))} for row in imported.rows]
    return replace(imported, rows=rows)


def _summary(imported: Imported, description: Description, output: Path, left_out: Path) -> dict[str, Any]:
    rows = imported.rows
    known = description.patients == "known" and imported.patients_known
    texts = [[part.strip() for part in row["label"].split("|")] for row in rows if row.get("label")]
    multilabel = bool(description.label_columns or description.negative) or any(
        len(parts) > 1 or parts[0].startswith("?") for parts in texts
    )
    parts = Counter(part for parts in texts for part in parts)
    not_known = {name.removeprefix("?"): number for name, number in parts.most_common() if name.startswith("?")}
    return {
        "manifest": str(output),
        "left_out_file": str(left_out),
        "scanned": imported.scanned,
        "images": len(rows),
        "patients": len({row.get("patient_id") for row in rows}) if known else None,
        "patients_known": known,
        "groups": not known and any(row.get("patient_id") for row in rows),
        "multilabel": multilabel,
        "labels": {name: number for name, number in parts.most_common() if not name.startswith("?")},
        "labels_not_known": not_known,
        "without_label": len(rows) - len(texts),
        "masks": sum(1 for row in rows if row.get("mask")),
        "modalities": dict(Counter(row["modality"] for row in rows if row.get("modality")).most_common()),
        "partitions": dict(Counter(row["partition"] for row in rows if row.get("partition")).most_common()),
        "left_out": imported.reasons(),
        "structures": imported.structures,
        "notes": imported.notes,
    }


def _say(result: Mapping[str, Any], description: Description, journal: Journal) -> None:
    journal.say(f"{description.title}: {result['scanned']}")
    patients = f"of {result['patients']:,} patients" if result["patients"] is not None else "of unknown patients"
    journal.say(f"{'taken':<10} {result['images']:>8,}  images {patients}, {result['masks']:,} with a mask")
    for name in ("modalities", "labels", "labels_not_known", "partitions"):
        if result[name]:
            journal.say(f"{'':<10} {'':>8}  {name.replace('_', ' ')}: {_counts(result[name])}")
    if result["labels"] and result["without_label"]:
        journal.say(f"{'':<10} {result['without_label']:>8,}  of them without a label")
    journal.say(f"{'left out':<10} {sum(result['left_out'].values()):>8,}  files, series or rows")
    for reason, number in list(result["left_out"].items())[:_SHOWN]:
        advice = f" ({_ADVICE[reason]})" if reason in _ADVICE else ""
        journal.say(f"{'':<10} {number:>8,}  {reason}{advice}")
    if len(result["left_out"]) > _SHOWN:
        journal.say(f"{'':<10} {'':>8}  and {len(result['left_out']) - _SHOWN} more reasons")
    for note in result["notes"]:
        journal.say(note)
    if description.notes:
        journal.say(description.notes)
    if description.licence:
        doubt = " (not verified)" if "licence" in description.unverified else ""
        journal.say(f"licence    {description.licence}{doubt}")
    journal.say(f"manifest   {shown(Path(result['manifest']))}")
    journal.say(f"left out   {shown(Path(result['left_out_file']))}")
    _say_configuration(result, description, journal)


def _say_configuration(result: Mapping[str, Any], description: Description, journal: Journal) -> None:
    """A configuration that works as it is printed, and for which verbs it does."""
    path = Path(result["manifest"])
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", path.stem).strip("._-") or "manifest"
    if result["labels"] or result["labels_not_known"]:
        journal.say(f"to use it, write a configuration, {name}.yaml:")
    else:
        journal.say("no labels: not usable for training yet")
        journal.say(f"to check images and masks, write a configuration, {name}.yaml:")
    data: dict[str, Any] = {"manifest": shown(path)}
    if description.classes or description.label_columns:
        data["classes"] = list(description.label_columns or description.classes or ())
    if description.positive:
        data["positive"] = description.positive
    if result["structures"]:
        data["structures"] = _structures(result["structures"], description)
    journal.say(f"  name: {_flow(name)}")
    if result["multilabel"]:
        journal.say("  task: multilabel")
    journal.say("  data:")
    for key, value in data.items():
        journal.say(f"    {key}: {_flow(value)}")
    if not result["patients_known"]:
        counted = (
            "groups of the column patient_id are kept together"
            if result["groups"]
            else "each image counts as a patient"
        )
        journal.say(f"    patients: unknown     # {counted}, and every output says so")
        if description.importer in _WHERE_PATIENTS and description.patients == "known":
            journal.say(f"if the patients are known, import again: {_WHERE_PATIENTS[description.importer]}")
    journal.say(f"and check it: medgcsam check --config {name}.yaml")


def _structures(structures: Mapping[str, int], description: Description) -> dict[str, list[str]]:
    """``data.structures``: segments and contours by their names, those of other masks by their numbers."""
    named = description.importer == "dicom" and description.select.labels in ("seg", "rtstruct")
    ordered = sorted(structures.items(), key=lambda item: item[1])
    return {name.partition("|")[0]: name.split("|") if named else [str(number)] for name, number in ordered}


def _flow(value: Any) -> str:
    """A value in one line of YAML."""
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=100_000)
    return text.removesuffix("...\n").strip()


def _counts(counts: Mapping[str, int]) -> str:
    parts = [f"{name} {number:,}" for name, number in list(counts.items())[:_SHOWN]]
    return ", ".join([*parts, *(["..."] if len(counts) > _SHOWN else [])])
