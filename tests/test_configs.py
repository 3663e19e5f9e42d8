"""Every shipped configuration runs from files to a report, and reads as it is documented."""

from __future__ import annotations

from pathlib import Path

import pytest

from medgcsam.config import load, shipped_names
from medgcsam.journal import Journal
from medgcsam.recipes.train import train_and_report
from medgcsam.run_folder import RunFolder, read_json

SYNTHETIC = {"chest_xray", "tumour_phantom"}
# Described for whoever has them; the images are not among those that the tests are given.
NOT_AT_HAND = {"nih_chest_xray14"}
REAL = {Path(name).stem for name in shipped_names("configs")} - SYNTHETIC - NOT_AT_HAND


def smoke(name: str, folder: Path) -> tuple[RunFolder, dict]:
    overrides = [f"output.folder={folder / 'runs'}", "training.device=cpu", "pipeline.workers=0"]
    config = load(f"{name}.yaml", overrides)
    result = train_and_report(config, restart=False, smoke=True, journal=Journal(quiet=True))
    return RunFolder(Path(result["run"])), result["metrics"]


def test_the_names_are_known() -> None:
    assert {"nih_chest_xray", "breast_ultrasound", "breastmnist", "pneumoniamnist"} <= REAL


@pytest.mark.parametrize("name", sorted(SYNTHETIC))
def test_synthetic_data_say_so_everywhere(name, tmp_path) -> None:
    run, metrics = smoke(name, tmp_path)
    assert metrics["synthetic"] is True
    counts = read_json(run.split)["counts"].values()
    assert sum(count["patients"] for count in counts) <= 60, "a trial draws a small cohort, not the whole one"
    for path in (run.log, run.report):
        assert "SYNTHETIC DATA" in path.read_text()


@pytest.mark.parametrize("name", sorted(REAL))
def test_real_sets(name, tmp_path, shared_data) -> None:
    run, metrics = smoke(name, tmp_path)
    assert metrics["synthetic"] is False
    headline = "dice" if metrics["task"] == "segmentation" else "auroc"
    assert metrics["partitions"]["test"][headline]["n_images"] > 0
    unknown = metrics["patients"] == "unknown"
    assert unknown == (name in {"breast_ultrasound", "breast_ultrasound_lesions", "breastmnist", "pneumoniamnist"})
    assert ("patients are unknown" in run.report.read_text().lower()) == unknown


def test_official_partitions_lose_only_duplicates(tmp_path, shared_data) -> None:
    """Counts of the MedMNIST partitions as published, less the training images that are in a later partition too."""
    from medgcsam.pipeline.cases import prepare_cases

    published = {"breastmnist": (546, 78, 156), "pneumoniamnist": (4708, 524, 624)}
    for name, (train, validation, test) in published.items():
        config = load(f"{name}.yaml", [f"output.folder={tmp_path / 'runs'}", "pipeline.workers=0"])
        cases = prepare_cases(config, output=tmp_path / "runs", cache=tmp_path / "cache", journal=Journal(quiet=True))
        document = images_per_partition(cases.split.document)
        assert document["test"] == test
        dropped = cases.split.document["leakage"]["dropped_from_train"]
        assert dropped > 0
        assert document["train"] + document["validation"] + dropped == train + validation


def images_per_partition(document: dict) -> dict[str, int]:
    return {name: count["images"] for name, count in document["counts"].items()}


def test_a_bare_name_is_found_and_nothing_is_written_beside_it(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Path(load("chest_xray").output.folder) == tmp_path / "runs"


def test_json_files_are_json(tmp_path, shared_data) -> None:
    run, _ = smoke("breastmnist", tmp_path)
    assert read_json(run.split)["patients"] == "unknown"
    assert read_json(run.provenance)["data"]["title"]
