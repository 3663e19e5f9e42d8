"""GCSAM in a LightningModule: copy ``optimizer_step``, and build the optimizer as ``configure_optimizers`` does.

    python docs/examples/lightning_module.py

In automatic optimization Lightning (2.6) calls ``optimizer.step(closure)``; its closure runs ``training_step``,
``zero_grad`` and ``backward``. GCSAM calls it twice, and a float32 network without BatchNorm needs nothing else.
``optimizer_step`` below hands the closure to GCSAM itself, with the model and the GradScaler that Lightning's own call
keeps back, so that

- BatchNorm counts the first pass only, and in DistributedDataParallel the ascent is local, as everywhere;
- ``precision="16-mixed"`` works (Lightning's own call would run the closure once), beside 32-true and bf16-mixed;
- ``ascent_fraction`` works: ``training_step`` takes the part of the batch that it is told to;
- the logged loss is that of the first pass (``self.log`` in ``training_step`` would average over both).

Not with it: ``accumulate_grad_batches`` (take ``AccumulatedDigits``), ``gradient_clip_val`` (take
``GCSAM(max_norm=...)``), strategies that shard the optimizer (FSDP, DeepSpeed). The hook
``on_before_optimizer_step`` is not called, ``on_before_zero_grad`` and ``on_after_backward`` are called once per pass,
and the loss that ``on_train_batch_end`` gets is that of the last pass.

``self.optimizers()`` is Lightning's wrapper: read and set GCSAM's attributes on ``self.optimizers().optimizer``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightning
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from medgcsam.optim import GCSAM, parameter_groups

Batch = tuple[Tensor, Tensor]


class Digits(lightning.LightningModule):
    """Automatic optimization. ``steps``: optimizer steps of the whole training; ``options`` go to ``GCSAM``."""

    def __init__(self, steps: int, options: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.ascending = False
        self.network = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten(), nn.Linear(1024, 10)
        )

    def configure_optimizers(self) -> dict[str, Any]:
        options = {"rho": 0.05, "lr": 1e-3, "weight_decay": 1e-2, **(self.hparams.options or {})}
        optimizer = GCSAM(parameter_groups(self.network), torch.optim.AdamW, **options)
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=self.hparams.steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Callable[[], Any]) -> None:
        if self.trainer.accumulate_grad_batches != 1 or self.trainer.gradient_clip_val:
            raise ValueError("Not with GCSAM: accumulate_grad_batches, gradient_clip_val (take max_norm of GCSAM).")

        def on_a_part() -> Any:
            self.ascending = True
            try:
                return optimizer_closure()
            finally:
                self.ascending = False

        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        loss = optimizer.optimizer.step(
            optimizer_closure, ascent_closure=on_a_part, model=self.trainer.model, scaler=scaler
        )
        if scaler is not None:
            scaler.update()
        self.log("train_loss", loss, on_step=False, on_epoch=True, prog_bar=True)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        if self.ascending:
            batch = self.optimizers().optimizer.ascent_part(batch)
        return self.loss(batch)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        images, labels = batch
        self.log("accuracy", (self.network(images).argmax(1) == labels).float().mean(), prog_bar=True)

    def loss(self, batch: Batch) -> Tensor:
        images, labels = batch
        return nn.functional.cross_entropy(self.network(images), labels)


class AccumulatedDigits(Digits):
    """Manual optimization, for batches that do not fit: both passes go through ``parts`` micro-batches of the batch.

    For 32-true and bf16-mixed. BatchNorm, where there is any, normalizes by the micro-batch, and counts both passes
    unless the second is put into ``frozen_statistics``.
    """

    def __init__(self, steps: int, options: dict[str, Any] | None = None, parts: int = 4) -> None:
        super().__init__(steps, options)
        self.save_hyperparameters()
        self.automatic_optimization = False
        self.network = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        optimizer = self.optimizers()

        def closure() -> Tensor:
            optimizer.zero_grad()
            total = torch.zeros((), device=self.device)
            for images, labels in zip(*(tensor.chunk(self.hparams.parts) for tensor in batch), strict=True):
                share = self.loss((images, labels)) * (len(images) / len(batch[0]))
                self.manual_backward(share)
                total += share.detach()
            return total

        loss = optimizer.step(closure)  # through Lightning's wrapper, which counts trainer.global_step
        self.lr_schedulers().step()
        self.log("train_loss", loss, on_step=False, on_epoch=True)


def loaders(batch: int = 64) -> tuple[DataLoader, DataLoader]:
    """Training and validation batches of scikit-learn's digits: images (n, 1, 8, 8) in 0..1, labels (n,)."""
    images, labels = load_digits(return_X_y=True)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    x = (torch.tensor(images, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16)[order]
    y = torch.tensor(labels)[order]
    train = TensorDataset(x[:1200], y[:1200])
    # Its order depends on seed and epoch alone, which Lightning tells it: a resumed training sees the same batches.
    sampler = DistributedSampler(train, num_replicas=1, rank=0, shuffle=True, seed=0)
    return DataLoader(train, batch, sampler=sampler), DataLoader(TensorDataset(x[1200:], y[1200:]), 600)


def main(epochs: int = 5) -> None:
    lightning.seed_everything(0)
    train, validation = loaders()
    module = Digits(steps=epochs * len(train))
    trainer = lightning.Trainer(max_epochs=epochs, devices=1, logger=False, enable_checkpointing=False)
    trainer.fit(module, train, validation)
    optimizer = module.optimizers().optimizer
    print(f"{optimizer.gradient_evaluations} gradient evaluations in {trainer.global_step} steps")
    print(f"validation accuracy {trainer.callback_metrics['accuracy']:.3f}")


if __name__ == "__main__":
    main()
