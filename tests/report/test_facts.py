"""A run folder is read as it is: absent files stay absent, damaged ones are one plain sentence, folders of paths go."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from medgcsam.errors import DataError
from medgcsam.report.facts import AUTHOR_FACTS, load_facts, without_folders
from medgcsam.run_folder import RunFolder, read_json, write_json, write_text


def copy(run: Path, target: Path) -> RunFolder:
    return RunFolder(Path(shutil.copytree(run, target)))


def test_a_folder_without_numbers_is_an_error_that_says_what_to_do(tmp_path: Path):
    with pytest.raises(DataError, match=r"metrics\.json.*missing; repeat the command .*`medgcsam train` or"):
        load_facts(tmp_path)
    with pytest.raises(DataError, match=r"metrics\.json.*missing; repeat `medgcsam evaluate RUN --manifest"):
        load_facts(tmp_path / "external" / "elsewhere")


@pytest.mark.parametrize("name", ["config.yaml", "history.jsonl", "split.json", "metrics.json"])
def test_a_damaged_file_is_named(binary_run: Path, tmp_path: Path, name: str):
    run = copy(binary_run, tmp_path / "run")
    (run.path / name).write_text("{[", "utf-8")
    with pytest.raises(DataError, match=name):
        load_facts(run.path)


def test_only_metrics_json_is_needed(binary_run: Path, tmp_path: Path):
    run = RunFolder(tmp_path / "run")
    write_json(run.metrics, read_json(RunFolder(binary_run).metrics))
    facts = load_facts(run.path)
    assert facts.predictions is None
    assert facts.split is None
    assert facts.history == []
    assert facts.config == {}
    assert facts.author == dict.fromkeys(AUTHOR_FACTS)


def test_an_external_test_takes_what_it_lacks_from_its_run(binary_run: Path, tmp_path: Path):
    run = copy(binary_run, tmp_path / "run")
    other = run.external("elsewhere")
    write_json(other.metrics, {**read_json(run.metrics), "testing": "external"})
    write_json(other.provenance, {"manifest_sha256": "another"})
    facts = load_facts(other.path)
    assert facts.external == "elsewhere"
    assert facts.split == read_json(run.split)
    assert facts.provenance == {"manifest_sha256": "another"}
    assert facts.config["name"] == "trial"
    assert load_facts(run.path).external is None


@pytest.mark.parametrize("value", ["/srv/a b/manifest.csv", r"C:\Users\Jane\manifest.csv", "../up/manifest.csv"])
def test_paths_lose_their_folders_and_nothing_else_changes(value: str):
    config = {"name": "n/m", "data": {"manifest": value, "root": None}, "network": {"weights": "plain.pt"}}
    shown = without_folders(config)
    assert shown["data"]["manifest"] == "…/manifest.csv"
    assert shown["name"] == "n/m"
    assert shown["network"] == {"weights": "plain.pt"}
    assert config["data"]["manifest"] == value


def test_a_blank_author_fact_counts_as_not_provided(binary_run: Path, tmp_path: Path):
    run = copy(binary_run, tmp_path / "run")
    write_text(run.config, "name: n\nreport: {funding: '  ', contact: The ward}\n")
    author = load_facts(run.path).author
    assert author["funding"] is None
    assert author["contact"] == "The ward"
