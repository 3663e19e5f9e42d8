"""`medgcsam evaluate`: numbers again from predictions, or a trained network on another site's data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medgcsam.cli.options import JsonOption, SetOption, journal, print_json

EXAMPLE = "Example: medgcsam evaluate runs/chest_xray/gcsam/seed-0/fold-0 --manifest other_site.csv"


def evaluate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    manifest: Annotated[
        str | None,
        typer.Option("--manifest", help="CSV (or data description) of another site: external testing."),
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="Name of the external test; default the file's.")] = None,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Recompute metrics.json from predictions.csv or cases.csv alone, or test the trained network on other data.

    --set takes keys of the evaluation and report sections and, with --manifest, of the data section (such as
    data.columns.label). The numbers and the page have what the last evaluate said; config.yaml stays as it was.
    """
    talk = journal(as_json=as_json)
    if manifest is None:
        from medgcsam.recipes.evaluate import evaluate_again

        result = evaluate_again(run, overrides or [], journal=talk)
    else:
        from medgcsam.recipes.external import evaluate_external

        result = evaluate_external(run, manifest, overrides or [], name=name, journal=talk)
    if as_json:
        print_json(result)
