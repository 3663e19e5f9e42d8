"""Fault experiments on the ways of use: mixed precision, layers that centralization must know, types, closures."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from fault_contenders import Contender
from fault_outcome import Experiment, Outcome, apart, batch, closure_for, copies, judge, network
from torch import Tensor, nn


def _overflow_in(number: int, contender: Contender) -> Outcome:
    """A step with a GradScaler whose gradient overflows in pass ``number``."""
    model = network()
    optimizer = contender.make(model, torch.optim.AdamW, lr=0.01)
    scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
    calls: list[int] = []

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(batch()[0]), batch()[1])
        scaler.scale(loss).backward()
        calls.append(1)
        if len(calls) == number:
            model[4].weight.grad[0, 0] = torch.inf
        return loss

    before = copies(model)
    try:
        contender.scaled(optimizer, model, scaler, closure)
    except Exception as error:
        text = f"{type(error).__name__} in the recipe of its users"
        return judge(False, text, documented=contender.scaler_documented)
    moved = apart(copies(model), before)
    plain = apart(copies(model), _plain_step()) < 1e-6
    text = "a plain step of the base" if plain else f"weights moved by {moved:.1e}"
    return judge(moved == 0 or (plain and number == 1), text, moved, documented=contender.scaler_documented)


def _plain_step() -> list[Tensor]:
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    closure_for(model, optimizer)()
    optimizer.step()
    return copies(model)


def overflow_in_first(contender: Contender) -> Outcome:
    return _overflow_in(1, contender)


def overflow_in_second(contender: Contender) -> Outcome:
    return _overflow_in(2, contender)


def outer_autocast(contender: Contender) -> Outcome:
    rises = []
    for outer in (True, False):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 2))
        optimizer = contender.make(model, rho=1.0, lr=0.0)
        inputs, labels, losses = torch.randn(8, 16), torch.randint(0, 2, (8,)), []

        def closure(model=model, optimizer=optimizer, inputs=inputs, labels=labels, losses=losses) -> Tensor:
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16):
                loss = nn.functional.cross_entropy(model(inputs).float(), labels)
            loss.backward()
            losses.append(loss.item())
            return loss

        with torch.autocast("cpu", torch.bfloat16) if outer else nullcontext():
            contender.step(optimizer, model, closure)
        rises.append(losses[1] - losses[0])
    share = rises[0] / rises[1]
    text = f"loss at w + e rises by {rises[0]:.3f}, with a region per pass by {rises[1]:.3f}"
    return judge(abs(share - 1) < 0.1, text, share, documented=contender.name == "ours")


def _first_ascent(contender: Contender, model: nn.Module, *inputs: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Gradients at w and the perturbation e that follows from them."""
    optimizer = contender.make(model, rho=1.0, gc=True, lr=0.1)
    generator = torch.Generator().manual_seed(0)
    output = model(*inputs)
    (output * torch.randn(output.shape, generator=generator)).sum().backward()
    gradients, before = [p.grad.clone() for p in model.parameters()], copies(model)
    contender.first(optimizer)
    return gradients, [after - w for after, w in zip(copies(model), before, strict=True)]


