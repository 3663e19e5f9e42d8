"""YAML text becomes plain values that remember where they were written.

The scalars follow YAML 1.2: only `true` and `false` are booleans (so a class may be called No), `1e-3` is a number,
dates and codes such as `01` stay text. A key written twice is an error, not a silent choice. Nothing is executed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import yaml

from medgcsam.config.variables import VariableError, has_variable, substitute
from medgcsam.errors import ConfigError

KeyPath = tuple[str | int, ...]
# Aliases can make a small file expand without end; no honest configuration comes near this.
_MOST_VALUES = 20_000

# tag, pattern, first characters
SCALARS = (
    ("tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), "tTfF"),
    ("tag:yaml.org,2002:null", re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""]),
    ("tag:yaml.org,2002:int", re.compile(r"^-?(?:0|[1-9][0-9]*)$"), "-0123456789"),
    (
        "tag:yaml.org,2002:float",
        re.compile(r"^[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?$"),
        "-+.0123456789",
    ),
)


class Loader(yaml.SafeLoader):
    """PyYAML's safe loader with the scalars of YAML 1.2."""

    yaml_implicit_resolvers: ClassVar[dict[Any, Any]] = {}


for _tag, _pattern, _first in SCALARS:
    Loader.add_implicit_resolver(_tag, _pattern, list(_first))


@dataclass(frozen=True)
class Problem:
    """One fault: where it was written, which key it is about (may be empty), and what is wrong with it."""

    place: str
    key: KeyPath
    message: str

    def __str__(self) -> str:
        key = ".".join(str(part) for part in self.key)
        return ": ".join(part for part in (self.place, key, self.message) if part)

    def order(self) -> tuple[bool, int]:
        """Sorts problems of a file by line, and those of overrides behind them."""
        line = re.search(r":(\d+)$", self.place)
        return self.place.startswith("--set"), int(line.group(1)) if line else 0


@dataclass
class Document:
    """Plain values (dict, list, str, int, float, bool, None), the place of each key, and the faults found so far."""

    label: str
    values: dict[str, Any] = field(default_factory=dict)
    places: dict[KeyPath, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def place(self, key: KeyPath) -> str:
        """Where `key` was written, or else the section that it would belong to."""
        while key and key not in self.places:
            key = key[:-1]
        return self.places.get(key, self.label)

    def report(self, key: KeyPath, message: str) -> None:
        """Note a fault of `key`."""
        self.problems.append(Problem(self.place(key), key, message))


def read_document(path: Path, label: str) -> Document:
    """Read the YAML file at `path`, called `label` in messages. ConfigError if it is no readable YAML mapping."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{label}: this is not text in UTF-8; save it as UTF-8 and try again.") from error
    except OSError as error:
        raise ConfigError(f"{label}: the configuration cannot be read: {error.strerror}.") from error
    node = _compose(text, label)
    if node is None:
        raise ConfigError(f"{label}: the file is empty; copy a shipped configuration to start from.")
    if not isinstance(node, yaml.MappingNode):
        raise ConfigError(f"{label}:1: a configuration consists of `section:` lines with indented `key: value` lines.")
    document = Document(label)
    document.values = _Builder(document, numbered=True).build(node, ())
    return document


def read_value(text: str, document: Document, key: KeyPath, place: str) -> Any:
    """The value of `text` as YAML, its faults and places noted in `document` as those of `key` at `place`."""
    document.places[key] = place
    node = _compose(text, place)
    return None if node is None else _Builder(document, numbered=False, label=place).build(node, key)


def _compose(text: str, label: str) -> yaml.Node | None:
    try:
        return yaml.compose(text, Loader=Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{label}:{mark.line + 1}" if mark and not label.startswith("--set") else label
        hint = "; put the value in quotes if it holds a colon" if "mapping values" in str(error.problem) else ""
        raise ConfigError(f"{where}: this is not valid YAML: {error.problem or error.context}{hint}.") from error
    except (yaml.YAMLError, RecursionError) as error:
        detail = str(error).splitlines()[0]
        raise ConfigError(f"{label}: this is not valid YAML: {detail}.") from error


class _Builder:
    """Walks the nodes once, turning them into values and noting places and faults."""

    def __init__(self, document: Document, *, numbered: bool, label: str | None = None) -> None:
        self.document = document
        self.numbered = numbered
        self.label = label or document.label
        self.resolver = Loader("")
        self.open: set[int] = set()
        self.count = 0

    def build(self, node: yaml.Node, key: KeyPath) -> Any:
        self.document.places.setdefault(key, self._place(node))
        self.count += 1
        if self.count > _MOST_VALUES or id(node) in self.open:
            raise ConfigError(f"{self._place(node)}: the YAML aliases here expand without end; write the values out.")
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, key)
        self.open.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            value: Any = [self.build(child, (*key, number)) for number, child in enumerate(node.value)]
        else:
            value = self._mapping(node, key)
        self.open.discard(id(node))
        if node.tag not in (self.resolver.DEFAULT_SEQUENCE_TAG, self.resolver.DEFAULT_MAPPING_TAG):
            self.document.report(key, f"the YAML tag {node.tag!r} is not allowed; write plain values")
        return value

    def _mapping(self, node: yaml.MappingNode, key: KeyPath) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for name, child in node.value:
            if not isinstance(name, yaml.ScalarNode):
                self.document.problems.append(Problem(self._place(name), key, "a key must be a single word"))
                continue
            path = (*key, name.value)
            if name.value in values:
                first = self.document.place(path)
                self.document.problems.append(
                    Problem(self._place(name), path, f"this key is written twice (first at {first}); keep one")
                )
                continue
            self.document.places[path] = self._place(name)
            values[name.value] = self.build(child, path)
        return values

    def _scalar(self, node: yaml.ScalarNode, key: KeyPath) -> Any:
        text, tag = node.value, node.tag
        if has_variable(text):
            try:
                text = substitute(text)
            except VariableError as error:
                self.document.report(key, str(error))
                return None
            # Only what was written without quotes may become a number or a boolean.
            if node.style is None:
                tag = self.resolver.resolve(yaml.ScalarNode, text, (True, False))
        if tag == "tag:yaml.org,2002:null":
            return None
        if tag == "tag:yaml.org,2002:bool":
            return text.lower() == "true"
        try:
            if tag == "tag:yaml.org,2002:int":
                return int(text)
            if tag == "tag:yaml.org,2002:float":
                return float(text)
        except ValueError:
            self.document.report(key, f"{text!r} is not a number")
            return None
        if tag != self.resolver.DEFAULT_SCALAR_TAG:
            self.document.report(key, f"the YAML tag {tag!r} is not allowed; write a plain value")
        return text

    def _place(self, node: yaml.Node) -> str:
        return f"{self.label}:{node.start_mark.line + 1}" if self.numbered else self.label
