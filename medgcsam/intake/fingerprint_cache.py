"""What a check has seen before, on disk: so that one that was stopped goes on, and one that is repeated is quick."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import sqlite3
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from medgcsam import __version__
from medgcsam.errors import MachineError
from medgcsam.intake.examine import MASK_SEPARATOR, Examined, Found, file_of
from medgcsam.intake.pictures import THUMBNAIL

FORMAT = 2
"""Raise it when reading or examining changes: what was kept before is then not used."""
SAVED_EVERY = 2.0
"""Seconds of work that are lost at most when the process is killed."""
AT_ONCE = 500
KEY_BYTES = 16

Result = TypeVar("Result")


class FingerprintCache:
    """A table in an SQLite file by key, a digest of references, sizes, times of change and inodes: no names.

    It lies on local disk; without a folder it is a temporary file that nobody else sees.
    """

    def __init__(self, folder: Path | None) -> None:
        self.path = "" if folder is None else str(Path(folder) / "checks" / f"images-{FORMAT}.sqlite")
        self._waiting: list[tuple] = []
        self._saved = time.monotonic()
        try:
            self._db = self._open()
        except sqlite3.DatabaseError:  # cut short by a full disk or a power failure: it is a cache, so begin anew
            _remove(self.path)
            self._db = self._guarded(self._open)

    def _open(self) -> sqlite3.Connection:
        if self.path:
            self._guarded(lambda: os.makedirs(os.path.dirname(self.path), exist_ok=True))
        database = sqlite3.connect(self.path, timeout=60)
        database.execute("PRAGMA page_size = 16384")  # six rows to a page
        database.execute("PRAGMA synchronous = NORMAL")
        database.execute(
            "CREATE TABLE IF NOT EXISTS images (key BLOB PRIMARY KEY, study BLOB, facts TEXT, picture BLOB)"
        )
        return database

    def _guarded(self, action: Callable[[], Result]) -> Result:
        try:
            return action()
        except (OSError, sqlite3.Error) as error:
            reason = getattr(error, "strerror", None) or error
            raise MachineError(
                f"The cache of the check {self.path or '(a temporary file)'} cannot be used ({reason}): free some "
                "space or set MEDGCSAM_CACHE to another folder."
            ) from error

    def find(self, keys: Sequence[bytes]) -> dict[bytes, Examined]:
        """What is known of those of ``keys`` that are known."""
        if not self._guarded(lambda: self._db.execute("SELECT 1 FROM images LIMIT 1").fetchone()):
            return {}
        return {key: _unpacked(*values) for key, *values in self._rows("study, facts, picture", keys)}

    def thumbnails(self, keys: Sequence[bytes]) -> np.ndarray:
        """uint8 (len(keys), THUMBNAIL, THUMBNAIL) of images that have one."""
        self.save()
        pictures = dict(self._rows("picture", keys))
        joined = b"".join(pictures[key] for key in keys)
        return np.frombuffer(joined, np.uint8).reshape(-1, THUMBNAIL, THUMBNAIL)

    def _rows(self, columns: str, keys: Sequence[bytes]) -> Iterator[tuple]:
        for start in range(0, len(keys), AT_ONCE):
            some = list(keys[start : start + AT_ONCE])
            query = f"SELECT key, {columns} FROM images WHERE key IN ({', '.join('?' * len(some))})"
            yield from self._guarded(lambda query=query, some=some: self._db.execute(query, some).fetchall())

    def add(self, key: bytes, examined: Examined) -> None:
        """Keep one result; it reaches the disk within SAVED_EVERY seconds, if more are added, or by ``save``."""
        facts = examined.shape, examined.sort, examined.faults, examined.mask
        self._waiting.append((key, examined.study, _facts(*facts), examined.thumbnail))
        if len(self._waiting) == AT_ONCE or time.monotonic() - self._saved > SAVED_EVERY:
            self.save()

    def save(self) -> None:
        """Write what was added to disk."""
        waiting, self._waiting = self._waiting, []
        command = "INSERT OR REPLACE INTO images (key, study, facts, picture) VALUES (?, ?, ?, ?)"
        self._guarded(lambda: self._db.executemany(command, waiting))
        self._guarded(self._db.commit)
        self._saved = time.monotonic()

    def close(self) -> None:
        """Save and close."""
        self.save()
        self._db.close()


def keys_of(rows: Sequence[tuple[str, str]]) -> Iterator[bytes]:
    """The key of each (image, masks) as the files are now: KEY_BYTES bytes."""
    seen: dict[str, str] = {}
    for image, masks in rows:
        names = (image, *masks.split(MASK_SEPARATOR))
        state = "\0".join([__version__, *(f"{name}\0{_state(name, seen)}" for name in names)])
        yield hashlib.blake2b(state.encode("utf-8", "surrogateescape"), digest_size=KEY_BYTES).digest()


def _state(reference: str, seen: dict[str, str]) -> str:
    """Size, time of change and inode of the file of a reference; of a folder those of all files below it."""
    if not reference:
        return ""
    try:
        facts = os.stat(reference)
        if not stat.S_ISDIR(facts.st_mode) and not reference.upper().endswith("DICOMDIR"):
            return f"{facts.st_size} {facts.st_mtime_ns} {facts.st_ino}"
    except (OSError, ValueError):  # ValueError: a NUL in the name
        pass
    path = file_of(reference)
    if os.path.basename(path).upper() == "DICOMDIR":
        path = os.path.dirname(path)
    if path not in seen:  # many references may lie in one archive or folder
        names = [path]
        if os.path.isdir(path):
            names = sorted(os.path.join(folder, name) for folder, _, files in os.walk(path) for name in files)
        states = []
        for name in names:
            with contextlib.suppress(OSError, ValueError):
                facts = os.stat(name)
                states.append(f"{name} {facts.st_size} {facts.st_mtime_ns} {facts.st_ino}")
        seen[path] = hashlib.sha256("\0".join(states).encode("utf-8", "surrogateescape")).hexdigest()
    return seen[path]


@functools.lru_cache(256)
def _facts(shape: tuple[int, ...], sort: str, faults: tuple[Found, ...], mask: tuple[int, ...] | None) -> str:
    """The same for most images of a data set."""
    return json.dumps([shape, sort, faults, mask])


def _unpacked(study: bytes, facts: str, picture: bytes) -> Examined:
    shape, sort, faults, mask = json.loads(facts)
    found = tuple(Found(*fault) for fault in faults)
    return Examined(picture, tuple(shape), sort, study, found, None if mask is None else tuple(mask))


def _remove(path: str) -> None:
    for name in (path, f"{path}-journal"):
        with contextlib.suppress(OSError):
            os.remove(name)
