"""The optimizer of each setting: the optimizer section, overlaid by a part of `compare.optimizers`.

An option that does nothing beside the others, such as `rho` for `adam`, is an error where somebody wrote both. It is
dropped where the choice came on top of it: by `--set optimizer.name=adam`, or as a setting of a comparison.
"""

from __future__ import annotations

import difflib
from typing import Any

from medgcsam.config.document import Document, KeyPath
from medgcsam.config.optimizer import OPTIMIZER_NAMES, OptimizerConfig, effective
from medgcsam.config.optimizer_rules import Idle, idle_options
from medgcsam.config.tree import Config
from medgcsam.errors import ConfigError


def resolve_settings(config: Config, document: Document) -> Config:
    """`config` with every part of `compare.optimizers` filled up; unused options are noted in `document`."""
    written = _written(config.optimizer)
    _note_idle(document, ("optimizer",), config.optimizer, written)
    settings = {}
    for name, overlay in config.compare.optimizers.items():
        part = _written(overlay)
        if "name" not in part and name in OPTIMIZER_NAMES:
            part["name"] = name
        key = ("compare", "optimizers", name)
        if part.get("setting") not in (None, name):
            document.report((*key, "setting"), f"must be {name!r} or left out")
        merged = OptimizerConfig.model_validate({**written, **part, "setting": name})
        _note_idle(document, key, merged, part)
        settings[name] = effective(merged)
    compare = config.compare.model_copy(update={"optimizers": settings})
    return _copy(config, optimizer=effective(config.optimizer), compare=compare)


def choose_setting(config: Config, setting: str) -> Config:
    """`config` with the optimizer of `setting`, a key of `compare.optimizers` or the setting that it has anyway."""
    if setting in config.compare.optimizers:
        return _copy(config, optimizer=config.compare.optimizers[setting])
    if setting == config.setting:
        return config
    known = sorted({config.setting, *config.compare.optimizers})
    near = difflib.get_close_matches(setting, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}."
    raise ConfigError(f"There is no setting {setting!r} in compare.optimizers; {hint}")


def _copy(config: Config, **update: Any) -> Config:
    return config.model_copy(update=update)


def _written(section: OptimizerConfig) -> dict[str, Any]:
    return {key: getattr(section, key) for key in section.model_fields_set}


def _note_idle(document: Document, key: KeyPath, section: OptimizerConfig, written: dict[str, Any]) -> None:
    """Note each option of `written`, the keys below `key`, that does nothing in `section`."""
    idle = idle_options(section)
    defaults = OptimizerConfig.model_fields
    found = [
        ((*key, option), idle[option])
        for option in sorted(written.keys() & idle.keys())
        if idle[option].by_kind or written[option] != defaults[option].default
    ]
    for number, group in enumerate(written.get("groups", ())):
        found += [((*key, "groups", number, o), idle[o]) for o in sorted(group.model_fields_set & idle.keys())]
    for place, reason in found:
        if not _came_on_top(document, key, reason, written) or document.place(place).startswith("--set"):
            document.report(place, f"has no effect {reason.words}; delete it, or change the optimizer")


def _came_on_top(document: Document, key: KeyPath, reason: Idle, written: dict[str, Any]) -> bool:
    """Whether `--set` made the choice that `reason` names, on top of what the file says at `key`."""
    deciding = [(*key, name) if name in written else ("optimizer", name) for name in reason.because_of]
    return any(document.places.get(place, "").startswith("--set") for place in deciding)
