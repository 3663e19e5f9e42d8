"""The columns of a manifest: their standard names, and where a file calls them differently."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from medgcsam.cohort.faults import Fault, nearest
from medgcsam.errors import ConfigError, DataError, MachineError

OPTIONAL = ("study", "site", "scanner", "date", "sex", "age", "partition", "exclude")
MAX_BYTES = 2**30
STANDARD = ("image", "patient_id", "label", "mask", *OPTIONAL)


def read_rows(path: Path) -> tuple[list[str], list[list[str]], list[int], list[Fault]]:
    """Header, rows (values stripped of blanks), line of each row, and rows with the wrong number of fields.

    The separator (comma, semicolon or tab) is the one that the header uses most; the text is UTF-8, with or without
    a byte-order mark. Blank lines are passed over, a row with too few or too many fields is a fault and not returned.

    Raises:
        MachineError: it does not fit into memory.
        DataError: the file is absent, over MAX_BYTES, is no UTF-8 text, has no rows, or its header names a column
            twice.
    """
    text = _read_text(path)
    first = text.partition("\n")[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=first.count))
    header: list[str] = []
    rows, lines, faults = [], [], []
    try:
        for values in reader:
            values = [value.strip() for value in values]
            if not any(values):
                continue
            if not header:
                header = values
            elif len(values) != len(header):
                sentence = f"line {reader.line_num} has {len(values)} fields where the header has {len(header)}"
                faults.append(Fault("fields", reader.line_num, "", sentence))
            else:
                rows.append(values)
                lines.append(reader.line_num)
    except csv.Error as error:
        raise DataError(f"{path}: line {reader.line_num} cannot be read as CSV ({error}); repair it.") from error
    if not rows and not faults:
        raise DataError(f"{path}: the manifest is empty, it lists no image; give it one row per image.")
    twice = sorted({name for name in header if name and header.count(name) > 1})
    if twice:
        raise DataError(f"{path}: the header names {', '.join(twice)} twice; every column needs its own name.")
    return header, rows, lines, faults


def _read_text(path: Path) -> str:
    try:
        if path.exists() and not path.is_file():
            raise DataError(f"{path}: the manifest is no file; check data.manifest.")
        if path.stat().st_size > MAX_BYTES:
            raise DataError(f"{path}: the manifest is over the limit of {MAX_BYTES:,} bytes; check data.manifest.")
        text = path.read_text("utf-8-sig")
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such manifest; check data.manifest.") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: the manifest is no UTF-8 text; save it again as 'CSV UTF-8'.") from error
    except OSError as error:
        raise DataError(f"{path}: the manifest cannot be read ({error.strerror}).") from error
    except MemoryError as error:
        raise MachineError(f"{path} does not fit into memory; use a machine with more of it.") from error
    if "\0" in text:
        raise DataError(f"{path}: the manifest holds NUL characters; save it again as 'CSV UTF-8'.")
    return text


def locate(
    path: Path,
    header: Sequence[str],
    columns: Mapping[str, str] | None,
    *,
    label_columns: Mapping[str, str] | None,
    patients: str,
    task: str | None = None,
    unlabelled: bool = False,
) -> dict[str, int]:
    """Position in the header of every standard column that the file has, and of each label column by class name.

    A column called by its standard name needs no mapping; a mapping wins over that. Classes in ``label_columns``
    are returned under ``("label", class)``-like keys ``label:CLASS``. A column of labels is needed, except where there
    are masks and ``task`` asks for no labels, or where ``unlabelled`` says that there may be none.

    Raises:
        ConfigError: a mapped column that is not there, or a needed one (all such at once).
    """
    columns = dict(columns or {})
    wrong = [
        f"data.columns: {name!r} is no standard column{nearest(name, STANDARD)}, they are {', '.join(STANDARD)}"
        for name in columns
        if name not in STANDARD
    ]
    wanted = {f"label:{name}": column for name, column in (label_columns or {}).items()}
    wanted |= {name: column for name, column in columns.items() if name in STANDARD}
    missing = [(name, column) for name, column in wanted.items() if column not in header]
    wrong += [f"the column {column!r} (for {name}){nearest(column, header)}" for name, column in missing]
    masked = ("mask" in wanted or "mask" in header) and task not in ("classification", "multilabel")
    needed = ["image", *(["patient_id"] if patients == "known" else [])]
    needed += [] if label_columns or masked or unlabelled else ["label"]
    for name in needed:
        if name not in wanted and name not in header:
            hint = " or set data.patients: unknown" if name == "patient_id" else ""
            wrong.append(f"a column {name!r}{nearest(name, header)}, map it with data.columns.{name}{hint}")
    if wrong:
        raise ConfigError(f"{path}: not found: {'; '.join(wrong)}; the file has the columns {', '.join(header)}.")
    found = {name: header.index(name) for name in STANDARD if name in header}
    return found | {name: header.index(column) for name, column in wanted.items()}
