"""`medgcsam predict`: a trained network, or the folds of one, on new images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medgcsam.cli.options import JsonOption, journal, print_json

EXAMPLE = "Example: medgcsam predict runs/sarcoma_pet/gcsam/seed-0 new_scans/ --output predictions"


def predict(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="A run folder, or one that holds several: their mean is taken.")
    ],
    inputs: Annotated[
        Path, typer.Argument(metavar="INPUT", help="An image file, a folder, a DICOM series, a zip or a manifest.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder that predictions.csv and masks are written to.")
    ] = Path("predictions"),
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:1.")] = "auto",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Predict these images again; others in the output folder stay.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Classification: predictions.csv. Segmentation: NIfTI masks on the grid of each image, DICOM SEG of DICOM images.

    The same command goes on where it was stopped. An image that fails does not stop the others: it is listed at the
    end, and the exit code is 3. A result is replaced only with --overwrite.
    """
    from medgcsam.recipes.predict import predict_images

    result = predict_images(run, inputs, output, device=device, overwrite=overwrite, journal=journal(as_json=as_json))
    if as_json:
        print_json(result)
    if result["failed"]:
        raise typer.Exit(3)
