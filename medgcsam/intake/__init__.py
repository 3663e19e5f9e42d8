"""Intake: what data are here, whose they are, and whether they are sound."""

from medgcsam.intake.check import check_dataset
from medgcsam.intake.datasets import Dataset, open_dataset
from medgcsam.intake.fingerprints import fingerprint

__all__ = ["Dataset", "check_dataset", "fingerprint", "open_dataset"]
