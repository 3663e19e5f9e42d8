"""On a CUDA device: the formulas, no synchronisation, no allocation, CUDA graphs.

Needs torch, pytest and ``medgcsam.optim`` only: ``pytest --noconftest tests/optim/test_cuda.py``. Where two runs are
compared bit for bit, layers are sums over elementwise products, so that no choice of a matrix kernel enters.
"""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch
from torch import nn

from medgcsam.optim import GCSAM, SAM

pytestmark = pytest.mark.gpu
if not torch.cuda.is_available():
    pytest.skip("needs a CUDA device", allow_module_level=True)
DEVICE = torch.device("cuda", 0)
BASES = {
    "SGD": (torch.optim.SGD, {"lr": 0.02, "momentum": 0.9, "nesterov": True, "weight_decay": 1e-3}),
    "SGD, fused": (torch.optim.SGD, {"lr": 0.02, "momentum": 0.9, "fused": True}),
    "Adam": (torch.optim.Adam, {"lr": 0.01}),
    "AdamW": (torch.optim.AdamW, {"lr": 0.01, "weight_decay": 0.05, "amsgrad": True}),
    "AdamW, fused": (torch.optim.AdamW, {"lr": 0.01, "fused": True}),
    "AdamW, capturable": (torch.optim.AdamW, {"lr": 0.01, "capturable": True}),
    "RMSprop": (torch.optim.RMSprop, {"lr": 0.003, "momentum": 0.5}),
    "Adagrad": (torch.optim.Adagrad, {"lr": 0.02}),
    "NAdam": (torch.optim.NAdam, {"lr": 0.01}),
    "RAdam": (torch.optim.RAdam, {"lr": 0.01}),
    "Adamax": (torch.optim.Adamax, {"lr": 0.01}),
    "Adadelta": (torch.optim.Adadelta, {"lr": 1.0}),
    "ASGD": (torch.optim.ASGD, {"lr": 0.02}),
    "Rprop": (torch.optim.Rprop, {"lr": 0.001}),
}
OPTIONS = [
    {},
    {"norm": "raw"},
    {"adaptive": True, "rho": 0.3},
    {"adaptive": True, "norm": "raw", "centralize": "both", "max_norm": 0.1},
    {"centralize": "none"},
]


class Network(nn.Module):
    """Two layers whose products are elementwise, and a depthwise weight with nothing to centralize."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        shapes = {"first": (8, 5), "bias": (8,), "scale": (8, 1), "second": (3, 8)}
        for name, shape in shapes.items():
            setattr(self, name, nn.Parameter(torch.randn(shape, generator=generator) * 0.4))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        hidden = torch.tanh((inputs[:, None] * self.first).sum(-1) + self.bias) * self.scale[:, 0]
        return (hidden[:, None] * self.second).sum(-1)


def inputs_of(step: int) -> torch.Tensor:
    return torch.randn(16, 5, generator=torch.Generator().manual_seed(step))


def loss_of(model: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    return (model(inputs) - inputs[:, :3]).square().mean()


def one_pass(model, optimizer, inputs) -> torch.Tensor:
    optimizer.zero_grad()
    loss = loss_of(model, inputs)
    loss.backward()
    return loss


def everything(model, optimizer) -> list[torch.Tensor]:
    moments = [v for state in optimizer.state.values() for v in state.values() if isinstance(v, torch.Tensor)]
    return [t.detach().clone() for t in (*model.parameters(), *moments)]


def same(a, b) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@contextmanager
def waiting_is_an_error():
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def captured(action):
    """A function that replays ``action`` from a CUDA graph; capturing does not run it."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        action()
    return graph.replay


