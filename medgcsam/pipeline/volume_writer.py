"""Filling a volume store: workers write their images into place, one journal says which of them are safely on disk.

Worker processes import this module, so it imports nothing heavy.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medgcsam.errors import DataError, MachineError
from medgcsam.imaging import pixel_digest
from medgcsam.pipeline.grids import Grid
from medgcsam.pipeline.volumes import prepare_label, prepare_volume, read_pair

FOREGROUND = 2000
"""Voxels of each structure whose places are kept."""
SYNC_SECONDS = 5.0
"""An interrupted build loses at most this much work."""
IMAGES, LABELS, PLACES, JOURNAL = "images.bin", "labels.bin", "foreground.bin", "done.jsonl"
_DISK_FULL = {errno.ENOSPC, errno.EDQUOT}


@dataclass(frozen=True)
class Job:
    """One image to prepare. ``size``: the shape it must come to; ``start``: voxels before it in the store."""

    row: int
    reference: str
    masks: str
    size: tuple[int, ...]
    start: int
    folder: str
    image: Any
    names: Mapping[str, int]
    overlapping: bool


@dataclass(frozen=True)
class Prepared:
    """One image whose voxels are in the files: where its structures are, int32 (m, axes) each; or what is wrong."""

    row: int
    fault: str | None = None
    digest: str = ""
    grid: Grid | None = None
    foreground: tuple[np.ndarray, ...] = ()


def prepare_pair(job: Job) -> Prepared:
    """Read an image and its masks, and write what becomes of them into the unfinished store."""
    structures = max(job.names.values())
    try:
        image, label = read_pair(job.reference, job.masks, job.image, job.names, overlapping=job.overlapping)
    except (DataError, OSError) as error:
        return Prepared(job.row, str(error).rstrip("."))  # names the file itself
    except MemoryError as error:
        raise _too_large(job) from error
    try:
        array, grid = prepare_volume(image, job.image)
        digest = pixel_digest(image)
        del image
        label = prepare_label(label, grid, structures=structures, overlapping=job.overlapping)
    except DataError as error:
        return Prepared(job.row, f"{job.reference} cannot be used: {error}")
    except MemoryError as error:
        raise _too_large(job) from error
    if grid.size != tuple(job.size):
        return Prepared(job.row, f"{job.reference} changed while it was being read: run the same command again")
    _write(Path(job.folder) / IMAGES, 2 * len(array) * job.start, array.astype("<f2", copy=False))
    _write(Path(job.folder) / LABELS, len(label) * job.start, label)
    return Prepared(job.row, None, digest, grid, foreground_of(label, structures, job.overlapping))


def foreground_of(label: np.ndarray, structures: int, overlapping: bool) -> tuple[np.ndarray, ...]:
    """For each structure int32 (m, axes): at most FOREGROUND of its voxels, evenly spread over all of them."""
    found = []
    for number in range(1, structures + 1):
        mask = label[number - 1] > 0 if overlapping else label[0] == number
        flat = np.flatnonzero(mask)
        if len(flat) > FOREGROUND:
            flat = flat[np.linspace(0, len(flat) - 1, FOREGROUND).round().astype(np.int64)]
        found.append(np.stack(np.unravel_index(flat, mask.shape), axis=1).astype("<i4"))
    return tuple(found)


def _too_large(job: Job) -> MachineError:
    return MachineError(f"Preparing {job.reference} took more memory than there is: lower pipeline.workers.")


def _write(path: Path, offset: int, array: np.ndarray) -> None:
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(np.ascontiguousarray(array).data)


class VolumeWriter:
    """An unfinished store, which a single rename turns into a finished one.

    starts: (n + 1,), voxels before each image, and in all. The journal names the rows whose voxels are safely on disk:
    a build that was interrupted goes on from there.
    """

    def __init__(
        self, partial: Path, *, starts: Sequence[int], channels: int, structures: int, axes: int, overlapping: bool
    ):
        self.partial, self.rows, self.channels = partial, len(starts) - 1, channels
        self.structures, self.overlapping, self.axes = structures, overlapping, axes
        partial.mkdir(parents=True, exist_ok=True)
        voxels = int(starts[-1])
        fresh = not all((partial / name).exists() for name in (IMAGES, LABELS, PLACES, JOURNAL))
        self._files = [
            self._reserved(partial / IMAGES, 2 * channels * voxels),
            self._reserved(partial / LABELS, (structures if overlapping else 1) * voxels),
        ]
        self.done = {} if fresh else self._read_journal()
        self._pending: list[dict[str, Any]] = []
        self._synced = time.monotonic()
        self._end = max(
            (row["foreground_start"] + axes * sum(row["foreground"]) for row in self.done.values()), default=0
        )
        self._places = open(partial / PLACES, "wb" if fresh else "r+b")  # noqa: SIM115 (closed by close and discard)
        self._files.append(self._places)
        self._places.truncate(4 * self._end)
        self._places.seek(4 * self._end)
        if fresh:
            (partial / JOURNAL).write_text("", encoding="utf-8")

    def note(self, prepared: Prepared) -> None:
        """Keep what is known of an image whose voxels are written."""
        grid = prepared.grid
        places = [grid.shape, grid.axes, grid.flipped, grid.size, grid.spacing]
        counts = [len(found) for found in prepared.foreground]
        facts = {"row": prepared.row, "pixels": prepared.digest, "grid": places, "foreground": counts}
        self._pending.append(facts | {"foreground_start": self._end})
        for found in prepared.foreground:
            self._places.write(np.ascontiguousarray(found, "<i4").data)
        self._end += self.axes * sum(counts)
        if time.monotonic() - self._synced > SYNC_SECONDS:
            self.sync()

    def sync(self) -> None:
        """Bring the voxels to disk, and only then note their rows in the journal."""
        for file in self._files:
            file.flush()
            os.fsync(file.fileno())
        with open(self.partial / JOURNAL, "a", encoding="utf-8") as journal:
            journal.writelines(json.dumps(facts) + "\n" for facts in self._pending)
            journal.flush()
            os.fsync(journal.fileno())
        self.done |= {facts["row"]: facts for facts in self._pending}
        self._pending.clear()
        self._synced = time.monotonic()

    def close(self) -> None:
        """Keep what is done for the next attempt."""
        if not self._places.closed:
            self.sync()
            for file in self._files:
                file.close()

    def discard(self) -> None:
        """Remove the unfinished store."""
        for file in self._files:
            file.close()
        shutil.rmtree(self.partial, ignore_errors=True)

    def finish(self, folder: Path, facts: Mapping[str, Any], sources: Sequence[Mapping[str, str]]) -> None:
        """Complete the folder and rename it to ``folder``; raises ValueError while a row is missing."""
        self.close()
        if len(self.done) != self.rows:
            raise ValueError(f"{self.rows - len(self.done)} rows are missing")
        rows = [dict(source) | self.done[row] for row, source in enumerate(sources)]
        (self.partial / "volumes.json").write_text(json.dumps({**facts, "rows": rows}) + "\n", encoding="utf-8")
        (self.partial / JOURNAL).unlink()
        if folder.exists():  # damaged, or else it would have been opened
            shutil.rmtree(folder, ignore_errors=True)
        try:
            os.rename(self.partial, folder)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            shutil.rmtree(self.partial)  # without locks, another process was faster

    def _reserved(self, path: Path, size: int):
        """The file, as long as it will be; its space is taken now where the file system can do so."""
        file = open(path, "r+b" if path.exists() else "w+b")  # noqa: SIM115
        if hasattr(os, "posix_fallocate") and size:
            try:
                os.posix_fallocate(file.fileno(), 0, size)
            except OSError as error:
                if error.errno in _DISK_FULL:
                    file.close()
                    shutil.rmtree(self.partial, ignore_errors=True)
                    raise
        file.truncate(size)
        return file

    def _read_journal(self) -> dict[int, dict[str, Any]]:
        """The rows of an earlier attempt; its journal is rewritten without a line that the interruption cut."""
        journal, done = self.partial / JOURNAL, {}
        for line in journal.read_text(encoding="utf-8").split("\n")[:-1]:
            try:
                facts = json.loads(line)
                if facts["row"] < self.rows and len(facts["foreground"]) == self.structures:
                    done[facts["row"]] = facts
            except (ValueError, KeyError, TypeError):
                continue
        journal.write_text("".join(json.dumps(facts) + "\n" for facts in done.values()), encoding="utf-8")
        return done
