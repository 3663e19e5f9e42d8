"""Probabilities of a whole volume from overlapping windows, in memory that does not grow with the number of planes."""

from __future__ import annotations

import itertools
import mmap
from collections.abc import Iterator, Sequence
from math import prod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from medgcsam.errors import MachineError
from medgcsam.journal import Advance
from medgcsam.pipeline.batches import SHARE, free_ram, standardize
from medgcsam.training.device import autocast
from medgcsam.training.stitching import Corner, Stitching, starts

STITCH = ("auto", "device", "cpu", "disk")


def sliding_window(
    networks: nn.Module | Sequence[nn.Module],
    volume: np.ndarray,
    *,
    patch: Sequence[int],
    overlap: float,
    outputs: int,
    overlapping: bool,
    device: torch.device | str,
    precision: str,
    intensity: str,
    mirror: bool | Sequence[int] = False,
    stitch: str = "auto",
    scratch: Path | None = None,
    windows: int = 1,
    advance: Advance | None = None,
) -> np.ndarray:
    """Probabilities float16 (outputs, *spatial) of ``volume``: softmax, or sigmoids if ``overlapping``.

    Windows of ``patch`` voxels share ``overlap`` of their length with the next. They are weighted by a Gaussian
    (standard deviation patch / 8, at least 0.001), as in nnU-Net and MONAI. Logits are averaged over windows and mirror
    images, probabilities over networks. A volume smaller than the patch is padded around with the smallest value of
    each channel.

    Args:
        networks: one or several, on ``device``; they are put into evaluation mode and left there.
        volume: float16 or float32 (channels, *spatial), array or memory map, not yet standardised.
        patch: voxels per axis.
        precision: fp32, bf16 or fp16, for the networks alone.
        intensity: as for ``medgcsam.pipeline.batches.standardize``.
        mirror: average over the mirror images along all axes, or along those named (0 the first spatial one).
        stitch: where the open planes lie, "device" or "cpu", with the result in RAM; "disk": on the CPU, with the
            result in a file. "auto": on the device where they take less than 40% of its free memory, and the result in
            a file where it takes more than 40% of the free RAM.
        scratch: folder of that file, which has no name and goes with the array; without a folder "auto" stays in RAM.
        windows: so many at a time; one where memory does not suffice for them.
        advance: called with the number of windows done and to do.

    Open are patch[0] planes of (networks, outputs, *spatial[1:]) float32. Raises MachineError where memory does not
    suffice even one window at a time and with the open planes on the CPU, and where the disk is full.
    """
    networks = [networks] if isinstance(networks, nn.Module) else list(networks)
    patch, device, shape = tuple(int(n) for n in patch), torch.device(device), volume.shape[1:]
    if len(shape) != len(patch):
        raise ValueError(f"a volume of {len(shape)} axes and a patch of {len(patch)}")
    if not 0 <= overlap < 1:
        raise ValueError(f"overlap must be at least 0 and less than 1, not {overlap}")
    if stitch not in STITCH or (stitch == "disk" and scratch is None):
        raise ValueError(f"stitch must be one of {', '.join(STITCH)}, and disk needs scratch; not {stitch!r}")
    for network in networks:
        network.eval()
    reader = _Reader(volume, patch, device, intensity)
    size, flips = reader.size, _flips(mirror, len(shape))
    result_bytes = 2 * outputs * prod(shape)
    on_disk = stitch == "disk" or (stitch == "auto" and scratch is not None and result_bytes > SHARE * free_ram())
    open_bytes = 4 * len(networks) * outputs * patch[0] * prod(size[1:])

    def run(place: torch.device, at_once: int) -> np.ndarray:
        stitching = Stitching(
            size,
            [starts(n, p, overlap) for n, p in zip(size, patch, strict=True)],
            patch,
            networks=len(networks),
            outputs=outputs,
            overlapping=overlapping,
            crop=reader.crop,
            place=place,
            device=device,
            folder=scratch if on_disk else None,
        )
        total, done = prod(len(axis) for axis in stitching.starts), 0
        for row in range(len(stitching.starts[0])):
            corners = stitching.corners(row)
            for part in (corners[first : first + at_once] for first in range(0, len(corners), at_once)):
                images = reader.read(part)
                for number, network in enumerate(networks):
                    # Named, so that they live until the next ones are there: glibc would give the memory at the end of
                    # its heap back to the system after each window otherwise, which costs some 5% of the time.
                    logits = _logits(network, images, flips, precision)
                    stitching.add(number, part, logits)
                done += len(part)
                if advance:
                    advance(done, total)
            stitching.finish(row)
            reader.release()
        return stitching.result.array()

    with torch.inference_mode():
        for place, at_once in _attempts(device, stitch, open_bytes, windows):
            try:
                return run(place, at_once)
            except (torch.OutOfMemoryError, MemoryError):
                pass
            except RuntimeError as error:  # torch has no class of its own for the CPU's
                if "can't allocate memory" not in str(error):
                    raise
            if device.type == "cuda":
                torch.cuda.empty_cache()
    voxels = " x ".join(str(n) for n in shape)
    raise MachineError(
        f"Segmentation of {voxels} voxels is out of memory even one window at a time (open planes take "
        f"{open_bytes / 1e9:.1f} GB of RAM, the result {result_bytes / 1e9:.1f} GB); set inference.stitch to disk, "
        "use fewer networks, or train with smaller patches.size."
    )


