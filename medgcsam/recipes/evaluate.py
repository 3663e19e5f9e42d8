"""A run's numbers again, from its predictions alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medgcsam.config import Config, load
from medgcsam.errors import ConfigError
from medgcsam.journal import Journal
from medgcsam.recipes.summary import say_summary
from medgcsam.run_folder import RunFolder, read_json, read_table, write_json
from medgcsam.scoring import Question, metrics_document


def evaluate_again(path: Path, overrides: Sequence[str], *, journal: Journal) -> dict[str, Any]:
    """Compute metrics.json of a run anew from predictions.csv and write its report; returns {"run", "metrics"}.

    Only numbers change: what the run knows beside its predictions (cost, selection, duplicates) stays.
    """
    from medgcsam.report import write_report

    run = RunFolder.existing(path)
    config = run_config(run, overrides, sections=("evaluation", "report"))
    before = read_json(run.metrics)
    question = Question(before["task"], tuple(before["classes"]), before["positive"], before["patients"] == "known")
    document = metrics_document(
        read_table(run.predictions),
        question,
        config.evaluation,
        baseline=read_table(run.baseline) if run.baseline.is_file() else None,
        baseline_method=before.get("baseline", {}).get("method", ""),
        operating_point=before["operating_point"] if before["testing"] == "external" else None,
    )
    kept = {key: value for key, value in before.items() if key not in document}
    write_json(run.metrics, document | kept)
    write_report(run.path)
    say_summary(run, journal)
    return {"run": str(run.path), "metrics": read_json(run.metrics)}


def run_config(run: RunFolder, overrides: Sequence[str], *, sections: Sequence[str]) -> Config:
    """The configuration of a run, with overrides in the named sections only.

    Raises:
        ConfigError: an override of another section, which would not be the trained network's any more.
    """
    for text in overrides:
        if text.split(".")[0].split("=")[0] not in sections:
            raise ConfigError(f"--set {text}: on a trained run only {' and '.join(sections)} can be changed.")
    return load(run.config, overrides)
