"""docs/optimizer.md runs, its costs are those counted, and the tests that it names exist."""

from __future__ import annotations

import ast
import functools
import inspect
import re

import pytest
import torch
from torch import nn

from medgcsam.optim import GCSAM


@pytest.fixture(scope="module")
def page(repository) -> str:
    return (repository / "docs" / "optimizer.md").read_text("utf-8")


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.ConvTranspose2d(4, 2, 2), nn.Flatten(), nn.Linear(98, 3)
    )


def batches() -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Images (8, 1, 8, 8) and labels (8,)."""
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randn(8, 1, 8, 8, generator=generator), torch.randint(0, 3, (8,), generator=generator)) for _ in range(3)
    ]


@pytest.fixture
def one_process(tmp_path):
    """A process group of one, for the block on DistributedDataParallel."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def test_every_block_of_the_page_runs(page, tmp_path, monkeypatch, one_process, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    # The eager backend: whether a C++ compiler is installed is not what is tested here.
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) >= 10
    loader = batches()
    images, labels = loader[0]
    names = {"model": network(), "criterion": nn.CrossEntropyLoss(), "loader": loader, "images": images,
             "labels": labels, "device": "cpu"}  # fmt: skip
    for block in blocks:
        before = [weight.detach().clone() for weight in names["model"].parameters()]
        exec(compile(block, "docs/optimizer.md", "exec"), names)
        if re.search(r"^\s*(loss = )?\w+\.(step\(|descend)", block, re.MULTILINE) and "cuda" not in block:
            moved = [not torch.equal(a, b) for a, b in zip(before, names["model"].parameters(), strict=True)]
            assert any(moved), f"this block trains nothing:\n{block}"
    assert torch.isfinite(names["loss"])
    assert names["optimizer"].last_radius > 0
    # Three plain steps, of which the last ascends on a quarter of the batch.
    assert names["cheap"].gradient_evaluations == 3.25
    assert names["rise"] > 0
    steps, ascents, skipped, evaluations = capsys.readouterr().out.splitlines()[0].split()
    assert (steps, ascents, skipped, evaluations) == ("3", "3", "0", "6")


def rows_of_the_levers(page: str) -> list[tuple[dict, float]]:
    table = page.split("| lever |")[1].split("\n\n")[0]
    rows = re.findall(r"^\| (?:none|`(\w+=[^`]+)`)[^|]*\| ([\d.]+) \|", table, re.MULTILINE)
    combined = re.search(r"`(start=[^`]+)` costs ([\d.]+)", page).groups()
    calls = [(ast.parse(f"f({options})", mode="eval").body.keywords, cost) for options, cost in [*rows, combined]]
    return [({word.arg: ast.literal_eval(word.value) for word in words}, float(cost)) for words, cost in calls]


def test_levers_cost_what_the_page_says(page) -> None:
    found = rows_of_the_levers(page)
    named = {name for levers, _ in found for name in levers}
    assert named == {"start", "every", "ascent_fraction", "ascent_precision", "ascent"}
    for levers, cost in found:
        model, (images, labels), passes = network(), batches()[0], []
        optimizer = GCSAM(model.parameters(), torch.optim.AdamW, lr=1e-3, **levers)

        def run(x, y, optimizer=optimizer, model=model, passes=passes):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            passes.append(len(x) / 8)
            return loss

        count = 10 if "start" in levers else 8
        for _ in range(count):
            part = optimizer.ascent_part((images, labels))
            optimizer.step(lambda: run(images, labels), ascent_closure=lambda part=part: run(*part))  # noqa: B023
        assert sum(passes) / count == pytest.approx(cost), levers
        assert optimizer.gradient_evaluations == pytest.approx(sum(passes)), levers


def test_every_test_that_the_page_names_is_there(page, repository) -> None:
    table = page.split("| | fault |")[1].split("\n\n")[0]
    rows = re.findall(r"^\| (\d+) \|(.*)$", table, re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, 11))
    for number, row in rows:
        named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", row)
        assert named, f"fault {number} names no test"
        for file, name in named:
            tree = ast.parse((repository / "tests" / "optim" / file).read_text("utf-8"))
            defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
            assert name in defined, f"fault {number}: {file}::{name}"


def test_every_option_is_on_the_page(page) -> None:
    options = set(inspect.signature(GCSAM.__init__).parameters) - {"self", "params", "base_options"}
    assert not {name for name in options if not re.search(rf"\b{name}\b", page)}
