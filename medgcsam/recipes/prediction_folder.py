"""The output folder of `medgcsam predict`: a line per image that was asked for, made by one set of networks."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from medgcsam.errors import ConfigError, DataError, MachineError, MedgcsamError
from medgcsam.intake.importers.result import as_csv
from medgcsam.locks import only_writer
from medgcsam.run_folder import ensure_writable, write_json, write_text, writing_failed

HEAD = ("image", "status", "reason", "path", "source")
"""Columns of every table: the image as the input names it, ``done`` or ``failed`` and why, the absolute reference that
it is known by, and the first digits of the sha256 of its bytes."""
MASKS = "masks"
ELSEWHERE = "name another folder with --output"

Line = dict[str, str]


@contextmanager
def prediction_folder(
    folder: Path,
    networks: Mapping[str, str],
    asked: Sequence[str],
    *,
    columns: Sequence[str],
    sizes: Sequence[str] = (),
    overwrite: bool,
) -> Iterator[PredictionFolder]:
    """The folder, open for writing by this process alone; at the end its lines are in order.

    networks: place -> identity of each network. asked: references of the images, in their order. columns: what every
    table has behind HEAD; sizes: what it has behind these where a line has a value. overwrite: whether predictions of
    other networks may go, if all their images are asked for.

    Raises:
        ConfigError: the folder is of something else, or of other networks.
        MachineError: it cannot be written to, or another process does.
    """
    if (folder / "config.yaml").is_file():
        raise ConfigError(f"{folder}: this is the folder of a run; {ELSEWHERE}.")
    ensure_writable(folder, ELSEWHERE)
    with only_writer(folder, "medgcsam predict"):
        found = PredictionFolder(folder, columns, sizes)
        found.claim(networks, asked, overwrite=overwrite)
        found.tidy(())  # a killed command may have left half a line, which nothing can be appended to
        try:
            yield found
        except BaseException:
            with suppress(MedgcsamError):
                found.tidy(asked)
            raise
        found.tidy(asked)


class PredictionFolder:
    """predictions.csv, networks.json and masks/ of one folder. ``prediction_folder`` opens it.

    A line is appended as soon as its image is finished, so that a kill costs no more than the image under way. Of
    several lines of one image the last counts; ``tidy`` leaves that one alone.
    """

    def __init__(self, folder: Path, columns: Sequence[str], sizes: Sequence[str]):
        self.folder, self.table, self.networks = folder, folder / "predictions.csv", folder / "networks.json"
        self.masks = folder / MASKS
        self._fixed, self._sizes = (*HEAD, *columns), tuple(sizes)
        self._header, rows = _read(self.table)
        self.lines: dict[str, Line] = {line["path"]: line for line in rows}

    def claim(self, networks: Mapping[str, str], asked: Collection[str], *, overwrite: bool) -> None:
        """Say whose predictions these are, unless they are somebody else's."""
        known, now = self._known_networks(), sorted(networks.values())
        if known is None and self._header is not None:
            raise ConfigError(f"{self.table}: this is not a table of `medgcsam predict`; {ELSEWHERE}.")
        if self.lines and known != now:
            others = len(set(self.lines) - set(asked))
            if not overwrite or others:
                left = "or add --overwrite" if not others else f"it has {others} that are not predicted again now"
                raise ConfigError(f"{self.folder}: it holds predictions of other networks; {ELSEWHERE}, {left}.")
            self._forget_all()
        if known != now:
            entries = [{"run": place, "sha256": identity} for place, identity in networks.items()]
            write_json(self.networks, {"networks": entries})

    def has_result(self, reference: str) -> bool:
        """Whether an image is predicted, and the files of it are there."""
        line = self.lines.get(reference)
        if line is None or line["status"] != "done":
            return False
        return all(file.is_file() and file.stat().st_size for file in self._files(line))

    def add(self, line: Mapping[str, Any]) -> None:
        """Write the line of one image, in place of an earlier one; files that the earlier one had alone are removed.

        Raises:
            MachineError: it cannot be written.
        """
        written = {name: _text(value) for name, value in line.items()}
        before, self.lines[written["path"]] = self.lines.get(written["path"]), written
        if self._header is None or not set(written) <= set(self._header):
            self._write()
        else:
            self._append(written)
        for file in set(self._files(before or {})) - set(self._files(written)):
            file.unlink(missing_ok=True)

    def forget_failed(self, beginning: str) -> None:
        """Drop the failed lines whose path begins so."""
        gone = [path for path, line in self.lines.items() if path.startswith(beginning) and line["status"] != "done"]
        for path in gone:
            del self.lines[path]

    def tidy(self, asked: Sequence[str]) -> None:
        """One line per image: those of earlier commands first, then these in their order."""
        last = {reference: self.lines[reference] for reference in asked if reference in self.lines}
        self.lines = {path: line for path, line in self.lines.items() if path not in last} | last
        self._write()

    def _known_networks(self) -> list[str] | None:
        """Sorted identities in networks.json; None where there is no such file."""
        try:
            return sorted(entry["sha256"] for entry in json.loads(self.networks.read_text("utf-8"))["networks"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError):  # of another version, or damaged
            return []

    def _forget_all(self) -> None:
        self.table.unlink()  # first: a line without its file is predicted again, a file without a line is no result
        lines, self.lines, self._header = self.lines, {}, None
        for file in {file for line in lines.values() for file in self._files(line)}:
            file.unlink(missing_ok=True)

    def _files(self, line: Mapping[str, str]) -> list[Path]:
        """What a line names below the folder; a name that leads elsewhere is not believed."""
        named = [*line.get("mask", "").split("|"), line.get("dicom_seg", "")]
        return [self.masks / Path(name).name for name in named if Path(name).parent == Path(MASKS)]

    def _write(self) -> None:
        """The whole table, anew."""
        if not self.lines:
            return
        used = {name for line in self.lines.values() for name, cell in line.items() if cell}
        sizes = [name for name in self._sizes if name in used]
        self._header = [*self._fixed, *sizes, *sorted(used - {*self._fixed, *sizes})]
        write_text(self.table, as_csv(self._header, map(self._cells, self.lines.values())))

    def _cells(self, line: Line) -> list[str]:
        return [line.get(name, "") for name in self._header]

    def _append(self, line: Line) -> None:
        data = as_csv(self._cells(line), ()).encode()
        try:
            with open(self.table, "ab", buffering=0) as table:
                end = table.tell()
                if table.write(data) != len(data):  # a full disk takes what it can
                    table.truncate(end)
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise writing_failed(self.table, error) from error


def _text(value: Any) -> str:
    """A cell: numbers with 9 significant digits, exact for float32."""
    return f"{value:.9g}" if isinstance(value, float) else str(value)


def _read(path: Path) -> tuple[list[str] | None, list[Line]]:
    """Header (None where there is no table) and lines; a last line that a kill or a power cut has cut is left out.

    Raises:
        ConfigError: it is another table.
        DataError: it is damaged.
    """
    try:
        text = path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        return None, []
    except OSError as error:
        raise MachineError(f"{path}: cannot be read ({error.strerror or error}).") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: this table is damaged; move it away, or {ELSEWHERE}.") from error
    whole = text[: text.rfind("\n") + 1]
    reader = csv.reader(io.StringIO(whole, newline=""), strict=True)
    rows: list[list[str]] = []
    try:
        for row in reader:
            rows.append(row)
    except csv.Error as error:
        if "unexpected end" not in str(error):
            raise DataError(f"{path}: line {reader.line_num} is damaged; move it away, or {ELSEWHERE}.") from error
    header = rows[0] if rows else []
    if rows and tuple(header[: len(HEAD)]) != HEAD:
        raise ConfigError(f"{path}: this is not a table of this version of `medgcsam predict`; {ELSEWHERE}.")
    if damaged := [number for number, row in enumerate(rows, 1) if len(row) != len(header)]:
        raise DataError(f"{path}: line {damaged[0]} is damaged; mend it, or {ELSEWHERE}.")
    return header, [dict(zip(header, row, strict=True)) for row in rows[1:]]
