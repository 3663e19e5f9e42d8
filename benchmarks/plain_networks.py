"""Networks in plain torch for the benchmark on a GPU, which must run where MONAI is not installed."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

_STAGES = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3)}


class _Residual(nn.Module):
    """Basic block of two 3x3 convolutions, or bottleneck of 1x1, 3x3, 1x1 (He et al., arXiv 1512.03385)."""

    def __init__(self, inner: int, width: int, stride: int, *, bottleneck: bool) -> None:
        super().__init__()
        out = 4 * width if bottleneck else width
        sizes = [(inner, width, 1, 1), (width, width, 3, stride), (width, out, 1, 1)]
        if not bottleneck:
            sizes = [(inner, width, 3, stride), (width, out, 3, 1)]
        layers: list[nn.Module] = []
        for number, (before, after, kernel, step) in enumerate(sizes):
            layers += [nn.Conv2d(before, after, kernel, step, kernel // 2, bias=False), nn.BatchNorm2d(after)]
            layers += [nn.ReLU(inplace=True)] if number < len(sizes) - 1 else []
        self.body = nn.Sequential(*layers)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inner != out:
            self.shortcut = nn.Sequential(nn.Conv2d(inner, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, images: Tensor) -> Tensor:
        return torch.relu(self.body(images) + self.shortcut(images))


def resnet(depth: int, classes: int = 10) -> nn.Module:
    """ResNet-18 or ResNet-50 for images of (batch, 3, rows, columns)."""
    bottleneck = depth >= 50
    layers: list[nn.Module] = [
        nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)
    ]  # fmt: skip
    inner = 64
    for stage, blocks in enumerate(_STAGES[depth]):
        width = 64 << stage
        for block in range(blocks):
            stride = 2 if stage > 0 and block == 0 else 1
            layers.append(_Residual(inner, width, stride, bottleneck=bottleneck))
            inner = 4 * width if bottleneck else width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inner, classes))


def _pair(inner: int, out: int, stride: int) -> nn.Module:
    layers: list[nn.Module] = []
    for before, step in ((inner, stride), (out, 1)):
        layers += [nn.Conv3d(before, out, 3, step, 1), nn.InstanceNorm3d(out, affine=True), nn.LeakyReLU(0.01)]
    return nn.Sequential(*layers)


class UNet3d(nn.Module):
    """A 3-D U-Net of the size that nnU-Net plans (Isensee et al., Nature Methods 2021): 32 to 320 channels, kernel 3.

    Takes (batch, 1, i, j, k) with sides that 32 divides.
    """

    def __init__(self, classes: int = 3, widths: tuple[int, ...] = (32, 64, 128, 256, 320, 320)) -> None:
        super().__init__()
        self.down = nn.ModuleList(
            _pair(before, after, 1 if level == 0 else 2)
            for level, (before, after) in enumerate(zip((1, *widths), widths, strict=False))
        )
        pairs = list(zip(widths[::-1], widths[-2::-1], strict=False))
        self.up = nn.ModuleList(nn.ConvTranspose3d(below, here, 2, 2, bias=False) for below, here in pairs)
        self.join = nn.ModuleList(_pair(2 * here, here, 1) for _, here in pairs)
        self.head = nn.Conv3d(widths[0], classes, 1)

    def forward(self, volumes: Tensor) -> Tensor:
        levels = []
        for down in self.down:
            volumes = down(volumes)
            levels.append(volumes)
        for up, join, beside in zip(self.up, self.join, levels[-2::-1], strict=True):
            volumes = join(torch.cat([up(volumes), beside], dim=1))
        return self.head(volumes)


def tiny() -> nn.Module:
    """A few weights, to try the scripts."""
    layers = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10)]
    return nn.Sequential(*layers)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "tiny": tiny,
    "resnet18": lambda: resnet(18),
    "resnet50": lambda: resnet(50),
    "unet3d": UNet3d,
}


def plain_shapes(name: str) -> list[torch.Size]:
    """Shapes of the parameters of a network, from a module without memory."""
    with torch.device("meta"):
        return [parameter.shape for parameter in NETWORKS[name]().parameters()]
