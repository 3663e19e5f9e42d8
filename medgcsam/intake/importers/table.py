"""A folder of images with a table of labels: the table is the manifest already, or becomes one row by row."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from medgcsam.cohort.columns import STANDARD, read_rows
from medgcsam.cohort.faults import nearest
from medgcsam.cohort.labels import join_columns
from medgcsam.cohort.manifest import MASK_SEPARATOR, split_masks
from medgcsam.errors import ConfigError, DataError
from medgcsam.intake.description import Computed, Description, data_folder
from medgcsam.intake.importers.files import leads_out, relative, walk_files
from medgcsam.intake.importers.result import OUTSIDE, Imported, Progress

CONTRADICTION = "no finding, and a finding"
_PLACEHOLDER = re.compile(r"{([^{}]*)}")


def needs_rewriting(description: Description) -> bool:
    """Whether naming the columns is not enough, and the table has to become a manifest row by row."""
    return bool(
        description.compute
        or description.no_finding
        or description.where
        or description.one_row_per_image
        or description.search
        or description.partitions
        or any(not isinstance(name, str) for name in description.columns.values())
    )


def collect_table(description: Description, root: Path | None, progress: Progress = None) -> Imported:
    """Rows of a table: its columns under their standard names, the others as they are.

    Labels of ``label_columns`` are joined by ``|``, uncertain ones as ``?NAME``. Where ``no_finding`` says that nothing
    was found, the empty cells of findings become 0, and a row with a finding all the same is left out. References count
    from ``images``. Rows of other words than ``where`` allows, rows without an image or with files outside of the
    folder of the data set (also by a link), and rows that repeat an image
    with the same patient and label are left out; so are all rows of an image that they contradict each other about.

    Raises:
        DataError: the data set is absent or changed, or a row has too few or too many cells.
        ConfigError: a column that is not there.
    """
    folder = data_folder(description, root)
    path = folder / str(description.file)
    header, cells, lines, faults = read_rows(path)
    if faults:
        raise DataError(f"{path}: {faults[0].sentence} ({len(faults)} such rows); repair the table.")
    description = description.model_copy(update={"columns": _chosen(description, header)})
    _check_columns(path, header, description)
    imported = Imported(root=folder / description.images, scanned=f"{len(cells):,} rows in {path.name}")
    if leads_out(".", imported.root, folder):  # the user has named a folder of images elsewhere
        folder = imported.root
    places = _index(imported.root) if description.search else None
    partitions = _partitions(path.parent, description)
    for position, (values, line) in enumerate(zip(cells, lines, strict=True)):
        row, fault = _standard_row(dict(zip(header, values, strict=True)), description)
        if fault:
            reason = CONTRADICTION if fault.startswith(CONTRADICTION) else "label column without 1, 0, -1 or nothing"
            imported.leave_out(row["image"], reason, f"line {line}: {fault}", row.get("patient_id", ""))
        else:
            _add(imported, row, line, description, places, partitions, folder)
        if progress is not None and position % 1000 == 0:
            progress(position, len(cells))
    if description.one_row_per_image:
        imported.rows = _one_row_per_image(imported)
    return imported


def _chosen(description: Description, header: list[str]) -> dict[str, str]:
    """The columns, of several names of one the first that the table has."""
    listed = {name: (given,) if isinstance(given, str) else given for name, given in description.columns.items()}
    return {name: next((one for one in given if one in header), given[0]) for name, given in listed.items()}


def _check_columns(path: Path, header: list[str], description: Description) -> None:
    """Every column that the description speaks of is there."""
    wanted = [*description.columns.values(), *description.where, *(description.label_columns or {}).values()]
    wanted += [name for computed in description.compute.values() for name in _PLACEHOLDER.findall(computed.text)]
    wanted += [description.no_finding.column] if description.no_finding is not None else []
    wanted += [computed.each for computed in description.compute.values() if computed.each is not None]
    missing = [f"{name!r}{nearest(name, header)}" for name in dict.fromkeys(wanted) if name not in header]
    if "image" not in {*description.columns, *description.compute, *header}:
        missing.append(f"'image'{nearest('image', header)}")
    if missing:
        raise ConfigError(
            f"{path}: it has no column {', '.join(missing)}; its columns are {', '.join(header)}; say what they are "
            "called, such as --column image=NAME."
        )


def _standard_row(row: dict[str, str], description: Description) -> tuple[dict[str, str], str | None]:
    """A row with its cells under standard names too, and what is wrong with its labels, if anything.

    A mapping wins over a column of the standard name.
    """
    named = {name: row[column] for name, column in description.columns.items()}
    named |= {name: compute_cell(computed, row) for name, computed in description.compute.items()}
    if not description.label_columns:
        return row | named, None
    row, fault = _without_findings(row, description)
    if fault:
        return row | named, fault
    values = [row[column] for column in description.label_columns.values()]
    joined = join_columns(values, list(description.label_columns), "mask")
    return row | named | {"label": joined.label}, joined.fault


def _without_findings(row: dict[str, str], description: Description) -> tuple[dict[str, str], str | None]:
    """The row with 0 in the empty cells of findings where it says that there is none; what contradicts that."""
    rule = description.no_finding
    if rule is None or row[rule.column] not in ("1", "1.0"):
        return row, None
    columns = [column for name, column in (description.label_columns or {}).items() if name not in rule.not_about]
    there = [column for column in columns if row[column] not in ("", "0", "0.0")]
    if there:
        return row, f"{CONTRADICTION}: {there[0]} is {row[there[0]]}"
    return row | {column: row[column] or "0" for column in columns}, None


def compute_cell(computed: Computed, row: Mapping[str, str]) -> str:
    """The cell that a rule makes from a row; empty where one of its columns is, or where its pattern finds nothing."""
    if computed.each is not None:
        parts = [part.strip() for part in row[computed.each].split(computed.separator)]
        single = computed.model_copy(update={"each": None})
        cells = [compute_cell(single, {**row, computed.each: part}) for part in parts]
        return MASK_SEPARATOR.join(cell for cell in cells if cell)
    names = _PLACEHOLDER.findall(computed.text)
    if any(not row[name] for name in names):
        return ""
    text = _PLACEHOLDER.sub(lambda found: row[found[1]], computed.text)
    if computed.pattern is None:
        return text
    found = re.search(computed.pattern, text)
    return found.expand(computed.take) if found else ""


def _add(
    imported: Imported,
    row: dict[str, str],
    line: int,
    description: Description,
    places: Mapping[str, list[str]] | None,
    partitions: Mapping[str, str],
    folder: Path,
) -> None:
    """Add the row, or leave it out; ``folder`` is that of the data set, in which all files must lie."""
    image, patient = row["image"], row.get("patient_id", "")
    for column, words in description.where.items():
        if row[column] not in words:
            imported.leave_out(image, f"{column} is {row[column] or 'empty'}", f"line {line}", patient)
            return
    if not image:
        imported.leave_out("", "row without an image", f"line {line}", patient)
        return
    if partitions:
        row["partition"] = partitions.get(os.path.basename(image), row.get("partition", ""))
    if places is not None:
        found = places.get(os.path.basename(image), [])
        if len(found) > 1:
            imported.leave_out(image, "several files of this name", f"{found[0]} and {found[1]}", patient)
            return
        row["image"] = found[0] if found else image
    names = (row["image"], *split_masks(row.get("mask", "")))
    absent = [name for name in names if not _exists(imported.root, name)]
    strangers = [name for name in names if leads_out(name, imported.root, folder)]
    if strangers:
        detail = f"line {line}: {strangers[0]} is not below {Path(folder).name}, where images and masks must lie"
        imported.leave_out(image, OUTSIDE, detail, patient)
    elif absent:
        imported.leave_out(image, "file missing", f"line {line}: {absent[0]} does not exist", patient)
    else:
        imported.rows.append(row)


def _exists(root: Path, reference: str) -> bool:
    path = os.path.join(root, reference)
    return os.path.exists(path) or ("#" in reference and os.path.exists(path.rpartition("#")[0]))


def _index(folder: Path) -> dict[str, list[str]]:
    """File name -> the paths below ``folder`` of the files called so."""
    index: dict[str, list[str]] = {}
    for path in walk_files(folder):
        index.setdefault(path.name, []).append(relative(path, folder))
    return index


def _partitions(folder: Path, description: Description) -> dict[str, str]:
    """File name of an image -> its partition, from text files with one name per line.

    Raises:
        DataError: a list cannot be read, or an image is in two of them.
    """
    found: dict[str, str] = {}
    for partition, name in description.partitions.items():
        try:
            lines = (folder / name).read_text("utf-8").split()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{folder / name}: this list of images cannot be read; fetch it again.") from error
        for line in lines:
            if found.setdefault(os.path.basename(line), partition) != partition:
                raise DataError(f"{folder / name}: {line} is in two partitions; correct the lists.")
    return found


def _one_row_per_image(imported: Imported) -> list[dict[str, str]]:
    """The rows without those that repeat an image; none of an image whose rows contradict each other."""
    first: dict[str, dict[str, str]] = {}
    contradictory: set[str] = set()
    for row in imported.rows:
        before = first.setdefault(row["image"], row)
        if any(before.get(name, "") != row.get(name, "") for name in STANDARD):
            contradictory.add(row["image"])
    for row in imported.rows:
        image, patient = row["image"], row.get("patient_id", "")
        if image in contradictory:
            imported.leave_out(image, "rows of one image contradict each other", "", patient)
        elif first[image] is not row:
            imported.leave_out(image, "another row of an image that is taken", "", patient)
    return [row for image, row in first.items() if image not in contradictory]
