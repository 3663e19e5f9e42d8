"""What the user sees while work goes on: plain lines, kept in log.txt, and a live bar where there is a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from medgcsam.run_folder import writing_failed

Advance = Callable[[int, int], None]
"""Called as ``advance(done, total)``."""


class Journal:
    """Prints lines to a stream (standard output; standard error where stdout carries JSON) and to a log file.

    The log opens with ``open_log`` once the run folder is known; lines said before are kept and written then.
    """

    def __init__(self, *, quiet: bool = False, stream: TextIO | None = None) -> None:
        self.quiet = quiet
        self.stream = stream or sys.stdout
        self._log: Path | None = None
        self._waiting: list[str] = []

    def open_log(self, path: Path) -> None:
        """Append all lines said so far, and those to come, to ``path``."""
        self._log = Path(path)
        waiting, self._waiting = self._waiting, []
        for line in waiting:
            self._write(line)

    def say(self, line: str = "", *, log: bool = True) -> None:
        """One line for the user and, unless it tells of places on this machine (``log=False``), for the log."""
        if not self.quiet:
            print(line, file=self.stream, flush=True)
        if log:
            self._write(line)

    def _write(self, line: str) -> None:
        if self._log is None:
            self._waiting.append(line)
            return
        try:
            self._log.parent.mkdir(parents=True, exist_ok=True)
            with open(self._log, "a", encoding="utf-8") as log:
                log.write(line + "\n")
        except OSError as error:
            raise writing_failed(self._log, error) from error

    @contextmanager
    def bar(self, description: str) -> Iterator[Advance]:
        """A progress bar with the time left, on a terminal alone; elsewhere ``advance`` does nothing."""
        if self.quiet or not self.stream.isatty():
            yield _nothing
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(file=self.stream), transient=True, refresh_per_second=4) as progress:
            task = progress.add_task(description, total=None)

            def advance(done: int, total: int) -> None:
                progress.update(task, completed=done, total=total)

            yield advance


def _nothing(done: int, total: int) -> None:
    """Progress that nobody watches."""


@contextmanager
def stopwatch() -> Iterator[Callable[[], float]]:
    """Yield a function that tells the seconds since the block began."""
    start = time.perf_counter()
    yield lambda: time.perf_counter() - start
