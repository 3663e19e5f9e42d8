"""The sanity baseline: logistic regression on principal components of 48-pixel thumbnails.

A network that does not beat it has learnt little that needs a network. It sees the same split: components and
coefficients come from the training images, its penalty is chosen on the validation images.
"""

from __future__ import annotations

import warnings

import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from torch.nn import functional

METHOD = "logistic regression on principal components of 48-pixel thumbnails"
_SIDE = 48
_COMPONENTS = 64
_PENALTIES = (1e-2, 1e-1, 1.0, 10.0, 100.0)


def thumbnails(images: np.ndarray) -> np.ndarray:
    """Mean over channels and area average of (n, channels, rows, cols) to (n, 48 * 48) float32."""
    gray = torch.from_numpy(np.asarray(images, dtype=np.float32)).mean(dim=1, keepdim=True)
    return functional.adaptive_avg_pool2d(gray, _SIDE).flatten(1).numpy()


def baseline_probabilities(
    images: np.ndarray, targets: np.ndarray, *, train: np.ndarray, validation: np.ndarray, classes: int
) -> np.ndarray:
    """Probabilities (n, classes) of the baseline for all images.

    Args:
        images: (n, channels, rows, cols), the preprocessed store.
        targets: int64 (n,), or float32 (n, classes) with NaN where unknown.
        train: rows to fit on.
        validation: rows to choose the penalty on, by log-likelihood.
        classes: number of classes.
    """
    flat = np.concatenate([thumbnails(images[start : start + 512]) for start in range(0, len(images), 512)])
    pca = PCA(min(_COMPONENTS, len(train), flat.shape[1]), svd_solver="full").fit(flat[train])
    # Not whitened: the penalty then weighs on the small components, which in few images are mostly noise.
    features = pca.transform(flat) / max(float(np.sqrt(pca.explained_variance_[0])), 1e-12)
    if targets.ndim == 1:
        return _fit_best(features, targets, train, validation, classes)
    columns = [_fit_one_finding(features, targets[:, k], train, validation) for k in range(classes)]
    return np.stack(columns, axis=1)


def _fit_one_finding(features: np.ndarray, target: np.ndarray, train: np.ndarray, validation: np.ndarray) -> np.ndarray:
    known = ~np.isnan(target)
    train, validation = train[known[train]], validation[known[validation]]
    labels = np.where(known, target, 0).astype(np.int64)
    if len(np.unique(labels[train])) < 2:
        return np.full(len(target), labels[train].mean() if len(train) else 0.5)
    return _fit_best(features, labels, train, validation, 2)[:, 1]


def _fit_best(
    features: np.ndarray, labels: np.ndarray, train: np.ndarray, validation: np.ndarray, classes: int
) -> np.ndarray:
    candidates = [_fit(features, labels, train, classes, penalty) for penalty in _PENALTIES]
    if len(validation) == 0:
        return candidates[0]
    rows = np.arange(len(validation))
    likelihood = [np.log(p[validation][rows, labels[validation]].clip(1e-12)).mean() for p in candidates]
    return candidates[int(np.argmax(likelihood))]


def _fit(features: np.ndarray, labels: np.ndarray, train: np.ndarray, classes: int, penalty: float) -> np.ndarray:
    model = LogisticRegression(C=penalty, class_weight="balanced", max_iter=500)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a sanity check need not be polished to the last digit
        model.fit(features[train], labels[train])
    probabilities = np.zeros((len(features), classes))
    probabilities[:, model.classes_] = model.predict_proba(features)
    return probabilities
