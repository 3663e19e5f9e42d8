"""What may differ between a run and the command that continues it, and how a run is set aside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from medgcsam.config import Config, dump, load
from medgcsam.config.shipped import is_shipped
from medgcsam.errors import ConfigError, DataError
from medgcsam.intake.description import file_sha256
from medgcsam.pipeline.plan import Plan
from medgcsam.places import shown
from medgcsam.run_folder import RunFolder, read_json, writing_failed

# Keys that change no number: where things lie, how fast they are read, what a report says.
_HARMLESS = {
    ("report",), ("output", "folder"), ("pipeline",), ("compare",), ("data", "root"), ("data", "manifest"),
    ("optimizer", "setting"),
    ("training", "device"), ("training", "threads"),
}  # fmt: skip
_SHOWN = 3


def check_same_configuration(run: RunFolder, config: Config) -> None:
    """Refuse to continue a run under a configuration that would have made another result.

    Raises:
        ConfigError: naming the keys that differ and both values.
    """
    before = _defaults() | _flat(yaml.safe_load(run.config.read_text("utf-8")))
    now = _defaults() | _flat(yaml.safe_load(dump(without_places(config))))
    for name, planned in (read_json(run.plan) if run.plan.is_file() else {}).items():
        key = tuple(name.split("."))
        if now.get(key) == planned["asked"]:  # numbers that the data decided stand where the command says `auto`
            before[key] = planned["asked"]
    changed = [key for key in sorted(before.keys() | now.keys()) if before.get(key) != now.get(key)]
    changed = [key for key in changed if not any(key[: len(harmless)] == harmless for harmless in _HARMLESS)]
    if not changed:
        return
    told = [f"{'.'.join(key)} was {before.get(key)!r}, is {now.get(key)!r}" for key in changed[:_SHOWN]]
    more = f" and {len(changed) - _SHOWN} more" if len(changed) > _SHOWN else ""
    raise ConfigError(
        f"{run.path}: this run was begun with another configuration ({'; '.join(told)}{more}); take the old values, "
        "give the new ones another name, or begin anew with --restart."
    )


def begun_plan(run: RunFolder) -> Plan | None:
    """The plan that an unfinished run was begun with: the numbers of its config.yaml that plan.json names.

    None where it has none, as a classification. Raises ConfigError naming the keys that the two files disagree on.
    """
    if not run.plan.is_file():
        return None
    planned, begun = read_json(run.plan), load(run.config)
    written = _flat(begun.model_dump(mode="json"))
    keys = {name: tuple(name.split(".")) for name in planned}
    differ = [name for name, key in keys.items() if written.get(key, ...) != planned[name]["value"]]
    if differ:
        raise ConfigError(
            f"{run.path}: plan.json and config.yaml of this run disagree on {', '.join(differ)}, so it cannot go on; "
            "restore them, or begin anew with --restart."
        )
    values = {name: getattr(getattr(begun, section), key) for name, (section, key) in keys.items()}
    return Plan(values, {name: entry["reason"] for name, entry in planned.items()})


def check_same_cases(run: RunFolder, facts: dict[str, Any]) -> None:
    """Refuse to go on with other cases than a run was begun with; ``facts``: what provenance.json would say now.

    Raises:
        DataError: images, split or manifest are others.
    """
    before = read_json(run.provenance)
    for key, what in (("images_sha256", "images"), ("split_sha256", "split"), ("manifest_sha256", "manifest")):
        if before[key] != facts[key]:
            raise DataError(
                f"{run.path}: the {what} changed since this run began; bring the old ones back, or begin anew "
                "with --restart."
            )


def check_same_data(run: RunFolder, config: Config) -> None:
    """Refuse to show or continue a run for a manifest (or data description) that is not the one it was begun with.

    Where the file is not there any more, a finished run can still be shown; preparing the data will say what is missing
    where it is needed.

    Raises:
        DataError: the file that data.manifest names has other bytes.
    """
    before, now = read_json(run.provenance).get("source_sha256"), source_digest(config)
    if before is not None and now is not None and before != now:
        raise DataError(
            f"{config.data.manifest}: this is not the manifest that {shown(run.path)} was begun with; bring that one "
            "back, give the new data another name, or begin anew with --restart."
        )


def source_digest(config: Config) -> str | None:
    """SHA-256 of the file that ``data.manifest`` names, None where it is not there."""
    path = Path(config.data.manifest)
    return file_sha256(path) if path.is_file() else None


def without_places(config: Config) -> Config:
    """``config`` with file names in place of paths, which would tell of people and servers wherever a run is sent."""
    data = {"manifest": Path(config.data.manifest).name, "root": None}
    if is_shipped(Path(config.data.manifest), "data_manifests"):
        del data["manifest"]
    split = {"file": Path(config.split.file).name if config.split.file else None}
    network = {"weights": Path(config.network.weights).name if config.network.weights else None}
    return config.model_copy(
        update={
            "data": config.data.model_copy(update=data),
            "split": config.split.model_copy(update=split),
            "network": config.network.model_copy(update=network),
            "output": config.output.model_copy(update={"folder": Path(config.output.folder).name}),
        }
    )


def set_aside(run: RunFolder) -> Path | None:
    """Rename the folder of a run to ``fold-F.old-N``, so that nothing is lost; None where there is no folder."""
    if not run.path.exists():
        return None
    number = 1
    while (target := run.path.with_name(f"{run.path.name}.old-{number}")).exists():
        number += 1
    try:
        return run.path.rename(target)
    except OSError as error:
        raise writing_failed(run.path, error) from error


def _defaults() -> dict[tuple[str, ...], Any]:
    """What a run that was begun before a key existed did: the default of the key."""
    sections = {name: field.default_factory for name, field in Config.model_fields.items() if field.default_factory}
    return _flat({name: section().model_dump(mode="json") for name, section in sections.items()})


def _flat(values: Any, head: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    if not isinstance(values, dict):
        return {head: values}
    return {key: value for name, part in values.items() for key, value in _flat(part, (*head, str(name))).items()}
