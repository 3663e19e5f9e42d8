"""`docs/configuration.md`, written from the schema, so that the two cannot disagree."""

from __future__ import annotations

import inspect
import types
import typing
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from medgcsam.config.messages import section_of, show
from medgcsam.config.tree import Config

_INTRODUCTION = """\
# Configuration

One YAML file describes one job. `medgcsam train --config chest_xray.yaml` looks for a bare name in the current folder,
then in `./configs`, then among the configurations that come with the package; `--print-config` shows what it resolved
to. This page is made from the schema (`python -m medgcsam.config docs`), and `config.schema.json` beside it is the same
for editors: a first line `# yaml-language-server: $schema=PATH` gives completion and checking while you type.

- **Overrides**: `--set optimizer.rho=0.1`, as often as needed; the value is read as YAML. A whole section or list is
  replaced, not merged.
- **Strict**: unknown keys, wrong types and values out of range are errors with file, line and the nearest known key,
  all at once. Booleans are `true` and `false` only, so a class may be called `No`; `1e-3` is a number; `01` is a text.
  A key written twice is an error.
- **Variables**: `${VAR}` and `${VAR:-default}` in values are replaced from the environment; an unset one without a
  default is an error. `$${` is a plain `${`. Inside `[...]` or `{...}` put such a value in quotes.
- **Paths** count from the YAML file. Those given by `--set` count from the current folder, and so does `output.folder`
  of a configuration that comes with the package. `data.manifest: data_manifests/NAME.yaml` is looked for beside the
  YAML file, then among the data descriptions that come with the package.
- **Optimizer options** that the chosen optimizer does not use (`rho` with `adam`) are errors where both are written
  together. With `--set optimizer.name=adam`, and in the settings of a comparison, they are dropped instead, so that
  one file serves all optimizers.
- **Settings**: each entry of `compare.optimizers` says only what differs from the `optimizer` section. An entry called
  like an optimizer (`adam: {}`) is that optimizer.
"""


def reference() -> str:
    """Markdown: how the file is read, then every key with type, default and meaning."""
    parts = [_INTRODUCTION, "## Top level\n", _table(Config, skip_sections=True)]
    for title, field in Config.model_fields.items():
        if section := section_of(field.annotation):
            parts += [f"## `{title}`\n", f"{inspect.getdoc(section)}\n", _table(section)]
    return "\n".join(parts)


def _table(section: type[BaseModel], *, skip_sections: bool = False) -> str:
    rows = ["| key | value | default | meaning |", "|---|---|---|---|"]
    rows += _rows(section, "", skip_sections)
    return "\n".join(rows) + "\n"


def _rows(section: type[BaseModel], prefix: str, skip_sections: bool) -> list[str]:
    rows = []
    for key, field in section.model_fields.items():
        below = field.annotation if inspect.isclass(field.annotation) else None
        if below and issubclass(below, BaseModel):
            rows += [] if skip_sections else _rows(below, f"{prefix}{key}.", False)
            continue
        repeated = section_of(field.annotation) if get_origin(field.annotation) is tuple else None
        cells = (f"`{prefix}{key}`", _type(field), _default(field), field.description or "")
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        rows += _rows(repeated, f"{prefix}{key}.", False) if repeated else []
    return rows


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value in (None, {}, ()):
        return "empty"
    if isinstance(value, tuple):
        return f"`[{', '.join(show(part) for part in value)}]`"
    return f"`{value if isinstance(value, str) else show(value)}`"


def _type(field: FieldInfo) -> str:
    return _words(field.annotation, list(field.metadata))


def _words(annotation: Any, metadata: list[Any]) -> str:
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is typing.Annotated:
        return _words(args[0], [*metadata, *args[1:]])
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in args)
    if origin in (Union, types.UnionType):
        return " or ".join(_words(part, metadata) for part in args if part is not type(None))
    if origin is tuple and section_of(annotation):
        return "list of sections with the keys below"
    if origin is tuple:
        many = args[-1] is Ellipsis
        return f"list of {_words(args[0], [])}" if many else f"[{', '.join(_words(part, []) for part in args)}]"
    if origin is dict:
        below = section_of(args[1])
        return f"{{{_words(args[0], [])}: {'keys of `optimizer`' if below else _words(args[1], [])}}}"
    name = {bool: "`true`, `false`", int: "whole number", float: "number", str: "text"}[annotation]
    return name + _range(metadata) if annotation in (int, float) else name


_SIGNS = {"gt": "> {}", "ge": "≥ {}", "lt": "< {}", "le": "≤ {}"}


def _range(metadata: list[Any]) -> str:
    bounds: dict[str, float] = {}
    for part in metadata:
        for limit in [part, *getattr(part, "metadata", [])]:
            bounds |= {sign: getattr(limit, sign) for sign in _SIGNS if getattr(limit, sign, None) is not None}
    text = ", ".join(_SIGNS[sign].format(f"{bounds[sign]:g}") for sign in _SIGNS if sign in bounds)
    return f" ({text})" if text else ""
