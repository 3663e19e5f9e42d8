"""Pydantic's findings in plain words: what is wrong with a key, and what would be right."""

from __future__ import annotations

import difflib
import re
import typing
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel

from medgcsam.config.document import Document, KeyPath
from medgcsam.config.tree import Config


def note(document: Document, errors: Iterable[Any]) -> list[KeyPath]:
    """Add pydantic's `errors` about `document.values` to its problems; the keys at fault."""
    faulty: list[KeyPath] = []
    for error in errors:
        key = _written(document.values, error["loc"])
        if error["loc"][-1:] == ("[key]",):
            message = _wrong_name(error)
        elif error["type"] == "missing" and isinstance(error["loc"][-1], int):
            message = "must have one value for each place, but has too few"
        elif error["type"] == "missing":
            key = (*key, error["loc"][-1])
            message = "this key is required"
        elif error["type"] == "extra_forbidden":
            message = _unknown(key)
        else:
            message = wrong_value(error)
        if key not in faulty:
            faulty.append(key)
            document.report(key, message)
    return faulty


def _written(values: Any, loc: tuple[str | int, ...]) -> KeyPath:
    """The part of pydantic's location that exists in the document; the rest are names of alternatives."""
    key: list[str | int] = []
    for part in loc:
        if (isinstance(values, dict) and isinstance(part, str) and part in values) or (
            isinstance(values, list) and isinstance(part, int) and part < len(values)
        ):
            values = values[part]
        else:
            continue
        key.append(part)
    return tuple(key)


def _unknown(key: KeyPath) -> str:
    name = str(key[-1])
    section = _section(key[:-1])
    elsewhere = [
        f"{title}.{name}"
        for title, field in Config.model_fields.items()
        if (part := section_of(field.annotation)) and name in part.model_fields
    ]
    if name in Config.model_fields:
        elsewhere = [name]
    if not elsewhere and (near := difflib.get_close_matches(name, section.model_fields, n=1)):
        return f"unknown key; did you mean {near[0]!r}?"
    if elsewhere:
        return f"unknown key here; did you mean {' or '.join(repr(other) for other in elsewhere)}?"
    return f"unknown key; the keys here are {', '.join(section.model_fields)}"


def _section(key: KeyPath) -> type[BaseModel]:
    """The section class that holds the keys below `key`."""
    section: type[BaseModel] = Config
    for part in key:
        field = section.model_fields.get(str(part))
        section = (section_of(field.annotation) if field else None) or section
    return section


def section_of(annotation: Any) -> type[BaseModel] | None:
    """The section class inside an annotation such as `SplitConfig` or `dict[str, OptimizerConfig]`."""
    if isinstance(annotation, type) and not typing.get_args(annotation):
        return annotation if issubclass(annotation, BaseModel) else None
    found = (section_of(part) for part in typing.get_args(annotation))
    return next((part for part in found if part), None)


def _wrong_name(error: Any) -> str:
    expected = error.get("ctx", {}).get("expected", "")
    if not expected:
        return f"the name {error['input']!r} is not allowed here; use letters, digits, '-', '_' and '.'"
    near = difflib.get_close_matches(str(error["input"]), expected.replace("'", " ").split(), n=1)
    return f"unknown name; did you mean {near[0]!r}?" if near else f"unknown name; it must be {expected}"


_UNQUOTED = re.compile(r"^(true|false|[-+]?[0-9.]+([eE][-+]?[0-9]+)?)$")
_EXPECTED = {
    "bool_type": "true or false",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "tuple_type": "a list",
    "dict_type": "`key: value` lines",
    "model_type": "a section of `key: value` lines",
    "model_attributes_type": "a section of `key: value` lines",
    "greater_than": "greater than {gt:g}",
    "greater_than_equal": "{ge:g} or more",
    "less_than": "less than {lt:g}",
    "less_than_equal": "{le:g} or less",
    "literal_error": "{expected}",
    "string_too_short": "a text that is not empty",
    "string_pattern_mismatch": "a name of letters, digits, '-', '_' and '.', beginning with a letter or digit",
}


def wrong_value(error: Any) -> str:
    """One of pydantic's findings about a value, in plain words."""
    kind, context, value = error["type"], error.get("ctx", {}), error["input"]
    if kind == "value_error":
        return str(context["error"])
    if kind in ("too_short", "too_long", "missing_argument"):
        length = context.get("min_length", context.get("max_length"))
        bound = "at least" if kind == "too_short" else "at most"
        return f"must have {bound} {length} entries, but has {context['actual_length']}"
    if kind == "string_type":
        shown = show(value)
        expected = f'a text; write it in quotes ("{shown}")' if isinstance(value, bool | int | float) else "a text"
        return f"must be {expected}, but is {shown}"
    if kind not in _EXPECTED:
        return f"{error['msg'][:1].lower()}{error['msg'][1:]}, but is {show(value)}"
    text = f"must be {_EXPECTED[kind].format(**context)}, but is {show(value)}"
    if kind in ("int_type", "float_type", "bool_type") and isinstance(value, str) and _UNQUOTED.match(value):
        text += "; write it without quotes"
    if kind == "literal_error" and isinstance(value, str):
        near = difflib.get_close_matches(value, context["expected"].replace("'", " ").split(), n=1)
        text += f"; did you mean {near[0]!r}?" if near else ""
    return text


def show(value: Any) -> str:
    """A value as it would be written in YAML, shortened."""
    if value is None:
        return "empty"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "a section of keys"
    if isinstance(value, list | tuple):
        return "a list"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
