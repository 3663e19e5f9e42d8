"""Tables of docs/results.md from finished studies: `python benchmarks/summarize.py runs/NAME [runs/NAME ...]`.

Reads OUTPUT/NAME/comparison.json as `medgcsam compare` wrote it and prints Markdown; with `--copy FOLDER` the CSV of
every run goes to FOLDER/NAME.csv.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any


def interval(entry: dict[str, Any] | None, digits: int = 3) -> str:
    """``0.912 [0.861, 0.955]``."""
    if entry is None or entry["value"] is None:
        return "-"
    value, low, high = (f"{entry[key]:.{digits}f}" for key in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def study_table(document: dict[str, Any]) -> list[str]:
    """One study: a line per setting, then one per primary pair and per pair with the sanity baseline."""
    settings, metric = document["settings"], document["primary_metric"]
    word = document["metrics"][metric]["words"]
    beside = [name for name in document["metrics"] if name != metric] if document["task"] == "segmentation" else []
    some = next(iter(settings.values()))[metric]
    heads = [f"test {word}", "SD over seeds", f"{word} of each seed"]
    heads += [document["metrics"][name]["words"] for name in beside]
    lines = [
        f"### {document['name']}{' (SYNTHETIC DATA)' if document['synthetic'] else ''}",
        "",
        f"{document['title']}. {some['n_patients']} test patients"
        f"{' (unknown: each image counts as one)' if document['patients'] == 'unknown' else ''}, "
        f"{some['n_images']} test images; seeds {', '.join(map(str, document['seeds']))}; "
        f"fold {', '.join(map(str, document['folds']))} (or the official partitions).",
        "",
        f"| setting | {' | '.join(heads)} | sharpness | gradient evaluations |",
        "|---" * (len(heads) + 3) + "|",
    ]
    for name, setting in settings.items():
        runs, cost = setting.get("runs", []), setting.get("cost") or {}
        spread = setting[metric].get("sd_seeds")
        cells = [interval(setting[metric]), "-" if spread is None else f"{spread:.3f}", _each_seed(runs, metric)]
        cells += [interval(setting[other], 1 if other.startswith("hd95") else 3) for other in beside]
        evaluations = _number(cost.get("gradient_evaluations"))
        lines.append(f"| {name} | {' | '.join(cells)} | {_sharpness(runs)} | {evaluations} |")
    lines += ["", f"| pair | difference in {word} | p (Holm) | verdict |", "|---|---|---|---|"]
    for pair in document["pairs"]:
        if pair["metric"] == metric and (pair["family"] == "primary" or pair["b"] == "baseline"):
            difference = {"value": pair["difference"], "low": pair["low"], "high": pair["high"]}
            holm = "-" if pair["p_holm"] is None else f"{pair['p_holm']:.2f}"
            lines.append(f"| {pair['a']} - {pair['b']} | {interval(difference)} | {holm} | {pair['text']} |")
    return [*lines, ""]


def _each_seed(runs: list[dict[str, Any]], metric: str) -> str:
    """Mean over the folds of each seed."""
    seeds = sorted({run["seed"] for run in runs})
    of_seed = [[run[metric] for run in runs if run["seed"] == seed] for seed in seeds]
    return ", ".join(f"{sum(values) / len(values):.3f}" for values in of_seed) or "-"


def _sharpness(runs: list[dict[str, Any]]) -> str:
    """Mean over the runs, and the smallest and the largest."""
    values = [run["sharpness"] for run in runs if run.get("sharpness") is not None]
    return f"{sum(values) / len(values):.4f} ({min(values):.4f} to {max(values):.4f})" if values else "-"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def main() -> None:
    """Print the tables of all studies named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("studies", nargs="+", type=Path)
    parser.add_argument("--copy", type=Path, help="folder for the CSV of every run")
    arguments = parser.parse_args()
    for study in arguments.studies:
        document = json.loads((study / "comparison.json").read_text("utf-8"))
        print("\n".join(study_table(document)))
        if arguments.copy:
            arguments.copy.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(study / "runs.csv", arguments.copy / f"{document['name']}.csv")


if __name__ == "__main__":
    main()
