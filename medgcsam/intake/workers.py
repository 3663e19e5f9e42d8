"""Work spread over processes, results in order: light workers, and this process works too."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from types import FrameType
from typing import TypeVar

Item, Result = TypeVar("Item"), TypeVar("Result")

LARGEST_CHUNK = 32
WORTH_A_WORKER = 200
"""Items below which starting a process takes longer than it saves."""


def helpers(workers: int | str, items: int) -> int:
    """Processes beside this one for ``pipeline.workers``: "auto" leaves one core for this one."""
    if workers != "auto":
        return int(workers)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 0 if items < WORTH_A_WORKER else cores - 1


def in_order(
    function: Callable[[Item], Result], items: Iterable[Item], total: int, workers: int = 0
) -> Iterator[Result]:
    """``function`` of each of ``total`` items, in order; see ``several_in_order``."""
    return several_in_order(partial(map, function), items, total, workers)


def several_in_order(
    function: Callable[[Iterable[Item]], Iterator[Result]], items: Iterable[Item], total: int, workers: int = 0
) -> Iterator[Result]:
    """What ``function`` makes of ``total`` items, a result for each, in order. It is called with some of the items, and
    lies at the top of a module that is quick to import.

    ``workers`` processes help this one, which begins at once while they start. Where one of them cannot start or is
    killed for memory, the rest is done here. Items are drawn shortly before their turn. Closing the generator stops the
    workers at once, and they end by themselves when this process dies.
    """
    if workers < 1 or total < 2:
        yield from function(items)
        return
    pool, finished = ProcessPoolExecutor(workers, mp_context=_context(), initializer=_follow_the_parent), False
    try:
        yield from _shared(function, _chunks(items, total, workers + 1), pool, ahead=2 * workers)
        finished = True
    finally:
        if not finished:  # stopped, or an error: nobody wants what the workers are at
            for process in list((getattr(pool, "_processes", None) or {}).values()):
                process.terminate()
        pool.shutdown(cancel_futures=True)


def _shared(
    function: Callable[[Iterable[Item]], Iterator[Result]],
    chunks: Iterator[list[Item]],
    pool: ProcessPoolExecutor,
    *,
    ahead: int,
) -> Iterator[Result]:
    """Results chunk by chunk; this process takes every chunk that no worker has room for, or has failed at."""
    given: dict[int, tuple[list[Item], Future]] = {}
    done: dict[int, list[Result]] = {}
    numbers, told, left = itertools.count(), 0, True
    while left or given or done:
        while left and len(given) < ahead:
            chunk = next(chunks, [])
            left = bool(chunk)
            if chunk:
                given[next(numbers)] = chunk, _submitted(pool, function, chunk)
        chunk = next(chunks, []) if left else []
        left = bool(chunk)
        if chunk:
            done[next(numbers)] = _each(function, chunk)
        waited_for = told if not left and told not in done else None
        for number in [number for number, (_, future) in given.items() if future.done() or number == waited_for]:
            chunk, future = given.pop(number)
            try:
                done[number] = _each(function, chunk) if future.cancel() else future.result()
            except (BrokenProcessPool, OSError):
                done[number] = _each(function, chunk)
        while told in done:
            yield from done.pop(told)
            told += 1


def _context() -> multiprocessing.context.BaseContext:
    """Forked workers are there at once, but a fork of a process with threads, such as those of torch, can hang."""
    alone = threading.active_count() == 1 and "torch" not in sys.modules
    return multiprocessing.get_context("fork" if sys.platform == "linux" and alone else "spawn")


def _submitted(pool: ProcessPoolExecutor, function: Callable, chunk: list) -> Future:
    try:
        return pool.submit(_each, function, chunk)
    except (BrokenProcessPool, OSError) as error:
        failed: Future = Future()
        failed.set_exception(error)
        return failed


def _chunks(items: Iterable[Item], total: int, processes: int) -> Iterator[list[Item]]:
    """Smaller and smaller towards the end, so that all processes come to it at the same time."""
    iterator, left = iter(items), total
    while chunk := list(itertools.islice(iterator, max(1, min(LARGEST_CHUNK, left // (8 * processes))))):
        left -= len(chunk)
        yield chunk


def _each(function: Callable[[Iterable[Item]], Iterator[Result]], items: Sequence[Item]) -> list[Result]:
    _state["working"] = True
    if _state["ending"]:
        os._exit(1)
    try:
        return list(function(items))
    finally:
        _state["working"] = False


_state = {"working": False, "ending": False}
"""Of this process: whether it is at an item, and whether it was told to end."""


def _end(number: int, frame: FrameType | None) -> None:
    """End at once, but never while a result is being sent: the parent would wait for the rest of it for ever."""
    _state["ending"] = True
    if _state["working"]:
        os._exit(1)


def _follow_the_parent() -> None:
    """Ctrl-C is the parent's to handle, SIGTERM ends the worker, and so does the death of its parent."""
    _state.update(working=False, ending=False)  # as of the parent at the moment of a fork
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end)
    threading.Thread(target=_end_with_the_parent, daemon=True).start()


def _end_with_the_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)
