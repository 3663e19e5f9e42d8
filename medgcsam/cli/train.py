"""`medgcsam train`: the whole job of one setting, seed and fold, from files on disk to a report."""

from __future__ import annotations

from typing import Annotated

import typer

from medgcsam.cli.options import ConfigOption, JsonOption, SetOption, SettingOption, journal, load_config, print_json

EXAMPLE = "Example: medgcsam train --config chest_xray.yaml --set optimizer.name=sam --set training.seed=1"


def train(
    config: ConfigOption,
    overrides: SetOption = None,
    setting: SettingOption = None,
    restart: Annotated[bool, typer.Option("--restart", help="Begin anew; the old run is set aside.")] = False,
    smoke: Annotated[bool, typer.Option("--smoke", help="One epoch on few cases: does it run?")] = False,
    print_config: Annotated[bool, typer.Option("--print-config", help="Print the resolved configuration.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Train, select on validation patients, test once, and write metrics and a report.

    On a finished run it prints the result; on an unfinished one it goes on from the last epoch.
    """
    loaded = load_config(config, overrides, setting)
    if print_config:
        from medgcsam.config import dump

        print(dump(loaded), end="")
        return
    from medgcsam.recipes.train import train_and_report

    result = train_and_report(loaded, restart=restart, smoke=smoke, journal=journal(as_json=as_json))
    if as_json:
        print_json(result)
