"""A comparison in a few lines for the terminal: every setting, then every pair on the primary metric."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from medgcsam.journal import Journal
from medgcsam.recipes.summary import interval


def say_comparison(document: dict[str, Any], journal: Journal) -> None:
    """The content of comparison.json as two aligned tables and what a reader has to know about them."""
    journal.say()
    if document["synthetic"]:
        journal.say("SYNTHETIC DATA")
    if document["patients"] == "unknown":
        journal.say("Patients are unknown: each image counts as one, so intervals may be too narrow.")
    journal.say(_headline(document))
    journal.say()
    for line in _aligned(_setting_lines(document)):
        journal.say(line)
    journal.say()
    metric = document["primary_metric"]
    pairs = [pair for pair in document["pairs"] if pair["metric"] == metric]
    head, *lines = _aligned([_pair_head(document), *(_pair_cells(pair) for pair in pairs)])
    journal.say(head)
    for line, pair in zip(lines, pairs, strict=True):
        journal.say(line)
        journal.say(f"    {_pair_text(pair)}")
    for line in _notes(document, pairs):
        journal.say(line)


def _headline(document: dict[str, Any]) -> str:
    seeds, folds = (", ".join(map(str, document[key])) for key in ("seeds", "folds"))
    counts = next((s["auroc"] for s in document["settings"].values() if "auroc" in s), None)
    tested = f"; tested on {counts['n_patients']} patients, {counts['n_images']} images" if counts else ""
    return f"{document['name']}: seeds {seeds}; folds {folds}{tested}; {document['budget']}"


def _setting_lines(document: dict[str, Any]) -> list[list[str]]:
    level = f"{100 * document['confidence']:g}% interval"
    numbers = ("SD of seeds", "AUPRC", "Brier", "log loss", "gradients/run", "seconds/run")
    lines = [["setting", f"AUROC [{level}]", *numbers]]
    for name, setting in document["settings"].items():
        cost = setting.get("cost")
        price = [f"{cost['gradient_evaluations']:.0f}", f"{cost['seconds']:.1f}"] if cost else ["", ""]
        if "auroc" not in setting:
            lines.append([name, "no seed is complete", "", "", "", "", *price])
            continue
        area = setting["auroc"]
        spread = "" if area["sd_seeds"] is None else f"{area['sd_seeds']:.4f}"
        others = [_plain(setting[metric]["value"]) for metric in ("auprc", "brier", "log_loss")]
        lines.append([name, interval(area), spread, *others, *price])
    return lines


def _pair_head(document: dict[str, Any]) -> list[str]:
    level = f"{100 * document['confidence']:g}% interval"
    return ["pair", f"difference in AUROC [{level}]", "p", "p (Holm)"]


def _pair_cells(pair: dict[str, Any]) -> list[str]:
    difference = "not estimable"
    if pair["difference"] is not None:
        difference = f"{pair['difference']:+.4f}"
        if pair["low"] is not None:
            difference += f" [{pair['low']:+.4f}, {pair['high']:+.4f}]"
    return [f"{pair['a']} - {pair['b']}", difference, _p(pair["p"]), _p(pair["p_holm"])]


def _pair_text(pair: dict[str, Any]) -> str:
    """The verdict and its price."""
    cost = pair.get("cost", {}).get("seconds")
    text = pair["text"] + ("" if cost is None else f" and {cost:.2f} times the seconds")
    return text + (" (exploratory)" if pair["family"] == "exploratory" else "")


def _notes(document: dict[str, Any], pairs: Sequence[dict[str, Any]]) -> list[str]:
    notes = []
    if len(document["seeds"]) == 1:
        notes.append("One seed says nothing about training again: intervals are over patients only, nothing is tested.")
    baseline = document["settings"].get("baseline", {})
    if baseline:
        notes.append(f"sanity baseline: {baseline['method']}; AUROC {interval(baseline['auroc'])}")
    if any(pair["text"].startswith("inconclusive") for pair in pairs):
        notes.append(
            "inconclusive: neither a difference nor its absence is shown; it would take more patients or seeds."
        )
    for run in document["failed"]:
        notes.append(f"failed: {run['setting']}, seed {run['seed']}, fold {run['fold']}: {run['error']}")
    return ["", *notes] if notes else []


def _plain(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _p(value: float | None) -> str:
    if value is None:
        return "-"
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    """Lines of cells as lines of text, each column as wide as its widest cell."""
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
