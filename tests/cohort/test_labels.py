"""Labels keep their meaning from text to numbers and back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medgcsam.cohort import decode_labels, encode_labels
from medgcsam.cohort.labels import join_columns, label_rules, translate
from medgcsam.errors import ConfigError, DataError

CLASSES = ("effusion", "mass", "oedema")


def test_classification_gives_the_position_of_the_class():
    codes = encode_labels(["b", "a", "b"], ["a", "b"], "classification")
    assert codes.dtype == np.int64
    assert codes.tolist() == [1, 0, 1]
    assert decode_labels(codes, ["a", "b"], "classification") == ["b", "a", "b"]


@pytest.mark.parametrize(
    ("text", "row"),
    [
        ("effusion|oedema", [1, 0, 1]),
        ("none", [0, 0, 0]),
        ("No Finding", [0, 0, 0]),
        ("", [np.nan] * 3),
        ("mass|?oedema", [0, 1, np.nan]),
        ("none|?mass", [0, np.nan, 0]),
        ("?mass|mass", [0, 1, 0]),
        ("mass|?mass", [0, 1, 0]),
    ],
)
def test_multilabel_text_means(text, row):
    values = encode_labels([text], CLASSES, "multilabel", negative="No Finding")
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values, [row])


@given(st.lists(st.lists(st.sampled_from([0.0, 1.0, np.nan]), min_size=3, max_size=3), max_size=8))
def test_numbers_survive_text(rows):
    values = np.array(rows, np.float32).reshape(-1, 3)
    texts = decode_labels(values, CLASSES, "multilabel")
    np.testing.assert_array_equal(encode_labels(texts, CLASSES, "multilabel"), values)


@pytest.mark.parametrize("task", ["classification", "multilabel"])
def test_an_unknown_label_is_named_with_the_nearest_class(task):
    with pytest.raises(DataError, match=r"'efusion'.*nearest: 'effusion'"):
        encode_labels(["mass", "efusion"], CLASSES, task)


def test_an_empty_label_is_no_class():
    with pytest.raises(DataError, match="empty"):
        encode_labels([""], CLASSES, "classification")


def test_no_rows_keep_their_shape():
    assert encode_labels([], CLASSES, "multilabel").shape == (0, 3)
    assert encode_labels([], CLASSES, "classification").shape == (0,)


def test_words_of_the_file_become_classes():
    rules = label_rules({"ill": ["1", "TB"], "well": [0]}, exclude_labels=["9"], task="classification")
    assert [translate(word, rules).label for word in ("1", "TB", "0")] == ["ill", "ill", "well"]
    assert translate("9", rules).excluded == "label '9' left out"
    assert translate("", rules).excluded == "no label"
    assert "'2'" in translate("2", rules).fault
    assert "'ill'" in translate("ill", rules).fault, "only the words listed mean a class"


def test_multilabel_words_are_translated_part_by_part_into_the_order_of_the_classes():
    rules = label_rules({"a": ["A1", "A2"], "b": ["B"]}, negative="No Finding", exclude_labels=["X"])
    assert translate("B|A2|A1", rules).label == "a|b"
    assert translate("No Finding", rules).label == "none"
    assert translate("?B|A1", rules).label == "a|?b"
    assert translate("A1|X", rules).excluded
    assert "'C'" in translate("A1|C", rules).fault
    assert "both" in translate("none|B", rules).fault
    assert translate("", rules).label == ""
    assert translate("", rules).excluded is None


@pytest.mark.parametrize(
    ("classes", "exclude", "said"),
    [
        ({"a": ["1"], "b": ["1"]}, (), "both 'a' and 'b'"),
        (["a", "a"], (), "twice"),
        (["a|b", "c"], (), "cannot be a class name"),
        (["?a", "c"], (), "cannot be a class name"),
        (["a", "b"], ("b",), "exclude_labels"),
    ],
)
def test_classes_that_contradict_each_other_are_refused(classes, exclude, said):
    with pytest.raises(ConfigError, match=said.replace("?", r"\?")):
        label_rules(classes, exclude_labels=exclude)


@pytest.mark.parametrize(("uncertain", "label"), [("mask", "a|?b|?c"), ("positive", "a|b|?c"), ("negative", "a|?c")])
def test_a_column_per_class_as_in_chexpert(uncertain, label):
    assert join_columns(["1.0", "-1.0", "", "0"], ["a", "b", "c", "d"], uncertain).label == label


def test_a_column_per_class_all_negative_all_empty_and_wrong():
    assert join_columns(["0", "0.0"], ["a", "b"], "mask").label == "none"
    assert join_columns(["", ""], ["a", "b"], "mask").label == ""
    assert "'yes'" in join_columns(["0", "yes"], ["a", "b"], "mask").fault
