"""Data sets are opened from a manifest or a description, and an absent one says where to get it."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from medgcsam.config import DataConfig
from medgcsam.config.shipped import shipped_names
from medgcsam.errors import ConfigError, DataError
from medgcsam.intake import open_dataset
from medgcsam.intake.description import read_description

SHIPPED = [name.removesuffix(".yaml") for name in shipped_names("data_manifests")]


@pytest.fixture
def hospital(tmp_path: Path) -> Path:
    """A folder with a manifest and no images."""
    rows = ["image,patient_id,label", "a.png,1,well", "b.png,2,ill", "c.png,3,normal"]
    (tmp_path / "manifest.csv").write_text("\n".join(rows))
    return tmp_path


def description(folder: Path, **changes) -> Path:
    content = {
        "title": "A set", "licence": "CC0", "citation": "Nobody 2020", "source": "example.org/set", "importer": "table",
        "folder": "set", "file": "labels.csv", "images": "pictures",
        "columns": {"image": "file", "patient_id": "group"},
        "classes": {"well": ["0"], "ill": ["1", "2"]}, "positive": "ill",
    }  # fmt: skip
    path = folder / "own.yaml"
    path.write_text(yaml.safe_dump({**content, **changes}))
    return path


@pytest.fixture
def described(tmp_path: Path, monkeypatch) -> Path:
    """A described set below MEDGCSAM_DATA, and its description own.yaml."""
    monkeypatch.setenv("MEDGCSAM_DATA", str(tmp_path / "data"))
    (tmp_path / "data" / "set").mkdir(parents=True)
    (tmp_path / "data" / "set" / "labels.csv").write_text("file,group,label\na.png,g1,0\nb.png,g2,2\n")
    description(tmp_path)
    return tmp_path


def test_a_manifest_of_ones_own(hospital):
    data = DataConfig(manifest="manifest.csv", classes=["well", "ill"], exclude_labels=["normal"])
    dataset = open_dataset(data, base=hospital, cache=hospital / "cache")
    assert list(dataset.table["image"]) == [str(hospital / "a.png"), str(hospital / "b.png")]
    assert dataset.classes == ("well", "ill")
    assert dataset.positive == "ill", "the last of two"
    assert dataset.excluded == {"label 'normal' left out": 1}
    assert (dataset.patients, dataset.synthetic, dataset.title) == ("known", False, "")
    content = (hospital / "manifest.csv").read_bytes()
    assert dataset.manifest_sha256 == hashlib.sha256(content).hexdigest()
    assert not (hospital / "cache").exists()


def test_classes_nobody_has_named_come_from_the_manifest(hospital):
    dataset = open_dataset(DataConfig(manifest="manifest.csv"), base=hospital, cache=hospital)
    assert dataset.classes == ("ill", "normal", "well")
    assert dataset.positive is None


def test_the_finding_can_be_named(hospital):
    data = DataConfig(manifest="manifest.csv", root="elsewhere", exclude_labels=["normal"], positive="ill")
    dataset = open_dataset(data, base=hospital, cache=hospital)
    assert dataset.positive == "ill"
    assert dataset.root == hospital / "elsewhere"
    with pytest.raises(ConfigError, match=r"data\.positive: 'il'.*nearest: 'ill'"):
        open_dataset(DataConfig(manifest="manifest.csv", positive="il"), base=hospital, cache=hospital)


def test_faults_raise_or_are_collected(hospital):
    data = DataConfig(manifest="manifest.csv", classes=["well", "ill"])
    with pytest.raises(DataError, match="line 4: label 'normal'"):
        open_dataset(data, base=hospital, cache=hospital)
    dataset = open_dataset(data, base=hospital, cache=hospital, strict=False)
    assert [(fault.kind, fault.row) for fault in dataset.faults] == [("label", 4)]


def test_a_description_finds_the_set_and_its_words_are_translated(described):
    dataset = open_dataset(DataConfig(manifest="own.yaml"), base=described, cache=described)
    assert list(dataset.table["image"]) == [str(described / "data/set/pictures" / name) for name in ("a.png", "b.png")]
    assert list(dataset.table["label"]) == ["well", "ill"]
    assert list(dataset.table["patient_id"]) == ["g1", "g2"]
    assert (dataset.title, dataset.licence, dataset.positive) == ("A set", "CC0", "ill")


def test_the_config_wins_over_the_description(described):
    data = DataConfig(manifest="own.yaml", classes=["ill", "well"], columns={"patient_id": "file"})
    dataset = open_dataset(data, base=described, cache=described)
    assert dataset.classes == ("ill", "well")
    assert list(dataset.table["label"]) == ["well", "ill"], "the description still says what the words mean"
    assert list(dataset.table["patient_id"]) == ["a.png", "b.png"]


def test_unknown_patients_of_a_description_stay_unknown(described):
    description(described, patients="unknown")
    data = DataConfig(manifest="own.yaml", patients="known")
    assert open_dataset(data, base=described, cache=described).patients == "unknown"


def test_columns_per_class_follow_the_order_of_the_classes(tmp_path):
    (tmp_path / "m.csv").write_text("image,patient_id,A,B\na.png,1,1,-1\nb.png,2,0,0\n")
    columns = {"a": "A", "b": "B"}
    data = DataConfig(manifest="m.csv", classes=["b", "a"], label_columns=columns)
    dataset = open_dataset(data, base=tmp_path, cache=tmp_path, task="multilabel")
    assert dataset.classes == ("b", "a")
    assert list(dataset.table["label"]) == ["a|?b", "none"]
    assert dataset.positive is None
    with pytest.raises(ConfigError, match="class c"):
        open_dataset(DataConfig(manifest="m.csv", classes=["c"], label_columns=columns), base=tmp_path, cache=tmp_path)


def test_an_absent_set_says_where_it_was_looked_for_and_where_it_can_be_had(described, monkeypatch):
    data = DataConfig(manifest="own.yaml")
    shutil.rmtree(described / "data" / "set")
    with pytest.raises(DataError, match=rf"{described}/data/set .*MEDGCSAM_DATA=.*does not exist.*example\.org/set"):
        open_dataset(data, base=described, cache=described)
    with pytest.raises(DataError, match=rf"{described}/mine .*data\.root"):
        open_dataset(DataConfig(manifest="own.yaml", root="mine"), base=described, cache=described)
    (described / "mine").mkdir()
    with pytest.raises(DataError, match=r"has no labels\.csv"):
        open_dataset(DataConfig(manifest="own.yaml", root="mine"), base=described, cache=described)
    monkeypatch.delenv("MEDGCSAM_DATA")
    with pytest.raises(DataError, match=r"MEDGCSAM_DATA is not set.*set/.*example\.org/set"):
        open_dataset(data, base=described, cache=described)


def test_another_edition_of_a_file_is_refused(described):
    description(described, files={"labels.csv": "0" * 64})
    with pytest.raises(DataError, match=r"labels\.csv is not the file .* sha256"):
        open_dataset(DataConfig(manifest="own.yaml"), base=described, cache=described)


def test_a_faulty_description_tells_all_its_faults(tmp_path):
    with pytest.raises(ConfigError) as caught:
        read_description(description(tmp_path, titel="x", importer="magic", patients=3))
    for said in ("'titel' (nearest: 'title')", "importer", "patients"):
        assert said in str(caught.value)
    with pytest.raises(ConfigError, match="also needs the key phantom"):
        read_description(description(tmp_path, importer="phantom"))
    with pytest.raises(ConfigError, match="no such data description"):
        open_dataset(DataConfig(manifest="absent.yaml"), base=tmp_path, cache=tmp_path)
    (tmp_path / "own.yaml").write_text("a: [")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_description(tmp_path / "own.yaml")
    (tmp_path / "own.yaml").write_text("just words")
    with pytest.raises(ConfigError, match="no data description"):
        read_description(tmp_path / "own.yaml")


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_descriptions_are_sound(name, repository):
    shipped = read_description(repository / "data_manifests" / f"{name}.yaml")
    assert shipped.positive is None or shipped.positive in shipped.classes
    assert shipped.synthetic == (shipped.importer == "phantom")
    assert shipped.importer == "phantom" or all(len(digest) == 64 for digest in shipped.files.values())


def test_nih_is_opened_by_its_shipped_name(shared_data, tmp_path):
    dataset = open_dataset(DataConfig(manifest="nih_chest_xray.yaml"), base=tmp_path, cache=tmp_path)
    assert dataset.table["label"].value_counts().to_dict() == {"no_finding": 358, "pneumonia": 346}
    assert dataset.table["patient_id"].nunique() == 478
    assert all(Path(image).is_file() for image in dataset.table["image"])
    assert (dataset.positive, dataset.patients) == ("pneumonia", "known")


def test_busi_benign_against_malignant(shared_data, tmp_path):
    data = DataConfig(manifest="breast_ultrasound.yaml", classes=["benign", "malignant"], exclude_labels=["normal"])
    dataset = open_dataset(data, base=tmp_path, cache=tmp_path, task="classification")
    assert dataset.table["label"].value_counts().to_dict() == {"benign": 437, "malignant": 210}
    assert dataset.excluded == {"label 'normal' left out": 133}
    assert dataset.patients == "unknown"
    assert dataset.table["patient_id"].str.fullmatch(r"G\d{4}").all()
    assert all(Path(image).is_file() for image in dataset.table["image"])


@pytest.mark.parametrize("name", ["breastmnist", "pneumoniamnist"])
def test_medmnist_labels_and_partitions_are_the_archives(shared_data, tmp_path, name):
    dataset = open_dataset(DataConfig(manifest=f"{name}.yaml"), base=tmp_path, cache=tmp_path)
    table = dataset.table
    assert table["patient_id"].is_unique
    with np.load(shared_data / "medmnist" / f"{name}.npz") as archive:
        for short, long in (("train", "train"), ("val", "validation"), ("test", "test")):
            rows = table[table["partition"] == long]
            words = {"breastmnist": ["malignant", "normal_or_benign"], "pneumoniamnist": ["normal", "pneumonia"]}[name]
            assert list(rows["label"]) == [words[number] for number in archive[f"{short}_labels"][:, 0]]
            assert list(rows["case"]) == [f"{name}.npz#{short}/{index}" for index in range(len(rows))]


def test_the_phantom_is_made_in_the_cache_and_says_that_it_is_synthetic(tmp_path, repository):
    content = yaml.safe_load((repository / "data_manifests" / "chest_xray_phantom.yaml").read_text())
    content["phantom"] |= {"patients": 6}
    (tmp_path / "few.yaml").write_text(yaml.safe_dump(content))
    dataset = open_dataset(DataConfig(manifest="few.yaml"), base=tmp_path, cache=tmp_path / "cache")
    assert dataset.synthetic
    assert "SYNTHETIC DATA" in dataset.notes
    assert set(dataset.table["label"]) == {"normal", "opacity"}
    assert dataset.table["patient_id"].nunique() == 6
    assert all(Path(image).is_relative_to(tmp_path / "cache") for image in dataset.table["image"])


def test_a_word_for_nothing_does_not_become_a_finding(tmp_path):
    from types import SimpleNamespace

    rows = ["image,patient_id,label", "a.png,1,Mass|Nodule", "b.png,2,No Finding", "c.png,3,Nodule"]
    (tmp_path / "m.csv").write_text("\n".join(rows) + "\n")
    keys = dict.fromkeys(("root", "columns", "classes", "positive", "negative", "label_columns", "patients"))
    data = SimpleNamespace(
        **keys | {"manifest": "m.csv", "uncertain": "mask", "exclude_labels": (), "structures": None}
    )
    with pytest.raises(ConfigError, match="'No Finding' looks like the word for none"):
        open_dataset(data, base=tmp_path, cache=tmp_path, task="multilabel")
    data.negative = "No Finding"
    assert open_dataset(data, base=tmp_path, cache=tmp_path, task="multilabel").classes == ("Mass", "Nodule")
