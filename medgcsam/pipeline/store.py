"""The store: preprocessed images as one memory-mapped array, in a folder whose name is the hash of what made it."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from medgcsam.errors import MachineError

log = logging.getLogger("medgcsam")

FORMAT = 1  # part of every key: raise it when preprocessing or the layout of the folder changes
SYNC_SECONDS = 5.0  # an interrupted build loses at most this much work
_IMAGE_FIELDS = ("size", "channels", "fit", "intensity", "irregular", "pet")
_LATER_FIELDS = {"orientation": "refuse"}  # left out where they are so, which keeps the keys of older stores
_DISK_FULL = {errno.ENOSPC, errno.EDQUOT}
_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}


@dataclass(frozen=True, eq=False)
class Store:
    """Preprocessed images, aligned with the sequence of references that built them.

    ``images``: read-only memory map, float16, (n, channels, rows, cols). Values by ``intensity``: 0..1 for "display"
    and "percentile", standard deviations from the image's mean for "zscore".
    ``digests``: table of n rows, ``source`` (hash of the source bytes) and ``pixels`` (hash of the decoded image).
    """

    folder: Path
    images: np.memmap
    digests: pd.DataFrame
    intensity: str

    def __len__(self) -> int:
        return len(self.images)

    @property
    def key(self) -> str:
        """Hash of format, image configuration and ordered sources: the name of the folder."""
        return self.folder.name

    @property
    def images_sha256(self) -> str:
        """Hash of the ordered source digests alone: which images, however they are preprocessed."""
        return hashlib.sha256("\n".join(self.digests["source"]).encode()).hexdigest()


def image_fields(image: Any) -> dict:
    """What of the image configuration decides the pixels of a store, as plain JSON values."""
    fields = {name: getattr(image, name) for name in _IMAGE_FIELDS}
    fields |= {name: getattr(image, name) for name, usual in _LATER_FIELDS.items() if getattr(image, name) != usual}
    return {**fields, "size": [int(n) for n in fields["size"]], "channels": int(fields["channels"])}


def store_key(image: Any, sources: Sequence[str]) -> str:
    """sha256 over the format version, the image configuration and the source digests in their order."""
    head = json.dumps({"format": FORMAT, "image": image_fields(image)}, sort_keys=True)
    return hashlib.sha256("\n".join([head, *sources]).encode()).hexdigest()


def open_store(folder: Path) -> Store | None:
    """The finished store in ``folder``; None where there is none, or where a part of it is missing or cut short."""
    try:
        facts = json.loads((folder / "store.json").read_text(encoding="utf-8"))
        images = np.load(folder / "images.npy", mmap_mode="r")
        digests = pd.read_csv(folder / "digests.csv", dtype=str, keep_default_na=False)
    except (OSError, ValueError):
        return None
    if facts.get("key") != folder.name or list(images.shape) != facts.get("shape") or len(digests) != len(images):
        return None
    return Store(folder, images, digests[["source", "pixels"]], facts["image"]["intensity"])


@contextlib.contextmanager
def machine_errors(place: Path) -> Iterator[None]:
    """Turn a full disk, or a folder that cannot be written for another reason, into a ``MachineError``."""
    try:
        yield
    except OSError as error:
        if error.errno in _DISK_FULL:
            raise MachineError(
                f"The disk of {place} is full: free some space or set MEDGCSAM_CACHE to a larger one, then run the "
                "same command again."
            ) from error
        raise MachineError(
            f"The cache folder {place} cannot be used ({error.strerror or error}): set MEDGCSAM_CACHE to one that can."
        ) from error


@contextlib.contextmanager
def exclusive(folder: Path) -> Iterator[Path]:
    """Hold the only right to build ``folder``; gives the path of the unfinished folder to build in.

    A second process waits here and then finds the store finished. The operating system drops the lock of a process
    that dies. On a file system without locks each process builds in a folder of its own and the first to finish wins.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        import fcntl
    except ImportError:  # not a POSIX system
        fcntl = None
    with open(folder.with_name(folder.name + ".lock"), "a") as lock:
        try:
            if fcntl is None:
                raise OSError(errno.ENOSYS, "no file locks")
            _wait_for(lock, fcntl, folder)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            yield folder.with_name(f"{folder.name}.{os.getpid()}.partial")
        else:
            yield folder.with_name(folder.name + ".partial")


