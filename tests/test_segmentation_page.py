"""docs/segmentation.md says what the code does."""

from __future__ import annotations

import re

from medgcsam.config import load
from medgcsam.evaluation.segmentation import EMPTY_RULE
from medgcsam.run_folder import RunFolder


def test_its_configuration_loads(repository, tmp_path) -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", (repository / "docs" / "segmentation.md").read_text("utf-8"), re.DOTALL)
    (tmp_path / "my_lesions.yaml").write_text(block)
    config = load(tmp_path / "my_lesions.yaml")
    assert config.task == "segmentation"
    assert config.training.select == "dice"


def test_files_and_keys_are_those_of_the_project(repository, tmp_path) -> None:
    page = (repository / "docs" / "segmentation.md").read_text("utf-8")
    run = RunFolder(tmp_path)
    for path in (run.cases, run.components, run.plan, run.metrics):
        assert path.name in page
    reference = (repository / "docs" / "configuration.md").read_text("utf-8")
    for section, key in re.findall(r"`([a-z]+)\.([a-z_]+)(?::|`)", page):
        if section in {"data", "image", "patches", "inference", "evaluation"}:
            assert f"| `{key}` |" in reference, key


def test_the_rule_for_empty_cases_is_told_alike(repository) -> None:
    page = (repository / "docs" / "segmentation.md").read_text("utf-8").lower()
    for words in ("false positive", "dice_with_empty", "missed", "image diagonal", "left out of both dice means"):
        assert words in page
        assert words in EMPTY_RULE.lower()
