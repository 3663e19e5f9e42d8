"""The sanity baseline sees the training rows alone and finds what a line can find."""

from __future__ import annotations

import numpy as np
from sklearn.metrics import roc_auc_score

from medgcsam.training.baseline import baseline_probabilities, thumbnails


def pictures(n: int = 120) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, n)
    images = rng.normal(0.4, 0.05, (n, 1, 64, 64))
    images[:, 0, 16:48, 16:48] += 0.1 * labels[:, None, None]
    return images.astype(np.float16), labels


def test_thumbnails_are_area_averages() -> None:
    image = np.random.default_rng(0).random((2, 3, 96, 144)).astype(np.float16)
    expected = image.astype(np.float64).mean(axis=1).reshape(2, 48, 2, 48, 3).mean(axis=(2, 4))
    assert np.allclose(thumbnails(image).reshape(2, 48, 48), expected, atol=1e-5)


def test_it_learns_and_test_labels_have_no_part_in_it() -> None:
    images, labels = pictures()
    train, validation, test = np.split(np.arange(120), [70, 90])
    found = baseline_probabilities(images, labels, train=train, validation=validation, classes=2)
    assert roc_auc_score(labels[test], found[test, 1]) > 0.95
    assert np.allclose(found.sum(axis=1), 1)
    scrambled = labels.copy()
    scrambled[test] = 1 - scrambled[test]
    again = baseline_probabilities(images, scrambled, train=train, validation=validation, classes=2)
    assert np.array_equal(found, again)


def test_findings_with_unknown_entries() -> None:
    images, labels = pictures()
    targets = np.stack([labels, 1 - labels, np.zeros(120)], axis=1).astype(np.float32)
    targets[::5, 0] = np.nan
    train, validation, test = np.split(np.arange(120), [70, 90])
    found = baseline_probabilities(images, targets, train=train, validation=validation, classes=3)
    assert found.shape == (120, 3)
    assert roc_auc_score(labels[test], found[test, 0]) > 0.95
    assert np.all(found[:, 2] == 0)
