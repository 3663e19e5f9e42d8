"""`medgcsam check`: every fault of a data set at once, before anything is trained."""

from __future__ import annotations

from typing import Annotated

import typer

from medgcsam.cli.options import ConfigOption, JsonOption, SetOption, journal, load_config, print_json

EXAMPLE = "Example: medgcsam check --config nih_chest_xray.yaml --accept conflicting_labels"

AcceptOption = Annotated[
    list[str] | None,
    typer.Option("--accept", metavar="KIND", help="List faults of this kind, but do not fail for them; repeatable."),
]


StrictOption = Annotated[bool, typer.Option("--strict", help="Fail for suspicions too: odd_size, burned_in_text.")]


def check(
    config: ConfigOption,
    overrides: SetOption = None,
    accept: AcceptOption = None,
    strict: StrictOption = False,
    as_json: JsonOption = False,
) -> None:
    """Read every image and mask, list every fault of the data set; exit code 3 where there is one."""
    from medgcsam.errors import DataError
    from medgcsam.recipes.check import check_data

    settings = load_config(config, overrides)
    result = check_data(settings, journal=journal(as_json=as_json), accept=accept or (), strict=strict)
    if as_json:
        print_json(result)
    if result["failing"]:
        own = f"exclude rows in a manifest of your own (medgcsam import --config {config})"
        raise DataError(
            f"{result['title'] or result['manifest']}: {result['failing']} fault(s) in {result['images']} images; "
            f"{own if result['title'] else 'mend or exclude the listed rows'}, or accept a kind of fault with "
            "--accept KIND, then check again."
        )
