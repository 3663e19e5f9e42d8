"""Intake: what data are here, whose they are, and whether they are sound."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medgcsam.intake.check import Checked, check_dataset
    from medgcsam.intake.datasets import Dataset, open_dataset
    from medgcsam.intake.fingerprints import Fingerprints, fingerprint

_HOMES = {
    "Checked": "check",
    "Dataset": "datasets",
    "Fingerprints": "fingerprints",
    "check_dataset": "check",
    "fingerprint": "fingerprints",
    "open_dataset": "datasets",
}

__all__ = ["Checked", "Dataset", "Fingerprints", "check_dataset", "fingerprint", "open_dataset"]


def __getattr__(name: str) -> Any:
    """Import on use: worker processes that look at images need neither pandas nor the configuration."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
