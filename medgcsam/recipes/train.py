"""Train, test, report: the whole job of one setting, seed and fold."""

from __future__ import annotations

from typing import Any

from medgcsam.config import Config
from medgcsam.journal import Journal
from medgcsam.places import shown
from medgcsam.recipes.summary import say_summary
from medgcsam.run_folder import RunFolder, read_json


def train_and_report(config: Config, *, restart: bool, smoke: bool, journal: Journal) -> dict[str, Any]:
    """Run the job, write its report, say the result; returns {"run", "report", "metrics"}."""
    from medgcsam.report import write_report
    from medgcsam.training import train

    path = train(config, restart=restart, smoke=smoke, journal=journal)
    run = RunFolder.existing(path)
    finished_before = run.report.is_file()
    if finished_before:
        journal.say(f"This run is finished: {shown(run.path)} (--restart begins anew).", log=False)
    else:
        write_report(run.path)
    say_summary(run, journal)
    if not finished_before:
        journal.say(f"\nCompare with SAM and Adam:  {compare_command(config)}")
    return {"run": str(run.path), "report": str(run.report), "metrics": read_json(run.metrics)}


def compare_command(config: Config) -> str:
    """The command that trains the other optimizers on the same split and seed, and compares them."""
    name = config.source if config.source is not None else "CONFIG.yaml"
    return f"medgcsam compare --config {getattr(name, 'name', name)}"
