"""Options and output that several verbs share."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from medgcsam.config import Config
    from medgcsam.journal import Journal

ConfigOption = Annotated[
    str,
    typer.Option(
        "--config",
        "-c",
        metavar="NAME_OR_PATH",
        help="A YAML file: a path, or a name looked for here, in ./configs, then among the shipped ones.",
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", metavar="KEY=VALUE", help="Override one key, such as optimizer.lr=1e-3; repeatable."),
]
SettingOption = Annotated[
    str | None, typer.Option("--setting", metavar="KEY", help="Use the optimizer settings compare.optimizers.KEY.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout, all else on stderr.")]


def print_version(wanted: bool) -> None:
    """Print the version and leave, when asked for."""
    if wanted:
        from medgcsam import __version__

        print(f"medgcsam {__version__}")
        raise typer.Exit


def load_config(name: str, overrides: Sequence[str] | None, setting: str | None = None) -> Config:
    """The configuration a verb was given."""
    from medgcsam.config import load

    return load(name, overrides or (), setting=setting)


def journal(*, as_json: bool) -> Journal:
    """Where a verb talks: standard output, or standard error where stdout carries JSON."""
    from medgcsam.journal import Journal

    return Journal(stream=sys.stderr if as_json else sys.stdout)


def print_json(value: Any) -> None:
    """The machine-readable result of a verb."""
    global json_printed
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    json_printed = True
    print(text)


json_printed = False
"""Whether this command has printed its result, after which an error adds no second document to stdout."""
