"""Ascent, restore and descent: nothing waits for the device, nothing large is allocated, few kernels are called."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensor, FakeTensorMode
from torch.optim import Optimizer
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from medgcsam.optim import GCSAM, SAM

# Weights of 4608 elements or more, and others of 64 or fewer: what is allocated in between is of a weight's size.
SHAPES = [(32, 16, 3, 3), (32,), (64, 64, 3, 3), (64,), (64,), (64, 1, 1, 1), (10, 512), (10,), (8, 24, 3, 3, 3)]
LARGE = 4608
READING = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal", "item", "masked_select", "unique", "allclose")

# The layers of a ResNet-18 with an eighth of its channels: 62 tensors, 21 of them to be centralized.
RESNET = [(8, 3, 7, 7), (8,), (8,)]
for _width, _before in ((8, 8), (16, 8), (32, 16), (64, 32)):
    for _inputs in (_before, _width):
        RESNET += [(_width, _inputs, 3, 3), (_width,), (_width,), (_width, _width, 3, 3), (_width,), (_width,)]
    if _width != _before:
        RESNET += [(_width, _before, 1, 1), (_width,), (_width,)]
RESNET += [(1000, 64), (1000,)]
CENTRALIZED = sum(len(shape) > 1 for shape in RESNET)


class NoStep(Optimizer):
    """A base that does nothing but keep the first moment, so that all that is seen is the work of SAM."""

    def __init__(self, params, lr=0.1):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if "exp_avg" not in self.state[p]:
                    self.state[p]["exp_avg"] = torch.randn_like(p)


class Watching(TorchDispatchMode):
    """Names of all aten calls, and the bytes of every storage that first appears as the result of one."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []
        self.new: list[int] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        known = {t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        results = func(*args, **(kwargs or {}))
        self.calls.append(func.name().removeprefix("aten::"))
        storages = [t.untyped_storage() for t in tree_leaves(results) if isinstance(t, Tensor)]
        self.new += [storage.nbytes() for storage in storages if storage._cdata not in known]
        return results

    def reading(self) -> list[str]:
        return [name for name in self.calls if name.split(".")[0] in READING]


def weights(shapes: list[tuple[int, ...]], layout: str = "contiguous", dtype: torch.dtype = torch.float32):
    generator = torch.Generator().manual_seed(0)
    found = []
    for n, shape in enumerate(shapes):
        values = torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
        if layout == "mixed types" and n % 2:
            values = values.double()
        if layout == "channels_last" and len(shape) == 4:
            values = values.contiguous(memory_format=torch.channels_last)
        if layout == "transposed" and len(shape) > 1:
            values = values.transpose(0, 1).contiguous().transpose(0, 1)
        if layout == "slice":
            values = torch.stack([values, values], dim=-1)[..., 0]
        found.append(nn.Parameter(values))
    return found


def gradient_like(p: Tensor, layout: str, seed: int) -> Tensor:
    torch.manual_seed(seed)
    if layout == "gradient in another layout" and p.dim() > 1:
        return torch.randn_like(p).transpose(0, 1).contiguous().transpose(0, 1)
    return torch.randn_like(p)


def grouped(params: list[Tensor], kind: str) -> list[Any]:
    if kind == "one":
        return params
    first, second = params[::2], params[1::2]
    other = {"rho": {"rho": 0.3}, "centralize": {"centralize": "both"}, "transposed": {"transposed": 1}}[kind]
    return [{"params": first, **other}, {"params": second, **({"centralize": "none"} if kind == "centralize" else {})}]


CASES = [
    (SAM, {}, "one", "contiguous"),
    (GCSAM, {}, "one", "contiguous"),
    (GCSAM, {"norm": "raw"}, "one", "contiguous"),
    (GCSAM, {"adaptive": True}, "one", "contiguous"),
    (GCSAM, {"adaptive": True, "norm": "raw", "centralize": "both", "max_norm": 0.1}, "one", "contiguous"),
    (GCSAM, {"centralize": "descent", "max_norm": 0.1}, "one", "contiguous"),
    (SAM, {"ascent": "momentum"}, "one", "contiguous"),
    (GCSAM, {"ascent": "momentum"}, "one", "contiguous"),
    (GCSAM, {"ascent": "momentum", "adaptive": True}, "one", "slice"),
    (GCSAM, {}, "rho", "contiguous"),
    (GCSAM, {}, "centralize", "contiguous"),
    (GCSAM, {}, "transposed", "contiguous"),
    (GCSAM, {"centralize": "both"}, "one", "channels_last"),
    (GCSAM, {}, "one", "transposed"),
    (GCSAM, {"adaptive": True}, "one", "slice"),
    (SAM, {}, "one", "slice"),
    (GCSAM, {}, "one", "gradient in another layout"),
    (GCSAM, {}, "one", "mixed types"),
]


def pass_over(params, layout, seed) -> None:
    """What a forward and backward pass leaves behind."""
    for p in params:
        p.grad = gradient_like(p, layout, seed)


def one_step(optimizer, params, layout, seed, watching) -> None:
    optimizer.zero_grad()
    if optimizer.ascent == "gradient":
        pass_over(params, layout, seed)
    with watching:
        optimizer.ascend()
    pass_over(params, layout, seed + 1)
    with watching:
        optimizer.descend()


@pytest.mark.parametrize(("kind", "options", "groups", "layout"), CASES, ids=str)
def test_a_step_never_reads_a_value_and_allocates_nothing_of_a_weights_size(kind, options, groups, layout):
    params = weights(SHAPES, layout)
    optimizer = kind(grouped(params, groups), NoStep, rho=0.1, **options)
    first = Watching()
    one_step(optimizer, params, layout, 0, first)
    if "momentum" not in options.values():
        assert max(first.new) >= LARGE * 4, "the first step allocates, and is seen to"
    one_step(optimizer, params, layout, 2, Watching())  # with momentum the first ascent is that of the second step
    watching = Watching()
    one_step(optimizer, params, layout, 4, watching)
    assert watching.calls
    assert not watching.reading()
    assert max(watching.new) < LARGE
    assert float(optimizer.last_radius) > 0.03


def test_reading_a_value_is_noticed():
    """So that the test above is known to see what it looks for: skip_nonfinite is documented to wait."""
    params = weights(SHAPES)
    optimizer = GCSAM(params, NoStep, skip_nonfinite=True)
    watching = Watching()
    one_step(optimizer, params, "contiguous", 0, watching)
    assert watching.reading()


def largest_allocation(action) -> int:
    """Bytes of the largest piece of memory taken during ``action``, by the allocator's own account."""
    with torch.profiler.profile(profile_memory=True) as profile:
        action()
    events = profile.profiler.kineto_results.events()
    return max((event.nbytes() for event in events if event.name() == "[memory]"), default=0)


@pytest.mark.parametrize(("kind", "options", "groups", "layout"), CASES, ids=str)
def test_the_allocator_confirms_it(kind, options, groups, layout):
    """The profiler sees what kernels allocate inside, too."""
    params = weights(SHAPES, layout)
    optimizer = kind(grouped(params, groups), NoStep, rho=0.1, **options)
    for seed in (0, 2):
        one_step(optimizer, params, layout, seed, Watching())
    optimizer.zero_grad()
    if optimizer.ascent == "gradient":
        pass_over(params, layout, 4)
    assert largest_allocation(lambda: torch.empty(LARGE)) >= LARGE * 4
    assert 0 < largest_allocation(lambda: (optimizer.ascend(), optimizer.restore())) < LARGE


FAKE = [
    {}, {"norm": "raw"}, {"adaptive": True}, {"centralize": "both", "max_norm": 0.1}, {"ascent": "momentum"},
    {"start": 1, "every": 2},
]  # fmt: skip


@pytest.mark.parametrize("options", [*FAKE, {"skip_nonfinite": True}], ids=str)
def test_on_an_accelerator_nothing_reads_a_value(options):
    """On a make-believe CUDA device, where reading a value is an error, and mixing devices one as well."""
    mode = FakeTensorMode()

    def fake(shape):
        return FakeTensor(mode, torch.empty(shape, device="meta", dtype=torch.float64), torch.device("cuda:0"))

    def steps():
        for _ in range(2):
            for p in params:
                p.grad = None if "ascent" in options else fake(p.shape)
            optimizer.ascend()
            for p in params:
                p.grad = fake(p.shape)
            optimizer.descend()

    with mode:
        params = [fake(shape).requires_grad_() for shape in SHAPES[:2]]
        optimizer = GCSAM(params, torch.optim.AdamW, capturable=True, **options)
        if "skip_nonfinite" in options:  # documented to wait, and so a test of this test
            with pytest.raises(DataDependentOutputException):
                steps()
            return
        steps()
        assert optimizer.last_radius.device.type == "cuda"
        assert optimizer.steps == 2


@pytest.mark.parametrize(
    ("kind", "options", "for_centralization"),
    [
        (SAM, {}, 0),
        # One mean per weight, one subtraction; for |g| norms of the means and their weighting.
        (GCSAM, {}, CENTRALIZED + 1),
        (GCSAM, {"norm": "raw"}, CENTRALIZED + 3),
        (SAM, {"ascent": "momentum"}, 0),
    ],
    ids=str,
)
def test_calls_of_ascent_and_restore_on_the_layers_of_a_resnet(kind, options, for_centralization):
    assert (len(RESNET), CENTRALIZED) == (62, 21)
    params = weights(RESNET)
    optimizer = kind(params, NoStep, **options)
    for seed in (0, 2):
        one_step(optimizer, params, "contiguous", seed, Watching())
    optimizer.zero_grad()
    if not options.get("ascent"):
        pass_over(params, "contiguous", 4)
    watching = Watching()
    with watching:
        optimizer.ascend()
        optimizer.restore()
    assert len(watching.calls) - for_centralization <= 15, watching.calls


@pytest.mark.parametrize("options", [{"adaptive": True}, {"adaptive": True, "norm": "raw"}], ids=str)
def test_calls_do_not_grow_with_the_number_of_tensors(options):
    counts = []
    for size in (3, 30):
        params = weights([(4,)] * size)
        optimizer = GCSAM(params, NoStep, centralize="none", **options)
        watching = Watching()
        one_step(optimizer, params, "contiguous", 0, Watching())
        one_step(optimizer, params, "contiguous", 2, watching)
        counts.append(len(watching.calls))
    assert counts[0] == counts[1]
