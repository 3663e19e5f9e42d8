"""Sharpness-aware optimizers for any PyTorch project: SAM and GCSAM over any first-order base optimizer.

Needs torch and nothing else of this package: ``from medgcsam.optim import GCSAM``.
"""

from __future__ import annotations

from .batch_statistics import frozen_statistics
from .centralization import centralize_
from .gcsam import GCSAM, SAM
from .layers import parameter_groups
from .levers import part_of_batch
from .sharpness import sharpness

__all__ = ["GCSAM", "SAM", "centralize_", "frozen_statistics", "parameter_groups", "part_of_batch", "sharpness"]
