"""One small experiment for each fault of published SAM implementations, for any contender."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from typing import Any

import torch
from fault_contenders import Contender
from fault_outcome import Experiment, Outcome, apart, batch, closure_for, copies, judge, network
from torch import Tensor, nn

RHO = 0.05


def _radius_error(contender: Contender, dtype: torch.dtype, size: float) -> float:
    """Relative error of |e| for a gradient of length ``size``, on weights of zero, so that nothing rounds it away."""
    model = nn.Linear(3, 5, bias=False).to(dtype)
    nn.init.zeros_(model.weight)
    optimizer = contender.make(model, rho=RHO, gc=False, lr=0.1)
    generator = torch.Generator().manual_seed(0)
    gradient = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    model.weight.grad = (gradient * (size / gradient.norm())).to(dtype)
    contender.first(optimizer)
    return abs(float(model.weight.detach().double().norm()) / RHO - 1)


def tiny_gradient(contender: Contender) -> Outcome:
    error = _radius_error(contender, torch.float32, 1e-12)
    return judge(error < 1e-5, f"radius off by {100 * error:.3g}%", error)


def double_precision(contender: Contender) -> Outcome:
    error = _radius_error(contender, torch.float64, 1.0)
    return judge(error < 1e-10, f"radius off by {error:.1e}", error)


def zero_gradient(contender: Contender) -> Outcome:
    model = network()
    optimizer = contender.make(model, lr=0.1)
    before = copies(model)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    contender.first(optimizer)
    moved = apart(copies(model), before)
    return judge(moved == 0, f"weights moved by {moved:g}", moved)


def infinite_gradient(contender: Contender) -> Outcome:
    model = network()
    optimizer = contender.make(model, lr=0.1)
    inner, calls = closure_for(model, optimizer), []

    def closure() -> Tensor:
        loss = inner()
        calls.append(loss)
        if len(calls) == 1:
            model[4].weight.grad[0, 0] = torch.inf
        return loss

    contender.step(optimizer, model, closure)
    broken = sum(int((~torch.isfinite(p)).sum()) for p in model.parameters())
    return judge(broken == 0, f"{broken} weights not finite after the step", broken)


def drift(contender: Contender) -> Outcome:
    model = network()
    optimizer = contender.make(model, rho=0.5, lr=0.0)
    closure, before = closure_for(model, optimizer), copies(model)
    for _ in range(100):
        contender.step(optimizer, model, closure)
    moved = apart(copies(model), before)
    return judge(moved == 0, f"weights off by {moved:.1e} after 100 steps", moved)


def same_memory(contender: Contender) -> Outcome:
    model = network()
    optimizer = contender.make(model, lr=0.1)
    views = [parameter.detach() for parameter in model.parameters()]
    contender.step(optimizer, model, closure_for(model, optimizer))
    stale = sum(not torch.equal(v, p) for v, p in zip(views, model.parameters(), strict=True))
    return judge(stale == 0, f"{stale} of {len(views)} parameters moved to other memory", stale)


def failing_pass(contender: Contender) -> Outcome:
    model = network()
    optimizer = contender.make(model, rho=0.5, lr=0.1)
    inner, before = closure_for(model, optimizer), copies(model)

    def closure() -> Tensor:
        if len(inner.calls) == 1:
            raise MemoryError
        return inner()

    try:
        contender.step(optimizer, model, closure)
    except MemoryError:
        off = math.sqrt(sum(float((a - b).square().sum()) for a, b in zip(copies(model), before, strict=True)))
        return judge(off == 0, f"weights left {off:.2g} away", off)
    raise AssertionError("the second pass was not taken")


def _gradient_missing(contender: Contender, missing_in: int) -> float:
    """Distance of a weight that has no gradient in one pass of a step from where it belongs after that step."""
    torch.manual_seed(0)
    model = nn.ParameterList([nn.Parameter(torch.randn(3, 4)), nn.Parameter(torch.randn(3, 4))])
    optimizer = contender.make(model, rho=0.5, gc=False, lr=0.1)
    before, calls = model[1].detach().clone(), []

    def closure() -> Tensor:
        optimizer.zero_grad()
        calls.append(1)
        loss = model[0].square().sum()
        if len(calls) != missing_in:
            loss = loss + model[1].square().sum()
        loss.backward()
        return loss

    contender.step(optimizer, model, closure)
    # None in the second pass: no step. None in the first: no ascent, and a plain step, 0.1 * 2w.
    right = before if missing_in == 2 else 0.8 * before
    return apart([model[1].detach()], [right])


def missing_in_second(contender: Contender) -> Outcome:
    off = _gradient_missing(contender, 2)
    return judge(off < 1e-6, f"off by {off:.2g}", off)


def missing_in_first(contender: Contender) -> Outcome:
    off = _gradient_missing(contender, 1)
    return judge(off < 1e-6, f"off by {off:.2g}", off)


def _statistics(contender: Contender, momentum: float | None) -> float:
    """Distance of the running mean after three steps from that of a network with one pass per step."""
    model, plain = network(), network()
    model[1].momentum = plain[1].momentum = momentum
    optimizer = contender.make(model, rho=0.5, lr=0.0)
    for seed in range(3):
        data = batch(seed)
        contender.step(optimizer, model, closure_for(model, optimizer, data))
        plain(data[0])
    return apart([model[1].running_mean], [plain[1].running_mean])


def running_mean(contender: Contender) -> Outcome:
    off = _statistics(contender, 0.1)
    return judge(off < 1e-6, f"running mean off by {off:.1e}", off)


def cumulative_mean(contender: Contender) -> Outcome:
    off = _statistics(contender, None)
    return judge(off < 1e-6, f"running mean off by {off:.1e}", off)


def poisoned_statistics(contender: Contender) -> Outcome:
    model = network()
    optimizer = contender.make(model, lr=0.0)
    good, bad = batch(), (torch.full((8, 1, 6, 6), torch.nan), batch()[1])
    passes = [closure_for(model, optimizer, good), closure_for(model, optimizer, bad)]
    contender.step(optimizer, model, lambda: passes.pop(0)())
    broken = int((~torch.isfinite(model[1].running_mean)).sum())
    return judge(broken == 0, f"{broken} of 4 running means not finite", broken)


def _steps(contender: Contender, model: nn.Module, optimizer: Any, seeds: range) -> None:
    for seed in seeds:
        contender.step(optimizer, model, closure_for(model, optimizer, batch(seed)))


def _goes_on(contender: Contender, duplicate: Callable[[nn.Module, Any], tuple[nn.Module, Any]]) -> Outcome:
    """Three steps, ``duplicate``, three more steps of the original and of the duplicate."""
    model = network()
    optimizer = contender.make(model, torch.optim.AdamW, lr=0.01)
    _steps(contender, model, optimizer, range(3))
    other, its_optimizer = duplicate(model, optimizer)
    _steps(contender, model, optimizer, range(3, 6))
    _steps(contender, other, its_optimizer, range(3, 6))
    off = apart(copies(model), copies(other))
    return judge(off == 0, f"weights off by {off:.1e} three steps later", off)


def state_dict(contender: Contender) -> Outcome:
    def duplicate(model: nn.Module, optimizer: Any) -> tuple[nn.Module, Any]:
        other = copy.deepcopy(model)
        its_optimizer = contender.make(other, torch.optim.AdamW, lr=0.01)
        its_optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        return other, its_optimizer

    return _goes_on(contender, duplicate)


def deepcopied(contender: Contender) -> Outcome:
    return _goes_on(contender, lambda model, optimizer: copy.deepcopy((model, optimizer)))


def pickled(contender: Contender) -> Outcome:
    return _goes_on(contender, lambda model, optimizer: pickle.loads(pickle.dumps((model, optimizer))))


def added_group(contender: Contender) -> Outcome:
    model, whole = network(), network()
    optimizer = contender.make(model[:2], torch.optim.AdamW, gc=False, lr=0.01)
    optimizer.add_param_group({"params": list(model[4].parameters())})
    _steps(contender, model, optimizer, range(3))
    _steps(contender, whole, contender.make(whole, torch.optim.AdamW, gc=False, lr=0.01), range(3))
    off = apart(copies(model), copies(whole))
    return judge(off < 1e-5, f"weights off by {off:.1e}", off)


def one_cycle(contender: Contender) -> Outcome:
    model = network()
    optimizer = contender.make(model, torch.optim.AdamW, lr=0.01)
    beta = torch.optim.AdamW(model.parameters()).defaults["betas"][0]
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.01, total_steps=10)
    for seed in range(4):
        _steps(contender, model, optimizer, range(seed, seed + 1))
        scheduler.step()
    now = optimizer.param_groups[0]["betas"][0]
    return judge(now != beta, f"beta1 is {now:.3f} after 4 of 10 steps", now)


def schedule_after_loading(contender: Contender) -> Outcome:
    model = network()
    optimizer = contender.make(model, torch.optim.AdamW, lr=0.01)
    _steps(contender, model, optimizer, range(2))
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    before = copies(model)
    _steps(contender, model, optimizer, range(2, 4))
    moved = apart(copies(model), before)
    return judge(moved == 0, f"weights moved by {moved:.1e} at lr 0", moved)


NUMERIC = [
    Experiment(1, "norm: gradient of length 1e-12, float32", "radius is rho", tiny_gradient),
    Experiment(1, "norm: float64 weights", "radius is rho to 1e-10", double_precision),
    Experiment(1, "norm: gradient is zero", "no weight moves", zero_gradient),
    Experiment(1, "norm: an inf in the first gradient, the second finite", "weights stay finite", infinite_gradient),
    Experiment(2, "way back: 100 steps with lr=0, rho=0.5", "weights bit-equal", drift),
    Experiment(2, "way back: in place", "views of the weights stay true", same_memory),
    Experiment(2, "way back: the second pass raises", "weights are back", failing_pass),
    Experiment(3, "no gradient in the first pass", "a plain step", missing_in_first),
    Experiment(3, "no gradient in the second pass", "the weight stays", missing_in_second),
    Experiment(4, "BatchNorm: running mean after 3 steps", "as with one pass per step", running_mean),
    Experiment(4, "BatchNorm: the same with momentum=None", "as with one pass per step", cumulative_mean),
    Experiment(4, "BatchNorm: a NaN in the second pass", "running means stay finite", poisoned_statistics),
    Experiment(5, "state: state_dict into a new optimizer, AdamW", "goes on bit-equal", state_dict),
    Experiment(5, "state: deepcopy of model and optimizer", "goes on bit-equal", deepcopied),
    Experiment(5, "state: pickle of model and optimizer", "goes on bit-equal", pickled),
    Experiment(5, "state: add_param_group, AdamW", "as if given at the start", added_group),
    Experiment(5, "state: OneCycleLR, AdamW", "cycles beta1", one_cycle),
    Experiment(5, "state: learning rate set after load_state_dict", "is obeyed", schedule_after_loading),
]
