"""Where things outside a run lie, and how a path is shown to the user."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def cache_folder(output: Path) -> Path:
    """Folder of stores and phantoms: MEDGCSAM_CACHE, else the user's cache folder, else ``output``/.cache.

    The user's cache folder is XDG_CACHE_HOME or ~/.cache (macOS ~/Library/Caches, Windows LOCALAPPDATA); a container
    without a writable home falls back to the output folder, which has to be writable anyway.
    """
    named = os.environ.get("MEDGCSAM_CACHE")
    if named:
        return Path(named).absolute()
    for folder in _user_caches():
        if os.access(_nearest_existing(folder), os.W_OK):
            return folder / "medgcsam"
    return Path(output).absolute() / ".cache"


def shown(path: Path) -> str:
    """A path for the user to read: from the current folder where it lies below it, so that it is short and copyable."""
    path = Path(path).absolute()
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _user_caches() -> list[Path]:
    if os.environ.get("XDG_CACHE_HOME"):
        return [Path(os.environ["XDG_CACHE_HOME"])]
    if sys.platform == "win32":
        return [Path(os.environ["LOCALAPPDATA"])] if os.environ.get("LOCALAPPDATA") else []
    try:
        home = Path.home()
    except RuntimeError:  # a container user without a home
        return []
    return [home / ("Library/Caches" if sys.platform == "darwin" else ".cache")]


def _nearest_existing(path: Path) -> Path:
    while not path.exists() and path != path.parent:
        path = path.parent
    return path
