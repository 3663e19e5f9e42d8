"""classification_metrics: values against sklearn, the form of metrics.json, cases where a number must be null."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
from scipy.special import expit, softmax
from sklearn import metrics as sk

from medgcsam.errors import ConfigError, DataError
from medgcsam.evaluation import classification_metrics

KEYS = {"value", "low", "high", "n_patients", "n_images", "n_events", "method"}
BINARY = {"classes": ["healthy", "ill"], "task": "binary", "positive": "ill", "replicates": 400}
POINT = {"threshold": 0.45, "rule": "youden", "chosen_on": "validation"}


def check_form(found: dict) -> None:
    json.dumps(found, allow_nan=False)
    for name, one in found.items():
        assert set(one) - {"reason"} == KEYS, name
        missing = [key for key in ("value", "low", "high") if one[key] is None]
        assert bool(missing) == ("reason" in one), name
        assert not missing or one["reason"], name
        if not missing:
            assert one["low"] <= one["value"] <= one["high"], name


def test_binary_values_agree_with_sklearn(cohort):
    labels, scores, patients = cohort(150)
    found = classification_metrics(labels, scores, patients, operating_point=POINT, **BINARY)
    check_form(found)
    called = scores >= 0.45
    ratios = sk.class_likelihood_ratios(labels, called)
    expected = {
        "auroc": sk.roc_auc_score(labels, scores),
        "auprc": sk.average_precision_score(labels, scores),
        "sensitivity": sk.recall_score(labels, called),
        "specificity": sk.recall_score(labels, called, pos_label=0),
        "ppv": sk.precision_score(labels, called),
        "npv": sk.precision_score(labels, called, pos_label=0),
        "lr_positive": ratios[0],
        "lr_negative": ratios[1],
        "accuracy": sk.accuracy_score(labels, called),
        "balanced_accuracy": sk.balanced_accuracy_score(labels, called),
        "brier": sk.brier_score_loss(labels, scores),
        "log_loss": sk.log_loss(labels, scores),
    }
    assert {name: found[name]["value"] for name in expected} == pytest.approx(expected)
    others = {"ece", "calibration_slope", "calibration_intercept", "auroc_patient"}
    assert set(found) == set(expected) | others
    assert found["ece"]["low"] is None
    assert found["auroc"]["n_patients"] == 150
    assert found["auroc"]["n_images"] == len(labels)
    assert found["auroc"]["n_events"] == labels.sum()


def test_two_columns_and_the_order_of_classes(cohort):
    labels, scores, patients = cohort(60)
    one = classification_metrics(labels, scores, patients, **BINARY)
    two = classification_metrics(labels, np.stack([1 - scores, scores], axis=1), patients, **BINARY)
    assert one == two
    options = BINARY | {"classes": ["ill", "healthy"]}
    swapped = classification_metrics(1 - labels, np.stack([scores, 1 - scores], axis=1), patients, **options)
    assert swapped == one


def test_same_seed_same_bytes_whatever_the_patients_are_called(cohort):
    labels, scores, patients = cohort(80)
    first = json.dumps(classification_metrics(labels, scores, patients, **BINARY))
    assert first == json.dumps(classification_metrics(labels, scores, patients, **BINARY))
    salted = np.array([hashlib.sha256(f"salt{patient}".encode()).hexdigest() for patient in patients])
    assert first == json.dumps(classification_metrics(labels, scores, salted, **BINARY))


def test_the_order_of_images_changes_no_value_and_no_interval_by_more_than_its_noise(cohort):
    labels, scores, patients = cohort(80)
    first = classification_metrics(labels, scores, patients, **BINARY)
    order = np.random.default_rng(0).permutation(len(labels))
    shuffled = classification_metrics(labels[order], scores[order], patients[order], **BINARY)
    for name, one in first.items():
        assert shuffled[name]["value"] == pytest.approx(one["value"]), name
        if one["low"] is not None:
            width = one["high"] - one["low"]
            assert shuffled[name]["low"] == pytest.approx(one["low"], abs=0.15 * width), name


def test_bootstrap_interval_is_as_wide_as_the_scatter_between_samples(cohort):
    """The average half-width of each interval matches 1.96 standard deviations of the metric over new samples."""
    names = ("auprc", "sensitivity", "specificity", "ppv", "accuracy", "brier", "log_loss", "calibration_slope")
    found = [classification_metrics(*cohort(150, seed=seed), **BINARY | {"replicates": 200}) for seed in range(40)]
    for name in names:
        values = [one[name]["value"] for one in found]
        widths = [one[name]["high"] - one[name]["low"] for one in found]
        assert np.mean(widths) == pytest.approx(2 * 1.96 * np.std(values, ddof=1), rel=0.4), name


def test_patient_level_uses_patients_with_a_constant_label(cohort):
    labels, scores, patients = cohort(100, mixed=0.1)
    found = classification_metrics(labels, scores, patients, **BINARY)["auroc_patient"]
    means, truths = [], []
    for patient in range(100):
        own = labels[patients == patient]
        if own.min() == own.max():
            means.append(scores[patients == patient].mean())
            truths.append(own[0])
    assert found["value"] == pytest.approx(sk.roc_auc_score(truths, means))
    assert found["n_patients"] == len(truths) < 100
    assert f"{100 - len(truths)} patients with both labels left out" in found["method"]


def test_unknown_patients_are_said_so(cohort):
    labels, scores, _ = cohort(60)
    found = classification_metrics(labels, scores, np.arange(len(labels)), patients_known=False, **BINARY)
    check_form(found)
    assert found["auroc_patient"]["value"] is None
    assert all("patients unknown" in one["method"] for name, one in found.items() if name != "auroc_patient")


def test_perfect_predictions_promise_no_certainty():
    labels = np.repeat([0, 1], 30)
    scores = np.where(labels, 0.9, 0.1)
    found = classification_metrics(labels, scores, np.arange(60) // 2, operating_point=POINT, **BINARY)
    check_form(found)
    for name in ("auroc", "sensitivity", "specificity", "ppv", "npv", "accuracy", "balanced_accuracy"):
        assert found[name]["value"] == found[name]["high"] == 1.0
        assert found[name]["low"] < 0.95, name
    assert "effective n 15.0" in found["sensitivity"]["method"]
    assert found["lr_positive"]["value"] is None
    assert found["lr_positive"]["low"] > 1
    assert found["lr_negative"]["value"] == 0.0
    assert 0 < found["lr_negative"]["high"] < 1
    assert found["calibration_slope"]["value"] is None
    assert "separated" in found["calibration_slope"]["reason"]


@pytest.mark.parametrize("only", [0, 1])
def test_one_class_only_gives_reasons_and_no_nan(only):
    scores = np.linspace(0.05, 0.95, 20)
    found = classification_metrics(np.full(20, only), scores, np.arange(20), **BINARY)
    check_form(found)
    assert found["auroc"]["value"] is None
    assert found["auroc"]["reason"] == ("no positive case" if only == 0 else "no negative case")
    assert found["specificity" if only == 0 else "sensitivity"]["value"] == 0.5
    assert found["brier"]["value"] == pytest.approx(np.mean((only - scores) ** 2))


@pytest.mark.parametrize("scores", [np.zeros(12), np.ones(12), np.full(12, 0.5), np.tile([0.0, 1.0], 6)])
def test_degenerate_probabilities_stay_in_form(scores):
    check_form(classification_metrics(np.repeat([0, 1], 6), scores, np.arange(12), **BINARY))


def test_one_patient_and_one_image_stay_in_form():
    check_form(classification_metrics(np.array([0, 1, 1]), np.array([0.2, 0.9, 0.4]), ["p"] * 3, **BINARY))
    check_form(classification_metrics(np.array([1]), np.array([0.9]), ["p"], **BINARY))


def test_multiclass_agrees_with_sklearn():
    generator = np.random.default_rng(0)
    patients = np.repeat(np.arange(120), 2)
    labels = generator.integers(0, 3, 120)[patients]
    p = softmax(generator.normal(size=(240, 3)) + 1.5 * np.eye(3)[labels], axis=1)
    found = classification_metrics(labels, p, patients, classes=["a", "b", "c"], task="multiclass", replicates=300)
    check_form(found)
    called = p.argmax(axis=1)
    expected = {
        "auroc": sk.roc_auc_score(labels, p, multi_class="ovr"),
        "auprc": sk.average_precision_score(np.eye(3)[labels], p, average="macro"),
        "accuracy": sk.accuracy_score(labels, called),
        "sensitivity": sk.recall_score(labels, called, average="macro"),
        "balanced_accuracy": sk.balanced_accuracy_score(labels, called),
        "ppv": sk.precision_score(labels, called, average="macro"),
        "log_loss": sk.log_loss(labels, p),
        "brier": np.mean(((p - np.eye(3)[labels]) ** 2).sum(axis=1)),
        "auroc_b": sk.roc_auc_score(labels == 1, p[:, 1]),
        "sensitivity_c": (called == 2)[labels == 2].mean(),
        "brier_a": sk.brier_score_loss(labels == 0, p[:, 0]),
    }
    assert {name: found[name]["value"] for name in expected} == pytest.approx(expected)
    # Three classes are less uncertain on average than each alone.
    width = {name: found[name]["high"] - found[name]["low"] for name in ("auroc", "auroc_a", "auroc_b", "auroc_c")}
    assert width["auroc"] < np.mean([width["auroc_a"], width["auroc_b"], width["auroc_c"]])


def test_multilabel_masks_unlabelled_entries_class_by_class():
    generator = np.random.default_rng(1)
    labels = (generator.random((200, 4)) < 0.3).astype(float)
    p = expit(generator.normal(size=(200, 4)) + 1.5 * labels - 1)
    labels[generator.random((200, 4)) < 0.2] = np.nan
    labels[:, 2] = np.nan
    labels[labels[:, 3] == 1, 3] = 0
    classes = ["edema", "mass", "never", "absent"]
    points = {name: {"threshold": 0.4, "rule": "youden"} for name in classes}
    options = {"classes": classes, "task": "multilabel", "replicates": 200}
    found = classification_metrics(labels, p, np.arange(200) // 2, operating_point=points, **options)
    check_form(found)
    areas = []
    for column, name in enumerate(classes[:2]):
        used = ~np.isnan(labels[:, column])
        areas.append(sk.roc_auc_score(labels[used, column], p[used, column]))
        assert found[f"auroc_{name}"]["value"] == pytest.approx(areas[-1])
        assert found[f"sensitivity_{name}"]["value"] == pytest.approx(
            sk.recall_score(labels[used, column], p[used, column] >= 0.4)
        )
        assert found[f"auroc_{name}"]["n_images"] == used.sum()
    assert found["auroc"]["value"] == pytest.approx(np.mean(areas))
    assert "mean over 2 of 4 classes (no value for absent)" in found["auroc"]["method"]
    assert found["auroc_never"]["reason"] == "no labelled image"
    assert found["auroc_absent"]["reason"] == "no positive case"
    assert "default" not in found["sensitivity_edema"]["method"]
    undecided = classification_metrics(labels, p, np.arange(200) // 2, **options)
    assert "threshold 0.5 by default" in undecided["sensitivity_edema"]["method"]


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"task": "regression"}, ConfigError, "regression"),
        ({"positive": "sick"}, ConfigError, "sick"),
        ({"operating_point": {"rule": "youden"}}, ConfigError, "threshold"),
        ({"classes": ["a", "b", "c"]}, ConfigError, "two classes"),
        ({"labels": np.array([0, 1, 2])}, DataError, "class numbers"),
        ({"probabilities": np.array([0.1, np.nan, 0.2])}, DataError, "1 of 3 images"),
        ({"probabilities": np.array([0.1, 3.0, 0.2])}, DataError, "softmax"),
        ({"probabilities": np.zeros((3, 5))}, DataError, "one per image and class"),
        ({"patients": ["a", "b"]}, DataError, "3 labels but 2"),
        ({"labels": np.array([], dtype=int), "probabilities": np.zeros(0), "patients": []}, DataError, "empty"),
    ],
)
def test_bad_input_is_one_plain_sentence(change, error, words):
    given = {"labels": np.array([0, 1, 0]), "probabilities": np.array([0.1, 0.8, 0.3]), "patients": ["a", "b", "c"]}
    with pytest.raises(error, match=words):
        classification_metrics(**(given | BINARY | change))


def test_thousands_of_replicates_are_quick_and_small(cohort):
    import time
    import tracemalloc

    labels, scores, patients = cohort(350)
    start = time.process_time()
    classification_metrics(labels, scores, patients, classes=["a", "b"], task="binary")
    assert time.process_time() - start < 3
    labels, scores, patients = cohort(10_000)
    tracemalloc.start()
    classification_metrics(labels, scores, patients, classes=["a", "b"], task="binary", replicates=50)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60e6


def test_intervals_that_depend_on_prevalence_say_so(cohort):
    found = classification_metrics(*cohort(200), operating_point=POINT, **BINARY)
    mixed = {name for name, one in found.items() if "at the class mix of these cases" in one["method"]}
    assert mixed == {
        *("auprc", "ppv", "npv", "accuracy", "brier", "log_loss"),
        *("calibration_slope", "calibration_intercept"),
    }
