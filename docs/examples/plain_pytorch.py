"""GCSAM in a plain PyTorch loop: both forms, mixed precision, a scheduler, checkpoints, and AdamW beside it.

    python docs/examples/plain_pytorch.py
    python docs/examples/plain_pytorch.py --form two-steps --precision bf16 --late 0.4 --equal-cost
    python docs/examples/plain_pytorch.py --checkpoints /tmp/digits    # killed? the same command goes on

Trains a small network on scikit-learn's 8 x 8 digits, which need no download; seconds on a CPU.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from medgcsam.optim import GCSAM, frozen_statistics, parameter_groups

BATCH = 64


def digits(device: str) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Training and validation pairs: images (n, 1, 8, 8), float32 in 0..1, and labels (n,) in 0..9."""
    images, labels = load_digits(return_X_y=True)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    x = (torch.tensor(images, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16)[order].to(device)
    y = torch.tensor(labels)[order].to(device)
    return (x[:1200], y[:1200]), (x[1200:], y[1200:])


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(), nn.Flatten(), nn.Linear(512, 10),
    )  # fmt: skip


def build(name: str, model: nn.Module, steps: int, late: float) -> torch.optim.Optimizer:
    if name == "adamw":
        return torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-2)
    start = int((1 - late) * steps)  # plain AdamW steps before, two passes per step from there on
    return GCSAM(parameter_groups(model), torch.optim.AdamW, rho=0.05, start=start, lr=1e-3, weight_decay=1e-2)


def take_step(optimizer, model, scaler, closure, form: str) -> Tensor:
    """One optimizer step; ``closure`` runs zero_grad, forward and backward on the scaled loss."""
    if not isinstance(optimizer, GCSAM):
        loss = closure()
        scaler.step(optimizer)
    elif form == "closure":
        loss = optimizer.step(closure, model=model, scaler=scaler)
    else:
        loss = closure()
        if optimizer.ascend():  # False where no ascent is due
            with frozen_statistics(model):  # BatchNorm counts the first pass only
                closure()
        optimizer.descend(scaler=scaler)
    scaler.update()
    return loss


def train(name: str, args: argparse.Namespace, epochs: int) -> tuple[nn.Module, float, float]:
    """Train, or go on from the checkpoint; returns the model, its validation accuracy and its gradient evaluations."""
    (x, y), validation = digits(args.device)
    torch.manual_seed(args.seed)
    model = network().to(args.device)
    steps_per_epoch = -(-len(x) // BATCH)
    optimizer = build(name, model, epochs * steps_per_epoch, args.late)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=epochs * steps_per_epoch)
    scaler = torch.amp.GradScaler(args.device, enabled=args.precision == "fp16")
    kept = {"model": model, "optimizer": optimizer, "scheduler": scheduler, "scaler": scaler}
    file = args.checkpoints and Path(args.checkpoints) / f"{name}.pt"
    first = load(file, kept) if file and file.exists() else 0

    half = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[args.precision]
    for epoch in range(first, epochs):
        model.train()
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(epoch)).to(args.device)
        for chosen in order.split(BATCH):

            def closure(images: Tensor = x[chosen], labels: Tensor = y[chosen]) -> Tensor:
                optimizer.zero_grad()
                # A context of its own for each pass: autocast's cache of cast weights ends with it.
                with torch.autocast(args.device, dtype=half, enabled=half is not None):
                    loss = nn.functional.cross_entropy(model(images), labels)
                scaler.scale(loss).backward()
                return loss

            take_step(optimizer, model, scaler, closure, args.form)
            scheduler.step()
        if file:
            save(file, kept, epoch + 1)
    evaluations = optimizer.gradient_evaluations if isinstance(optimizer, GCSAM) else epochs * steps_per_epoch
    return model, accuracy(model, *validation), evaluations


@torch.no_grad()
def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    model.eval()
    return (model(x).argmax(1) == y).float().mean().item()


def save(file: Path, kept: dict, epoch: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"epoch": epoch, **{name: part.state_dict() for name, part in kept.items()}}, f"{file}.part")
    os.replace(f"{file}.part", file)


def load(file: Path, kept: dict) -> int:
    found = torch.load(file, weights_only=True)
    for name, part in kept.items():
        part.load_state_dict(found[name])
    return found["epoch"]


def main(arguments: list[str] | None = None) -> dict[str, tuple[float, float]]:
    """Print, and return by optimizer, validation accuracy and gradient evaluations."""
    parser = argparse.ArgumentParser(description="AdamW and GCSAM on scikit-learn's digits")
    parser.add_argument("--form", choices=["closure", "two-steps"], default="closure")
    parser.add_argument("--precision", choices=["fp32", "bf16", "fp16"], default="fp32")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--late", type=float, default=1.0, help="part of the training, at its end, with an ascent")
    parser.add_argument("--equal-cost", action="store_true", help="AdamW trains longer: equal passes, to a whole epoch")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--checkpoints", help="folder; where it holds a checkpoint, training goes on from there")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(arguments)
    longer = round(args.epochs * (1 + args.late)) if args.equal_cost else args.epochs
    results = {}
    print("optimizer  epochs  gradient evaluations  validation accuracy")
    for name, epochs in (("adamw", longer), ("gcsam", args.epochs)):
        _, reached, evaluations = train(name, args, epochs)
        results[name] = (reached, evaluations)
        print(f"{name:9}  {epochs:6}  {evaluations:20g}  {reached:19.3f}")
    print("One seed, untuned: this shows how it is used, not which is better.")
    return results


if __name__ == "__main__":
    main()
