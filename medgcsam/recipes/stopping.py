"""Work that may be stopped at any moment, since the same command goes on where it was."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from medgcsam.errors import Interrupted


@contextmanager
def resumable(verb: str, then: str = "run the same command again to go on") -> Iterator[None]:
    """While the context is open, SIGINT and SIGTERM end it by an exception, so that what is open is saved and closed.

    SIGTERM is what Docker, SLURM and Kubernetes send before they kill. In a thread that is not the main one Python
    allows no handlers, and none is installed.

    Raises:
        Interrupted: one of the two signals came.
    """
    names = ["SIGINT"]

    def stop(number: int, _frame: FrameType | None) -> None:
        names.append(signal.Signals(number).name)
        raise KeyboardInterrupt  # passes by every ``except Exception``

    previous = {}
    if threading.current_thread() is threading.main_thread():
        previous = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(f"{verb}: stopped by {names[-1]}; {then}.") from None
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
