"""Batches: complete, repeatable, the same from memory and from the map."""

from __future__ import annotations

import threading
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from medgcsam.errors import MachineError
from medgcsam.pipeline import batches as module
from medgcsam.pipeline.augment import Augment
from medgcsam.pipeline.batches import Batches, standardize
from medgcsam.pipeline.store import StoreWriter, exclusive, open_store, store_key

COUNT = 21
AUGMENT = Augment(
    SimpleNamespace(
        enabled=True,
        flip_horizontal=True,
        flip_vertical=False,
        rotate_degrees=5.0,
        shift=0.1,
        scale=0.1,
        brightness=0.1,
        contrast=0.1,
        gamma=0.1,
        noise=0.01,
    )
)


def make_store(folder, intensity="display"):
    image = SimpleNamespace(
        size=(5, 7), channels=1, fit="pad", intensity=intensity, irregular="refuse", pet="suv", orientation="refuse"
    )
    sources = [str(n) for n in range(COUNT)]
    target = folder / store_key(image, sources)
    pixels = np.random.default_rng(0).random((COUNT, 1, 5, 7)).astype(np.float16)
    with exclusive(target) as partial:
        writer = StoreWriter(partial, sources=sources, image=image)
        for row in range(COUNT):
            writer.write(row, pixels[row], "")
        writer.finish(target)
    return open_store(target)


@pytest.fixture
def store(tmp_path):
    return make_store(tmp_path)


def collect(batches: Batches, number: int):
    images, targets, rows = zip(*batches.epoch(number), strict=True)
    return torch.cat(images), torch.cat(targets), torch.cat(rows)


@pytest.mark.parametrize("memory", ["memory", "map", "auto"])
@pytest.mark.parametrize("shuffle", [True, False])
def test_an_epoch_shows_each_row_once_with_its_own_image_and_target(store, memory, shuffle):
    rows = [3, 17, 5, 0, 20, 11, 8]
    targets = np.array(rows) * 10
    batches = Batches(store, rows, targets, batch_size=3, seed=1, shuffle=shuffle, memory=memory)
    images, got, order = collect(batches, 4)
    assert sorted(order.tolist()) == sorted(rows)
    assert (order.tolist() == rows) is not shuffle
    assert got.tolist() == [10 * row for row in order.tolist()]
    assert images.dtype == torch.float32
    expected = (store.images[order.numpy()].astype(np.float32) - 0.5) / 0.25
    np.testing.assert_allclose(images, expected, atol=1e-6)


