"""README's commands work as they stand, and its names are those of the project."""

from __future__ import annotations

import io
import re
import shlex
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from medgcsam.__main__ import main
from medgcsam.config import load


def blocks(repository: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (repository / "README.md").read_text("utf-8"), re.DOTALL)


def medgcsam_commands(repository: Path) -> list[list[str]]:
    lines = [line for block in blocks(repository, "sh") for line in block.splitlines()]
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("medgcsam ")]


def trial(command: list[str]) -> list[str]:
    """The command as a trial on few cases, which writes to a name of its own."""
    command = [part.replace("runs/chest_xray/", "runs/chest_xray-smoke/") for part in command]
    return [*command, "--smoke"] if command[0] in {"train", "compare"} else command


def test_the_commands_run_in_their_order(repository, tmp_path, monkeypatch) -> None:
    commands = medgcsam_commands(repository)
    assert {command[0] for command in commands} >= {
        "doctor",
        "check",
        "split",
        "train",
        "compare",
        "evaluate",
        "report",
    }
    monkeypatch.chdir(tmp_path)
    # `check` and `split` have no trial form: a small phantom of the same kind stands in for the whole one.
    description = yaml.safe_load((repository / "data_manifests" / "chest_xray_phantom.yaml").read_text("utf-8"))
    description["phantom"]["patients"] = 60
    (tmp_path / "data_manifests").mkdir()
    (tmp_path / "data_manifests" / "chest_xray_phantom.yaml").write_text(yaml.safe_dump(description))
    (tmp_path / "chest_xray.yaml").write_text((repository / "configs" / "chest_xray.yaml").read_text("utf-8"))
    (tmp_path / "new_images").mkdir()
    Image.linear_gradient("L").save(tmp_path / "new_images" / "one.png")
    for command in commands:
        out, err = io.StringIO(), io.StringIO()
        monkeypatch.setattr(sys, "argv", ["medgcsam", *trial(command)])
        with redirect_stdout(out), redirect_stderr(err):
            code = left_with(main)
        assert code == 0, (command, err.getvalue())
        assert out.getvalue().strip()


def left_with(function) -> int:
    try:
        function()
    except SystemExit as leaving:
        return leaving.code or 0
    return 0


def test_the_yaml_of_the_readme_is_a_configuration(repository, tmp_path) -> None:
    (block,) = blocks(repository, "yaml")
    (tmp_path / "my_study.yaml").write_text(block)
    config = load(tmp_path / "my_study.yaml")
    assert config.name == "my_study"
    assert config.optimizer.start == 0.6


def test_the_python_of_the_readme_takes_a_step(repository) -> None:
    (block,) = blocks(repository, "python")
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 2))
    names = {
        "torch": torch,
        "model": model,
        "criterion": torch.nn.CrossEntropyLoss(),
        "images": torch.randn(6, 4),
        "labels": torch.randint(0, 2, (6,)),
    }
    before = model[0].weight.detach().clone()
    exec(block, names)
    assert torch.isfinite(names["loss"])
    assert not torch.equal(model[0].weight, before)
    assert int(model[1].num_batches_tracked) == 1


def test_files_that_the_documents_name_are_there(repository) -> None:
    for document in [repository / "README.md", *(repository / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)\)", document.read_text("utf-8")):
            if "://" not in target:
                assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_make_knows_its_two_commands(repository) -> None:
    for target, expected in (("train", "medgcsam train --config chest_xray.yaml"), ("test", "pytest")):
        shown = subprocess.run(
            ["make", "-n", target], cwd=repository, capture_output=True, text=True, check=True
        ).stdout
        assert expected in shown


def test_every_direct_dependency_is_pinned(repository) -> None:
    import tomllib

    project = tomllib.loads((repository / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = [
        *project["dependencies"],
        *(name for extra in project["optional-dependencies"].values() for name in extra),
    ]
    names = {re.split(r"[<>=\[ ]", name)[0].lower() for name in wanted}
    lines = (repository / "constraints.txt").read_text("utf-8").splitlines()
    pinned = {line.split("==")[0].lower() for line in lines if "==" in line}
    assert names == pinned
    assert not names & {"torchvision", "timm", "ray", "pylibjpeg-libjpeg"}
    assert not any(wish.startswith("lightning") for wish in project["dependencies"])


def test_the_dockerfile_is_clean_under_hadolint(repository) -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    if not hadolint.is_file():
        pytest.skip("hadolint is not installed (extra: test)")
    result = subprocess.run([hadolint, "--no-color", "Dockerfile"], cwd=repository, capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (0, "")


def test_the_dockerfile_runs_as_a_user_with_an_exec_form_entry_point(repository) -> None:
    lines = (repository / "Dockerfile").read_text("utf-8").splitlines()
    assert 'ENTRYPOINT ["medgcsam"]' in lines
    assert any(re.fullmatch(r"USER [1-9]\d*:\d+", line) for line in lines)
