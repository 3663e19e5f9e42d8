"""Splits: every patient tested once, evenly spread, the same whatever the order of rows; leaks and gaps refused."""

from __future__ import annotations

import json
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medgcsam.cohort import make_split, split_patients
from medgcsam.config import SplitConfig
from medgcsam.errors import ConfigError, DataError

CLASSES = ("well", "ill")


def options(**changes) -> SplitConfig:
    return SplitConfig(**changes)


@pytest.fixture
def make(name_of):
    def make(table, classes=CLASSES, task="classification", digests=None, **changes):
        return make_split(
            table,
            options(**changes),
            classes=classes,
            task=task,
            digests=digests,
            hash_patient=name_of,
            hash_case=name_of,
        )

    return make


def patients_in(table, partition, name):
    return set(table.loc[partition == name, "patient_id"])


def test_over_the_folds_every_patient_is_tested_exactly_once(ninety):
    tested = Counter()
    for fold in range(5):
        partition = split_patients(ninety, 5, fold, 0)
        assert set(partition) == {"train", "validation", "test"}
        assert partition.groupby(ninety["patient_id"]).nunique().max() == 1
        tested.update(patients_in(ninety, partition, "test"))
    assert set(tested) == set(ninety["patient_id"])
    assert set(tested.values()) == {1}


def test_every_kind_of_patient_is_spread_evenly(ninety):
    kinds = ninety.groupby("patient_id")["label"].agg(lambda labels: "+".join(sorted(set(labels))))
    for fold in range(5):
        partition = split_patients(ninety, 5, fold, 3)
        for kind, number in {"well": 50, "ill": 30, "ill+well": 10}.items():
            of_kind = set(kinds.index[kinds == kind])
            assert len(patients_in(ninety, partition, "test") & of_kind) == number // 5
            validating = len(patients_in(ninety, partition, "validation") & of_kind)
            assert abs(validating - number * 0.8 * 0.2) <= 1


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 6), st.integers(7, 40), st.booleans())
def test_folds_differ_by_one_patient_at_most_and_the_order_of_rows_does_not_matter(seed, folds, number, stratify):
    random = np.random.default_rng(seed)
    table = pd.DataFrame(
        {
            "patient_id": [f"p{one}" for one in random.permutation(number)],
            "label": random.choice(["a", "b", "c"], number),
        }
    )
    sizes = []
    for fold in range(folds):
        partition = split_patients(table, folds, fold, seed, stratify)
        sizes.append((partition == "test").sum())
        shuffled = table.iloc[random.permutation(number)]
        again = split_patients(shuffled.reset_index(drop=True), folds, fold, seed, stratify)
        assert dict(zip(shuffled["patient_id"], again, strict=True)) == dict(
            zip(table["patient_id"], partition, strict=True)
        )
    assert max(sizes) - min(sizes) <= 1


def test_seeds_shuffle_and_the_same_seed_repeats(ninety):
    first, again, other = (split_patients(ninety, 5, 0, seed) for seed in (0, 0, 1))
    pd.testing.assert_series_equal(first, again)
    assert (first != other).any()


def test_rare_findings_of_a_multilabel_set_reach_every_fold(cohort):
    random = np.random.default_rng(0)
    findings = [
        [name for name, rate in (("a", 0.5), ("b", 0.3), ("rare", 0.05)) if random.random() < rate] for _ in range(200)
    ]
    table = cohort([["|".join(names) or "none"] for names in findings])
    rare = {patient for patient, label in zip(table["patient_id"], table["label"], strict=True) if "rare" in label}
    tested = [len(patients_in(table, split_patients(table, 5, fold, 0), "test") & rare) for fold in range(5)]
    assert max(tested) - min(tested) <= 1


@pytest.mark.parametrize(("folds", "fold"), [(1, 0), (5, 5), (5, -1)])
def test_folds_that_do_not_exist(ninety, folds, fold):
    with pytest.raises(ConfigError, match=r"split\.fold"):
        split_patients(ninety, folds, fold, 0)


def test_fewer_patients_than_folds(cohort):
    with pytest.raises(DataError, match="3 patients cannot be split into 5 folds"):
        split_patients(cohort([["well"], ["ill"], ["ill"]]), 5, 0, 0)


@pytest.mark.parametrize("number", [1, 4])
def test_a_class_with_too_few_patients(make, cohort, number):
    with pytest.raises(DataError, match=rf"class 'ill' has cases of {number} patient.*5 folds"):
        make(cohort([["well"]] * 30 + [["ill", "ill"]] * number))


def test_a_class_that_nobody_has(make, ninety):
    with pytest.raises(DataError, match="class 'tumour' has cases of 0"):
        make(ninety, classes=("well", "ill", "tumour"))


