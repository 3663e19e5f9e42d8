"""The network for CPUs and small data sets, and the head that all networks share."""

from __future__ import annotations

import itertools

import torch
from torch import nn


class SmallNet(nn.Module):
    """A plain convolutional network for CPUs and some hundred patients: 0.29 M weights at width 16.

    Stage 0 is a 5x5 convolution of stride 2 to ``width`` channels; stages 1 to 3 are each a 3x3 convolution of stride 2
    that doubles the channels and one of stride 1. Each convolution is followed by normalisation and ReLU; then the
    average over the image, dropout and a linear layer.

    Normalisation is BatchNorm, with which it learns much faster from scratch than with GroupNorm in groups of 8
    channels. Training needs batches of 2 images or more, and an optimizer with two passes per step has to count the
    running statistics once, as ``medgcsam.optim`` does.
    """

    def __init__(self, *, channels: int = 1, outputs: int = 2, width: int = 16, dropout: float = 0.0):
        super().__init__()
        widths = [width * 2**stage for stage in range(4)]
        stages = [_block(channels, width, kernel=5, stride=2)]
        for before, after in itertools.pairwise(widths):
            stages.append(nn.Sequential(*_block(before, after, stride=2), *_block(after, after)))
        self.stages = nn.Sequential(*stages)
        self.head = Head(widths[-1], outputs, dropout)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.stages(images).mean(dim=(-2, -1)))


def _block(before: int, after: int, *, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(before, after, kernel, stride=stride, padding=kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(after), nn.ReLU(inplace=True))


class Head(nn.Linear):
    """Dropout, then a linear layer, under the names that a linear layer alone has in weight files."""

    def __init__(self, features: int, outputs: int, dropout: float):
        super().__init__(features, outputs)
        self.dropout = float(dropout)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return super().forward(nn.functional.dropout(features, self.dropout, self.training))
