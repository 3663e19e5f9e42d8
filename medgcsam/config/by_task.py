"""Keys whose `auto` means something else for each task; the plan of a segmentation fills in the others."""

from __future__ import annotations

from typing import Any

_CLASSIFICATION: dict[tuple[str, str], Any] = {
    ("image", "intensity"): "display",
    ("network", "name"): "small",
    ("network", "width"): 16,
    ("training", "batch_size"): 16,
    ("training", "select"): "auroc",
}
BY_TASK: dict[str, dict[tuple[str, str], Any]] = {
    "classification": _CLASSIFICATION,
    "multilabel": _CLASSIFICATION,
    "segmentation": {("network", "name"): "unet_small", ("training", "select"): "dice"},
}
