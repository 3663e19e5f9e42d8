"""The known faults of sharpness-aware optimizers, each as a small experiment, on ours and on two other libraries.

Every library is used as its own documentation says; a result is "fail" only where that use gives a wrong result. Where
the documentation does not describe a use and its result is wrong or an error, the table says "undocumented", and what
was seen. "n/a": there is nothing that could go wrong, such as centralization in davda54/sam, which has none. The
helpers against BatchNorm statistics counted twice that both libraries offer are in use.

    python benchmarks/faults.py --davda54 path/to/sam.py --output benchmarks/results/faults.json
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import Any

import torch
from fault_contenders import contenders
from fault_experiments import NUMERIC
from fault_outcome import attempt
from fault_replicas import RIGHT, replica_outcomes
from fault_usage import USAGE
from peers import versions
from timing import machine, table, write


def rows(davda54: Path | None, *, replicas: bool) -> list[dict[str, Any]]:
    """One row per experiment with the outcome of every contender."""
    others = contenders(davda54)
    found = [
        {
            "fault": experiment.fault, "title": experiment.title, "right": experiment.right,
            "outcomes": {name: attempt(experiment, other).as_dict() for name, other in others.items()},
        }
        for experiment in (*NUMERIC, *USAGE)
    ]  # fmt: skip
    if replicas:
        for title, outcomes in replica_outcomes(davda54).items():
            by_name = {name: outcome.as_dict() for name, outcome in outcomes.items()}
            found.append({"fault": 7, "title": title, "right": RIGHT[title], "outcomes": by_name})
    return sorted(found, key=lambda row: row["fault"])


def markdown(report: dict[str, Any]) -> str:
    """The report as a page."""
    facts, names = report["conditions"], report["contenders"]
    cells = [
        [str(row["fault"]), row["title"], row["right"],
         *(f"{'**fail**' if o['verdict'] == 'fail' else o['verdict']}: {o['measured']}"
           for o in (row["outcomes"][name] for name in names))]
        for row in report["rows"]
    ]  # fmt: skip
    verdicts = ("pass", "fail", "undocumented", "n/a")
    outcomes = {name: [row["outcomes"][name]["verdict"] for row in report["rows"]] for name in names}
    totals = [[name, *(str(own.count(verdict)) for verdict in verdicts)] for name, own in outcomes.items()]
    peers = f"pytorch_optimizer {facts['pytorch_optimizer']} with `SAM(use_gc=True)` where GC matters"
    if facts["davda54_sha256"]:
        peers += f"; davda54/sam, `sam.py` with SHA-256 {facts['davda54_sha256']}..."
    lines = [
        "# Known faults of sharpness-aware optimizers", "",
        "Each row is an experiment. **fail**: the documented use gives a wrong result. undocumented: wrong, or an "
        "error, in a use that the library does not describe. n/a: the library has no such part. Every library is used "
        "as it documents, with its own helper for BatchNorm in the second pass.", "",
        f"{peers}. torch {facts['torch']}; {facts['machine']}; {facts['date']}.", "",
        *table(["", *verdicts], totals, numbers=4), "",
        *table(["fault", "experiment", "right is", *names], cells), "",
        f"Made by `{facts['command']}`.", "",
    ]  # fmt: skip
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--davda54", type=Path, help="sam.py of davda54/sam, to be tried as well")
    parser.add_argument("--no-replicas", action="store_true", help="leave out what needs two processes")
    parser.add_argument("--output", type=Path, help="a .json file; a .md file is written beside it")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch on the order of scheduler and step, which two-step forms set off
        found = rows(options.davda54, replicas=not options.no_replicas)
    facts = {name: value for name, value in machine().items() if not name.startswith("load")}
    report = {
        "conditions": {
            "torch": torch.__version__, **versions(options.davda54), **facts,
            "command": "python benchmarks/faults.py" + (" --davda54 sam.py" if options.davda54 else ""),
        },
        "contenders": list(found[0]["outcomes"]),
        "rows": found,
    }  # fmt: skip
    write(report, markdown(report), options.output)


if __name__ == "__main__":
    main()