def warmed_up(action, times: int) -> None:
    """Run on a stream of its own, as must be done before a capture."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(times):
            action()
    torch.cuda.current_stream().wait_stream(stream)


def unit_means_removed(gradient: torch.Tensor) -> torch.Tensor:
    return gradient - gradient.mean(1, keepdim=True) if gradient.dim() == 2 and gradient.shape[1] > 1 else gradient


def by_formula(model, make, base_options, inputs, *, rho=0.05, norm="centralized", centralize="ascent",
               adaptive=False, eta=0.01, max_norm=None):  # fmt: skip
    """One step of a float64 copy on the CPU, where ``model`` is changed in place."""
    weights = list(model.parameters())
    base_options = {k: v for k, v in base_options.items() if k not in ("fused", "capturable")}
    inner = make(weights, **base_options)
    g = list(torch.autograd.grad(loss_of(model, inputs), weights))
    d = [unit_means_removed(x) for x in g] if centralize in ("ascent", "both") else g
    t = [w.detach().abs() + eta if adaptive else torch.ones_like(w) for w in weights]
    size = torch.cat([(s * x).flatten() for s, x in zip(t, d if norm == "centralized" else g, strict=True)]).norm()
    before = [w.detach().clone() for w in weights]
    with torch.no_grad():
        for w, s, x in zip(weights, t, d, strict=True):
            w += rho * s * s * x / size
    g = list(torch.autograd.grad(loss_of(model, inputs), weights))
    with torch.no_grad():
        for w, saved in zip(weights, before, strict=True):
            w.copy_(saved)
    if centralize in ("descent", "both"):
        g = [unit_means_removed(x) for x in g]
    if max_norm is not None:
        length = torch.cat([x.flatten() for x in g]).norm()
        g = [x * min(1.0, max_norm / (float(length) + 1e-6)) for x in g]
    for w, x in zip(weights, g, strict=True):
        w.grad = x
    inner.step()


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-9)], ids=["f32", "f64"])
def test_a_step_is_that_of_the_formulas(base, options, dtype, tolerance):
    make, base_options = BASES[base]
    model, exact = Network().to(DEVICE, dtype), Network().double()
    optimizer = GCSAM(model.parameters(), make, **options, **base_options)
    inputs = inputs_of(0)
    optimizer.step(lambda: one_pass(model, optimizer, inputs.to(DEVICE, dtype)))
    by_formula(exact, make, base_options, inputs.double(), **options)
    for ours, theirs, start in zip(model.parameters(), exact.parameters(), Network().parameters(), strict=True):
        torch.testing.assert_close(ours.detach().cpu().double(), theirs.detach(), rtol=0, atol=tolerance)
        assert (theirs - start).abs().max() > 1e-6


def large_weights(layout: str = "contiguous") -> list[nn.Parameter]:
    """Two weights of 4 MiB, one of them not contiguous where asked, and small ones."""
    torch.manual_seed(0)
    four = torch.randn(256, 256, 4, 4, device=DEVICE)
    if layout == "channels_last":
        four = four.contiguous(memory_format=torch.channels_last)
    if layout == "slice":
        four = torch.stack([four, four], dim=-1)[..., 0]
    small = [torch.randn(size, device=DEVICE) for size in (256, 1024, 7)]
    return [nn.Parameter(t) for t in (four, torch.randn(1024, 1024, device=DEVICE), *small)]


def fill_gradients(params) -> None:
    for p in params:
        p.grad = torch.randn_like(p)


CASES = [
    (SAM, {}, "contiguous"),
    (GCSAM, {}, "contiguous"),
    (GCSAM, {"norm": "raw", "centralize": "both", "max_norm": 0.1}, "contiguous"),
    (GCSAM, {"adaptive": True}, "contiguous"),
    (GCSAM, {"adaptive": True, "norm": "raw"}, "slice"),
    (GCSAM, {"centralize": "both"}, "channels_last"),
    (GCSAM, {}, "slice"),
    (SAM, {"ascent": "momentum"}, "contiguous"),
    (GCSAM, {"ascent": "momentum"}, "channels_last"),
]
STEPPERS = {
    "SGD": (torch.optim.SGD, {"lr": 0.01, "momentum": 0.9}),
    "AdamW": (torch.optim.AdamW, {"lr": 0.01}),
    "AdamW, fused": (torch.optim.AdamW, {"lr": 0.01, "fused": True}),
}


@pytest.mark.parametrize(("kind", "options", "layout"), CASES, ids=str)
@pytest.mark.parametrize("base", STEPPERS)
@pytest.mark.parametrize("groups", [1, 2])
def test_ascent_restore_and_descent_never_wait_for_the_device(kind, options, layout, base, groups):
    make, base_options = STEPPERS[base]
    if layout == "slice" and "fused" in base:
        pytest.skip("torch's fused kernels want weights that are dense in memory")
    params = large_weights(layout)
    given = params if groups == 1 else [{"params": params[:1]}, {"params": params[1:], "rho": 0.3}]
    optimizer = kind(given, make, **options, **base_options)
    for step in range(4):
        optimizer.zero_grad()
        if optimizer.ascent == "gradient":
            fill_gradients(params)
        before = [p.detach().clone() for p in params]
        with waiting_is_an_error():
            optimizer.ascend()
        moved = [not torch.equal(p, b) for p, b in zip(params, before, strict=True)]
        assert all(moved) or (step == 0 and optimizer.ascent == "momentum")
        with waiting_is_an_error():
            optimizer.restore()
        assert same([p.detach() for p in params], before)
        optimizer.zero_grad()
        if optimizer.ascent == "gradient":
            fill_gradients(params)
        with waiting_is_an_error():
            optimizer.ascend()
        fill_gradients(params)
        with waiting_is_an_error():
            optimizer.descend()


def test_waiting_would_be_noticed():
    with pytest.raises(RuntimeError), waiting_is_an_error():
        torch.ones(3, device=DEVICE).sum().item()


@pytest.mark.parametrize(("kind", "options", "layout"), CASES, ids=str)
def test_memory_stays_as_it_is_after_the_first_steps(kind, options, layout):
    params = large_weights(layout)
    optimizer = kind(params, torch.optim.SGD, lr=0.01, momentum=0.9, **options)
    allowed, standing = 256 * 1024, []
    for step in range(5):
        optimizer.zero_grad()
        if optimizer.ascent == "gradient":
            fill_gradients(params)
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        optimizer.ascend()
        optimizer.restore()
        torch.cuda.synchronize()
        if step > 1:
            assert torch.cuda.max_memory_allocated() - before < allowed
        optimizer.zero_grad()
        if optimizer.ascent == "gradient":
            fill_gradients(params)
        optimizer.ascend()
        fill_gradients(params)
        optimizer.descend()
        optimizer.zero_grad()
        torch.cuda.synchronize()
        standing.append(torch.cuda.memory_allocated())
    assert len(set(standing[2:])) == 1, standing


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_ascent_and_restore_in_a_cuda_graph_equal_eager_mode(options):
    model, twin = Network().to(DEVICE), Network().to(DEVICE)
    ours = GCSAM(model.parameters(), torch.optim.SGD, lr=0.1, **options)
    eager = GCSAM(twin.parameters(), torch.optim.SGD, lr=0.1, **options)
    fill_gradients(model.parameters())
    seen = [torch.empty_like(p) for p in model.parameters()]

    def action():
        ours.ascend()
        for buffer, p in zip(seen, model.parameters(), strict=True):
            buffer.copy_(p.detach())
        ours.restore()

    before = [p.detach().clone() for p in model.parameters()]
    warmed_up(action, 3)
    replay = captured(action)
    for _ in range(4):
        fill_gradients(twin.parameters())
        for p, q in zip(model.parameters(), twin.parameters(), strict=True):
            p.grad.copy_(q.grad)  # the graph reads the gradients where they were at its capture
        replay()
        eager.ascend()
        assert same(seen, [p.detach() for p in twin.parameters()])
        assert not same(seen, before)
        assert torch.equal(ours.last_radius, eager.last_radius)
        eager.restore()
        assert same([p.detach() for p in model.parameters()], before)


@pytest.mark.parametrize("base_options", [{"capturable": True}, {"capturable": True, "fused": True}], ids=str)
@pytest.mark.parametrize("options", [{}, {"centralize": "both", "max_norm": 0.2}, {"adaptive": True}], ids=str)
@pytest.mark.parametrize("form", ["closure", "two steps"])
def test_a_whole_step_in_a_cuda_graph_equals_eager_mode(base_options, options, form):
    model, twin = Network().to(DEVICE), Network().to(DEVICE)
    ours = GCSAM(model.parameters(), torch.optim.AdamW, lr=0.01, **options, **base_options)
    eager = GCSAM(twin.parameters(), torch.optim.AdamW, lr=0.01, **options, **base_options)
    inputs = inputs_of(0).to(DEVICE)

    def step(model, optimizer):
        if form == "closure":
            optimizer.step(lambda: one_pass(model, optimizer, inputs))
        else:
            one_pass(model, optimizer, inputs)
            optimizer.ascend()
            one_pass(model, optimizer, inputs)
            optimizer.descend()

    warmed_up(lambda: step(model, ours), 3)
    for _ in range(3):
        step(twin, eager)
    ours.zero_grad()  # gradients of the graph live in its own memory
    replay = captured(lambda: step(model, ours))
    assert same(everything(model, ours), everything(twin, eager))
    for number in range(1, 5):
        inputs.copy_(inputs_of(number))
        replay()
        step(twin, eager)
        assert same(everything(model, ours), everything(twin, eager))
