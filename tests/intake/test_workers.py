"""Work over processes: all of it, in order, whatever happens to a worker."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time

import pytest

from medgcsam.errors import DataError
from medgcsam.intake import workers
from medgcsam.intake.workers import helpers, in_order

PARENT = os.getpid()


def square(number: int) -> int:
    return number * number


def process(number: int) -> int:
    time.sleep(0.002)
    return os.getpid()


def large(number: int) -> bytes:
    return bytes(100_000)


def die_elsewhere(number: int) -> int:
    if os.getpid() != PARENT and number > 20:
        os._exit(1)
    return number


def fail(number: int) -> int:
    if number == 70:
        raise DataError("number 70 is wrong.")
    return number


@pytest.mark.parametrize("processes", [0, 1, 3])
@pytest.mark.parametrize("total", [0, 1, 2, 33, 500])
def test_all_results_in_order(processes, total):
    assert list(in_order(square, iter(range(total)), total, processes)) == [n * n for n in range(total)]


def test_this_process_and_others_share_the_work():
    who = list(in_order(process, range(600), 600, 1))
    assert len(set(who)) == 2
    assert 0.1 < who.count(os.getpid()) / 600 < 0.9


def test_chunks_shrink_towards_the_end():
    """No process is left with much work while the others have none."""
    sizes = [len(chunk) for chunk in workers._chunks(range(1000), 1000, 2)]
    assert sum(sizes) == 1000
    assert sizes == sorted(sizes, reverse=True)
    assert (sizes[0], sizes[-1]) == (workers.LARGEST_CHUNK, 1)


def test_work_of_a_dead_worker_is_done_here():
    assert list(in_order(die_elsewhere, range(300), 300, 2)) == list(range(300))


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_workers_that_are_sending_results_are_stopped(monkeypatch, context):
    monkeypatch.setattr(workers, "_context", lambda: multiprocessing.get_context(context))
    for _ in range(2):
        results = in_order(large, range(10_000), 10_000, 2)
        for _ in range(100):
            next(results)
        closing = threading.Thread(target=results.close, daemon=True)
        closing.start()
        closing.join(20)
        assert not closing.is_alive(), "waits for the rest of a result that nobody sends"


@pytest.mark.parametrize("processes", [0, 2])
def test_an_error_of_the_work_comes_through(processes):
    with pytest.raises(DataError, match="number 70"):
        list(in_order(fail, range(200), 200, processes))


def test_spawned_workers_where_torch_is_loaded(monkeypatch):
    monkeypatch.setitem(workers.sys.modules, "torch", object())
    assert workers._context().get_start_method() == "spawn"


def test_number_of_helpers(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    assert [helpers("auto", 1_000_000), helpers("auto", 10), helpers(3, 10), helpers(0, 1_000_000)] == [7, 0, 3, 0]
