"""Deal patients into parts of given sizes so that every kind of patient is spread over them evenly.

Iterative stratification (Sechidis, Tsoumakas, Vlahavas: On the stratification of multi-label data, ECML PKDD 2011)
with its random choices replaced by a hash of seed and patient, so that neither the order of the rows nor the
version of a random generator changes the outcome.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence


def deal(kinds: Mapping[str, frozenset[str]], shares: Sequence[float], *, seed: int, purpose: str) -> dict[str, int]:
    """Part (index into ``shares``) of every patient.

    Args:
        kinds: patient -> the kinds it counts as (at least one), each to be spread in proportion to the shares.
        shares: positive, summing to 1.
        seed, purpose: name the shuffle; another purpose gives an unrelated one.

    The kind with the fewest patients left is dealt first, each patient to the part that lacks that kind most, then to
    the part that lacks patients most. With one kind per patient and equal shares, the parts differ by at most one
    patient in each kind and in all.
    """
    queue = sorted(kinds, key=lambda patient: _shuffle_key(seed, purpose, patient))
    totals = Counter(kind for patient in queue for kind in kinds[patient])
    given = [Counter() for _ in shares]
    sizes = [0] * len(shares)
    parts: dict[str, int] = {}
    while queue:
        left = Counter(kind for patient in queue for kind in kinds[patient])
        rarest = min(left, key=lambda kind: (left[kind], kind))
        for patient in (patient for patient in queue if rarest in kinds[patient]):
            lacks = [
                (round(totals[rarest] * share - given[part][rarest], 9), round(len(kinds) * share - sizes[part], 9))
                for part, share in enumerate(shares)
            ]
            part = max(range(len(shares)), key=lambda index: (lacks[index], -index))
            parts[patient] = part
            sizes[part] += 1
            given[part].update(kinds[patient])
        queue = [patient for patient in queue if patient not in parts]
    return parts


def _shuffle_key(seed: int, purpose: str, patient: str) -> bytes:
    return hashlib.sha256(f"{seed}\0{purpose}\0{patient}".encode()).digest()