def test_map_and_memory_give_the_same_bytes(store):
    options = {"batch_size": 4, "seed": 3, "shuffle": True, "augment": AUGMENT}
    held, mapped = (Batches(store, range(COUNT), range(COUNT), memory=m, **options) for m in ("memory", "map"))
    assert (held.held, mapped.held) == ("device", "map")
    for ours, theirs in zip(held.epoch(2), mapped.epoch(2), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("memory", ["memory", "map"])
def test_an_epoch_depends_on_seed_and_number_alone(store, memory):
    def batches(seed):
        return Batches(
            store, range(COUNT), range(COUNT), batch_size=4, seed=seed, shuffle=True, augment=AUGMENT, memory=memory
        )

    straight = batches(5)
    for number in range(3):
        whole = collect(straight, number)
    resumed = collect(batches(5), 2)
    assert all(torch.equal(a, b) for a, b in zip(whole, resumed, strict=True))
    for other in (collect(batches(5), 3), collect(batches(6), 2)):
        assert not torch.equal(whole[2], other[2])


def test_leaving_an_epoch_early_changes_no_later_one_and_ends_the_thread(store):
    options = {"batch_size": 2, "seed": 5, "shuffle": True, "augment": AUGMENT, "memory": "map"}
    batches = Batches(store, range(COUNT), range(COUNT), **options)
    before = collect(batches, 1)
    for _ in batches.epoch(1):
        break
    after = collect(batches, 1)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert not [thread for thread in threading.enumerate() if thread.name == "medgcsam-batches"]


def test_order_is_uniform(store):
    batches = Batches(store, range(4), range(4), batch_size=4, shuffle=True)
    counts = Counter(tuple(collect(batches, number)[2].tolist()) for number in range(600))
    assert len(counts) == 24
    assert max(counts.values()) < 60


@pytest.mark.parametrize(
    ("rows", "size", "drop", "expected"),
    [
        (20, 5, False, [5, 5, 5, 5]),
        (21, 5, False, [5, 5, 5, 6]),  # a single image joins the batch before it
        (18, 5, False, [5, 5, 5, 3]),
        (18, 5, True, [5, 5, 5]),
        (21, 5, True, [5, 5, 5, 5]),
        (3, 5, True, [3]),  # the only batch is never dropped
        (1, 5, False, [1]),
        (3, 1, False, [1, 1, 1]),
        (0, 5, False, []),
    ],
)
def test_the_last_batch(store, rows, size, drop, expected):
    batches = Batches(store, range(rows), range(rows), batch_size=size, drop_last=drop)
    assert [len(images) for images, _, _ in batches.epoch(0)] == expected
    assert len(batches) == len(expected)


def test_dropped_rows_vary_with_the_epoch(store):
    batches = Batches(store, range(18), range(18), batch_size=5, drop_last=True, shuffle=True)
    dropped = [set(range(18)) - set(collect(batches, number)[2].tolist()) for number in range(8)]
    assert len({frozenset(rows) for rows in dropped}) > 4


def test_a_reading_error_reaches_the_consumer(store, monkeypatch):
    batches = Batches(store, range(COUNT), range(COUNT), batch_size=4, memory="map")

    def broken(part):
        raise OSError("disk unplugged")

    monkeypatch.setattr(batches, "_gather", broken)
    with pytest.raises(OSError, match="unplugged"):
        collect(batches, 0)


def test_auto_reads_the_map_where_memory_is_short(store, monkeypatch):
    monkeypatch.setattr(module, "free_ram", lambda: 1000.0)
    assert Batches(store, range(COUNT), range(COUNT), batch_size=4).held == "map"
    assert Batches(store, range(3), range(3), batch_size=4).held == "device"


def test_more_than_memory_holds_is_a_machine_error(store):
    class Endless:
        shape = (COUNT, 1, 5, 7)

        def __getitem__(self, rows):
            raise MemoryError

    huge = SimpleNamespace(images=Endless(), intensity="display")
    with pytest.raises(MachineError, match=r"pipeline\.memory"):
        module._hold(huge, torch.arange(COUNT), torch.device("cpu"), "memory")


def test_free_memory_is_plausible():
    assert 1e6 < module.free_ram() < 1e14


def test_zscores_reach_the_network_as_they_are(tmp_path):
    store = make_store(tmp_path, "zscore")
    images, _, rows = collect(Batches(store, range(COUNT), range(COUNT), batch_size=4), 0)
    np.testing.assert_array_equal(images, store.images[rows.numpy()].astype(np.float32))
    assert standardize(torch.tensor([0.0, 0.5, 1.0]), "display").tolist() == [-2, 0, 2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": [0, COUNT]}, "rows must lie"),
        ({"rows": [0]}, "1 rows but 2 targets"),
        ({"batch_size": 0}, "batch_size"),
        ({"memory": "disk"}, "memory must be"),
    ],
)
def test_wrong_arguments(store, change, message):
    arguments = {"rows": [0, 1], "targets": [0, 1], "batch_size": 2} | change
    with pytest.raises(ValueError, match=message):
        Batches(store, arguments.pop("rows"), arguments.pop("targets"), **arguments)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("memory", ["memory", "map"])
def test_a_gpu_gets_what_a_cpu_gets(store, memory):
    options = {"batch_size": 4, "seed": 1, "shuffle": True, "augment": AUGMENT, "memory": memory}
    on_cpu = collect(Batches(store, range(COUNT), range(COUNT), device="cpu", **options), 1)
    on_gpu = collect(Batches(store, range(COUNT), range(COUNT), device="cuda", **options), 1)
    assert on_gpu[0].is_cuda
    for ours, theirs in zip(on_cpu, on_gpu, strict=True):
        torch.testing.assert_close(ours, theirs.cpu(), atol=1e-4, rtol=0)
