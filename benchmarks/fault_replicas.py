"""Fault experiments under DistributedDataParallel: two processes on this machine, gloo, each with half of the data."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from fault_contenders import Contender, contenders
from fault_outcome import Outcome, apart, batch, closure_for, copies, judge, network
from torch import Tensor, nn

RHO = 0.5


def replica_outcomes(davda54: Path | None) -> dict[str, dict[str, Outcome]]:
    """Outcomes by title and contender, from one start of two processes."""
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(_replica, (folder, davda54), nprocs=2)
        return torch.load(Path(folder) / "outcomes", weights_only=False)


def _replica(rank: int, folder: str, davda54: Path | None) -> None:
    torch.set_num_threads(1)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    outcomes: dict[str, dict[str, Outcome]] = {title: {} for title in REPLICAS}
    for name, contender in contenders(davda54).items():
        for title, run in REPLICAS.items():
            outcomes[title][name] = run(contender, rank)
    if rank == 0:
        torch.save(outcomes, Path(folder) / "outcomes")
    dist.barrier()
    dist.destroy_process_group()


def _distance(tensors: list[Tensor]) -> float:
    """Largest difference of ``tensors`` between the two replicas."""
    other = [t.clone() for t in tensors]
    for t in other:
        dist.broadcast(t, 0)
    away = torch.tensor(apart(tensors, other))
    dist.all_reduce(away, dist.ReduceOp.MAX)
    return float(away)


def _train(contender: Contender, rank: int, step: Any, steps: int) -> tuple[float, float]:
    """Distances between the replicas of the perturbation at step 0, and of the weights at the end."""
    model = nn.parallel.DistributedDataParallel(network())
    optimizer = contender.make(model, rho=RHO, gc=False, lr=0.1)
    ascents: list[Tensor] = []
    for number in range(steps):
        closure = closure_for(model, optimizer, batch(2 * number + rank))
        step(optimizer, model, closure)
        if number == 0:
            (at_w, _), (at_e, _) = closure.calls
            ascents = [there - here for there, here in zip(at_e, at_w, strict=True)]
    return _distance(ascents), _distance(copies(model))


def _stay_equal(contender: Contender, rank: int) -> Outcome:
    _, weights = _train(contender, rank, contender.step, 20)
    return judge(weights == 0, f"replicas {weights:.1e} apart after 20 steps", weights)


def _local_ascent(contender: Contender, rank: int) -> Outcome:
    if contender.local_ascent is None:
        return Outcome("undocumented", "no documented way")
    ascents, weights = _train(contender, rank, contender.local_ascent, 5)
    text = f"ascents of the replicas {ascents:.2g} apart, weights {weights:.1e}"
    return judge(ascents > 0 and weights == 0, text, ascents)


REPLICAS = {
    "DistributedDataParallel: replicas after 20 steps": _stay_equal,
    "DistributedDataParallel: ascent per replica (m-sharpness)": _local_ascent,
}
RIGHT = {
    "DistributedDataParallel: replicas after 20 steps": "weights bit-equal",
    "DistributedDataParallel: ascent per replica (m-sharpness)": "ascents differ, weights do not",
}
