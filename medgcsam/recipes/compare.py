"""Is one optimizer better than another here, and at what price: train the whole grid, compare, say it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medgcsam.config import Config
from medgcsam.errors import PartialFailure
from medgcsam.journal import Journal
from medgcsam.recipes.comparison_table import say_comparison
from medgcsam.run_folder import RunFolder, ensure_writable, write_json, write_table


def compare_settings(
    config: Config, *, restart: bool, smoke: bool, journal: Journal
) -> tuple[dict[str, Any], PartialFailure | None]:
    """Run the study, write comparison.json and runs.csv into OUTPUT/NAME and each run's report, say the result.

    Returns:
        {"study", "comparison", "runs", "result"}: the folder, the two files, the content of comparison.json; and the
        error to end with where some runs failed.
    """
    from medgcsam.study import compare_runs, plan_runs, runs_table
    from medgcsam.study.execute import execute_runs
    from medgcsam.training.smoke import smoke_config

    runs = plan_runs(config, smoke=smoke)
    ensure_writable(Path(config.output.folder))
    outcome = execute_runs(runs, restart=restart, smoke=smoke, journal=journal)
    study = smoke_config(config) if smoke else config
    document = compare_runs(outcome.finished, study, failed=outcome.failed)
    folder = Path(study.output.folder) / study.name
    comparison, table = folder / "comparison.json", folder / "runs.csv"
    write_json(comparison, document)
    write_table(table, runs_table(document))
    for _, run in outcome.finished:
        _write_missing_report(run)
    say_comparison(document, journal)
    journal.say(f"\ncomparison     {comparison}\nruns           {table}")
    result = {"study": str(folder), "comparison": str(comparison), "runs": str(table), "result": document}
    return result, outcome.partial_failure()


def _write_missing_report(run: RunFolder) -> None:
    from medgcsam.report import write_report

    if not run.report.is_file():
        write_report(run.path)
