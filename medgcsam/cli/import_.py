"""`medgcsam import`: from a folder of images to a manifest."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medgcsam.cli.options import JsonOption, journal, print_json

EXAMPLE = "Example: medgcsam import /data/pacs_export --output manifest.csv --modality CT --labels rtstruct"
_KINDS = "dicom, datalist, msd, nnunet, classes, table or medmnist"


def import_(
    source: Annotated[
        Path | None,
        typer.Argument(metavar="FOLDER", help="The folder, or the file (.json, .csv, .npz, .zip, DICOMDIR)."),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The manifest to write.")] = Path("manifest.csv"),
    config: Annotated[
        str | None,
        typer.Option("--config", "-c", metavar="NAME_OR_PATH", help="A data description, or a configuration with one."),
    ] = None,
    kind: Annotated[str | None, typer.Option("--kind", help=f"{_KINDS}; default: seen from the files.")] = None,
    modality: Annotated[
        list[str] | None, typer.Option("--modality", help="dicom: take this modality only; repeatable.")
    ] = None,
    description: Annotated[
        str | None, typer.Option("--description", metavar="REGEX", help="dicom: searched in SeriesDescription.")
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            "--labels",
            metavar="seg|rtstruct|FOLDER|CSV",
            help="dicom: label objects that refer to the series, masks named by SeriesInstanceUID or PatientID, or a "
            "table with a column of a DICOM identifier. classes: a folder with a mask for each image.",
        ),
    ] = None,
    label_description: Annotated[
        str | None, typer.Option("--label-description", metavar="REGEX", help="dicom: which label objects to take.")
    ] = None,
    patient_column: Annotated[
        str | None, typer.Option("--patient-column", help="table: the column that names the patient.")
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option("--column", metavar="STANDARD=NAME", help="table: name of a standard column; repeatable."),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option("--images", metavar="FOLDER", help="table: the folder that images and masks count from."),
    ] = None,
    patient_pattern: Annotated[
        str | None,
        typer.Option("--patient-pattern", metavar="REGEX", help="Finds the patient in an image's path."),
    ] = None,
    mask_suffix: Annotated[
        str | None, typer.Option("--mask-suffix", help="classes: files named like an image with this are its masks.")
    ] = None,
    channel: Annotated[
        str | None, typer.Option("--channel", help="nnunet, datalist: the channel to take where each is a file.")
    ] = None,
    fold: Annotated[int | None, typer.Option("--fold", help="nnunet: the fold of splits_final.json.")] = None,
    keep_irregular: Annotated[
        bool, typer.Option("--keep-irregular", help="dicom: keep series with gaps or gantry tilt, to be resampled.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a manifest that is there.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write a manifest of a folder, and say what was taken, what was left out, and why.

    What was left out is listed one by one in MANIFEST.left_out.csv. A patient is never guessed.
    """
    from medgcsam.errors import ConfigError
    from medgcsam.intake.described import describe_folder, find_description, with_images, with_selection
    from medgcsam.recipes.import_ import import_folder

    columns = dict(_pair(text) for text in column or ())
    columns |= {"patient_id": patient_column} if patient_column else {}
    if config is not None and kind is not None:
        raise ConfigError("--kind is what the description of --config says; leave one of them out.")
    if config is not None:
        described, folder = find_description(config), source
        changes: dict[str, object] = {"columns": {**described.columns, **columns}}
        if source is not None and source.is_file() and described.file is not None:  # another edition of the table
            folder, changes["file"] = source.parent, source.name
        described = described.model_copy(update=changes)
    elif source is not None:
        described, folder = describe_folder(source, kind, columns)
    else:
        raise ConfigError("import needs a folder, or --config with a data description; see medgcsam import --help.")
    if images is not None:
        described = with_images(described, images)
    choices = {
        "modality": tuple(modality or ()),
        "description": description,
        "labels": labels,
        "label_description": label_description,
        "patient_pattern": patient_pattern,
        "mask_suffix": mask_suffix,
        "channel": channel,
        "fold": fold,
        "keep_irregular": keep_irregular,
    }
    described = with_selection(described, choices)
    result = import_folder(described, folder, output, overwrite=overwrite, journal=journal(as_json=as_json))
    if as_json:
        print_json(result)


def _pair(text: str) -> tuple[str, str]:
    """``STANDARD=NAME`` as (STANDARD, NAME)."""
    from medgcsam.errors import ConfigError

    name, mark, column = text.partition("=")
    if not mark or not name or not column:
        raise ConfigError(f"--column {text}: write it as STANDARD=NAME, such as label=Finding.")
    return name.strip(), column.strip()
