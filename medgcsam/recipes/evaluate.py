"""A run's numbers again, from its predictions alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medgcsam.case_lines import check_split
from medgcsam.config import Config, load
from medgcsam.errors import ConfigError
from medgcsam.journal import Journal
from medgcsam.recipes.summary import say_summary
from medgcsam.run_folder import RunFolder, read_json, read_table, write_json
from medgcsam.scoring import Question, metrics_document
from medgcsam.scoring_segmentation import AGAIN, segmentation_document


def evaluate_again(path: Path, overrides: Sequence[str], *, journal: Journal) -> dict[str, Any]:
    """Compute metrics.json of a run anew and write its report; returns {"run", "metrics"}.

    The numbers come from predictions.csv, of a segmentation from cases.csv. Only they change: what the run knows
    beside them (cost, selection, duplicates) stays. config.yaml stays what was trained; a level of the intervals and
    facts of the report that it does not say are written into metrics.json, where the page looks for them first. They
    are those of the last call: without overrides, all is again as config.yaml says.

    Raises:
        ConfigError: another tolerance of NSD, which cases.csv was measured with.
        DataError: a table of the run is absent, damaged or not whole; nothing is written then.
    """
    from medgcsam.report import write_report

    run = RunFolder.existing(path)
    config = run_config(run, overrides, sections=("evaluation", "report"))
    before = read_json(run.metrics)
    baseline = {
        "baseline": read_table(run.baseline) if run.baseline.is_file() else None,
        "baseline_method": before.get("baseline", {}).get("method", ""),
    }
    if before["task"] == "segmentation":
        document = _segmentation_numbers(run, config, before, **baseline)
    else:
        document = _classification_numbers(run, config, before, **baseline)
    said = _beside_config(config, load(run.config, []))
    kept = {key: value for key, value in before.items() if key not in document and key not in ("confidence", "report")}
    write_json(run.metrics, document | kept | said)
    write_report(run.path)
    say_summary(run, journal)
    return {"run": str(run.path), "metrics": read_json(run.metrics)}


def _beside_config(config: Config, trained: Config) -> dict[str, Any]:
    """What a reader of metrics.json has to know of ``config`` that config.yaml does not say."""
    said: dict[str, Any] = {}
    if config.evaluation.confidence != trained.evaluation.confidence:
        said["confidence"] = config.evaluation.confidence
    before = trained.report.model_dump()
    report = {key: value for key, value in config.report.model_dump().items() if value != before[key]}
    return said | ({"report": report} if report else {})


def _classification_numbers(run: RunFolder, config: Config, before: dict[str, Any], **baseline: Any) -> dict[str, Any]:
    question = Question(before["task"], tuple(before["classes"]), before["positive"], before["patients"] == "known")
    point = before["operating_point"] if before["testing"] == "external" else None
    return metrics_document(read_table(run.predictions), question, config.evaluation, operating_point=point, **baseline)


def _segmentation_numbers(run: RunFolder, config: Config, before: dict[str, Any], **baseline: Any) -> dict[str, Any]:
    measured = load(run.config, []).evaluation.nsd_tolerance
    if config.evaluation.nsd_tolerance != measured:
        raise ConfigError(
            f"evaluation.nsd_tolerance: the surfaces of this run were measured with {measured} and cases.csv holds "
            "only what came of it; change the configuration and train anew with --restart."
        )
    cases = read_table(run.cases)
    document = segmentation_document(
        cases,
        config.evaluation,
        structures=before["structures"],
        patients_known=before["patients"] == "known",
        **baseline,
    )
    if run.split.is_file():
        check_split(cases, read_json(run.split), run.cases.name, again=AGAIN)
    return document


def run_config(run: RunFolder, overrides: Sequence[str], *, sections: Sequence[str]) -> Config:
    """The configuration of a run, with overrides in the named sections only.

    Raises:
        ConfigError: an override of another section, which would not be the trained network's any more.
    """
    for text in overrides:
        if text.split(".")[0].split("=")[0] not in sections:
            raise ConfigError(f"--set {text}: on a trained run only {' and '.join(sections)} can be changed.")
    return load(run.config, overrides)
