"""Loading a configuration: YAML file, `--set` overrides, every fault at once; and writing it back resolved."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from medgcsam.config.checks import cross_checks
from medgcsam.config.document import SCALARS, Document, KeyPath, Problem, read_document, read_value
from medgcsam.config.messages import note, section_of
from medgcsam.config.settings import choose_setting, resolve_settings
from medgcsam.config.shipped import find_config, find_data_description, is_shipped, not_a_configuration
from medgcsam.config.tree import Config
from medgcsam.config.variables import escape
from medgcsam.errors import ConfigError

_PATHS = (("data", "manifest"), ("data", "root"), ("split", "file"), ("network", "weights"), ("output", "folder"))


def load(path: str | Path, overrides: Iterable[str] = (), *, setting: str | None = None) -> Config:
    """Read the configuration at `path`, a file or a name that `find_config` finds.

    `overrides` are texts `section.key=value`, the value read as YAML. `setting` overlays that part of
    `compare.optimizers` onto the optimizer. In the result paths are absolute: those of the file counted from its
    folder, those of overrides (and `output.folder` of a shipped configuration) from the current folder.
    Raises ConfigError with one line per fault, all at once.
    """
    source = find_config(path)
    document = read_document(source, _label(source))
    if "importer" in document.values and "data" not in document.values:
        raise ConfigError(f"--config {path}: {not_a_configuration(source.name)}")
    for text in overrides:
        _override(document, text)
    for title, field in Config.model_fields.items():
        # A section whose lines are all commented out is an empty section, not an empty value.
        if document.values.get(title, 0) is None and section_of(field.annotation):
            document.values[title] = {}
    config = _validate(document)
    if document.problems or config is None:
        raise ConfigError("\n".join(str(problem) for problem in sorted(document.problems, key=Problem.order)))
    config = _absolute(config, document, source)
    config._source = source
    return config if setting is None else choose_setting(config, setting)


def dump(config: Config, reasons: Mapping[str, str] | None = None) -> str:
    """The resolved configuration as YAML text; loading it gives an equal one.

    ``reasons``: comments to put above keys such as "image.spacing".

    Shipped data descriptions are named, not located, so that a run folder can be read on another machine.
    """
    values = config.model_dump(mode="json")
    manifest = Path(config.data.manifest)
    if is_shipped(manifest, "data_manifests"):
        values["data"]["manifest"] = f"data_manifests/{manifest.name}"
    text = yaml.dump(escape(values), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000)
    return _commented(text, reasons) if reasons else text


def _commented(text: str, reasons: Mapping[str, str]) -> str:
    lines, section = [], ""
    for line in text.splitlines():
        key = line.strip().partition(":")[0]
        if not line.startswith((" ", "-")):
            section = key
        elif line.startswith("  ") and not line.startswith("   ") and (reason := reasons.get(f"{section}.{key}")):
            lines.append(f"  # {' '.join(reason.split())}")
        lines.append(line)
    return "\n".join(lines) + "\n"


class _Dumper(yaml.SafeDumper):
    """Quotes every text that YAML 1.1 or 1.2 would take for something else."""


for _tag, _pattern, _first in SCALARS:
    _Dumper.add_implicit_resolver(_tag, _pattern, list(_first))


def _label(source: Path) -> str:
    """How messages call the file: short where it is near."""
    try:
        return str(source.relative_to(Path.cwd()))
    except ValueError:
        return source.name if is_shipped(source) else str(source)


def _override(document: Document, text: str) -> None:
    name, equals, value = text.partition("=")
    place = f"--set {text}"
    key = tuple(name.strip().split("."))
    if not equals or not all(key):
        wish = "write an override as section.key=value, such as training.epochs=3"
        document.problems.append(Problem(place, (), wish))
        return
    section: Any = document.values
    for depth, part in enumerate(key[:-1], start=1):
        if section.get(part) is None:
            section[part] = {}
            document.places.setdefault(key[:depth], place)
        section = section[part]
        if not isinstance(section, dict):
            document.problems.append(Problem(place, (), f"{'.'.join(key[:depth])} has no keys below it"))
            return
    # What the file says at and below this key no longer counts, and neither do its faults.
    for old in [old for old in document.places if old[: len(key)] == key]:
        del document.places[old]
    document.problems = [problem for problem in document.problems if problem.key[: len(key)] != key]
    section[key[-1]] = read_value(value, document, key, place)


def _validate(document: Document) -> Config | None:
    """The configuration, or what is left of it without its faulty keys; every fault is noted in `document`."""
    # Values that already have a fault (an unset variable, say) should not get a second one.
    faulty: list[KeyPath] = [problem.key for problem in document.problems if problem.key]
    try:
        config = Config.model_validate(_without(document.values, faulty))
    except ValidationError as error:
        known = set(faulty)
        faulty += note(document, [found for found in error.errors() if tuple(found["loc"]) not in known])
        config = _remainder(document.values, faulty)
        if config is None:
            return None
    config = resolve_settings(config, document)
    for keys, message in cross_checks(config):
        if not any(_touches(key, fault) for key in keys for fault in faulty):
            document.report(keys[0], message)
    return config


def _remainder(values: dict[str, Any], faulty: list[KeyPath]) -> Config | None:
    """What is sound, to look for contradictions in; required keys get a stand-in, as their absence is noted already."""
    sound = {"name": "unnamed", **_without(values, faulty)}
    sound["data"] = {"manifest": "unnamed.csv", **(sound.get("data") or {})}
    try:
        return Config.model_validate(sound)
    except ValidationError:
        return None


def _touches(key: KeyPath, fault: KeyPath) -> bool:
    shorter = min(len(key), len(fault))
    return key[:shorter] == fault[:shorter]


def _without(values: dict[str, Any], keys: Iterable[KeyPath]) -> dict[str, Any]:
    """A copy of `values` without the parts at `keys`; a fault inside a list takes the whole list."""
    values = copy.deepcopy(values)
    for key in keys:
        here: Any = values
        for depth, part in enumerate(key):
            following = here.get(part)
            if depth == len(key) - 1 or not isinstance(following, dict):
                here.pop(part, None)
                break
            here = following
    return values


def _absolute(config: Config, document: Document, source: Path) -> Config:
    sections: dict[str, Any] = {}
    for title, key in _PATHS:
        section = sections.get(title, getattr(config, title))
        written = getattr(section, key)
        if written is None:
            continue
        here = document.place((title, key)).startswith("--set") or (title == "output" and is_shipped(source))
        base = Path.cwd() if here else source.parent
        found = find_data_description(written, base) if key == "manifest" else None
        text = os.path.normpath(found or base / Path(written).expanduser())
        sections[title] = section.model_copy(update={key: text})
    return config.model_copy(update=sections)