def test_a_class_missing_in_one_given_partition(make, cohort):
    table = cohort([["well"], ["ill"], ["well"], ["ill"], ["well"]]).assign(
        partition=["train", "train", "validation", "validation", "test"]
    )
    with pytest.raises(DataError, match=r"class 'ill' \(2 patients\) in test"):
        make(table, by="manifest")


def test_the_document(make, ninety, name_of):
    ninety.attrs["excluded"] = {"blurred": 2}
    split = make(ninety, fold=2, seed=7)
    document = json.loads(json.dumps(split.document))
    assert {key: document[key] for key in ("schema", "by", "folds", "fold", "seed", "patients", "duplicates")} == {
        "schema": 1, "by": "folds", "folds": 5, "fold": 2, "seed": 7, "patients": "known", "duplicates": "error",
    }  # fmt: skip
    for name in ("train", "validation", "test"):
        ids = patients_in(ninety, split.partition, name)
        assert document["partitions"][name] == sorted(map(name_of, ids))
        rows = ninety[split.partition == name]
        assert document["counts"][name] == {
            "patients": len(ids), "images": len(rows), "labels": {c: int((rows["label"] == c).sum()) for c in CLASSES},
        }  # fmt: skip
    assert document["excluded"] == {"blurred": 2}
    text = json.dumps(document)
    assert not any(patient in text for patient in ninety["patient_id"])
    assert not any(case in text for case in ninety["case"])


def test_given_partitions_are_kept(make, ninety):
    given = split_patients(ninety, 4, 1, 9)
    assert (make(ninety.assign(partition=given), by="manifest").partition == given).all()


def test_validation_is_taken_from_the_training_patients_where_none_is_given(make, ninety):
    given = split_patients(ninety, 4, 1, 9).replace("validation", "train")
    partition = make(ninety.assign(partition=given), by="manifest").partition
    assert ((partition == "test") == (given == "test")).all()
    share = len(patients_in(ninety, partition, "validation")) / len(patients_in(ninety, given, "train"))
    assert share == pytest.approx(0.2, abs=0.02)


def test_a_patient_in_two_given_partitions(make, ninety):
    given = split_patients(ninety, 5, 0, 0)
    row = ninety.index[ninety["patient_id"].duplicated()][0]
    given[row] = "train" if given[row] == "test" else "test"
    with pytest.raises(DataError, match=f"1 patients .* two partitions: {ninety['patient_id'][row]}"):
        make(ninety.assign(partition=given), by="manifest")


def test_given_partitions_that_are_missing(make, ninety):
    with pytest.raises(ConfigError, match="'partition'"):
        make(ninety, by="manifest")
    given = split_patients(ninety, 5, 0, 0)
    with pytest.raises(DataError, match=r"2 of \d+ rows have no partition \(lines 2, 3\)"):
        make(ninety.assign(partition=["", "", *given[2:]]), by="manifest")
    with pytest.raises(DataError, match="no test image"):
        make(ninety.assign(partition=given.replace("test", "train")), by="manifest")


