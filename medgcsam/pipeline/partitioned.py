"""What the cases of every task can be asked: which rows a partition has, and what outputs call them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas

from medgcsam.cohort import Split
from medgcsam.privacy import hash_id


class Partitioned:
    """Base of the cases of a task; ``table`` is in the order of the rows of ``store``, which has ``digests``."""

    table: pandas.DataFrame
    store: Any
    split: Split
    salt: bytes
    keep_patient_ids: bool

    def rows(self, *partitions: str) -> np.ndarray:
        """Store rows (n,) of the named partitions, in the order of the table."""
        return np.flatnonzero(self.split.partition.isin(partitions).to_numpy())

    def fingerprints(self, *partitions: str) -> list[str]:
        """Salted hashes of the decoded pixels of the named partitions' images, sorted."""
        pixels = self.store.digests["pixels"].iloc[self.rows(*partitions)]
        return sorted(hash_id(self.salt, "pixels", digest) for digest in pixels)

    def names(self, kind: str, rows: np.ndarray) -> list[str]:
        """What outputs call the "case" or the "patient" of rows: hashes, or plain names where they are asked for."""
        plain = self.table[{"case": "case", "patient": "patient_id"}[kind]].iloc[rows]
        return list(plain) if self.keep_patient_ids else [hash_id(self.salt, kind, name) for name in plain]
