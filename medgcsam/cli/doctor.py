"""`medgcsam doctor`: is this machine ready?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medgcsam.cli.options import JsonOption, print_json

EXAMPLE = "Example: medgcsam doctor --output runs"


def doctor(
    output: Annotated[Path, typer.Option("--output", help="The folder that runs will go to.")] = Path("runs"),
    as_json: JsonOption = False,
) -> None:
    """Show versions, device, readable DICOM transfer syntaxes, shared memory and writable folders."""
    from medgcsam.recipes.doctor import examine, print_examination

    result = examine(output)
    if as_json:
        print_json(result)
    else:
        print_examination(result)
    if result["problems"]:
        from medgcsam.errors import MachineError

        raise MachineError(f"This machine is not ready: {'; '.join(result['problems'])}.")
