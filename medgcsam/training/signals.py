"""Stopping on SIGINT and SIGTERM at a step's end, so that the checkpoint of the last epoch stays the truth."""

from __future__ import annotations

import signal
import threading
from types import FrameType


class StopSignal:
    """While the context is open, a first signal is only remembered; a second Ctrl-C interrupts at once.

    SIGTERM is what Docker, SLURM and Kubernetes send before they kill. In a thread that is not the main one Python
    allows no handlers, and nothing is installed.
    """

    def __init__(self) -> None:
        self.name: str | None = None
        self._previous: dict[int, object] = {}

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._remember)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _remember(self, number: int, _frame: FrameType | None) -> None:
        if self.name is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.name = signal.Signals(number).name
