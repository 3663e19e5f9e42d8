"""`medgcsam split`: who is in which partition, written before any training."""

from __future__ import annotations

from medgcsam.cli.options import ConfigOption, JsonOption, SetOption, journal, load_config, print_json

EXAMPLE = "Example: medgcsam split --config chest_xray.yaml --set split.fold=1"


def split(config: ConfigOption, overrides: SetOption = None, as_json: JsonOption = False) -> None:
    """Split the patients, check for leakage, write split.json into the run folder and print its counts."""
    from medgcsam.recipes.split import write_split

    document = write_split(load_config(config, overrides), journal=journal(as_json=as_json))
    if as_json:
        print_json(document)
