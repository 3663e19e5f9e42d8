"""Where a run comes from: versions, device and hashes of everything that went into it."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import medgcsam

_PACKAGES = (
    "torch", "monai", "numpy", "scipy", "scikit-learn", "pandas", "pydicom", "python-gdcm", "pylibjpeg",
    "pylibjpeg-openjpeg", "nibabel", "pillow", "matplotlib",
)  # fmt: skip


def package_versions(names: Iterable[str] = _PACKAGES) -> dict[str, str]:
    """Installed version of each package, "not installed" where it is absent."""
    return {name: _version(name) for name in names}


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def software() -> dict[str, Any]:
    """Versions of medgcsam, Python and the packages that results depend on, and the hash of medgcsam's own code."""
    return {
        "medgcsam": medgcsam.__version__,
        "code_sha256": code_digest(),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "packages": package_versions(),
    }


def code_digest() -> str:
    """SHA-256 over the names and bytes of all Python files of the installed package."""
    root = Path(medgcsam.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def text_digest(text: str) -> str:
    """SHA-256 of a text in UTF-8."""
    return hashlib.sha256(text.encode()).hexdigest()


def json_digest(value: Any) -> str:
    """SHA-256 of a value as compact JSON with sorted keys."""
    return text_digest(json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False))
