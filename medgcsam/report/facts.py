"""What a run folder says, read once into plain data for a report; nothing is computed or invented here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import pandas as pd
import yaml

from medgcsam.errors import DataError
from medgcsam.run_folder import RunFolder, read_json, read_json_lines, read_table

# Author facts of the config's report section, in the order in which a reader asks for them.
AUTHOR_FACTS = {
    "intended_use": "Intended use",
    "not_for": "Not for",
    "reference_standard": "Reference standard",
    "annotators": "Annotators",
    "ethics_approval": "Ethics approval",
    "funding": "Funding",
    "contact": "Contact",
}
# A path tells the reader nothing and may hold a name: of these keys only the last part is shown.
_PATH_KEYS = {("data", "manifest"), ("data", "root"), ("split", "file"), ("network", "weights"), ("output", "folder")}


@dataclass(frozen=True)
class Facts:
    """One tested network: the run's own test, or its test on another site's data."""

    metrics: dict[str, Any]
    """metrics.json."""
    predictions: pd.DataFrame | None
    """predictions.csv; None where it is absent, and then there are no curves."""
    split: dict[str, Any] | None
    """split.json of the training run."""
    history: list[dict[str, Any]]
    """history.jsonl of the training run, one record per epoch; empty where absent."""
    provenance: dict[str, Any]
    """provenance.json; empty where absent. Of an external test: its own where it has one, else the run's."""
    config: dict[str, Any]
    """The resolved configuration, its paths cut to their last part, with what ``evaluate`` was since told to report;
    empty where absent."""
    external: str | None
    """Name of the external test, None for the run's own."""
    cases: pd.DataFrame | None = None
    """cases.csv of a segmentation; None where it is absent, and then there are no figures of cases."""
    plan: dict[str, Any] | None = None
    """plan.json of a segmentation."""
    components: dict[str, Any] | None = None
    """components.json of a segmentation; where it is absent, what metrics.json says of it."""
    masks: bool = False
    """Whether the folder of predicted masks holds any file."""

    @property
    def author(self) -> dict[str, str | None]:
        """The author's facts by the keys of ``AUTHOR_FACTS``; None where nobody gave one."""
        given = self.config.get("report") or {}
        return {key: str(given[key]).strip() or None if given.get(key) else None for key in AUTHOR_FACTS}

    @property
    def title(self) -> str:
        """Title of the report: the author's, else the data set's, else the name of the configuration."""
        author = (self.config.get("report") or {}).get("title")
        return str(author or self.metrics.get("title") or self.config.get("name") or "Untitled run")

    @property
    def synthetic(self) -> bool:
        """Whether any file of the run calls the images synthetic."""
        return bool(self.metrics.get("synthetic") or (self.provenance.get("data") or {}).get("synthetic"))

    @property
    def confidence(self) -> float:
        """Level of the intervals, as evaluated."""
        return float(self.metrics.get("confidence") or (self.config.get("evaluation") or {}).get("confidence") or 0.95)


def load_facts(folder: Path) -> Facts:
    """Read the files of ``RUN`` or of ``RUN/external/NAME``.

    Raises:
        DataError: there is no metrics.json, or a file is damaged.
    """
    folder = Path(folder).resolve()
    here = RunFolder(folder)
    metrics = read_json(here.metrics)
    is_external = folder.parent.name == "external" and not here.split.is_file()
    run = RunFolder(folder.parent.parent) if is_external else here
    provenance = here.provenance if here.provenance.is_file() else run.provenance
    config_file = here.config if here.config.is_file() else run.config
    config = without_folders(_read_yaml(config_file)) if config_file.is_file() else {}
    if metrics.get("report"):
        config["report"] = {**(config.get("report") or {}), **metrics["report"]}
    return Facts(
        metrics=metrics,
        predictions=read_table(here.predictions) if here.predictions.is_file() else None,
        split=read_json(run.split) if run.split.is_file() else None,
        history=read_json_lines(run.history),
        provenance=read_json(provenance) if provenance.is_file() else {},
        config=config,
        external=folder.name if is_external else None,
        cases=read_table(here.cases) if here.cases.is_file() else None,
        plan=read_json(run.plan) if run.plan.is_file() else None,
        components=read_json(run.components) if run.components.is_file() else metrics.get("components"),
        masks=here.masks.is_dir() and any(here.masks.iterdir()),
    )


def without_folders(config: dict[str, Any]) -> dict[str, Any]:
    """A copy of a resolved configuration in which paths are cut to their last part, marked by an ellipsis."""
    shown = {key: dict(value) if isinstance(value, dict) else value for key, value in config.items()}
    for section, key in _PATH_KEYS:
        value = (shown.get(section) or {}).get(key)
        if isinstance(value, str) and ("/" in value or "\\" in value):
            name = (PureWindowsPath(value) if "\\" in value else PurePosixPath(value)).name
            shown[section][key] = f"…/{name}"
    return shown


def config_yaml(config: dict[str, Any]) -> str:
    """The configuration as YAML in its own order."""
    return yaml.safe_dump(config, sort_keys=False, allow_unicode=True, default_flow_style=None, width=96)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise DataError(f"{path}: this file of the run is damaged ({error}); restore it or run again.") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: this file of the run holds no configuration; restore it or run again.")
    return content
