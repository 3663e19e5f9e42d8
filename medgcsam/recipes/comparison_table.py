"""A comparison in a few lines for the terminal: every setting, then every pair on the primary metric."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from medgcsam.journal import Journal
from medgcsam.recipes.summary import aligned, decimal, interval


def say_comparison(document: dict[str, Any], journal: Journal) -> None:
    """The content of comparison.json as two aligned tables and what a reader has to know about them."""
    journal.say()
    if document["synthetic"]:
        journal.say("SYNTHETIC DATA")
    if document["patients"] == "unknown":
        journal.say("Patients are unknown: each image counts as one, so intervals may be too narrow.")
    journal.say(_headline(document))
    journal.say()
    for line in aligned(_setting_lines(document)):
        journal.say(line)
    journal.say()
    metric = document["primary_metric"]
    pairs = [pair for pair in document["pairs"] if pair["metric"] == metric]
    head, *lines = aligned([_pair_head(document), *(_pair_cells(pair) for pair in pairs)])
    journal.say(head)
    for line, pair in zip(lines, pairs, strict=True):
        journal.say(line)
        journal.say(f"    {_pair_text(pair)}")
    for line in _notes(document, pairs):
        journal.say(line)


def _headline(document: dict[str, Any]) -> str:
    seeds, folds = (", ".join(map(str, document[key])) for key in ("seeds", "folds"))
    metric = document["primary_metric"]
    counts = next((s[metric] for s in document["settings"].values() if metric in s), None)
    tested = f"; tested on {counts['n_patients']} patients, {counts['n_images']} images" if counts else ""
    return f"{document['name']}: seeds {seeds}; folds {folds}{tested}; {document['budget']}"


def _setting_lines(document: dict[str, Any]) -> list[list[str]]:
    """The primary metric with its interval and spread, the others as they are, and the price of a run."""
    level = f"{100 * document['confidence']:g}% interval"
    first, *others = document["metrics"]
    words = {metric: about["words"] for metric, about in document["metrics"].items()}
    numbers = ("SD of seeds", *(words[metric] for metric in others), "gradients/run", "seconds/run")
    lines = [["setting", f"{words[first]} [{level}]", *numbers]]
    for name, setting in document["settings"].items():
        cost = setting.get("cost")
        price = [f"{cost['gradient_evaluations']:.0f}", f"{cost['seconds']:.1f}"] if cost else ["", ""]
        if first not in setting:
            lines.append([name, "no seed is complete", "", *("" for _ in others), *price])
            continue
        entry = setting[first]
        spread = "" if entry["sd_seeds"] is None else f"{entry['sd_seeds']:.4f}"
        beside = [_plain(setting[metric]["value"], metric) for metric in others]
        lines.append([name, interval(entry, first), spread, *beside, *price])
    return lines


def _pair_head(document: dict[str, Any]) -> list[str]:
    level = f"{100 * document['confidence']:g}% interval"
    words = document["metrics"][document["primary_metric"]]["words"]
    return ["pair", f"difference in {words} [{level}]", "p", "p (Holm)"]


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
    metric = document["primary_metric"]
    words = document["metrics"][metric]["words"]
    if baseline:
        notes.append(f"sanity baseline: {baseline['method']}; {words} {interval(baseline[metric], metric)}")
    if any(pair["text"].startswith("inconclusive") for pair in pairs):
        notes.append(
            "inconclusive: neither a difference nor its absence is shown; it would take more patients or seeds."
        )
    folds = dict.fromkeys(s[metric]["folds"] for s in document["settings"].values() if "folds" in s.get(metric, {}))
    notes += [f"{words}: {over}" for over in folds]
    for run in document["failed"]:
        notes.append(f"failed: {run['setting']}, seed {run['seed']}, fold {run['fold']}: {run['error']}")
    return ["", *notes] if notes else []


def _plain(value: float | None, metric: str) -> str:
    return "-" if value is None else decimal(value, metric)


def _p(value: float | None) -> str:
    if value is None:
        return "-"
    return "<0.001" if value < 0.001 else f"{value:.3f}"
