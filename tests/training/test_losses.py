"""Losses of segmentation: against a plain float64 computation and against MONAI's with the options that are right."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from medgcsam.training.losses import LOSSES, SMOOTH, SegmentationLoss, coarser

NAMES = pytest.mark.parametrize("name", LOSSES)
OVERLAPPING = pytest.mark.parametrize("overlapping", [False, True])


def batch(overlapping: bool, *, n: int = 3, structures: int = 2, shape=(6, 5, 4), seed: int = 0):
    """Logits (float32) and targets; the first image has no structure 1."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(n, structures + (not overlapping), *shape, generator=generator)
    if overlapping:
        targets = (torch.rand(n, structures, *shape, generator=generator) < 0.3).float()
        targets[0, 0] = 0
    else:
        targets = torch.randint(0, structures + 1, (n, *shape), generator=generator)
        targets[0][targets[0] == 1] = 0
    return logits, targets


def reference(name: str, overlapping: bool, logits: torch.Tensor, targets: torch.Tensor) -> float:
    """Voxel by voxel in numpy float64, from the definitions."""
    z, t = logits.double().numpy(), targets.numpy()
    n, outputs = z.shape[:2]
    structures = range(outputs) if overlapping else range(1, outputs)
    losses = []
    for image in range(n):
        if overlapping:
            p = 1 / (1 + np.exp(-z[image]))
            right = np.where(t[image] == 1, p, 1 - p)  # probability of the right answer
        else:
            p = np.exp(z[image]) / np.exp(z[image]).sum(0)
            right = np.take_along_axis(p, t[image][None], 0)
        fp_weight, fn_weight = (0.3, 0.7) if name == "tversky" else (0.5, 0.5)
        overlaps = []
        for s in structures:
            wanted = (t[image, s] if overlapping else t[image] == s).astype(float)
            tp, fp, fn = (p[s] * wanted).sum(), (p[s] * (1 - wanted)).sum(), ((1 - p[s]) * wanted).sum()
            overlaps.append((tp + SMOOTH / 2) / (tp + fp_weight * fp + fn_weight * fn + SMOOTH / 2))
        loss = 1 - np.mean(overlaps)
        if name == "dice_ce":
            loss += np.mean(-np.log(right))
        if name == "dice_focal":
            loss += np.mean(-((1 - right) ** 2) * np.log(right))
        losses.append(loss)
    return float(np.mean(losses))


@NAMES
@OVERLAPPING
@pytest.mark.parametrize("shape", [(6, 5, 4), (9, 7)])
def test_equal_to_the_definition_in_float64(name, overlapping, shape):
    logits, targets = batch(overlapping, shape=shape)
    loss = SegmentationLoss(name, overlapping=overlapping)(logits, targets)
    assert loss.shape == ()
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(reference(name, overlapping, logits, targets), rel=2e-6)


@NAMES
@OVERLAPPING
def test_equal_to_monai_with_the_options_that_are_right(name, overlapping):
    from monai.losses import DiceCELoss, DiceLoss, FocalLoss, TverskyLoss

    logits, targets = batch(overlapping)
    wanted = targets if overlapping else targets[:, None]
    # Background is a channel only where structures exclude each other: then it is left out of the overlap.
    options = {"sigmoid": overlapping, "softmax": not overlapping, "to_onehot_y": not overlapping}
    options["include_background"] = overlapping
    smooth = {"smooth_nr": SMOOTH, "smooth_dr": SMOOTH}
    if name == "tversky":
        half = {"smooth_nr": SMOOTH / 2, "smooth_dr": SMOOTH / 2}
        expected = TverskyLoss(alpha=0.3, beta=0.7, **options, **half)(logits, wanted)
    elif name == "dice_focal":
        # Not DiceFocalLoss: it leaves background out of the focal term too and takes sigmoids there. MONAI's focal term
        # is a mean over channels as well, of which one is not 0 if they exclude each other.
        focal = FocalLoss(gamma=2, use_softmax=not overlapping, to_onehot_y=not overlapping)
        channels = 1 if overlapping else logits.shape[1]
        expected = DiceLoss(**options, **smooth)(logits, wanted) + channels * focal(logits, wanted)
    elif overlapping:
        # Not DiceCELoss: with several channels it takes a softmax over them, sigmoid=True or not.
        entropy = torch.nn.BCEWithLogitsLoss()
        expected = DiceLoss(**options, **smooth)(logits, wanted) + entropy(logits, wanted)
    else:
        expected = DiceCELoss(**options, **smooth)(logits, wanted)
    torch.testing.assert_close(SegmentationLoss(name, overlapping=overlapping)(logits, targets), expected)


