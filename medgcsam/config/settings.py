"""The optimizer of each setting: the optimizer section, overlaid by a part of `compare.optimizers`.

An option that the chosen optimizer does not use, such as `rho` for `adam`, is an error where somebody wrote both. It is
dropped where the choice came on top of it: by `--set optimizer.name=adam`, or as a setting of a comparison.
"""

from __future__ import annotations

import difflib
from typing import Any

from medgcsam.config.document import Document, KeyPath
from medgcsam.config.optimizer import OPTIMIZER_NAMES, OptimizerConfig, applicable
from medgcsam.config.tree import Config
from medgcsam.errors import ConfigError


def resolve_settings(config: Config, document: Document) -> Config:
    """`config` with every part of `compare.optimizers` filled up; unused options are noted in `document`."""
    written = _written(config.optimizer)
    chosen_later = document.places.get(("optimizer", "name"), "").startswith("--set")
    _note_unused(document, ("optimizer",), config.optimizer, written, forgiving=chosen_later)
    settings = {}
    for name, overlay in config.compare.optimizers.items():
        part = _written(overlay)
        if "name" not in part and name in OPTIMIZER_NAMES:
            part["name"] = name
        key = ("compare", "optimizers", name)
        if part.get("setting") not in (None, name):
            document.report((*key, "setting"), f"must be {name!r} or left out")
        merged = OptimizerConfig.model_validate({**written, **part, "setting": name})
        _note_unused(document, key, merged, part, forgiving=chosen_later and "name" not in part)
        settings[name] = _effective(merged)
    compare = config.compare.model_copy(update={"optimizers": settings})
    return _copy(config, optimizer=_effective(config.optimizer), compare=compare)


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


def _effective(section: OptimizerConfig) -> OptimizerConfig:
    """The section with its unused options at their defaults, as a dump gives it back."""
    return OptimizerConfig.model_validate(section.model_dump())


def _note_unused(
    document: Document, key: KeyPath, section: OptimizerConfig, written: dict[str, Any], *, forgiving: bool
) -> None:
    """Note each option of `written` that does nothing; `forgiving` lets those of the file pass."""
    what = f"{section.name} over {section.base}" if section.name in ("sam", "gcsam") else section.name
    for option in sorted(set(written) - applicable(section.name, section.base)):
        if not forgiving or document.place((*key, option)).startswith("--set"):
            document.report((*key, option), f"has no effect with {what}; delete it, or change the optimizer")
