"""The losses of segmentation: overlap of soft masks and, beside it, a term per voxel."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

LOSSES = ("dice_ce", "dice_focal", "tversky")
SMOOTH = 1.0  # voxels added above and below in the overlap
FOCUS = 2.0  # exponent of the focal loss (Lin et al. 2017)
FALSE_POSITIVES, FALSE_NEGATIVES = 0.3, 0.7  # weights of the Tversky loss (Salehi et al. 2017)


class SegmentationLoss:
    """A mean over the images of a batch, in float32: losses of parts of a batch, weighted by images, add up to its own.

    ``dice_ce`` is 1 - soft Dice plus cross-entropy, ``dice_focal`` 1 - soft Dice plus focal loss, ``tversky`` 1 -
    Tversky index, which asks more for what is missed than for what is too much. The overlap is computed for each image
    and structure, without background, and averaged; the terms per voxel see background too, each voxel once.

    One voxel is added above and below in the overlap. An image without a structure then pulls the logits of that
    structure down with a gradient of at most 1/4 in all, largest where its probabilities add up to about a voxel; with
    the usual 1e-5 it would pull only once they add up to 1e-5.

    MONAI's DiceCELoss and DiceFocalLoss are not used: for overlapping structures the first takes a softmax over them,
    and for exclusive ones the second takes a sigmoid of each in its focal term.
    """

    def __init__(self, name: str, *, overlapping: bool, deep_supervision: bool = False):
        if name not in LOSSES:
            raise ValueError(f"training.loss must be one of {', '.join(LOSSES)}, not {name!r}")
        self.name, self.overlapping, self.deep_supervision = name, overlapping, deep_supervision

    def __call__(self, logits: Tensor | Sequence[Tensor], targets: Tensor) -> Tensor:
        """The loss, 0-d.

        Args:
            logits: (n, outputs, *spatial), or with deep supervision a sequence of them, finest first.
            targets: numbers (n, *spatial), 0 for background, or if overlapping 0/1 (n, structures, *spatial). Coarser
                logits see every r-th voxel of them. The weights 1, 1/2, 1/4 .. of the logits add up to 1.
        """
        if isinstance(logits, Tensor):
            return self._single(logits, targets)
        if not self.deep_supervision:
            raise ValueError("several logits without deep supervision")
        weights = [0.5**level for level in range(len(logits))]
        losses = [self._single(part, coarser(targets, part.shape[2:])) for part in logits]
        return sum(weight * loss for weight, loss in zip(weights, losses, strict=True)) / sum(weights)

    def _single(self, logits: Tensor, targets: Tensor) -> Tensor:
        logits = logits.float()
        if self.overlapping:
            wanted = targets.to(logits.dtype)
            return self._combine(torch.sigmoid(logits), wanted, _binary(logits, wanted, self._focus))
        log_p = torch.log_softmax(logits, dim=1)
        wanted = one_hot(targets, logits.shape[1])
        voxels = -log_p * wanted
        if self._focus:
            voxels = voxels * (1 - log_p.exp()) ** self._focus
        return self._combine(log_p.exp()[:, 1:], wanted[:, 1:], voxels.sum(dim=1).mean())

    @property
    def _focus(self) -> float:
        return FOCUS if self.name == "dice_focal" else 0.0

    def _combine(self, probabilities: Tensor, wanted: Tensor, per_voxel: Tensor) -> Tensor:
        if self.name == "tversky":
            return 1 - tversky_index(probabilities, wanted, FALSE_POSITIVES, FALSE_NEGATIVES).mean()
        return 1 - tversky_index(probabilities, wanted, 0.5, 0.5).mean() + per_voxel


def tversky_index(probabilities: Tensor, wanted: Tensor, positives: float, negatives: float) -> Tensor:
    """Soft Tversky index (n, structures) of (n, structures, *spatial); with both weights 0.5 the soft Dice.

    ``positives`` and ``negatives`` weigh what is too much and what is missed. SMOOTH counts in terms of Dice, where
    2 x the overlap is divided by the sum of both masks.
    """
    space = tuple(range(2, probabilities.dim()))
    both = (probabilities * wanted).sum(space)
    excess, missed = probabilities.sum(space) - both, wanted.sum(space) - both
    return (both + SMOOTH / 2) / (both + positives * excess + negatives * missed + SMOOTH / 2)


def one_hot(targets: Tensor, outputs: int) -> Tensor:
    """Numbers (n, *spatial) as float32 0/1 (n, outputs, *spatial); by comparison, which is deterministic on GPUs."""
    numbers = torch.arange(outputs, device=targets.device, dtype=targets.dtype)
    return (targets[:, None] == numbers.view(1, -1, *[1] * (targets.dim() - 1))).float()


def coarser(targets: Tensor, spatial: Sequence[int]) -> Tensor:
    """Every r-th voxel of (.., *finer), the one next to the middle of its block, so that ``spatial`` remain."""
    finer = targets.shape[-len(spatial) :]
    if any(n % m for n, m in zip(finer, spatial, strict=True)):
        raise ValueError(f"targets of {tuple(finer)} cannot be brought down to {tuple(spatial)}")
    steps = [n // m for n, m in zip(finer, spatial, strict=True)]
    return targets[(..., *(slice(step // 2, None, step) for step in steps))]


def _binary(logits: Tensor, wanted: Tensor, focus: float) -> Tensor:
    """Mean binary cross-entropy over voxels and structures; with ``focus`` the focal loss."""
    entropy = functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    if focus:  # entropy = -log(probability of the right answer)
        entropy = entropy * (1 - torch.exp(-entropy)) ** focus
    return entropy.mean()
