"""What can be measured on a device: time, kernel launches, allocations, waits of the host; and capture of a graph.

``Cpu`` has the same methods for a trial of the scripts without a GPU; what it cannot measure it returns as None.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterable
from typing import Any

import torch
from timing import stopwatch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

Run = Callable[[], Any]


def _launches(names: Iterable[str]) -> dict[str, int]:
    """Calls of CUDA's runtime and driver by kind, from the names of profiler events."""
    kinds = {
        "kernel_launches": ("cudaLaunchKernel", "cuLaunchKernel", "cudaLaunchCooperativeKernel"),
        "graph_launches": ("cudaGraphLaunch",),
        "copies": ("cudaMemcpy", "cudaMemset"),
        "waits": ("cudaStreamSynchronize", "cudaEventSynchronize"),
    }
    names = list(names)
    return {kind: sum(name.startswith(starts) for name in names) for kind, starts in kinds.items()}


class Cuda:
    """A CUDA device."""

    name = "cuda"
    backend = "inductor"

    def facts(self) -> dict[str, Any]:
        """Card, memory, driver and versions."""
        properties = torch.cuda.get_device_properties(0)
        asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        try:
            driver = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split()[0]
        except (OSError, subprocess.CalledProcessError, IndexError):
            driver = "unknown"
        return {
            "card": properties.name,
            "memory_gib": round(properties.total_memory / 2**30, 1),
            "driver": driver,
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
        }

    def clock(self, run: Run) -> float:
        """Milliseconds between two events on the stream, from an idle device to the end of all work."""
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        start.record()
        run()
        end.record()
        torch.cuda.synchronize()
        return start.elapsed_time(end)

    def launches(self, run: Run) -> dict[str, int] | None:
        """Kernel launches and memory copies asked for, and kernels that ran."""
        run()
        torch.cuda.synchronize()
        with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
            run()
            torch.cuda.synchronize()
        events = list(profiler.events())
        on_device = [event.name for event in events if event.device_type == DeviceType.CUDA]
        kernels = sum(not name.startswith(("Memcpy", "Memset")) for name in on_device)
        return {**_launches(event.name for event in events), "kernels_run": kernels}

    def allocations(self, run: Run) -> dict[str, int] | None:
        """Blocks and bytes taken from the caching allocator during ``run``, and the peak above what was held before."""
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_stats()
        run()
        torch.cuda.synchronize()
        after = torch.cuda.memory_stats()
        return {
            "blocks": after["allocation.all.allocated"] - before["allocation.all.allocated"],
            "bytes": after["allocated_bytes.all.allocated"] - before["allocated_bytes.all.allocated"],
            "peak_bytes": after["allocated_bytes.all.peak"] - before["allocated_bytes.all.current"],
        }

    def wait(self, run: Run) -> str | None:
        """The first wait of the host for the device in ``run``, as torch names it; empty where there is none."""
        run()
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            run()
        except RuntimeError as error:
            return " ".join(str(error).split())[:120]
        finally:
            torch.cuda.set_sync_debug_mode("default")
        return ""

    def capture(self, run: Run, *, warmup: int = 3) -> Run:
        """Run ``warmup`` times on a stream of its own, capture once, and return what replays the capture."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(warmup):
                run()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            run()
        return graph.replay


class Cpu:
    """A stand-in that lets every line of the scripts run without a GPU."""

    name = "cpu"
    backend = "aot_eager"

    def facts(self) -> dict[str, Any]:
        return {"card": None, "memory_gib": None, "driver": None, "cuda": None, "cudnn": None}

    def clock(self, run: Run) -> float:
        return stopwatch(run)

    def launches(self, run: Run) -> dict[str, int] | None:
        with profile(activities=[ProfilerActivity.CPU]) as profiler:
            run()
        assert not any(_launches(event.name for event in profiler.events()).values())
        return None

    def allocations(self, run: Run) -> dict[str, int] | None:
        run()
        return None

    def wait(self, run: Run) -> str | None:
        run()
        return None

    def capture(self, run: Run, *, warmup: int = 3) -> Run:
        for _ in range(warmup):
            run()
        return run
