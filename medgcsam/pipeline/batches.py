"""Batches of a store on the training device: order by (seed, epoch), read ahead by one thread, no worker processes."""

from __future__ import annotations

import hashlib
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medgcsam.errors import MachineError
from medgcsam.pipeline.store import Store

AHEAD = 3  # batches that the reading thread may be ahead
SHARE = 0.4  # of the free memory that "auto" lets the images take
CENTRE, SPREAD = 0.5, 0.25  # of values 0..1, as the network gets them
UNIT_RANGE = ("display", "percentile")  # the kinds of intensity whose values are 0..1; others are deviations

Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def standardize(images: torch.Tensor, intensity: str) -> torch.Tensor:
    """Values for the network: (x - 0.5) / 0.25 of values 0..1; deviations ("zscore", "foreground") as they are.

    Constants and not the statistics of the training set, so that a network carries no hidden number of its data.
    This is the one place where it happens.
    """
    return (images - CENTRE).div_(SPREAD) if intensity in UNIT_RANGE else images


class Batches:
    """The chosen rows of a store, as batches ready for the network.

    ``rows``: row numbers of the store. ``targets``: array or tensor of the same length, aligned with ``rows``.
    ``shuffle``: a new order each epoch, from (seed, epoch) alone, so that a resumed epoch repeats the very batches.
    ``augment``: an ``Augment``; its draws also depend on (seed, epoch) alone.
    ``drop_last``: leave out a last batch that is not full. Otherwise it is kept, but a last batch of a single image is
    joined to the one before it, because batch normalisation cannot train on one value.
    ``memory``: "memory" holds the rows (float16) on the device, or in RAM where a GPU lacks room; "map" reads the
    memory map batch by batch, ahead of use in one thread; "auto" holds them where they take less than 40% of what is
    free.
    """

    def __init__(
        self,
        store: Store,
        rows: Sequence[int] | np.ndarray,
        targets: Any,
        *,
        batch_size: int,
        device: torch.device | str = "cpu",
        seed: int = 0,
        augment: Callable[..., torch.Tensor] | None = None,
        shuffle: bool = False,
        drop_last: bool = False,
        memory: str = "auto",
    ):
        self.store, self.device, self.seed, self.augment = store, torch.device(device), int(seed), augment
        self.rows = torch.as_tensor(np.asarray(rows, dtype=np.int64))
        self.targets = torch.as_tensor(targets)
        if len(self.rows) != len(self.targets):
            raise ValueError(f"{len(self.rows)} rows but {len(self.targets)} targets")
        if len(self.rows) and not 0 <= int(self.rows.min()) <= int(self.rows.max()) < len(store):
            raise ValueError(f"rows must lie in 0..{len(store) - 1}")
        if batch_size < 1:
            raise ValueError("batch_size must be at least 1")
        if memory not in ("auto", "memory", "map"):
            raise ValueError(f"memory must be auto, memory or map, not {memory!r}")
        self.batch_size, self.shuffle, self.drop_last = int(batch_size), shuffle, drop_last
        self._held = _hold(store, self.rows, self.device, memory)
        if self.held == "device":
            self.targets = self.targets.to(self.device)

    def __len__(self) -> int:
        """Batches per epoch."""
        return len(bounds(len(self.rows), self.batch_size, drop_last=self.drop_last))

    @property
    def held(self) -> str:
        """Where the images are: "device", "ram" or "map"."""
        if self._held is None:
            return "map"
        return "device" if self._held.device.type == self.device.type else "ram"

    def epoch(self, number: int) -> Iterator[Batch]:
        """Yield (images, targets, rows): images float32 (n, channels, rows, cols) standardised and targets, both on the
        device; rows int64 on the CPU, the rows of the store."""
        order = self._order(number)
        parts = [order[start:stop] for start, stop in bounds(len(self.rows), self.batch_size, drop_last=self.drop_last)]
        generator = generator_of(self.seed, number, "augment")
        source = self._from_device(parts) if self.held == "device" else read_ahead(self._gather, parts)
        try:
            for part, images, targets in source:
                images = images.to(self.device, non_blocking=True).float()
                targets = targets.to(self.device, non_blocking=True)
                if self.augment is not None:
                    images = self.augment(images, generator, unit_range=self.store.intensity in UNIT_RANGE)
                yield standardize(images, self.store.intensity), targets, self.rows[part]
        finally:
            source.close()

    def _order(self, number: int) -> torch.Tensor:
        if not self.shuffle:
            return torch.arange(len(self.rows))
        return torch.randperm(len(self.rows), generator=generator_of(self.seed, number, "order"))

    def _from_device(self, parts: list[torch.Tensor]) -> Iterator[Batch]:
        for part in parts:
            index = part.to(self.device, non_blocking=True)
            yield part, self._held[index], self.targets[index]

    def _gather(self, part: torch.Tensor) -> Batch:
        if self._held is not None:
            images = self._held[part]
        else:
            images = torch.from_numpy(self.store.images[self.rows[part].numpy()])
        targets = self.targets[part]
        if self.device.type == "cuda":  # only pinned memory is copied while the GPU computes
            images, targets = images.pin_memory(), targets.pin_memory()
        return part, images, targets


