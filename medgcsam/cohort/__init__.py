"""Cohort: which patient is in which partition. Tables only, no pixels."""

from medgcsam.cohort.faults import Fault
from medgcsam.cohort.labels import decode_labels, encode_labels
from medgcsam.cohort.leakage import drop_leaked, leaked_rows, twin_groups
from medgcsam.cohort.manifest import read_manifest, split_masks
from medgcsam.cohort.split import Split, make_split, split_patients

__all__ = [
    "Fault",
    "Split",
    "decode_labels",
    "drop_leaked",
    "encode_labels",
    "leaked_rows",
    "make_split",
    "read_manifest",
    "split_masks",
    "split_patients",
    "twin_groups",
]
