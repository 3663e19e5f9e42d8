"""Section on the training: optimizer, selection, cost and learning curves."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from medgcsam.report.facts import Facts
from medgcsam.report.figures import learning_figure
from medgcsam.report.numbers import duration, tagged, tagged_count, whole
from medgcsam.report.svg import inline_svg
from medgcsam.report.tables import row, table

_MEASURES = {"validation_auroc": "AUROC", "validation_dice": "Dice"}


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
    metric = str(selection.get("metric") or "").replace("auroc", "AUROC").replace("dice", "Dice")
    return whole(selection.get("epoch")) + (f", by {metric}" if metric else "")


def measure_of(history: list[dict[str, Any]]) -> tuple[str, str]:
    """Key and name of the quality that was measured on validation after each epoch."""
    found = "validation_dice" if any("validation_dice" in line for line in history) else "validation_auroc"
    return found, _MEASURES[found]


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
    key, name = measure_of(history)
    measure = learning_figure(epochs, [("validation", values(key))], ylabel=name, **options)
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
            "title": f"Validation {name} over the epochs.",
            "caption": "Measured on the validation partition, never on the test partition." + where + shade,
            "svg": inline_svg(
                measure,
                name=name.lower(),
                label=f"Validation {name} over {len(history)} epochs; {_spoken(last, key)} in the last.",
            ),
        },
    ]


def _spoken(line: dict[str, Any], key: str) -> str:
    return Markup(tagged(line.get(key))).striptags()


def _history_table(history: list[dict[str, Any]], selected: int | None) -> dict[str, Any]:
    key, name = measure_of(history)
    columns = {
        "train_loss": "Training loss",
        "validation_loss": "Validation loss",
        key: f"Validation {name}",
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