def bounds(count: int, size: int, *, drop_last: bool = False) -> list[tuple[int, int]]:
    """First and last (exclusive) of each batch of ``size``; what ``Batches`` says of the last one."""
    pairs = [(start, min(start + size, count)) for start in range(0, count, size)]
    rest = count % size
    if rest and drop_last and len(pairs) > 1:
        pairs.pop()
    elif rest == 1 and len(pairs) > 1:
        pairs.pop()
        pairs[-1] = (pairs[-1][0], count)
    return pairs


def read_ahead(gather: Callable[[Any], Any], parts: Sequence[Any]) -> Iterator[Any]:
    """``gather`` of each part, done in a thread; it ends with the epoch, also when the consumer leaves early."""
    ready: queue.Queue = queue.Queue(maxsize=AHEAD)
    stop = threading.Event()

    def put(item: Any) -> None:
        while not stop.is_set():
            try:
                ready.put(item, timeout=0.1)
                return
            except queue.Full:
                continue

    def read() -> None:
        try:
            for part in parts:
                if stop.is_set():
                    return
                put(gather(part))
            put(None)
        except BaseException as error:  # handed to the consumer, who raises it
            put(error)

    thread = threading.Thread(target=read, name="medgcsam-batches", daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
        thread.join()


def generator_of(seed: int, number: int, purpose: str) -> torch.Generator:
    """An own stream for every (seed, epoch, purpose)."""
    digest = hashlib.sha256(f"{seed}/{number}/{purpose}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def _hold(store: Store, rows: torch.Tensor, device: torch.device, memory: str) -> torch.Tensor | None:
    """The chosen images as one float16 tensor on the device or in RAM, or None to read the map."""
    if memory == "map":
        return None
    size = 2 * len(rows) * int(np.prod(store.images.shape[1:]))
    in_ram = memory == "memory" or size <= SHARE * free_ram()
    on_gpu = device.type == "cuda" and size <= SHARE * torch.cuda.mem_get_info(device)[0]
    if not in_ram:
        return None
    try:
        images = torch.from_numpy(store.images[rows.numpy()])
    except MemoryError as error:
        raise MachineError(
            f"The {len(rows)} images take {size / 1e9:.1f} GB, more than there is: set pipeline.memory to map."
        ) from error
    return images.to(device) if on_gpu else images


def free_ram() -> float:
    """Bytes that this process may still take: of the machine, or of its container where that is less."""
    free = [float("inf")]
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free += [1024.0 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable")]
        group = Path("/sys/fs/cgroup")
        limit = (group / "memory.max").read_text().strip()
        if limit != "max":
            free.append(float(limit) - float((group / "memory.current").read_text()))
    except (OSError, ValueError, IndexError):
        pass  # another system, or no container
    return min(free) if len(free) > 1 else 4e9
