"""`medgcsam compare`: every optimizer setting with every seed and fold, compared in pairs."""

from __future__ import annotations

from typing import Annotated

import typer

from medgcsam.cli.options import ConfigOption, JsonOption, SetOption, journal, load_config, print_json

EXAMPLE = "Example: medgcsam compare --config chest_xray.yaml --set compare.seeds=[0,1,2,3,4]"


def compare(
    config: ConfigOption,
    overrides: SetOption = None,
    restart: Annotated[bool, typer.Option("--restart", help="Begin all runs anew; old ones are set aside.")] = False,
    smoke: Annotated[bool, typer.Option("--smoke", help="Every setting once, one epoch on few cases.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Train every setting of the compare section with every seed and fold, and compare them patient by patient.

    Finished runs are not repeated and unfinished ones go on, so the same command continues a study that was stopped.
    Exit code 5: some runs failed; the others are done and compared.
    """
    loaded = load_config(config, overrides)
    from medgcsam.recipes.compare import compare_settings

    result, failure = compare_settings(loaded, restart=restart, smoke=smoke, journal=journal(as_json=as_json))
    if as_json:
        print_json(result)
    if failure is not None:
        raise failure
