"""The two libraries that GCSAM is measured against: where to find them, and how they are used by their own documents.

pytorch_optimizer is a package (``pip install medgcsam[benchmark]``). davda54/sam is one file, read from a path that the
user gives and never part of this repository.
"""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from importlib import metadata
from pathlib import Path
from typing import Any


def pytorch_optimizer_sam() -> type | None:
    """``pytorch_optimizer.SAM``, or None where the package is not installed."""
    if importlib.util.find_spec("pytorch_optimizer") is None:
        return None
    from pytorch_optimizer import SAM

    return SAM


def davda54_sam(path: Path | None) -> type | None:
    """``SAM`` from the file ``sam.py`` of davda54/sam at ``path``; None without a path."""
    if path is None:
        return None
    spec = importlib.util.spec_from_file_location("davda54_sam", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where pickle looks for the class
    spec.loader.exec_module(module)
    return module.SAM


def versions(path: Path | None) -> dict[str, Any]:
    """Version of pytorch_optimizer and digest of the file of davda54/sam, None where one is absent."""
    found = importlib.util.find_spec("pytorch_optimizer") is not None
    return {
        "pytorch_optimizer": metadata.version("pytorch_optimizer") if found else None,
        "davda54_sha256": None if path is None else hashlib.sha256(path.read_bytes()).hexdigest()[:16],
    }
