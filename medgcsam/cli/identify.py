"""`medgcsam identify`: from a hash in an output back to the hospital's patient."""

from __future__ import annotations

from typing import Annotated

import typer

from medgcsam.cli.options import ConfigOption, JsonOption, SetOption, load_config, print_json

EXAMPLE = "Example: medgcsam identify 3f9c2a71d05b8e64 --config chest_xray.yaml"


def identify(
    hashed: Annotated[str, typer.Argument(metavar="HASH", help="A patient or case hash from an output.")],
    config: ConfigOption,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find the patient or image behind a hash, from the manifest and the salt of the output folder."""
    from medgcsam.recipes.identify import find_by_hash

    found = find_by_hash(load_config(config, overrides), hashed)
    if as_json:
        print_json(found)
        return
    print(f"{found['kind']} {hashed}: patient_id {found['patient_id']}")
    for image in found["images"]:
        print(f"  {image}")
