"""Where the files of one image lie: a folder, a list of files, a zip archive, or the index of a DICOM medium.

All of these may come from outside, so nothing in them is believed: links out of a folder, paths out of a medium or an
archive, archives that unpack to absurd sizes and anything that is no regular file are refused by name.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from medgcsam.errors import DataError, MachineError
from medgcsam.imaging.faults import faults_of

MAX_FILES = 50_000
MAX_FILE_BYTES = 2**33
MAX_UNPACKED = 2**34
"""Largest sum of the sizes of a zip archive's members, 16 GiB."""
MAX_RATIO, RATIO_COUNTS_FROM = 500, 2**28
"""An archive that unpacks to over 256 MiB may do so 500-fold at most: empty CT slices reach 200."""
PACKINGS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""Of other methods (bzip2, LZMA) Python unpacks a whole member at once, whatever size the archive states."""
MEDIA_DIRECTORY = "1.2.840.10008.1.3.10"


@dataclass(frozen=True, eq=False)
class Item:
    """One readable file: its name for messages (``ZIP#member`` in an archive), its size in bytes, how to read it.

    stamp: time of the last change in ns, or the checksum in an archive; with name and size it tells contents apart.
    """

    name: str
    size: int
    stamp: int
    opened: Callable[[int], bytes]

    def read(self, limit: int | None = None) -> bytes:
        """Its first ``limit`` bytes, or all. Raises DataError, and MachineError where memory runs out."""
        if self.size > MAX_FILE_BYTES:
            raise DataError(f"{self.name} has {self.size:,} bytes, too many for one image; leave it out.")
        try:
            return self.opened(self.size if limit is None else limit)
        except OSError as error:
            raise unopened(self.name, error) from error
        except MemoryError as error:
            raise MachineError(f"{self.name} does not fit into memory; use a machine with more of it.") from error


def unopened(where: str, error: OSError) -> DataError:
    """The sentence for a file that the operating system does not open."""
    if isinstance(error, FileNotFoundError):
        return DataError(f"{where} does not exist; correct the path, or the folder that it counts from.")
    return DataError(f"{where} cannot be opened ({error.strerror or error}); correct the path or the permissions.")


def file_item(path: str | Path) -> Item:
    """One regular file; a link is followed, because the user has named it."""
    try:
        state = os.stat(path)
    except (OSError, ValueError) as error:
        raise unopened(str(path), error if isinstance(error, OSError) else FileNotFoundError()) from error
    if not os.path.isfile(path):
        raise DataError(f"{path} is not a regular file; name a file.")
    return _plain(str(path), state)


def list_items(paths: Sequence[str | Path]) -> list[Item]:
    """The files of a list, in its order."""
    if not paths:
        raise DataError("the list of files is empty; name the files of one series.")
    return [file_item(path) for path in paths]


def folder_items(folder: str | Path) -> list[Item]:
    """All regular files below a folder, sorted by path. Links that stay inside are passed over: what they name is here.

    Raises DataError for a link out of the folder, and for more than MAX_FILES files.
    """
    root = os.path.realpath(folder)
    items = []
    try:
        for entry in _entries(str(folder)):
            if entry.is_symlink():
                if not _is_below(entry.path, root):
                    raise DataError(f"{entry.path} is a link out of its folder; copy there what it names.")
            elif entry.is_file(follow_symlinks=False):
                items.append(_plain(entry.path, entry.stat(follow_symlinks=False)))
                if len(items) > MAX_FILES:
                    raise DataError(f"{folder} holds over {MAX_FILES:,} files; name the folder of one series.")
    except OSError as error:
        raise unopened(str(folder), error) from error
    return sorted(items, key=lambda item: item.name)


def _is_below(path: str | Path, root: str) -> bool:
    """Whether a path leads, through all links, to a place below a resolved folder; a link in a circle stays there."""
    real = os.path.realpath(path)
    return os.path.commonpath([real, root]) == root


def _entries(folder: str) -> Iterator[os.DirEntry[str]]:
    pending = [folder]
    while pending:
        with os.scandir(pending.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
                else:
                    yield entry


def _plain(path: str, state: os.stat_result) -> Item:
    def opened(limit: int) -> bytes:
        with open(path, "rb", buffering=0) as stream:
            data = stream.read(limit)
            while len(data) < limit and (more := stream.read(limit - len(data))):  # network file systems read short
                data += more
            return data

    return Item(path, state.st_size, state.st_mtime_ns, opened)


def zip_items(path: str | Path) -> list[Item]:
    """The members of a zip archive, sorted by name. Archives inside the archive are not opened.

    Raises DataError for paths out of the archive, passwords, damage, and archives that unpack to too much.
    """
    with faults_of(str(path), "zip"):
        archive = zipfile.ZipFile(path)
        members = [member for member in archive.infolist() if not member.is_dir()]
        if min((member.header_offset for member in archive.infolist()), default=0) != 0:
            raise DataError(f"{path} is a truncated zip file or has other data before it; copy it again.")
        if len(members) > MAX_FILES:
            raise DataError(f"{path} holds over {MAX_FILES:,} files; pack one series per archive.")
        size, packed = sum(m.file_size for m in members), max(1, os.path.getsize(path))
        check_unpacked(str(path), packed, size, limit=MAX_UNPACKED, ratio_from=RATIO_COUNTS_FROM)
        for member in members:
            check_packing(member, str(path))
            _check_inside(member.filename, str(path))
            if member.flag_bits & 1:
                raise DataError(f"{path} is protected by a password; unpack it first.")
    if len({member.filename for member in members}) < len(members):
        raise DataError(f"{path} holds two files of one name; pack it again.")
    return sorted((_member(archive, member, path) for member in members), key=lambda item: item.name)


def check_unpacked(where: str, packed: int, size: int, *, limit: int, ratio_from: int) -> None:
    """Refuse what unpacks from ``packed`` to over ``limit`` bytes, or to over ``ratio_from`` and MAX_RATIO-fold."""
    if size > limit or (size > ratio_from and size > MAX_RATIO * packed):
        raise DataError(f"{where} unpacks from {packed:,} to {size:,} bytes, a decompression bomb; leave it out.")


def check_packing(member: zipfile.ZipInfo, where: str) -> None:
    """Refuse members packed by other methods than PACKINGS."""
    if member.compress_type not in PACKINGS:
        method = zipfile.compressor_names.get(member.compress_type, f"method {member.compress_type}")
        raise DataError(f"{where} is packed by {method}, which is not read; pack it again as a plain zip.")


def _member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: str | Path) -> Item:
    inner = member.filename
    name = f"{path}#{inner if inner.isprintable() else ascii(inner)[1:-1]}"

    def opened(limit: int) -> bytes:
        with faults_of(name, "zip"), archive.open(member) as stream:
            return stream.read(limit)  # never more than the size that the archive states, whatever it unpacks to

    return Item(name, member.file_size, member.CRC, opened)


def _check_inside(name: str, where: str) -> None:
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if not parts or parts[0] in ("/", "\\") or ".." in parts or parts[0][1:] == ":" or "\0" in name:
        raise DataError(f"{where} names {name!r}, a path that leads out of it; it is hostile or damaged, leave it out.")


def dicomdir_items(path: str | Path) -> list[Item]:
    """The image files that a DICOMDIR names (PS3.3 F.5), in its order.

    Names are matched without regard to case where the exact ones are absent, as copies of discs need. Raises DataError
    for files that are not there, and for paths and links that lead out of the folder of the DICOMDIR.
    """
    from medgcsam.imaging.dicom.file import open_dataset

    where, root = str(path), Path(os.path.realpath(path)).parent
    with faults_of(where, "DICOM"):
        ds = open_dataset(file_item(path).read(), where)
        records = ds.get("DirectoryRecordSequence") or ()
        if len(records) > 20 * MAX_FILES:
            raise DataError(f"{where} names too many files; name the folder of one series.")
        images = [r for r in records if str(r.get("DirectoryRecordType", "")).strip() == "IMAGE"]
        images = [r for r in images if r.get("ReferencedFileID")]
        names = [[name] if isinstance(name := r.ReferencedFileID, str) else list(name) for r in images]
    if not names:
        raise DataError(f"{where} names no image; name the folder of the images.")
    items, listings = [], {}
    for parts in names:
        if any(mark in part for part in parts for mark in "/\\\0") or {"..", ".", ""} & set(parts):
            raise DataError(f"{where} names {'/'.join(parts)!r}, a path that leads out of it; leave it out.")
        file = _found(root, parts, listings)
        if file is None:
            raise DataError(f"{where} names {'/'.join(parts)}, which is not there; copy the whole medium.")
        if not _is_below(file, str(root)):
            raise DataError(f"{file} is a link out of its folder; copy there what it names.")
        items.append(file_item(file))
    return items


def _found(folder: Path, parts: Sequence[str], listings: dict[Path, dict[str, str]]) -> Path | None:
    for part in parts:
        if folder not in listings:
            names = os.listdir(folder) if folder.is_dir() else []
            listings[folder] = {name.lower(): name for name in names} | {name: name for name in names}
        name = listings[folder].get(part) or listings[folder].get(part.lower())
        if name is None:
            return None
        folder = folder / name
    return folder if folder.is_file() else None
