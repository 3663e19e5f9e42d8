"""A synthetic cohort, made once in the cache."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from medgcsam.errors import ConfigError
from medgcsam.intake.description import Description


def import_phantom(
    description: Description, root: Path | None, cache: Path, progress: Callable[[int, int], None] | None = None
) -> tuple[Path, Path]:
    """The manifest of the phantom that the description names, and its folder.

    Raises:
        ConfigError: there is no phantom of that name.
        MachineError: the cache is not writable.
    """
    # Imported here: drawing a phantom needs scipy, opening a hospital's own data does not.
    from medgcsam.intake.phantom import ensure_phantom

    phantom = description.phantom
    if phantom is None:
        raise ConfigError(f"The description of '{description.title}' names no phantom; add the key 'phantom'.")
    manifest = ensure_phantom(phantom.name, cache, patients=phantom.patients, seed=phantom.seed, progress=progress)
    return manifest, manifest.parent
