"""GCSAM as a trainer of nnU-Net v2: nnU-Net's own SGD (momentum 0.99, Nesterov), with an ascent late in the training.

1. Install medgcsam where nnU-Net is installed. The optimizer itself needs only torch, 2.8 or newer.
2. Copy this file into ``nnunetv2/training/nnUNetTrainer/``; or, with nnU-Net 2.8, into a folder of its own that the
   environment variable ``nnUNet_extTrainer`` names (nnU-Net imports every file there).
3. ``nnUNetv2_train DATASET CONFIGURATION FOLD -tr nnUNetTrainerGCSAM``, and ``--c`` to continue, as ever.

nnU-Net looks the trainer up by name when it predicts, too: keep the file in its place there. medgcsam is imported only
when an optimizer is built.

Unchanged: data, augmentation, network, loss, deep supervision, learning rate schedule, clipping at 12, checkpoints
(weights, moments and counters of passes), validation. Changed: the optimizer and ``train_step``. With ``late = 0.4``
a training takes 1.4 times the gradient evaluations; each epoch's log says how many so far. A continued training keeps
the radius and the first ascent of its checkpoint, whatever the attributes below say by then.

The settings are class attributes. nnU-Net names the results folder after the class, so give other settings a class of
their own, in this file, and no two of them share a folder::

    class nnUNetTrainerGCSAM_rho02(nnUNetTrainerGCSAM):
        rho = 0.02

Nothing here is tuned: whether it helps is for your validation cases to say, against nnUNetTrainer. Tested with nnU-Net
2.8.1 on a CPU; what nnU-Net does on GPUs only (float16 with a GradScaler, torch.compile, several devices) goes through
the same two calls of ``optimizer.step``, but was not run.
"""

from __future__ import annotations

from contextlib import nullcontext

import torch
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer


class nnUNetTrainerGCSAM(nnUNetTrainer):
    rho = 0.05
    late = 0.4  # part of the training, at its end, whose steps take an ascent; 1.0 is GCSAM throughout
    ascent_fraction = 1.0  # part of each batch that the ascent is taken on; at least one case is

    def configure_optimizers(self):
        from medgcsam.optim import GCSAM, parameter_groups

        optimizer = GCSAM(
            parameter_groups(self.network),  # transposed convolutions and norms get what is right for them
            torch.optim.SGD,
            rho=self.rho,
            start=int((1 - self.late) * self.num_epochs * self.num_iterations_per_epoch),
            ascent_fraction=self.ascent_fraction,
            max_norm=12,
            lr=self.initial_lr,
            momentum=0.99,
            nesterov=True,
            weight_decay=self.weight_decay,
        )
        return optimizer, PolyLRScheduler(optimizer, self.initial_lr, self.num_epochs)

    def train_step(self, batch: dict) -> dict:
        on_device = (
            batch["data"].to(self.device, non_blocking=True),
            # one target per resolution of deep supervision
            [target.to(self.device, non_blocking=True) for target in batch["target"]]
            if isinstance(batch["target"], list)
            else batch["target"].to(self.device, non_blocking=True),
        )

        def run(part):
            data, target = part
            self.optimizer.zero_grad(set_to_none=True)
            with torch.autocast("cuda") if self.device.type == "cuda" else nullcontext():
                loss = self.loss(self.network(data), target)
            (loss if self.grad_scaler is None else self.grad_scaler.scale(loss)).backward()
            return loss

        loss = self.optimizer.step(
            lambda: run(on_device),
            ascent_closure=lambda: run(self.optimizer.ascent_part(on_device)),
            model=self.network,
            scaler=self.grad_scaler,
        )
        if self.grad_scaler is not None:
            self.grad_scaler.update()
        return {"loss": loss.detach().cpu().numpy()}

    def on_train_epoch_end(self, train_outputs: list[dict]) -> None:
        super().on_train_epoch_end(train_outputs)
        self.print_to_log_file(
            f"Gradient evaluations so far: {self.optimizer.gradient_evaluations} in {self.optimizer.steps} steps"
        )
