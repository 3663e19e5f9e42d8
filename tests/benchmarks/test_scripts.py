"""Every optimizer benchmark runs from one end to the other with its smallest settings, and writes what it says."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

SMALLEST = {
    "optimizer": [
        "--lists", "tiny", "--heaps", "untouched", "--network", "tiny", "--size", "16", "--batch", "8", "--rounds", "2",
        "--warmup", "0",
    ],
    "gpu": [
        "--device", "cpu", "--lists", "tiny", "--networks", "tiny", "--rounds", "1", "--warmup", "0", "--bases",
        "foreach", "--precisions", "fp32", "fp16",
    ],
    "faults": ["--no-replicas"],
}  # fmt: skip

Script = Callable[..., dict]


@pytest.fixture
def script(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> Iterator[Script]:
    """Runs a script's ``main`` and returns its report, after a look at the page beside it."""
    monkeypatch.syspath_prepend(str(repository / "benchmarks"))
    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()

    def run(name: str) -> dict:
        output = tmp_path / "results" / f"{name}.json"
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *SMALLEST[name], "--output", str(output)])
        importlib.import_module(name).main()
        page = output.with_suffix(".md").read_text("utf-8")
        assert page in capsys.readouterr().out
        assert f"Made by `python benchmarks/{name}.py" in page
        assert str(tmp_path) not in page
        return json.loads(output.read_text("utf-8"))

    yield run
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision(precision)


def test_optimizer(script: Script) -> None:
    found = script("optimizer")
    # Whatever the times are, the number of calls is known, and each figure is judged by its target.
    for calls in (measured["calls"] for measured in found["lists"].values()):
        assert calls["GCSAM"]["total"] - calls["GCSAM"]["without_centralization"] == 2 + 1  # means, subtraction
        assert calls["SAM"]["without_centralization"] == calls["SAM"]["total"]
    for figure in found["figures"]:
        assert figure["value"] > 0
        assert figure["met"] == (None if figure["target"] is None else figure["value"] <= figure["target"])
    steps = {name: times["median"] for name, times in found["steps"].items()}
    assert {"AdamW", "ascent not begun", "full", "start 0.6", "start 0.6, half batch"} <= set(steps)
    assert min(steps.values()) > 0
    assert found["expected"]["full"] in {figure["expected"] for figure in found["figures"]}


def test_gpu_on_the_cpu(script: Script) -> None:
    found = script("gpu")
    assert found["graphs"]["ascend + restore"] == {"perturbed_weights_bit_equal": True, "restored": True}
    assert found["graphs"]["whole step"]["weights_and_statistics_bit_equal"] is True
    assert found["graphs"]["whole step"]["eager_repeats"] is True
    assert all(count["recompilations"] == 0 for count in found["compiled"]["recompilations"].values())
    assert set(found["steps"]) == {"tiny, AdamW foreach, fp32", "tiny, AdamW foreach, fp16"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_gpu_without_one_says_so_and_ends_with_4(repository: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.syspath_prepend(str(repository / "benchmarks"))
    monkeypatch.setattr(sys, "argv", ["gpu.py"])
    with pytest.raises(SystemExit) as end:
        importlib.import_module("gpu").main()
    assert end.value.code == 4
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert "CUDA" in said.err


def test_ours_has_none_of_the_known_faults(script: Script) -> None:
    rows = script("faults")["rows"]
    ours = {row["title"]: row["outcomes"]["ours"] for row in rows}
    assert {title: outcome for title, outcome in ours.items() if outcome["verdict"] != "pass"} == {}
    assert {row["fault"] for row in rows} == set(range(1, 11)) - {7}


def test_the_experiments_can_fail(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An optimizer that has most of the faults is told from ours by most of the experiments."""
    monkeypatch.syspath_prepend(str(repository / "benchmarks"))
    contenders, outcome = importlib.import_module("fault_contenders"), importlib.import_module("fault_outcome")
    experiments = [*importlib.import_module("fault_experiments").NUMERIC, *importlib.import_module("fault_usage").USAGE]
    faulty = contenders._davda54(Faulty)
    verdicts = {e.title: outcome.attempt(e, faulty).verdict for e in experiments}
    passed = {title for title, verdict in verdicts.items() if verdict == "pass"}
    assert passed <= {
        "norm: float64 weights", "norm: gradient is zero", "BatchNorm: running mean after 3 steps",
        "state: learning rate set after load_state_dict", "sparse gradient", "closure as documented",
        "gradient accumulation, two-step form", "no gradient in the first pass", "way back: in place",
        "GradScaler: overflow in the first pass",
    }  # fmt: skip


class Faulty(torch.optim.Optimizer):
    """Moves by e and back by -e, with an epsilon in the norm and a base that nobody knows of."""

    def __init__(self, params, base, rho, **options) -> None:
        super().__init__(params, {"rho": rho, **options})
        self.hidden = base(self.param_groups, **options)
        self.moves = []

    @torch.no_grad()
    def first_step(self, zero_grad: bool = False) -> None:
        weights = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        norm = torch.stack([p.grad.float().norm() for p in weights]).norm() + 1e-12
        self.moves = [p.grad * (self.param_groups[0]["rho"] / norm).to(p) for p in weights]
        torch._foreach_add_(weights, self.moves)
        self.zero_grad()

    @torch.no_grad()
    def second_step(self, zero_grad: bool = False) -> None:
        weights = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        for weight, move in zip(weights, self.moves, strict=False):
            weight.sub_(move)
        self.hidden.step()
        self.zero_grad()
