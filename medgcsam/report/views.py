"""Sections about the study itself: cases and partitions, reference standard, provenance."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from medgcsam.report.facts import AUTHOR_FACTS, Facts, config_yaml
from medgcsam.report.numbers import tagged_count, whole
from medgcsam.report.preparation import preparation
from medgcsam.report.tables import row, table

_PARTITIONS = {"train": "Training", "validation": "Validation", "test": "Test"}
_CHOSEN = {
    "classification": "the epoch, the operating point and the recalibration",
    "segmentation": "the epoch, and whether only the largest part of a structure is kept,",
}
_SPLIT_WORDS = {
    "folds": "by patient into folds",
    "manifest": "as the manifest says (its column partition)",
    "site": "by site: one site was kept for the test",
    "date": "by date: studies from a set day on were kept for the test",
    "file": "as a given split file says",
}
_HASHES = {
    "config_sha256": "Configuration",
    "code_sha256": "Code",
    "manifest_sha256": "Manifest",
    "images_sha256": "Images",
    "split_sha256": "Split",
}


def cases_view(facts: Facts) -> dict[str, Any]:
    """Patients, images and labels per partition, how they were divided, and the result of the leakage check."""
    view: dict[str, Any] = {
        "patients_unknown": facts.metrics.get("patients") == "unknown",
        "external": facts.external is not None,
        "chosen": _CHOSEN["segmentation" if facts.metrics["task"] == "segmentation" else "classification"],
        "table": None,
        "excluded": None,
    }
    if facts.split is None:
        return view
    split, counts, names = facts.split, facts.split.get("counts") or {}, dict(_PARTITIONS)
    if view["external"]:
        counts = counts | {"test": facts.metrics.get("counts") or {}}
        names = {"train": "Training (earlier)", "validation": "Validation (earlier)", "test": "External test"}
    parts = [name for name in names if name in counts]
    classes = list(dict.fromkeys(label for name in parts for label in counts[name].get("labels") or {}))
    rows = [
        row(
            names[name],
            tagged_count(counts[name].get("patients")),
            tagged_count(counts[name].get("images")),
            *(tagged_count((counts[name].get("labels") or {}).get(label, 0)) for label in classes),
        )
        for name in parts
    ]
    head = ["Partition", "Patients", "Images", *classes]
    title = f"Patients{', images and labels' if classes else ' and images'} in each partition."
    view["table"] = table(title, head, rows, note="Under each class: images." if classes else "")
    if view["external"]:
        view["how"] = [("Overlap with training and validation", _overlap_words(facts.metrics.get("overlap") or {}))]
        return view
    stratified = bool(classes and (facts.config.get("split") or {}).get("stratify"))
    view["how"] = _how_divided(split, stratified=stratified)
    excluded = [row(reason, tagged_count(number)) for reason, number in (split.get("excluded") or {}).items()]
    view["excluded"] = table("Images left out before the split.", ["Reason", "Images"], excluded) if excluded else None
    return view


def _how_divided(split: dict[str, Any], *, stratified: bool) -> list[tuple[str, Any]]:
    leakage = split.get("leakage") or {}
    words = _SPLIT_WORDS.get(split.get("by"), split.get("by"))
    rows: list[tuple[str, Any]] = [
        ("Divided", f"{words}, stratified by label" if stratified and split.get("by") == "folds" else words)
    ]
    if split.get("by") == "folds":
        rows.append(("Fold", f"{whole(split.get('fold'))} (counted from 0) of {whole(split.get('folds'))}"))
    rows.append(("Seed of the split", whole(split.get("seed"))))
    rows.append(("Leakage check", _leakage_words(leakage, patients_unknown=split.get("patients") == "unknown")))
    rows.append(("Identical images dropped from training", tagged_count(leakage.get("dropped_from_train", 0))))
    return rows


def _overlap_words(overlap: dict[str, Any]) -> Markup:
    if not overlap:
        return Markup("not recorded")
    return Markup("{} patients and {} identical images; compared: {}").format(
        tagged_count(overlap.get("patients")), tagged_count(overlap.get("identical_images")), overlap.get("compared")
    )


def _leakage_words(leakage: dict[str, Any], *, patients_unknown: bool) -> Markup:
    if not leakage:
        return Markup("not recorded")
    images = tagged_count(leakage.get("identical_images_across_partitions"))
    if patients_unknown:
        return Markup("{} identical images across partitions; patients are unknown and cannot be checked").format(
            images
        )
    patients = tagged_count(leakage.get("patients_in_two_partitions"))
    return Markup("{} patients in more than one partition, {} identical images across partitions").format(
        patients, images
    )


def reference_view(facts: Facts) -> dict[str, Any]:
    """The data set, who set the reference standard, and what was done to every image before the network saw it."""
    data, author = facts.provenance.get("data") or {}, facts.author
    return {
        "data": [
            ("Title", data.get("title") or facts.metrics.get("title")),
            ("Citation", data.get("citation") or None),
            ("Licence", data.get("licence") or None),
            ("Source", data.get("source") or None),
            *(("Note", note) for note in dataset_notes(facts)),
        ],
        "author": [(AUTHOR_FACTS[key], author[key]) for key in ("reference_standard", "annotators", "ethics_approval")],
        "preparation": preparation(facts),
    }


def dataset_notes(facts: Facts) -> list[str]:
    """Notes on the data set, as its description gives them: each one once."""
    found: list[str] = []
    for notes in (facts.metrics.get("notes"), (facts.provenance.get("data") or {}).get("notes")):
        for note in notes if isinstance(notes, list) else [notes]:
            text = " ".join(str(note).split()) if note else ""
            if text and text not in found:
                found.append(text)
    return found


def provenance_view(facts: Facts) -> dict[str, Any]:
    """Network, machine, versions, hashes, the resolved configuration, and what the author did not provide."""
    given, network = facts.provenance, facts.provenance.get("network") or {}
    machine = [
        ("Network", network.get("name")),
        ("Parameters", whole(network.get("parameters"))),
        ("Initial weights", _weights_words(network.get("weights"))),
        ("Setting", given.get("setting")),
        ("Seed", whole(given.get("seed"))),
        ("Fold", whole(given.get("fold"))),
        ("Device", given.get("device")),
        ("Threads", whole(given.get("threads"))),
        ("Precision", given.get("precision")),
        ("Platform", given.get("platform")),
    ]
    packages = [("medgcsam", given.get("medgcsam")), ("Python", given.get("python"))]
    packages += sorted((given.get("packages") or {}).items())
    return {
        "machine": [(name, "not recorded" if value is None else value) for name, value in machine],
        "packages": [(name, "not recorded" if value is None else value) for name, value in packages],
        "hashes": [(name, given.get(key)) for key, name in _HASHES.items()],
        "config": config_yaml(facts.config) if facts.config else None,
        "missing": [(AUTHOR_FACTS[key], key) for key, value in facts.author.items() if value is None],
    }


def _weights_words(weights: Any) -> str:
    if weights is None:
        return "random"
    return str(weights).replace("\\", "/").rsplit("/", 1)[-1] if isinstance(weights, str) else str(weights)
