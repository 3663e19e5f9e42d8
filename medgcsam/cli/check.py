"""`medgcsam check`: every fault of a data set at once, before anything is trained."""

from __future__ import annotations

from medgcsam.cli.options import ConfigOption, JsonOption, SetOption, journal, load_config, print_json

EXAMPLE = "Example: medgcsam check --config nih_chest_xray.yaml"


def check(config: ConfigOption, overrides: SetOption = None, as_json: JsonOption = False) -> None:
    """Read every image, list every fault of the data set; exit code 3 where there is one."""
    from medgcsam.errors import DataError
    from medgcsam.recipes.check import check_data

    result = check_data(load_config(config, overrides), journal=journal(as_json=as_json))
    if as_json:
        print_json(result)
    if result["faults"]:
        raise DataError(
            f"{result['manifest']}: {len(result['faults'])} fault(s) in {result['images']} images; mend or exclude "
            "the listed rows, then check again."
        )