class _LayerScale(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale, self.conv = nn.Parameter(torch.ones(4, 1, 1)), nn.Conv2d(1, 4, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.conv(images) * self.scale


def layer_scale(contender: Contender) -> Outcome:
    if not contender.centralizes:
        return Outcome("n/a", "no centralization")
    torch.manual_seed(0)
    gradients, moves = _first_ascent(contender, _LayerScale(), torch.randn(4, 1, 6, 6))
    share = float(moves[0].norm() / gradients[0].norm() / (moves[2].norm() / gradients[2].norm()))
    return judge(abs(share - 1) < 1e-4, f"moves by {share:.3g} of what a bias of equal gradient does", share)


def transposed_convolution(contender: Contender) -> Outcome:
    if not contender.centralizes:
        return Outcome("n/a", "no centralization")
    torch.manual_seed(0)
    _, moves = _first_ascent(contender, nn.ConvTranspose2d(3, 5, 2), torch.randn(4, 3, 6, 6))
    mean = float(moves[0].mean(dim=(0, 2, 3)).abs().max() / moves[0].square().mean().sqrt())
    return judge(mean < 1e-5, f"mean of an output unit is {mean:.1e} of its rms", mean)


def embedding(contender: Contender) -> Outcome:
    if not contender.centralizes:
        return Outcome("n/a", "no centralization")
    torch.manual_seed(0)
    gradients, moves = _first_ascent(contender, nn.Embedding(7, 3), torch.tensor([0, 2, 2, 5]))
    cosine = float(nn.functional.cosine_similarity(gradients[0].flatten(), moves[0].flatten(), dim=0))
    return judge(cosine > 1 - 1e-5, f"cosine of e and gradient {cosine:.3f}", cosine)


def sparse_gradient(contender: Contender) -> Outcome:
    torch.manual_seed(0)
    table = nn.Embedding(6, 3, sparse=True)
    dense = nn.Embedding.from_pretrained(table.weight.detach().clone(), freeze=False)
    right = _sparse_step(contender, dense)
    try:
        found = _sparse_step(contender, table)
    except Exception as error:
        clear = "sparse" in str(error).lower()
        return judge(clear, f"{type(error).__name__} that {'names' if clear else 'does not name'} the cause")
    off = apart([found], [right])
    return judge(off < 1e-6, f"weights off by {off:.1e} from those of a dense gradient", off)


def _sparse_step(contender: Contender, table: nn.Embedding) -> Tensor:
    optimizer = contender.make(table, gc=contender.centralizes, rho=0.5, lr=0.1)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = table(torch.tensor([1, 2, 2])).square().sum()
        loss.backward()
        return loss

    contender.step(optimizer, table, closure)
    return table.weight.detach().clone()


def half_weights(contender: Contender) -> Outcome:
    torch.manual_seed(0)
    model = nn.Linear(256, 256).to(torch.bfloat16)
    try:
        optimizer = contender.make(model, gc=False, rho=0.05, lr=0.1)
        model(torch.randn(8, 256).bfloat16()).float().square().mean().backward()
        before = copies(model)
        contender.first(optimizer)
    except (TypeError, ValueError, RuntimeError) as error:
        return judge("float" in str(error), f"{type(error).__name__} that names the cause")
    moved = sum(int((a != b).sum()) for a, b in zip(copies(model), before, strict=True))
    share = moved / sum(w.numel() for w in before)
    return judge(share > 0.99, f"{100 * share:.0f}% of the weights move, no word said", share)


def documented_closure(contender: Contender) -> Outcome:
    model = network()
    optimizer = contender.make(model, lr=0.1)
    closure = closure_for(model, optimizer)
    loss = contender.step(optimizer, model, closure)
    calls = [value for _, value in closure.calls]
    right = len(calls) == 2 and float(loss) == calls[0]
    return judge(right, f"{len(calls)} evaluations, loss {'at w' if right else 'elsewhere'}", len(calls))


def step_alone(contender: Contender) -> Outcome:
    model = network()
    optimizer = contender.make(model, lr=0.1)
    closure = closure_for(model, optimizer)
    documented = contender.name == "ours"
    try:
        loss = optimizer.step(closure)
    except Exception as error:
        return judge(False, f"{type(error).__name__}", documented=documented)
    right = len(closure.calls) == 2 and loss is not None and float(loss) == closure.calls[0][1]
    text = f"{len(closure.calls)} evaluation(s), returns {'the first loss' if right else type(loss).__name__}"
    return judge(right, text, len(closure.calls), documented=documented)


def accumulation(contender: Contender) -> Outcome:
    weights = []
    for parts in (1, 2):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(36, 4), nn.Tanh(), nn.Linear(4, 2))
        optimizer = contender.make(model, rho=0.5, lr=0.1)
        images, labels = batch()

        def passes(model=model, parts=parts, images=images, labels=labels) -> None:
            for x, y in zip(images.chunk(parts), labels.chunk(parts), strict=True):
                (nn.functional.cross_entropy(model(x), y) / parts).backward()

        for _ in range(3):
            optimizer.zero_grad()
            passes()
            contender.first(optimizer)
            with contender.second_pass(model):
                passes()
            contender.second(optimizer)
        weights.append(copies(model))
    off = apart(*weights)
    return judge(off < 1e-6, f"weights off by {off:.1e}", off)


USAGE = [
    Experiment(6, "GradScaler: overflow in the first pass", "weights stay, or a plain step", overflow_in_first),
    Experiment(6, "GradScaler: overflow in the second pass", "weights stay", overflow_in_second),
    Experiment(6, "autocast: one region around both passes", "as with a region per pass", outer_autocast),
    Experiment(8, "GC: LayerScale, one input per unit", "left alone", layer_scale),
    Experiment(8, "GC: transposed convolution", "mean of each output unit is 0", transposed_convolution),
    Experiment(8, "GC: embedding", "left alone", embedding),
    Experiment(8, "sparse gradient", "right, or an error that says so", sparse_gradient),
    Experiment(9, "weights in bfloat16", "all move, or an error that says so", half_weights),
    Experiment(10, "closure as documented", "2 evaluations, first loss", documented_closure),
    Experiment(10, "loss = step(closure), nothing else", "2 evaluations, first loss", step_alone),
    Experiment(10, "gradient accumulation, two-step form", "as the large batch", accumulation),
]
