"""The folder of a synthetic cohort: written beside its place and renamed, made again only where it differs."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, TypeVar

from medgcsam.errors import DataError, MachineError

NOTICE = "SYNTHETIC DATA"
MANIFEST = "manifest.csv"
DESCRIPTION = "PHANTOM.json"
_STALE_SECONDS = 6 * 3600  # an unfinished folder this old belongs to nobody any more

Plan = TypeVar("Plan")


def make_cohort(
    folder: Path,
    wanted: dict[str, object],
    plans: Sequence[Plan],
    *,
    make: Callable[[Path, Plan], None],
    write_tables: Callable[[Path], dict[str, Any]],
    workers: int | None = None,
    parallel_from: int = 100,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Make a cohort in ``folder`` and return its manifest; a complete one that is as ``wanted`` is returned as it is.

    Args:
        wanted: what makes two cohorts equal (name, version, seed and so on), as ``PHANTOM.json`` will say it.
        plans: the patients.
        make: writes the files of one patient into folders of the folder that it is given; runs in processes.
        write_tables: writes the manifest into the folder that it is given, and returns the counts for
            ``PHANTOM.json``: of all files as ``files``, which may be left out where there are none but ``images``.
        workers: processes; None is as many as cores, or one for fewer than ``parallel_from`` patients.
        progress: told (patients done, patients in all).

    Raises:
        DataError: ``folder`` holds something that is not a phantom.
        MachineError: it cannot be written.
    """
    if is_complete(folder, wanted):
        return folder / MANIFEST
    _refuse_foreign(folder)
    if workers is None:
        workers = _cores() if len(plans) >= parallel_from else 1  # starting processes costs more than a few patients
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(folder)
        draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}-unfinished-", dir=folder.parent))
        try:
            for done, _ in enumerate(_run(_Job(make, draft), plans, workers), start=1):
                if progress is not None:
                    progress(done, len(plans))
            text = json.dumps({"notice": NOTICE, **wanted, "counts": write_tables(draft)}, indent=2) + "\n"
            (draft / DESCRIPTION).write_text(text, encoding="utf-8")
            _put_in_place(draft, folder, wanted)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    except OSError as error:
        raise MachineError(
            f"The phantom cohort could not be written to {folder} ({error.strerror or error}): "
            "make that folder writable with enough free space, or set MEDGCSAM_CACHE to another one."
        ) from error
    return folder / MANIFEST


def is_complete(folder: Path, wanted: dict[str, object]) -> bool:
    """Whether ``folder`` holds the whole cohort that is ``wanted``."""
    try:
        found = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        files = sum(1 for path in folder.glob("*/*") if path.is_file() and path.name[0] != ".")
        return (
            all(found.get(key) == value for key, value in wanted.items())
            and found["counts"].get("files", found["counts"]["images"]) == files
            and (folder / MANIFEST).is_file()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


class _Job:
    """``make`` on one folder, as something that a process can be sent."""

    def __init__(self, make: Callable[[Path, Plan], None], folder: Path) -> None:
        self.make, self.folder = make, folder

    def __call__(self, plan: Plan) -> None:
        self.make(self.folder, plan)


def _cores() -> int:
    return min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, 8)


def _run(make: Callable[[Plan], None], plans: Sequence[Plan], workers: int) -> Iterator[None]:
    done = 0
    if workers > 1:
        # Spawned, not forked: the caller may already run threads of torch, and a fork of those can hang.
        with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
            try:
                for _ in pool.map(make, plans, chunksize=4):
                    done += 1
                    yield
            except BrokenProcessPool:
                pass  # no worker can start (a script without a main guard, little memory): go on alone
    for plan in plans[done:]:
        yield make(plan)


def _refuse_foreign(folder: Path) -> None:
    """A cohort of other arguments may be replaced; anything else in the way is somebody's work."""
    if folder.is_dir() and (not any(folder.iterdir()) or (folder / DESCRIPTION).is_file()):
        return
    if folder.exists():
        raise DataError(f"The folder {folder} holds something that is not a phantom: choose another or remove it.")


def _remove_stale(folder: Path) -> None:
    for left in folder.parent.glob(f".{folder.name}-unfinished-*"):
        if time.time() - left.stat().st_mtime > _STALE_SECONDS:
            shutil.rmtree(left, ignore_errors=True)


def _put_in_place(draft: Path, folder: Path, wanted: dict[str, object]) -> None:
    """Rename ``draft`` to ``folder``; an equal cohort finished meanwhile by another process stays in use."""
    draft.chmod(0o755)  # mkdtemp makes it private; a cache may be shared
    try:
        if folder.exists() and not is_complete(folder, wanted):
            shutil.rmtree(folder)
        draft.rename(folder)
    except OSError:
        if not is_complete(folder, wanted):
            raise
