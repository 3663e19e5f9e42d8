"""Every fault of a data set in one table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medgcsam.cohort.faults import Fault, nearest
from medgcsam.config import Config
from medgcsam.errors import ConfigError
from medgcsam.intake.check import check_dataset
from medgcsam.intake.datasets import Dataset, open_dataset
from medgcsam.intake.examine import Reading
from medgcsam.intake.fault_kinds import KINDS, SUSPICIONS
from medgcsam.journal import Journal
from medgcsam.places import cache_folder
from medgcsam.recipes.stopping import resumable

WORDS = ("suspicion", "accepted")
DRAWN = 1000
"""Most faults that are drawn as a table on a terminal; more are plain lines."""


def check_data(config: Config, *, journal: Journal, accept: Sequence[str] = (), strict: bool = False) -> dict[str, Any]:
    """Read every image and mask of the configuration's data set and say each fault.

    ``accept``: kinds of faults that are told, but are none of those that the result counts as ``failing``. Suspicions
    (``SUSPICIONS``) are none of these either, unless ``strict``. A set without labels is checked without them. Of a
    segmentation, each image and mask that training would refuse is listed too.

    Returns:
        {"title" of a data set with a description, else "", "manifest", "images", "patients", "patients_known",
        "labelled", "excluded", "notes": [what was not looked for],
        "faults": [{"kind", "row", "image", "sentence"}], "kinds": {kind: number},
        "copies": [{"first", "second", "lines", "similarity"}], "accepted": [kinds], "suspicions": [kinds],
        "failing": number}.

    Raises:
        ConfigError: an accepted kind that does not exist, or a faulty configuration.
        DataError: the manifest is absent or has no rows.
        MachineError: the cache cannot be written.
        Interrupted: SIGINT or SIGTERM; the same command goes on.
    """
    for kind in accept:
        if kind not in KINDS:
            hint = nearest(kind, KINDS)
            raise ConfigError(f"--accept {kind}: there is no such kind of fault{hint}; they are {', '.join(KINDS)}.")
    cache = cache_folder(Path(config.output.folder))
    dataset = open_dataset(config.data, base=config.base, cache=cache, task=config.task, strict=False, unlabelled=True)
    images, patients = len(dataset.table), dataset.table["patient_id"].nunique()
    whose = f"{patients} patients" if dataset.patients == "known" else "unknown patients"
    image = config.image
    reading = Reading(image.irregular, image.pet, dataset.structures, image.orientation)
    workers = config.pipeline.workers
    with resumable("check"):
        checked = check_dataset(dataset, reading=reading, cache=cache, workers=workers, bar=journal.bar)
        faults, notes = list(checked.faults), list(checked.notes)
        if config.task == "segmentation":
            refused, said = _segmentation(config, dataset, faults, cache, journal)
            faults = sorted([*faults, *refused], key=lambda fault: (fault.row, fault.kind))
            notes = [*said, *notes]
        elif not dataset.labelled:
            notes.insert(0, "the manifest has no labels: checked without them, not usable for training yet")
    kinds = dict(sorted(Counter(fault.kind for fault in faults).items()))
    suspicions = () if strict else SUSPICIONS
    words = {kind: "suspicion" for kind in suspicions} | {kind: "accepted" for kind in accept}
    counts = Counter({word: sum(kinds.get(kind, 0) for kind in words if words[kind] == word) for word in WORDS})
    failing = len(faults) - counts.total()
    _tell(faults, kinds, words, journal)
    for note in (*notes, *(f"{number} rows left out: {reason}" for reason, number in dataset.excluded.items())):
        journal.say(f"note: {note}")
    journal.say(
        f"{dataset.title or dataset.manifest_path.name}: {images} images of {whose}, {failing} fault(s)"
        + (f", {counts['suspicion']} suspicion(s)" if counts["suspicion"] else "")
        + (f", {counts['accepted']} accepted" if accept else "")
        + (f"; {checked.known} images had been checked before" if checked.known else "")
    )
    return {
        "title": dataset.title,
        "manifest": str(dataset.manifest_path),
        "images": images,
        "patients": patients,
        "patients_known": dataset.patients == "known",
        "labelled": dataset.labelled,
        "excluded": dict(dataset.excluded),
        "notes": notes,
        "faults": [vars(fault) for fault in faults],  # no copies of what may be a million
        "kinds": kinds,
        "copies": [vars(copies) for copies in checked.copies],
        "accepted": sorted(set(accept)),
        "suspicions": sorted(suspicions),
        "failing": failing,
    }


def _segmentation(
    config: Config, dataset: Dataset, known: Sequence[Fault], cache: Path, journal: Journal
) -> tuple[list[Fault], list[str]]:
    """What training would refuse besides, and notes: how many images have a mask, which is their reference."""
    from medgcsam.pipeline.refused import refused_images

    masks = int((dataset.table["mask"] != "").sum()) if "mask" in dataset.table else 0
    if not masks:
        return [], ["no row of the manifest has a mask, the reference of a segmentation: not usable for training yet"]
    images = len(dataset.table)
    rest = "" if masks == images else "; the others are left out of training"
    notes = [f"masks are the reference: {masks} of {images} rows have one{rest}"]
    try:
        return refused_images(config, dataset, known, cache=cache, journal=journal), notes
    except ConfigError as error:
        return [], [*notes, f"what training would refuse of each image is not looked for: {error}"]


def _tell(faults: Sequence[Fault], kinds: Mapping[str, int], words: Mapping[str, str], journal: Journal) -> None:
    """The faults, then one line per kind with its number, its meaning and its word where it is no failure: as a table
    that fits the terminal where there is one, else as plain lines that other programs can search."""
    if journal.stream.isatty() and not journal.quiet and 0 < len(faults) <= DRAWN:
        from rich.box import SIMPLE_HEAD
        from rich.console import Console
        from rich.markup import escape
        from rich.table import Table

        table = Table("line", "kind", "what is wrong", box=SIMPLE_HEAD)
        for fault in faults:
            table.add_row(str(fault.row), fault.kind, escape(fault.sentence.removeprefix(f"line {fault.row}: ")))
        Console(file=journal.stream).print(table)
    else:
        width = max(map(len, kinds), default=0)
        for fault in faults:
            journal.say(f"{fault.kind:<{width}}  {fault.sentence}", log=False)  # for the screen alone: it names images
    for kind, number in kinds.items():
        journal.say(f"{number:>8}  {KINDS[kind]} ({', '.join((kind, words[kind]) if kind in words else (kind,))})")
