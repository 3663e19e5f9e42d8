"""Largest components, and the decision on validation cases whether to keep them alone."""

from __future__ import annotations

import numpy as np
import pytest

from medgcsam.training.components import choose_components, keep_largest, largest_component


def flood(mask: np.ndarray) -> list[set[tuple[int, ...]]]:
    """Components by walking from neighbour to neighbour: an independent reference."""
    left = {tuple(int(i) for i in voxel) for voxel in np.argwhere(mask)}
    steps = list(np.ndindex(*(3,) * mask.ndim))
    components = []
    while left:
        todo, component = [min(left)], set()
        left.discard(todo[0])
        while todo:
            voxel = todo.pop()
            component.add(voxel)
            for step in steps:
                neighbour = tuple(v + s - 1 for v, s in zip(voxel, step, strict=True))
                if neighbour in left:
                    left.discard(neighbour)
                    todo.append(neighbour)
        components.append(component)
    return components


@pytest.mark.parametrize("shape", [(12, 9), (7, 8, 6)])
@pytest.mark.parametrize("share", [0.08, 0.2])
def test_the_largest_component_is_that_of_a_walk_over_neighbours(shape, share):
    for seed in range(10):
        mask = np.random.default_rng(seed).random(shape) < share
        components = flood(mask)
        largest = {tuple(int(i) for i in voxel) for voxel in np.argwhere(largest_component(mask))}
        assert largest in components
        assert len(largest) == max(map(len, components))


def test_corners_connect_and_of_equal_components_the_first_stays():
    mask = np.zeros((6, 6), bool)
    mask[[0, 1], [0, 1]] = True  # touch at a corner
    mask[4:, 4] = True
    assert np.argwhere(largest_component(mask)).tolist() == [[0, 0], [1, 1]]
    assert not largest_component(np.zeros((3, 3, 3))).any()


def test_only_the_named_structures_lose_components():
    numbers = np.zeros((1, 1, 12), np.int16)
    numbers[0, 0] = [1, 1, 1, 0, 2, 0, 2, 2, 0, 1, 1, 0]
    assert keep_largest(numbers, [2], overlapping=False)[0, 0].tolist() == [1, 1, 1, 0, 0, 0, 2, 2, 0, 1, 1, 0]
    assert keep_largest(numbers, [1, 2], overlapping=False)[0, 0].tolist() == [1, 1, 1, 0, 0, 0, 2, 2, 0, 0, 0, 0]
    channels = np.concatenate([numbers == 1, numbers >= 1]).astype(np.uint8)
    kept = keep_largest(channels, [1], overlapping=True)
    assert kept.dtype == np.uint8
    assert kept[0, 0].tolist() == [1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]
    np.testing.assert_array_equal(kept[1], channels[1])


def row(*voxels: int) -> np.ndarray:
    """Numbers (1, 1, 10)."""
    label = np.zeros((1, 1, 10), np.int16)
    label[0, 0, : len(voxels)] = voxels
    return label


def test_a_structure_keeps_its_largest_component_where_dice_rises_and_patients_count_once():
    cases = [
        ("a", row(1, 1, 0, 0, 0), row(1, 1, 0, 1, 0)),  # structure 1: 0.8 -> 1
        ("a", row(1, 1, 0, 0, 0), row(1, 1, 0, 0, 0)),  # 1 -> 1
        ("b", row(1, 0, 1, 1, 0), row(1, 0, 1, 1, 0)),  # 1 -> 0.8
        ("b", row(0, 0, 0, 0, 2), row(1, 0, 1, 0, 2)),  # no structure 1 in the reference: left out
    ]
    choice = choose_components(cases, ["lesion", "organ", "absent"], overlapping=False)
    assert choice["lesion"].dice_all == pytest.approx((0.9 + 1) / 2)
    assert choice["lesion"].dice_largest == pytest.approx((1 + 0.8) / 2)
    assert (choice["lesion"].largest, choice["lesion"].patients) == (False, 2)
    assert (choice["organ"].largest, choice["organ"].dice_all, choice["organ"].dice_largest) == (False, 1, 1)
    assert (choice["absent"].largest, choice["absent"].dice_all, choice["absent"].patients) == (False, None, 0)
    assert choose_components(iter(cases[:2]), ["lesion"], overlapping=False)["lesion"].largest


def test_overlapping_structures_are_decided_channel_by_channel():
    reference = np.zeros((2, 1, 10), np.uint8)
    reference[:, 0, :3] = 1
    predicted = reference.copy()
    predicted[1, 0, 6] = 1
    choice = choose_components([("a", reference, predicted)], ["whole", "core"], overlapping=True)
    assert [choice[name].largest for name in ("whole", "core")] == [False, True]
    assert choice["core"].dice_all == pytest.approx(6 / 7)


def test_a_missed_structure_has_dice_zero_either_way():
    (choice,) = choose_components([("a", row(1), row(0))], ["lesion"], overlapping=False).values()
    assert (choice.largest, choice.dice_all, choice.dice_largest) == (False, 0, 0)
