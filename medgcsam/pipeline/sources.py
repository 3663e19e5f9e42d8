"""Digests of the source files, remembered by size, times and inode, so that an unchanged set is not read again."""

from __future__ import annotations

import csv
import hashlib
import os
import stat
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from medgcsam.errors import DataError
from medgcsam.imaging import source_digest

# A file changed this shortly before it was read could change again within the clock's resolution and look the same
# (git calls such entries racy): its digest is not remembered.
SETTLED_SECONDS = 2.0
# Headers whose voxels lie in another file, which may change alone.
_NAMES_OTHERS = (".hdr", ".img", ".mhd", ".nhdr")

_Facts = tuple[str, ...]


def source_digests(images: Sequence[str], *, cache: Path) -> tuple[list[str], dict[int, str]]:
    """Digest of every reference, in order, and the reasons of those that cannot be read, by row (their digest is "").

    What is remembered lies in ``cache``/digests, one file per list of references, without their names. A file is read
    again as soon as its size, modification time, change time or inode differs, and a folder as soon as those of a file
    in it do; the change time is set by the system, so that a copy which keeps the modification time is noticed too.
    """
    name = hashlib.sha256("\n".join(map(str, images)).encode()).hexdigest()[:32]
    memory = Path(cache) / "digests" / f"{name}.csv"
    remembered = _recall(memory, len(images))
    digests, unreadable, rows = [], {}, []
    started = time.time()
    for row, reference in enumerate(images):
        facts = _facts(str(reference))
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
    """Size, modification and change time in nanoseconds, inode; of a folder, total, latest and a digest of all in it.

    Empty, so that nothing is remembered, for a missing file, an entry of an archive, and a file that names others.
    """
    if os.path.basename(reference).upper() == "DICOMDIR" or reference.lower().endswith(_NAMES_OTHERS):
        return ()
    try:
        state = os.stat(reference)
        if not stat.S_ISDIR(state.st_mode):
            return tuple(map(str, _numbers(state)))
        inside = {name: _numbers(os.stat(name)) for name in sorted(_files(reference))}
    except OSError:
        return ()
    if not inside:
        return ()
    sizes, modified, changed, _ = zip(*inside.values(), strict=True)
    everything = hashlib.sha256(repr(list(inside.items())).encode("utf-8", "surrogateescape")).hexdigest()
    return str(sum(sizes)), str(max(modified)), str(max(changed)), everything


def _numbers(state: os.stat_result) -> tuple[int, int, int, int]:
    return state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino


def _files(folder: str) -> Iterator[str]:
    for parent, _, names in os.walk(folder, onerror=_raise):
        yield from (os.path.join(parent, name) for name in names)


def _raise(error: OSError) -> None:
    raise error


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
