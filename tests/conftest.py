"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent

# The tests run side by side on few cores; more threads than cores makes every one of them slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def _shared_data() -> Path | None:
    named = os.environ.get("MEDGCSAM_DATA")
    candidates = [Path(named)] if named else [REPOSITORY.parent / "shared" / "data"]
    return next((folder for folder in candidates if folder.is_dir()), None)


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real images, as laid out by MEDGCSAM_DATA; the test is skipped where there is none."""
    folder = _shared_data()
    if folder is None:
        pytest.skip("no real images: set MEDGCSAM_DATA to the folder of data sets")
    return folder.resolve()


@pytest.fixture(autouse=True)
def own_places(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, request) -> None:
    """No test writes to the user's cache; data sets are found through the environment only where a test asks."""
    monkeypatch.setenv("MEDGCSAM_CACHE", str(_cache(tmp_path_factory)))
    if "shared_data" in request.fixturenames:
        monkeypatch.setenv("MEDGCSAM_DATA", str(request.getfixturevalue("shared_data")))
    else:
        monkeypatch.delenv("MEDGCSAM_DATA", raising=False)


def _cache(factory: pytest.TempPathFactory) -> Path:
    """One cache for all workers of a test session, so that a phantom is generated once."""
    base = factory.getbasetemp()
    base = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    folder = base / "medgcsam-cache"
    folder.mkdir(exist_ok=True)
    return folder
