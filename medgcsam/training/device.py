"""Which device computes, in which precision, and with how many threads."""

from __future__ import annotations

import os
import re
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

from medgcsam.errors import ConfigError, MachineError

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


def choose_device(name: str, *, key: str = "training.device") -> torch.device:
    """The device for ``auto``, ``cpu``, ``cuda`` or ``cuda:N``, as ``key`` asks for it.

    Raises:
        ConfigError: it is none of these words.
        MachineError: a GPU is asked for by name and is not there.
    """
    if not re.fullmatch(r"auto|cpu|cuda(:[0-9]{1,3})?", name):
        raise ConfigError(f"{key}: {name!r} is no device; say auto, cpu, cuda, or cuda:1 for a certain GPU.")
    if name == "auto":
        return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    device = torch.device(name)
    if device.type != "cuda":
        return device
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    index = device.index or 0
    if index >= count:
        seen = "torch sees no GPU" if count == 0 else f"torch sees {count} GPU(s), cuda:0 to cuda:{count - 1}"
        raise MachineError(
            f"{key}: {name} is not there ({seen}, torch {torch.__version__}); "
            f"install the driver's torch build (see `medgcsam doctor`) or set {key}=auto."
        )
    return torch.device("cuda", index)


def check_precision(device: torch.device, precision: str, *, key: str = "training.precision") -> None:
    """Refuse a precision, that of the configuration's ``key``, that the device has no use for.

    Raises:
        MachineError: fp16 on a CPU, or bf16 on a GPU without it.
    """
    if precision == "fp16" and device.type != "cuda":
        raise MachineError(f"{key}: fp16 needs a GPU, but training runs on {device}; use fp32 or bf16.")
    if precision == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise MachineError(f"{key}: {describe_device(device)} has no bf16; use another.")


def describe_device(device: torch.device) -> str:
    """The device in words for logs and provenance, such as ``cuda:0 (NVIDIA H100, 79 GiB)``."""
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return f"{device} ({properties.name}, {properties.total_memory / 2**30:.0f} GiB)"
    return f"{device} ({torch.get_num_threads()} threads)"


def repeatable(threads: int | None) -> None:
    """Make a repeated run give the same bytes: deterministic kernels, a fixed number of CPU threads."""
    if threads is not None:
        torch.set_num_threads(threads)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # asked for by deterministic cuBLAS
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    torch.use_deterministic_algorithms(True, warn_only=True)


def autocast(device: torch.device, precision: str) -> AbstractContextManager:
    """A fresh autocast context of ``fp32`` (none), ``bf16`` or ``fp16``.

    One context serves one forward pass: its cache of cast weights would hand stale weights to a second pass. Inside a
    region that is open already, such as that of ``optimizer.ascent_precision``, it does nothing: the outer one counts.
    """
    if precision == "fp32" or torch.is_autocast_enabled(device.type):
        return nullcontext()
    return torch.autocast(device.type, dtype=_AUTOCAST[precision])


@contextmanager
def memory_errors(what: str):
    """Turn the device's out-of-memory error into a sentence that says what to change."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise MachineError(
            f"{what}: the device is out of memory; lower training.batch_size (training.accumulate keeps the same "
            "effective batch) or image.size."
        ) from error
