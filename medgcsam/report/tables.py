"""The plain form of a table, as the table macro of the templates prints it, and the readers' names of the metrics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

NAMES = {
    "auroc": "AUROC",
    "auroc_patient": "AUROC, patient level",
    "auprc": "AUPRC",
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
    "ppv": "Positive predictive value",
    "npv": "Negative predictive value",
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "lr_positive": "Likelihood ratio, positive",
    "lr_negative": "Likelihood ratio, negative",
    "brier": "Brier score",
    "log_loss": "Log loss",
    "calibration_slope": "Calibration slope",
    "calibration_intercept": "Calibration intercept",
    "ece": "Expected calibration error",
}


def row(name: str, *cells: Any, kind: str = "") -> dict[str, Any]:
    """A row of the table macro: its head, its cells and a CSS class."""
    return {"name": name, "cells": cells, "kind": kind}


def table(title: str, head: Sequence[str], rows: Sequence[dict[str, Any]], *, note: str = "") -> dict[str, Any]:
    """A table for the table macro: caption, a note beside it, column heads (that of the row heads first), rows."""
    return {"title": title, "note": note, "head": list(head), "rows": list(rows)}


def metric_name(key: str) -> str:
    """What a reader calls the metric; an unknown one by its key."""
    return NAMES.get(key, key.replace("_", " "))