def _attempts(device: torch.device, stitch: str, open_bytes: int, windows: int) -> Iterator[tuple[torch.device, int]]:
    """Where the open planes lie and how many windows go at a time; then again with less."""
    cpu, place = torch.device("cpu"), device
    if stitch in ("cpu", "disk") or (
        stitch == "auto" and device.type == "cuda" and open_bytes > SHARE * torch.cuda.mem_get_info(device)[0]
    ):
        place = cpu
    yield place, windows
    if (place, windows) != (cpu, 1):
        yield cpu, 1


def _flips(mirror: bool | Sequence[int], axes: int) -> list[tuple[int, ...]]:
    """Dimensions of a batch to mirror along: nothing first, then each combination."""
    along = range(axes) if mirror is True else (mirror or ())
    return [chosen for n in range(len(along) + 1) for chosen in itertools.combinations([2 + a for a in along], n)]


def _logits(network: nn.Module, images: Tensor, flips: Sequence[tuple[int, ...]], precision: str) -> Tensor:
    """Mean logits float32 over the mirror images."""
    total = None
    for flip in flips:
        with autocast(images.device, precision):
            logits = network(images.flip(flip) if flip else images)
        logits = logits.float().flip(flip) if flip else logits.float()
        total = logits if total is None else total.add_(logits)
    return total if len(flips) == 1 else total.div_(len(flips))


class _Reader:
    """Windows of a volume on the device, standardised; a volume smaller than a window lies in the middle of padding.

    ``size``: the padded shape, to which corners refer; ``crop``: the volume in it.
    """

    def __init__(self, volume: np.ndarray, window: tuple[int, ...], device: torch.device, intensity: str):
        self.volume, self.window, self.device, self.intensity = volume, window, device, intensity
        shape = volume.shape[1:]
        self.size = tuple(max(n, p) for n, p in zip(shape, window, strict=True))
        before = [(padded - n) // 2 for n, padded in zip(shape, self.size, strict=True)]
        self.crop = tuple(slice(b, b + n) for b, n in zip(before, shape, strict=True))
        self._fill = volume.min(axis=tuple(range(1, volume.ndim)), keepdims=True) if self.size != shape else None

    def read(self, corners: Sequence[Corner]) -> Tensor:
        """Float32 (windows, channels, *window)."""
        images = np.stack([self._window(corner) for corner in corners])
        return standardize(torch.from_numpy(images).to(self.device).float(), self.intensity)

    def _window(self, corner: Corner) -> np.ndarray:
        box = tuple(slice(start, start + n) for start, n in zip(corner, self.window, strict=True))
        part = self.volume[(slice(None), *box)]  # a padded axis has one window, which takes all of it
        if self._fill is None:
            return part
        padded = np.broadcast_to(self._fill, (len(part), *self.window)).copy()
        inside = (slice(c.start, c.start + n) for c, n in zip(self.crop, part.shape[1:], strict=True))
        padded[(slice(None), *inside)] = part
        return padded

    def release(self) -> None:
        """Give the pages of a memory map back, which would count as this process's; the system keeps them if it can."""
        if isinstance(self.volume, np.memmap) and self.volume.mode == "r" and hasattr(mmap, "MADV_DONTNEED"):
            self.volume._mmap.madvise(mmap.MADV_DONTNEED)
