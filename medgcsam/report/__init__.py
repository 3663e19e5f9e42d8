"""Reports: the numbers of a run become a page for clinicians. Reads files only; needs neither torch nor a network."""

from __future__ import annotations

from pathlib import Path

from medgcsam.report.facts import load_facts
from medgcsam.report.html import render_page
from medgcsam.report.sections import classification_sections, page_view
from medgcsam.report.segmentation import segmentation_sections
from medgcsam.run_folder import RunFolder, write_text

__all__ = ["write_report"]


def write_report(run_folder: Path) -> Path:
    """Write ``report.html`` of a run (or of an external test, ``RUN/external/NAME``) beside its metrics.json.

    Args:
        run_folder: folder with metrics.json; predictions.csv (of a segmentation cases.csv), history.jsonl, split.json
            and the others are used where they are there, and their absence is said in the page.

    Returns:
        The path of the page: one file, which asks nothing of any network; the same run gives the same bytes.

    Raises:
        DataError: there is no metrics.json, or a file of the run is damaged.
        MachineError: the page cannot be written.
    """
    facts = load_facts(run_folder)
    path = RunFolder(Path(run_folder)).report
    sections = segmentation_sections if facts.metrics["task"] == "segmentation" else classification_sections
    write_text(path, render_page(page_view(facts), sections(facts)))
    return path
