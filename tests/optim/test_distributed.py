"""Two real processes over gloo: replicas stay equal, and what each mode of the ascent means."""

from __future__ import annotations

import socket
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from medgcsam.optim import GCSAM, frozen_statistics
from medgcsam.optim.replicas import no_sync, share_overflow

STEPS = 50
pytestmark = pytest.mark.skipif(not dist.is_available(), reason="this torch has no torch.distributed")


def network(norm: str) -> nn.Sequential:
    torch.manual_seed(0)
    layer = nn.BatchNorm2d(4) if norm == "batch" else nn.GroupNorm(2, 4)
    return nn.Sequential(nn.Conv2d(1, 4, 3), layer, nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)).double()


def joined_batch(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(step)
    images = torch.randn(8, 1, 6, 6, generator=generator, dtype=torch.float64)
    return images, torch.randint(0, 3, (8,), generator=generator)


def train(model: nn.Module, rank: int | None, task: dict) -> tuple[GCSAM, list[torch.Tensor]]:
    """Train on this replica's half of each joined batch, or on all of it for rank None."""
    half = slice(None) if rank is None else slice(4 * rank, 4 * rank + 4)
    optimizer = GCSAM(model.parameters(), torch.optim.AdamW, lr=0.01, **task["options"])
    scaler = torch.amp.GradScaler("cpu", init_scale=256.0, enabled=task["scaled"])
    radii = []
    for step in range(STEPS):
        images, targets = (whole[half] for whole in joined_batch(step))
        passes: list[int] = []

        def one_pass(step=step, images=images, targets=targets, passes=passes):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(images), targets)
            scaler.scale(loss).backward()
            passes.append(1)
            if (step, rank, len(passes)) == task["overflow"]:
                next(model.parameters()).grad[0] = torch.inf
            return loss

        if task["form"] == "closure":
            optimizer.step(one_pass, model=model, scaler=scaler)
        else:
            with nullcontext() if optimizer.synchronize_ascent else no_sync(model):
                one_pass()
            if optimizer.ascend(model=model):
                with frozen_statistics(model):
                    one_pass()
            optimizer.descend(scaler=scaler)
        scaler.update()
        radii.append(optimizer.last_radius)
    return optimizer, radii


def replica(rank: int, port: int, tasks: dict[str, dict], folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2, timeout=timedelta(seconds=60)
    )
    try:
        for name, task in tasks.items():
            model = DistributedDataParallel(network(task["norm"]))
            model = torch.compile(model, backend="eager") if task["compiled"] else model
            optimizer, radii = train(model, rank, task)
            state = optimizer.state_dict()
            torch.save(
                {
                    "weights": [p.detach() for p in model.parameters()],
                    "state": state,
                    "radii": radii,
                    "skipped": optimizer.skipped,
                },
                Path(folder, f"{name}-{rank}.pt"),
            )
    finally:
        dist.destroy_process_group()


def task(*, norm="group", form="closure", scaled=False, overflow=None, compiled=False, **options) -> dict:
    own = {"norm": norm, "form": form, "scaled": scaled, "overflow": overflow, "compiled": compiled}
    return own | {"options": options}


