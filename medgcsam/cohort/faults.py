"""What is wrong with the data, row by row, and the one sentence that tells it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from medgcsam.errors import DataError

_SHOWN = 5


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with one row (``row`` is its line in the manifest, counted from 1; 0 = the whole file).

    ``kind`` is a short fixed name to count by; ``sentence`` is for people. Faults name patients and images as the
    hospital does: they go to its screen, never into a run folder.
    """

    kind: str
    row: int
    image: str
    sentence: str


def raise_faults(where: object, faults: Sequence[Fault]) -> None:
    """Raise all faults as one error, those of a kind together; do nothing where there are none.

    Raises:
        DataError: there are faults.
    """
    if not faults:
        return
    kinds: dict[str, list[Fault]] = {}
    for fault in faults:
        kinds.setdefault(fault.kind, []).append(fault)
    parts = [shorten([fault.sentence for fault in group]) for group in kinds.values()]
    number = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
    raise DataError(
        f"{where} has {number}: {'; '.join(parts)}; correct these rows, or give them a reason in the column 'exclude'."
    )


def shorten(items: Iterable[object], shown: int = _SHOWN) -> str:
    """The first few items, then how many more there are: ``a, b, c and 7 more``."""
    words = [str(item) for item in items]
    if len(words) <= shown:
        return ", ".join(words)
    return f"{', '.join(words[:shown])} and {len(words) - shown} more"


def nearest(word: str, known: Iterable[str]) -> str:
    """`` (nearest: NAME)`` if a known name resembles ``word``, else nothing; to be put behind a name in a sentence."""
    lowered = {name.lower(): name for name in known}
    found = difflib.get_close_matches(word.lower(), lowered, n=1, cutoff=0.6)
    return f" (nearest: {lowered[found[0]]!r})" if found else ""
