"""`medgcsam report`: write a run's report again from its files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medgcsam.cli.options import JsonOption, print_json

EXAMPLE = "Example: medgcsam report runs/chest_xray/gcsam/seed-0/fold-0"


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")], as_json: JsonOption = False
) -> None:
    """Write report.html from the files of a finished run; nothing is computed anew and no network is needed."""
    from medgcsam.places import shown
    from medgcsam.report import write_report
    from medgcsam.run_folder import RunFolder

    path = write_report(RunFolder.existing(run).path)
    if as_json:
        print_json({"report": str(path)})
    else:
        print(f"Report: {shown(path)}")