TASKS = {
    "local": task(),
    "local-batchnorm": task(norm="batch", centralize="both", every=2),
    "local-two-steps": task(form="two steps"),
    "local-overflow": task(scaled=True, overflow=(20, 1, 1)),
    "local-overflow-two-steps": task(form="two steps", scaled=True, overflow=(20, 1, 1)),
    "local-nonfinite": task(skip_nonfinite=True, overflow=(20, 0, 1)),
    "local-nonfinite-compiled": task(skip_nonfinite=True, overflow=(20, 0, 1), compiled=True),
    "synchronized": task(synchronize_ascent=True),
    "synchronized-two-steps": task(form="two steps", synchronize_ascent=True),
    "synchronized-options": task(synchronize_ascent=True, adaptive=True, max_norm=0.5, start=10),
    "momentum": task(ascent="momentum"),
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> dict[str, list[dict]]:
    """What each of the two replicas was left with, by task; all tasks run in one pair of processes."""
    folder = tmp_path_factory.mktemp("replicas")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(replica, args=(port, TASKS, str(folder)), nprocs=2)
    return {name: [torch.load(folder / f"{name}-{rank}.pt") for rank in range(2)] for name in TASKS}


def moments(state: dict) -> list[torch.Tensor]:
    return [value for entry in state["state"].values() for value in entry.values()]


@pytest.mark.parametrize("name", TASKS)
def test_replicas_are_bit_equal_after_many_steps(trained, name):
    first, second = trained[name]
    moved = network(TASKS[name]["norm"]).parameters()
    assert not any(torch.equal(w, start) for w, start in zip(first["weights"], moved, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(first["weights"], second["weights"], strict=True))
    assert all(torch.equal(a, b) for a, b in zip(moments(first["state"]), moments(second["state"]), strict=True))


@pytest.mark.parametrize("name", ["synchronized", "synchronized-two-steps", "synchronized-options", "momentum"])
def test_synchronized_ascent_equals_one_process_on_the_joined_batch(trained, name):
    model = network("group")
    optimizer, radii = train(model, None, TASKS[name])
    assert optimizer.ascents > 0
    for ours, theirs in zip(trained[name][0]["weights"], model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs.detach(), rtol=0, atol=1e-9)
    torch.testing.assert_close(torch.stack(trained[name][0]["radii"]), torch.stack(radii), equal_nan=True)


def test_local_ascent_is_each_replicas_own(trained):
    """m-sharpness: the mean of the gradients at w + e_r, e_r from replica r alone; another path than the joined one."""
    model = network("group")
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    weights = list(model.parameters())
    for step in range(STEPS):
        images, targets = joined_batch(step)
        total = [torch.zeros_like(w) for w in weights]
        for half in (slice(0, 4), slice(4, 8)):

            def gradients(half=half, images=images, targets=targets):
                return torch.autograd.grad(nn.functional.cross_entropy(model(images[half]), targets[half]), weights)

            d = [g - g.mean(dim=tuple(range(1, g.dim())), keepdim=True) if g.dim() > 1 else g for g in gradients()]
            size = torch.sqrt(sum(x.square().sum() for x in d))
            saved = [w.detach().clone() for w in weights]
            with torch.no_grad():
                for w, x in zip(weights, d, strict=True):
                    w.add_(x * (0.05 / size))
            for t, g in zip(total, gradients(), strict=True):
                t.add_(g / 2)
            with torch.no_grad():
                for w, s in zip(weights, saved, strict=True):
                    w.copy_(s)
        for w, t in zip(weights, total, strict=True):
            w.grad = t
        optimizer.step()
    for ours, theirs in zip(trained["local"][0]["weights"], weights, strict=True):
        torch.testing.assert_close(ours, theirs.detach(), rtol=0, atol=1e-9)
    synchronized = trained["synchronized"][0]["weights"]
    assert not any(
        torch.allclose(a, b, atol=1e-6) for a, b in zip(trained["local"][0]["weights"], synchronized, strict=True)
    )


def test_both_forms_give_the_same_weights(trained):
    for mode in ("local", "synchronized"):
        one, other = trained[mode][0]["weights"], trained[f"{mode}-two-steps"][0]["weights"]
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("name", [name for name in TASKS if TASKS[name]["overflow"]])
def test_an_overflow_of_one_replicas_ascent_is_skipped_by_both(trained, name):
    assert [found["skipped"] for found in trained[name]] == [1, 1]
    steps = {float(entry["step"]) for found in trained[name] for entry in found["state"]["state"].values()}
    assert steps == {STEPS - 1}


def test_models_that_are_not_replicated_are_left_alone():
    norm = torch.tensor(3.0)
    assert share_overflow(norm, nn.Linear(1, 1)) is norm
    assert share_overflow(norm, None) is norm
    with no_sync(nn.Linear(1, 1)), no_sync(None):
        pass


def test_a_static_graph_wants_a_synchronised_ascent():
    class Static(nn.Linear):
        static_graph = True

    with pytest.raises(RuntimeError, match="synchronize_ascent=True"):
        no_sync(Static(1, 1))
