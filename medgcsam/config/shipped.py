"""Finding configurations and data descriptions: those of the user first, then the ones that come with the package."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Literal

from medgcsam.errors import ConfigError

Kind = Literal["configs", "data_manifests"]
_PACKAGE = Path(__file__).resolve().parents[1]


def shipped_folder(kind: Kind) -> Path:
    """Folder of the shipped files of a kind: inside an installed package, or at the top of a checkout."""
    installed = _PACKAGE / "_shipped" / kind
    return installed if installed.is_dir() else _PACKAGE.parent / kind


def shipped_names(kind: Kind) -> list[str]:
    """File names of the shipped configurations or data descriptions, sorted."""
    return sorted(path.name for path in shipped_folder(kind).glob("*.yaml"))


def is_shipped(path: Path, kind: Kind = "configs") -> bool:
    """Whether `path` is a shipped file, and not a copy that the user made."""
    return path.resolve().parent == shipped_folder(kind).resolve()


def find_config(name_or_path: str | Path) -> Path:
    """The configuration file that is meant, as an absolute path.

    A bare name (`.yaml` may be left out) is looked for in the current folder, in ./configs, and among the shipped
    configurations; anything with a folder in it is a path. ConfigError if there is none.
    """
    asked = Path(name_or_path).expanduser()
    bare = len(asked.parts) == 1
    folders = [Path.cwd(), Path.cwd() / "configs", shipped_folder("configs")] if bare else [Path.cwd()]
    for folder in folders:
        for name in (asked, asked.with_name(asked.name + ".yaml")) if asked.name else ():
            if (folder / name).is_file():
                return (folder / name).absolute()
    raise ConfigError(_not_found(asked, bare))


def find_data_description(name: str | Path, base: Path) -> Path | None:
    """The data description `name`, or None: from `base` on, or a shipped `NAME.yaml` or `data_manifests/NAME.yaml`."""
    asked = Path(name).expanduser()
    if (base / asked).is_file():
        return base / asked
    names_shipped = asked.suffix == ".yaml" and asked.parts in ((asked.name,), ("data_manifests", asked.name))
    shipped = shipped_folder("data_manifests") / asked.name
    return shipped if names_shipped and shipped.is_file() else None


def not_a_configuration(name: str) -> str:
    """What is told where a data description is given in the place of a configuration."""
    return (
        "this is a data description, not a configuration; name it in a configuration as data.manifest, such as "
        f"`data: {{manifest: {name}}}`."
    )


def _not_found(asked: Path, bare: bool) -> str:
    if not bare:
        there = "is a folder" if asked.is_dir() else "does not exist"
        return f"--config {asked}: this file {there}; give the path of a YAML file or the name of a shipped one."
    described = f"{asked.name.removesuffix('.yaml')}.yaml"
    if described in shipped_names("data_manifests"):
        return f"--config {asked}: {not_a_configuration(described)}"
    names = shipped_names("configs")
    near = difflib.get_close_matches(asked.name, [*names, *(name.removesuffix(".yaml") for name in names)], n=1)
    suggestion = f" Did you mean {near[0]}?" if near else ""
    return (
        f"--config {asked}: no such configuration in the current folder, in ./configs or among the shipped ones "
        f"({', '.join(names) or 'none'}).{suggestion}"
    )