def test_one_site_is_left_out(make, ninety):
    site = ninety["patient_id"].map({patient: "ABC"[int(patient[1:]) % 3] for patient in ninety["patient_id"]})
    partition = make(ninety.assign(site=site), by="site", test_site="B").partition
    assert ((partition == "test") == (site == "B")).all()
    assert (partition == "validation").any()
    with pytest.raises(ConfigError, match=r"'D'.*A, B, C"):
        make(ninety.assign(site=site), by="site", test_site="D")
    with pytest.raises(ConfigError, match="'site'"):
        make(ninety, by="site", test_site="B")
    with pytest.raises(DataError, match="none is left to train on"):
        make(ninety.assign(site="A"), by="site", test_site="A")
    with pytest.raises(DataError, match="two partitions"):
        make(ninety.assign(site=["A", "B"] * (len(ninety) // 2) + ["A"] * (len(ninety) % 2)), by="site", test_site="A")


def test_the_newest_studies_are_tested(make, ninety):
    numbers = ninety["patient_id"].str[1:].astype(int)
    dates = numbers.map(lambda n: f"2023{n % 12 + 1:02d}01" if n % 2 else f"2023-{n % 12 + 1:02d}-01T08:30:00")
    partition = make(ninety.assign(date=dates), by="date", test_from="2023-10-01").partition
    assert ((partition == "test") == (numbers % 12 + 1 >= 10)).all()
    with pytest.raises(DataError, match=r"rows have no readable date \(lines 2"):
        make(ninety.assign(date=["soon", *dates[1:]]), by="date", test_from="2023-10-01")
    with pytest.raises(DataError, match="no test image"):
        make(ninety.assign(date=dates), by="date", test_from="2033-10-01")


def test_a_split_is_taken_back(make, ninety, tmp_path):
    first = make(ninety, fold=3)
    path = tmp_path / "split.json"
    path.write_text(json.dumps(first.document))
    shuffled = ninety.sample(frac=1, random_state=1).reset_index(drop=True)
    again = make(shuffled, by="file", file=str(path))
    assert again.document["partitions"] == first.document["partitions"]
    assert again.document["counts"] == first.document["counts"]


def test_a_split_of_another_salt_or_manifest_is_refused(make, ninety, tmp_path, name_of):
    path = tmp_path / "split.json"
    path.write_text(json.dumps(make(ninety).document))
    settings = options(by="file", file=str(path))
    with pytest.raises(DataError, match=r"none of its 90 patients.*\.salt"):
        make_split(
            ninety,
            settings,
            classes=CLASSES,
            task="classification",
            hash_patient=lambda v: name_of("x" + v),
            hash_case=name_of,
        )
    gone = ninety[ninety["patient_id"] != "P000"].reset_index(drop=True)
    with pytest.raises(DataError, match="0 patients of the manifest are not in this split and 1 of the split"):
        make(gone, by="file", file=str(path))
    with pytest.raises(DataError, match="no such split"):
        make(ninety, by="file", file=str(tmp_path / "absent.json"))
    path.write_text("[1]")
    with pytest.raises(DataError, match=r"no split\.json"):
        make(ninety, by="file", file=str(path))
    path.write_text(json.dumps({"partitions": {"train": ["a"], "validation": ["a"], "test": ["b"]}}))
    with pytest.raises(DataError, match="1 patients are in two partitions"):
        make(ninety, by="file", file=str(path))


def _twins(table, partition):
    """Digests in which one image of each of two partitions is the same picture."""
    digests = pd.DataFrame({"source": [f"s{row}" for row in table.index], "pixels": [f"p{row}" for row in table.index]})
    rows = [int(np.flatnonzero(partition == name)[0]) for name in ("train", "test")]
    digests.loc[rows, "pixels"] = "same"
    return digests, rows


def test_identical_images_in_two_partitions(make, ninety):
    digests, (train, test) = _twins(ninety, make(ninety).partition)
    with pytest.raises(DataError) as caught:
        make(ninety, digests=digests)
    for said in (ninety["case"][train], ninety["case"][test], "split.duplicates: drop_from_train", "1 images"):
        assert said in str(caught.value)


def test_identical_images_dropped_from_train_are_counted_and_stay_dropped(make, ninety, name_of, tmp_path):
    digests, (train, test) = _twins(ninety, make(ninety).partition)
    split = make(ninety, digests=digests, duplicates="drop_from_train")
    assert split.partition[train] == "dropped"
    assert split.partition[test] == "test"
    assert (split.partition == "dropped").sum() == 1
    assert split.document["dropped"] == [name_of(ninety["case"][train])]
    assert split.document["leakage"] == {
        "patients_in_two_partitions": 0, "identical_images_across_partitions": 1, "dropped_from_train": 1,
    }  # fmt: skip
    total = sum(split.document["counts"][name]["images"] for name in ("train", "validation", "test"))
    assert total == len(ninety) - 1
    path = tmp_path / "split.json"
    path.write_text(json.dumps(split.document))
    again = make(ninety, digests=digests, by="file", file=str(path))
    assert again.partition[train] == "dropped"
    assert again.document["partitions"] == split.document["partitions"]


def test_dropping_may_not_empty_a_class(make, cohort):
    table = cohort([["well"], ["ill"]] * 3).assign(partition=np.repeat(["train", "validation", "test"], 2))
    digests = pd.DataFrame({"pixels": ["a", "x", "b", "c", "d", "x"]})
    with pytest.raises(DataError, match=r"class 'ill' \(3 patients\) in train"):
        make(table, digests=digests, by="manifest", duplicates="drop_from_train")


def test_multilabel_needs_presence_and_absence(make, cohort):
    table = cohort([["a"], ["a|b"], ["?a|b"]] * 6)
    with pytest.raises(DataError, match="the absence of 'a' has cases of 0"):
        make(table, classes=("a", "b"), task="multilabel")
    table = cohort([["a"], ["b"], ["a|b"], ["none"], [""]] * 6)
    counts = make(table, classes=("a", "b"), task="multilabel").document["counts"]
    assert sum(counts[name]["labels"]["a"] for name in counts) == 12


def test_an_unknown_way_to_split(ninety, name_of):
    with pytest.raises(ConfigError, match="'luck'"):
        make_split(
            ninety,
            SimpleNamespace(by="luck"),
            classes=CLASSES,
            task="classification",
            hash_patient=name_of,
            hash_case=name_of,
        )
