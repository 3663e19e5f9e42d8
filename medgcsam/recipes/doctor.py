"""Is this machine ready: versions, device, transfer syntaxes, shared memory, writable folders."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

from medgcsam.errors import MedgcsamError
from medgcsam.places import cache_folder
from medgcsam.run_folder import ensure_writable

_SMALL_SHARED_MEMORY = 1 << 30
_VIDEO = ("MPEG", "HEVC", "SMPTE")


def examine(output: Path) -> dict[str, Any]:
    """All findings as plain values; ``problems`` lists, as sentences, what keeps medgcsam from working here."""
    from medgcsam.imaging import readable_transfer_syntaxes
    from medgcsam.training.provenance import software

    problems: list[str] = []
    folders = {"output": Path(output).absolute(), "cache": cache_folder(Path(output))}
    return {
        "software": software(),
        "device": _device(),
        "transfer_syntaxes": readable_transfer_syntaxes(),
        "shared_memory": _shared_memory(),
        "folders": {name: _folder(path, problems) for name, path in folders.items()},
        "data": os.environ.get("MEDGCSAM_DATA"),
        "problems": problems,
    }


def _device() -> dict[str, Any]:
    import torch

    from medgcsam.training.device import choose_device, describe_device

    return {
        "auto": describe_device(choose_device("auto")),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "cuda_of_torch": torch.version.cuda,
        "bf16": torch.cuda.is_available() and torch.cuda.is_bf16_supported(),
        "cpus": os.cpu_count(),
    }


def _shared_memory() -> dict[str, Any]:
    path = Path("/dev/shm")
    if not path.is_dir():
        return {"bytes": None, "note": "no /dev/shm here; medgcsam does not need it"}
    size = shutil.disk_usage(path).total
    note = "medgcsam reads its store from memory-mapped files and needs none of it"
    return {"bytes": size, "note": f"small, but {note}" if size < _SMALL_SHARED_MEMORY else note}


def _folder(path: Path, problems: list[str]) -> dict[str, Any]:
    try:
        ensure_writable(path)
    except MedgcsamError as error:
        problems.append(str(error).rstrip("."))
        return {"path": str(path), "writable": False, "free_bytes": None}
    return {"path": str(path), "writable": True, "free_bytes": shutil.disk_usage(path).free}


def print_examination(result: dict[str, Any]) -> None:
    """The findings as aligned lines."""
    software, device = result["software"], result["device"]
    print(f"medgcsam    {software['medgcsam']} on Python {software['python']}, {software['platform']}")
    print(f"packages    {', '.join(f'{name} {version}' for name, version in software['packages'].items())}")
    print(f"device      auto takes {device['auto']}; CUDA of torch: {device['cuda_of_torch'] or 'none'}")
    for gpu in device["gpus"]:
        print(f"            {gpu}{', bf16' if device['bf16'] else ''}")
    readable = [name for name, can in result["transfer_syntaxes"].items() if can]
    refused = [name for name, can in result["transfer_syntaxes"].items() if not can]
    print(f"DICOM       reads {len(readable)} transfer syntaxes: {'; '.join(readable)}")
    videos = [name for name in refused if any(word in name for word in _VIDEO)]
    stills = [name for name in refused if name not in videos]
    if refused:
        print(f"            refuses by name: {'; '.join([*stills, f'{len(videos)} of videos and sound'])}")
    size = result["shared_memory"]["bytes"]
    print(f"/dev/shm    {'absent' if size is None else _gib(size)}: {result['shared_memory']['note']}")
    for name, folder in result["folders"].items():
        free = f"{_gib(folder['free_bytes'])} free" if folder["writable"] else "NOT WRITABLE"
        print(f"{name:<11} {folder['path']} ({free})")
    print(
        f"data        {result['data'] or 'MEDGCSAM_DATA is not set (needed only by the configs of public data sets)'}"
    )
    for problem in result["problems"]:
        print(f"PROBLEM     {problem}", file=sys.stderr)


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
