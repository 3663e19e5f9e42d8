"""Sections about the study itself: cases and partitions, reference standard, training, provenance."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from medgcsam.report.facts import AUTHOR_FACTS, Facts, config_yaml
from medgcsam.report.figures import learning_figure
from medgcsam.report.numbers import duration, tagged, tagged_count, whole
from medgcsam.report.svg import inline_svg
from medgcsam.report.tables import row, table

_PARTITIONS = {"train": "Training", "validation": "Validation", "test": "Test"}
_SPLIT_WORDS = {
    "folds": "by patient into folds",
    "manifest": "as the manifest says (its column partition)",
    "site": "by site: one site was kept for the test",
    "date": "by date: studies from a set day on were kept for the test",
    "file": "as a given split file says",
}
_FIT = {
    "pad": "a border is added",
    "stretch": "the image is stretched to the size",
    "crop": "the longer side is cut",
}
_INTENSITY = {
    "display": "as displayed (window or full range)",
    "percentile": "cut at the 0.5th and 99.5th percentile",
    "zscore": "zero mean and unit deviation in each image",
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
    title = "Patients, images and labels in each partition."
    view["table"] = table(title, head, rows, note="Under each class: images.")
    if view["external"]:
        view["how"] = [("Overlap with training and validation", _overlap_words(facts.metrics.get("overlap") or {}))]
        return view
    view["how"] = _how_divided(split, stratified=bool((facts.config.get("split") or {}).get("stratify")))
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
    data, config, author = facts.provenance.get("data") or {}, facts.config, facts.author
    image = config.get("image") or {}
    size = image.get("size")
    size = " × ".join(str(side) for side in size) + " (rows × columns)" if isinstance(size, list) else size
    return {
        "data": [
            ("Title", data.get("title") or facts.metrics.get("title")),
            ("Citation", data.get("citation") or None),
            ("Licence", data.get("licence") or None),
            ("Source", data.get("source") or None),
            *(("Note", note) for note in dataset_notes(facts)),
        ],
        "author": [(AUTHOR_FACTS[key], author[key]) for key in ("reference_standard", "annotators", "ethics_approval")],
        "preparation": [
            ("Size in pixels", size),
            ("Other aspect ratios", _FIT.get(image.get("fit"), image.get("fit"))),
            ("Gray values", _INTENSITY.get(image.get("intensity"), image.get("intensity"))),
            ("Channels", image.get("channels")),
        ],
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


def training_view(facts: Facts) -> dict[str, Any]:
    """Optimizer, selection, cost and learning curves."""
    history, config = facts.history, facts.config
    optimizer, selection = config.get("optimizer") or {}, facts.metrics.get("selection") or {}
    cost = facts.metrics.get("cost") or {}
    last = history[-1] if history else {}
    ascent = ascent_start(history)
    name = optimizer.get("name")
    over = f" over {optimizer['base']}" if name in ("sam", "gcsam") and optimizer.get("base") else ""
    rows = [
        ("Optimizer", f"{name}{over}" if name else None),
        ("Sharpness-aware ascent", _ascent_words(history, ascent)),
        ("Epochs run", whole(len(history)) if history else "not recorded"),
        ("Selected epoch", _selection_words(selection)),
        ("Gradient evaluations", tagged_count(cost.get("gradient_evaluations", last.get("gradient_evaluations")))),
        ("Time", duration(cost.get("seconds"))),
    ]
    view: dict[str, Any] = {"facts": rows, "figures": [], "table": None}
    if history:
        view["figures"] = _learning_figures(history, selection.get("epoch"), ascent)
        view["table"] = _history_table(history, selection.get("epoch"))
    return view


def _selection_words(selection: dict[str, Any]) -> str:
    metric = str(selection.get("metric") or "").replace("auroc", "AUROC")
    return whole(selection.get("epoch")) + (f", by {metric}" if metric else "")


def ascent_start(history: list[dict[str, Any]]) -> int | None:
    """First epoch with an ascent, which shows by its own count or by more than one pass per step; None without."""
    return next(
        (line["epoch"] for line in history if line.get("ascents") or (line.get("passes_per_step") or 1) > 1), None
    )


def _ascent_words(history: list[dict[str, Any]], ascent: int | None) -> Any:
    if not history:
        return "not recorded"
    if ascent is None:
        return "none: every step took one gradient"
    passes = max(line.get("passes_per_step") or 1 for line in history)
    start = "from the first epoch" if ascent == history[0]["epoch"] else f"from epoch {ascent}"
    return Markup("{}, at up to {} passes per step").format(start, tagged(passes))


def _learning_figures(history: list[dict[str, Any]], selected: int | None, ascent: int | None) -> list[dict[str, Any]]:
    epochs = [line["epoch"] for line in history]

    def values(key: str) -> list[float]:
        return [float("nan") if line.get(key) is None else float(line[key]) for line in history]

    options = {"selected": selected, "ascent_from": ascent}
    losses = [("training", values("train_loss")), ("validation", values("validation_loss"))]
    loss = learning_figure(epochs, losses, ylabel="Loss", **options)
    auroc = learning_figure(epochs, [("validation", values("validation_auroc"))], ylabel="AUROC", **options)
    where = f" The dotted line marks epoch {selected}, whose weights were tested." if selected else ""
    shade = " The shaded epochs take the sharpness-aware ascent step." if ascent and ascent > epochs[0] else ""
    last = history[-1]
    return [
        {
            "title": "Loss over the epochs.",
            "caption": "Solid: training. Dashed: validation." + where + shade,
            "svg": inline_svg(
                loss,
                name="loss",
                label=(
                    f"Learning curves of the loss over {len(history)} epochs; in the last epoch "
                    f"{_spoken(last, 'train_loss')} in training and {_spoken(last, 'validation_loss')} in validation."
                ),
            ),
        },
        {
            "title": "Validation AUROC over the epochs.",
            "caption": "Measured on the validation partition, never on the test partition." + where + shade,
            "svg": inline_svg(
                auroc,
                name="auroc",
                label=(
                    f"Validation AUROC over {len(history)} epochs; {_spoken(last, 'validation_auroc')} in the last."
                ),
            ),
        },
    ]


def _spoken(line: dict[str, Any], key: str) -> str:
    return Markup(tagged(line.get(key))).striptags()


def _history_table(history: list[dict[str, Any]], selected: int | None) -> dict[str, Any]:
    columns = {
        "train_loss": "Training loss",
        "validation_loss": "Validation loss",
        "validation_auroc": "Validation AUROC",
        "passes_per_step": "Passes per step",
    }
    rows = [
        row(
            f"{line['epoch']}{' (selected)' if line['epoch'] == selected else ''}",
            *(tagged(line.get(key)) for key in columns),
            tagged_count(line.get("gradient_evaluations")),
        )
        for line in history
    ]
    head = ["Epoch", *columns.values(), "Gradient evaluations"]
    return table("Every epoch.", head, rows, note="Gradient evaluations are counted from the start.")


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
