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


def interval(entry: dict[str, Any] | None) -> str:
    """``0.912 [0.861, 0.955]``."""
    if entry is None or entry["value"] is None:
        return "-"
    return f"{entry['value']:.3f} [{entry['low']:.3f}, {entry['high']:.3f}]"


def study_table(document: dict[str, Any]) -> list[str]:
    """One study: a line per setting, then a line per primary pair."""
    settings = document["settings"]
    some = next(iter(settings.values()))["auroc"]
    lines = [
        f"### {document['name']}{' (SYNTHETIC DATA)' if document['synthetic'] else ''}",
        "",
        f"{document['title']}. {some['n_patients']} test patients"
        f"{' (unknown: each image counts as one)' if document['patients'] == 'unknown' else ''}, "
        f"{some['n_images']} test images; seeds {', '.join(map(str, document['seeds']))}; "
        f"fold {', '.join(map(str, document['folds']))} (or the official partitions).",
        "",
        "| setting | test AUROC | SD over seeds | AUROC of each seed | sharpness | gradient evaluations | seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, setting in settings.items():
        runs, cost = setting.get("runs", []), setting.get("cost") or {}
        each = ", ".join(f"{run['auroc']:.3f}" for run in runs)
        spread = setting["auroc"].get("sd_seeds")
        lines.append(
            f"| {name} | {interval(setting['auroc'])} | {'-' if spread is None else f'{spread:.3f}'} | {each or '-'} | "
            f"{_sharpness(runs)} | {_number(cost.get('gradient_evaluations'))} | {_number(cost.get('seconds'))} |"
        )
    lines += ["", "| pair | difference in AUROC | p (Holm) | verdict |", "|---|---|---|---|"]
    for pair in document["pairs"]:
        if pair["metric"] == "auroc" and pair.get("family") == "primary":
            difference = {"value": pair["difference"], "low": pair["low"], "high": pair["high"]}
            holm = "-" if pair["p_holm"] is None else f"{pair['p_holm']:.2f}"
            lines.append(f"| {pair['a']} - {pair['b']} | {interval(difference)} | {holm} | {pair['text']} |")
    return [*lines, ""]


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