def _wait_for(lock, fcntl, folder: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        log.info("Another process is preprocessing the same images; waiting for it (%s).", folder)
        fcntl.flock(lock, fcntl.LOCK_EX)


class StoreWriter:
    """Fills an unfinished store row by row, in any order, and turns it into a finished one by a single rename.

    Rows are written with plain writes into a file whose space is reserved beforehand, since a full disk would kill a
    process that writes through a memory map. A journal names the rows that are safely on disk: a build that was
    interrupted goes on from there.
    """

    def __init__(self, partial: Path, *, sources: Sequence[str], image: Any):
        self.partial, self.sources, self.image = partial, list(sources), image_fields(image)
        rows, cols = self.image["size"]
        self.shape = (len(self.sources), self.image["channels"], rows, cols)
        self._row_bytes = 2 * self.image["channels"] * rows * cols
        partial.mkdir(parents=True, exist_ok=True)
        self.done = self._read_journal()
        self._pending: dict[int, str] = {}
        self._synced = time.monotonic()
        self._open_images()

    def write(self, row: int, pixels: np.ndarray, digest: str) -> None:
        """Store one image: float16 (channels, rows, cols), with the digest of its decoded pixels."""
        if pixels.shape != self.shape[1:] or pixels.dtype != np.float16:
            raise ValueError(f"expected float16 {self.shape[1:]}, got {pixels.dtype} {pixels.shape}")
        self._file.seek(self._start + row * self._row_bytes)
        self._file.write(np.ascontiguousarray(pixels, dtype="<f2").data)
        self._pending[row] = digest
        if time.monotonic() - self._synced > SYNC_SECONDS:
            self.sync()

    def sync(self) -> None:
        """Bring the images to disk, and only then note their rows in the journal."""
        self._file.flush()
        os.fsync(self._file.fileno())
        with open(self.partial / "done.csv", "a", encoding="utf-8") as journal:
            journal.writelines(f"{row},{digest}\n" for row, digest in self._pending.items())
            journal.flush()
            os.fsync(journal.fileno())
        self.done.update(self._pending)
        self._pending.clear()
        self._synced = time.monotonic()

    def close(self) -> None:
        """Keep what is done for the next attempt."""
        if not self._file.closed:
            with self._file:
                self.sync()

    def discard(self) -> None:
        """Remove the unfinished store."""
        self._pending.clear()
        self._file.close()
        shutil.rmtree(self.partial, ignore_errors=True)

    def finish(self, folder: Path) -> None:
        """Complete the folder and rename it to ``folder``; raises ValueError while a row is missing."""
        self.close()
        if len(self.done) != len(self.sources):
            raise ValueError(f"{len(self.sources) - len(self.done)} rows are missing")
        pixels = [self.done[row] for row in range(len(self.sources))]
        pd.DataFrame({"source": self.sources, "pixels": pixels}).to_csv(self.partial / "digests.csv", index=False)
        facts = {"format": FORMAT, "key": folder.name, "shape": list(self.shape), "image": self.image}
        (self.partial / "store.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
        (self.partial / "done.csv").unlink(missing_ok=True)
        if open_store(folder) is None:
            shutil.rmtree(folder, ignore_errors=True)
        try:
            os.rename(self.partial, folder)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            shutil.rmtree(self.partial)  # without locks, another process was faster

    def _read_journal(self) -> dict[int, str]:
        """The rows of an earlier attempt; its journal is rewritten without a line that the interruption cut."""
        journal, images = self.partial / "done.csv", self.partial / "images.npy"
        if not journal.exists() or not images.exists():
            return {}
        lines = journal.read_text(encoding="utf-8").split("\n")[:-1]
        pairs = [line.split(",") for line in lines if line.count(",") == 1]
        done = {int(row): digest for row, digest in pairs if row.isdigit() and int(row) < len(self.sources)}
        journal.write_text("".join(f"{row},{digest}\n" for row, digest in done.items()), encoding="utf-8")
        return done

    def _open_images(self) -> None:
        path = self.partial / "images.npy"
        self._file = open(path, "r+b" if path.exists() else "w+b")  # noqa: SIM115 (closed by close and discard)
        header = {"descr": "<f2", "fortran_order": False, "shape": self.shape}
        np.lib.format.write_array_header_1_0(self._file, header)
        self._start = self._file.tell()
        size = self._start + len(self.sources) * self._row_bytes
        if hasattr(os, "posix_fallocate"):
            try:
                self._file.flush()
                os.posix_fallocate(self._file.fileno(), 0, size)
            except OSError as error:
                self._file.close()
                if error.errno in _DISK_FULL:
                    shutil.rmtree(self.partial, ignore_errors=True)
                    raise
                self._file = open(path, "r+b")  # noqa: SIM115
        self._file.truncate(size)
