"""Digests of the source files, remembered by size, times and inode, so that an unchanged set is not read again."""

from __future__ import annotations

import csv
import hashlib
import os
import time
from collections.abc import Sequence
from pathlib import Path

from medgcsam.errors import DataError
from medgcsam.imaging import source_digest

# A file changed this shortly before it was read could change again within the clock's resolution and look the same
# (git calls such entries racy): its digest is not remembered.
SETTLED_SECONDS = 2.0

_Facts = tuple[str, ...]


def source_digests(images: Sequence[str], *, cache: Path) -> tuple[list[str], dict[int, str]]:
    """Digest of every reference, in order, and the reasons of those that cannot be read, by row (their digest is "").

    What is remembered lies in ``cache``/digests, one file per list of references, without their names. A file is read
    again as soon as its size, modification time, change time or inode differs; the change time is set by the system, so
    that a copy which keeps the modification time is noticed too.
    """
    name = hashlib.sha256("\n".join(map(str, images)).encode()).hexdigest()[:32]
    memory = Path(cache) / "digests" / f"{name}.csv"
    remembered = _recall(memory, len(images))
    digests, unreadable, rows = [], {}, []
    started = time.time()
    for row, reference in enumerate(images):
        facts = _facts(reference)
        known = remembered[row] if remembered else ()
        if facts and tuple(known[:-1]) == facts:
            digest = known[-1]
        else:
            try:
                digest = source_digest(reference)
            except (DataError, OSError) as error:
                digest, unreadable[row] = "", str(error)
        digests.append(digest)
        settled = facts and digest and max(int(facts[1]), int(facts[2])) < (started - SETTLED_SECONDS) * 1e9
        rows.append((*facts, digest) if settled else ())
    if rows != remembered:
        _remember(memory, rows)
    return digests, unreadable


def _facts(reference: str) -> _Facts:
    """Size, modification and change time in nanoseconds, inode; empty for an entry of an archive or a missing file."""
    try:
        state = os.stat(reference)
    except OSError:
        return ()
    return str(state.st_size), str(state.st_mtime_ns), str(state.st_ctime_ns), str(state.st_ino)


def _recall(memory: Path, count: int) -> list[_Facts]:
    try:
        with open(memory, newline="", encoding="utf-8") as file:
            rows = [tuple(row) if len(row) == 5 else () for row in csv.reader(file, skipinitialspace=True)]
    except (OSError, ValueError, csv.Error):
        return []
    return rows if len(rows) == count else []


def _remember(memory: Path, rows: list[_Facts]) -> None:
    memory.parent.mkdir(parents=True, exist_ok=True)
    temporary = memory.with_name(f"{memory.name}.{os.getpid()}")
    with open(temporary, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(row or ("-",) for row in rows)
    os.replace(temporary, memory)