@NAMES
@OVERLAPPING
def test_parts_of_a_batch_add_up_with_their_gradients(name, overlapping):
    logits, targets = batch(overlapping, n=5)
    loss = SegmentationLoss(name, overlapping=overlapping)
    whole = logits.clone().requires_grad_()
    loss(whole, targets).backward()
    parts = logits.clone().requires_grad_()
    total = 0.0
    for part in (slice(0, 2), slice(2, 5)):
        share = loss(parts[part], targets[part]) * (part.stop - part.start) / 5
        share.backward()
        total += float(share.detach())
    assert total == pytest.approx(float(loss(logits, targets)), rel=1e-5)
    torch.testing.assert_close(whole.grad, parts.grad)


@NAMES
@OVERLAPPING
@pytest.mark.parametrize("level", [-30.0, -12.0, -6.0, 0.0, 6.0, 80.0])
@pytest.mark.parametrize("full", [False, True])
def test_gradients_stay_bounded_on_empty_and_full_targets(name, overlapping, level, full):
    shape = (1, 1 if overlapping else 2, 16, 16, 16)
    logits = torch.zeros(shape)
    logits[:, -1] = level
    logits.requires_grad_()
    targets = torch.full((1, 1, 16, 16, 16) if overlapping else (1, 16, 16, 16), int(full))
    loss = SegmentationLoss(name, overlapping=overlapping)(logits, targets)
    loss.backward()
    assert torch.isfinite(loss)
    # 1/4 from the overlap; a term per voxel has at most 1 in all (focal: 1.11), each divided by the number of voxels.
    assert float(logits.grad[:, -1].abs().sum()) <= 0.25 + 1.12
    direction = logits.grad[:, -1].sum()
    assert direction <= 1e-6 if full else direction >= -1e-6


def test_an_empty_structure_is_pulled_down_before_its_probabilities_are_tiny():
    logits = torch.full((1, 1, 16, 16, 16), -8.0, requires_grad=True)  # 1.4 voxels of probability in all
    SegmentationLoss("tversky", overlapping=True)(logits, torch.zeros(1, 1, 16, 16, 16)).backward()
    assert float(logits.grad.sum()) > 0.1


@NAMES
def test_the_first_structure_is_no_background_where_structures_overlap(name):
    logits, targets = batch(True)
    other = targets.clone()
    other[:, 0] = 1 - other[:, 0]
    loss = SegmentationLoss(name, overlapping=True)
    assert abs(float(loss(logits, targets)) - float(loss(logits, other))) > 0.01


def test_half_precision_logits_are_taken_in_float32():
    logits, targets = batch(False)
    half = logits.bfloat16()
    loss = SegmentationLoss("dice_ce", overlapping=False)
    torch.testing.assert_close(loss(half, targets), loss(half.float(), targets), rtol=0, atol=0)


@OVERLAPPING
def test_deep_supervision_weighs_each_resolution_half_of_the_finer_one(overlapping):
    loss = SegmentationLoss("dice_ce", overlapping=overlapping, deep_supervision=True)
    fine, targets = batch(overlapping, shape=(8, 8, 4))
    channels = fine.shape[1]
    middle, low = torch.randn(3, channels, 4, 4, 4), torch.randn(3, channels, 2, 2, 2)  # the last axis was spared once
    singles = [
        loss(fine, targets),
        loss(middle, targets[..., 1::2, 1::2, :]),
        loss(low, targets[..., 2::4, 2::4, 1::2]),
    ]
    expected = (singles[0] + singles[1] / 2 + singles[2] / 4) / 1.75
    torch.testing.assert_close(loss([fine, middle, low], targets), expected)
    torch.testing.assert_close(loss((fine,), targets), singles[0])
    with pytest.raises(ValueError, match="without deep supervision"):
        SegmentationLoss("dice_ce", overlapping=overlapping)([fine, middle], targets)


def test_coarser_targets_are_the_nearest_ones():
    targets = torch.arange(2 * 12 * 8).view(2, 12, 8)
    expected = torch.nn.functional.interpolate(targets[:, None].double(), size=(3, 4), mode="nearest-exact")[:, 0]
    assert torch.equal(coarser(targets, (3, 4)), expected.long())
    assert torch.equal(coarser(targets, (12, 8)), targets)
    with pytest.raises(ValueError, match="brought down"):
        coarser(targets, (5, 4))


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="dice_ce"):
        SegmentationLoss("dice", overlapping=False)
