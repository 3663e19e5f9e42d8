"""A manifest is read whole, or refused with all its faults at once."""

from __future__ import annotations

import os

import pandas as pd
import pytest

from medgcsam.cohort import read_manifest, split_masks
from medgcsam.errors import ConfigError, DataError


def test_rows_become_text_columns_with_absolute_references(write_csv, tmp_path):
    path = write_csv("image,patient_id,label,age,note", "a.png,007,NA,058Y,x", "sub/b.png,08,null,,y")
    table = read_manifest(path)
    assert list(table["image"]) == [str(tmp_path / "a.png"), str(tmp_path / "sub" / "b.png")]
    assert list(table["case"]) == ["a.png", "sub/b.png"]
    assert list(table["patient_id"]) == ["007", "08"], "leading zeros stay"
    assert list(table["label"]) == ["NA", "null"], "words that pandas takes for missing stay words"
    assert list(table["age"]) == ["058Y", ""]
    assert "note" not in table
    assert isinstance(table.index, pd.RangeIndex)
    assert all(pd.api.types.is_string_dtype(table[name]) for name in table)


def test_columns_are_mapped_and_the_root_is_chosen(write_csv, tmp_path):
    path = write_csv("file,who,patient_id,finding", "a.png#train/3,p1,other,x")
    columns = {"image": "file", "patient_id": "who", "label": "finding"}
    table = read_manifest(path, columns, root=tmp_path / "images")
    assert table["image"][0] == os.path.join(tmp_path, "images", "a.png#train/3")
    assert table["patient_id"][0] == "p1", "a mapping wins over a column of the standard name"


@pytest.mark.parametrize("separator", [";", "\t"])
def test_other_separators_a_byte_order_mark_and_blank_lines(tmp_path, separator):
    rows = [["image", "patient_id", "label"], ["a, b.png", "1", "x"], [], ["c.png", "2", "y"]]
    path = tmp_path / "m.csv"
    path.write_text("\r\n".join(separator.join(row) for row in rows), "utf-8-sig")
    table = read_manifest(path)
    assert list(table["case"]) == ["a, b.png", "c.png"]
    assert list(table["line"]) == ["2", "4"]


def test_an_unknown_column_names_what_there_is_and_the_nearest(write_csv):
    path = write_csv("image,PatientID,label", "a.png,1,x")
    with pytest.raises(ConfigError, match=r"'patientID'.*nearest: 'PatientID'.*columns image, PatientID, label"):
        read_manifest(path, {"patient_id": "patientID"})
    with pytest.raises(ConfigError, match=r"'patient'.*nearest: 'patient_id'"):
        read_manifest(path, {"patient": "PatientID", "patient_id": "PatientID"})


def test_all_missing_columns_come_at_once(write_csv):
    with pytest.raises(ConfigError) as caught:
        read_manifest(write_csv("picture,finding", "a.png,x"))
    for said in ("'image'", "'patient_id'", "'label'", "picture, finding", "data.patients: unknown"):
        assert said in str(caught.value)


def test_all_faults_of_all_rows_come_at_once(write_csv):
    path = write_csv(
        "image,patient_id,label,partition",
        "a.png,1,ill,",
        "b.png,,well,",
        "a.png,1,ill,",
        ",2,sick,",
        "c.png,3,well,dev?",
    )
    with pytest.raises(DataError) as caught:
        read_manifest(path, classes=["ill", "well"])
    message = str(caught.value)
    assert "5 faults" in message
    for said in (
        "line 3 has no patient_id", "line 4 lists a.png again (first in line 2)", "line 5 names no image",
        "line 5: label 'sick'", "line 6: partition 'dev?'",
    ):  # fmt: skip
        assert said in message
    assert "\n" not in message


def test_faults_can_be_collected_instead(write_csv):
    faults = []
    table = read_manifest(write_csv("image,patient_id,label", "a.png,,x", "b.png,1"), faults=faults)
    assert {(fault.kind, fault.row) for fault in faults} == {("patient", 2), ("fields", 3)}
    assert len(table) == 1


def test_the_same_file_under_two_names_is_listed_twice(write_csv):
    with pytest.raises(DataError, match="again"):
        read_manifest(write_csv("image,patient_id,label", "a.png,1,x", "./sub/../a.png,2,x"))


@pytest.mark.parametrize("lines", [[""], ["image,patient_id,label"], ["image,patient_id,label", "", ""]])
def test_an_empty_manifest_is_refused(write_csv, lines):
    with pytest.raises(DataError, match="empty"):
        read_manifest(write_csv(*lines))


def test_absent_and_binary_manifests_are_refused(tmp_path):
    with pytest.raises(DataError, match="no such manifest"):
        read_manifest(tmp_path / "none.csv")
    (tmp_path / "m.csv").write_bytes(b"image,label\n\xff\xfe,x\n")
    with pytest.raises(DataError, match="UTF-8"):
        read_manifest(tmp_path / "m.csv")
    (tmp_path / "t.csv").write_text("image,patient_id,label,label\na,1,x,y\n")
    with pytest.raises(DataError, match="names label twice"):
        read_manifest(tmp_path / "t.csv")


def test_partitions_are_written_alike(write_csv):
    words = ["train", "Training", "val", "VALID", "validation", "test", ""]
    lines = [f"{number}.png,{number},x,{word}" for number, word in enumerate(words)]
    table = read_manifest(write_csv("image,patient_id,label,partition", *lines))
    assert list(table["partition"]) == ["train"] * 2 + ["validation"] * 3 + ["test", ""]


def test_rows_left_out_are_counted_by_reason_and_need_not_be_sound(write_csv):
    path = write_csv(
        "image,patient_id,label,exclude", "a.png,1,ill,", "b.png,,nonsense,withdrew", "a.png,1,ill,yes",
        "c.png,2,normal,0", "d.png,2,normal,withdrew", "e.png,3,,",
    )  # fmt: skip
    table = read_manifest(path, classes=["ill", "well"], exclude_labels=["normal"], task="classification")
    assert list(table["case"]) == ["a.png"]
    assert table.attrs["excluded"] == {
        "withdrew": 2, "excluded in the manifest": 1, "label 'normal' left out": 1, "no label": 1,
    }  # fmt: skip
    with pytest.raises(DataError, match="every row is excluded"):
        read_manifest(path, exclude_labels=["ill", "normal", ""])


def test_unknown_patients_are_named_by_their_image_unless_a_grouping_column_is_mapped(write_csv):
    path = write_csv("image,label,group", "a.png,x,g1", "b.png,x,", "c.png,y,g1")
    assert list(read_manifest(path, patients="unknown")["patient_id"]) == ["a.png", "b.png", "c.png"]
    grouped = read_manifest(path, {"patient_id": "group"}, patients="unknown")
    assert list(grouped["patient_id"]) == ["g1", "b.png", "g1"]


def test_one_column_per_class(write_csv):
    path = write_csv("Path,patient_id,Effusion,Mass", "a.jpg,1,1.0,", "b.jpg,1,-1.0,0.0", "c.jpg,2,0,0", "d.jpg,2,1,7")
    columns = {"effusion": "Effusion", "mass": "Mass"}
    with pytest.raises(DataError, match=r"line 5.*'mass'.*'7'"):
        read_manifest(path, {"image": "Path"}, label_columns=columns)
    faults = []
    table = read_manifest(path, {"image": "Path"}, label_columns=columns, uncertain="positive", faults=faults)
    assert list(table["label"])[:3] == ["effusion|?mass", "effusion", "none"]
    with pytest.raises(ConfigError, match="label:mass"):
        read_manifest(path, {"image": "Path"}, label_columns={"mass": "Masses"})


def test_nih_labels(shared_data):
    table = read_manifest(
        shared_data / "chest_xray_nih" / "labels.csv", {"image": "file"}, classes=["No_finding", "Pneumonia"]
    )
    assert table["label"].value_counts().to_dict() == {"No_finding": 358, "Pneumonia": 346}
    assert table["patient_id"].nunique() == 478
    assert table["patient_id"][0] == "00000061"


def test_masks_are_references_too(write_csv, tmp_path):
    path = write_csv("image,patient_id,seg", "a.png,1,m/a.png", "b.png,2,m/b.png | ../c.png#series=1.2", "d.png,3,")
    table = read_manifest(path, {"mask": "seg"})
    first, second, third = (split_masks(text) for text in table["mask"])
    assert first == [str(tmp_path / "m" / "a.png")]
    assert second == [str(tmp_path / "m" / "b.png"), str(tmp_path.parent / "c.png#series=1.2")]
    assert third == []
    assert list(table["label"]) == ["", "", ""]


@pytest.mark.parametrize("task", ["classification", "multilabel"])
def test_a_task_of_labels_needs_labels_beside_masks(write_csv, task):
    path = write_csv("image,patient_id,mask", "a.png,1,m.png")
    assert len(read_manifest(path)) == 1
    with pytest.raises(ConfigError, match="'label'"):
        read_manifest(path, task=task)


@pytest.mark.parametrize("rows", [("image,patient_id", "a.png,1"), ("image,patient_id,label", "a.png,1,")])
def test_a_manifest_without_labels_is_taken_where_that_is_allowed(write_csv, rows):
    path = write_csv(*rows)
    with pytest.raises((ConfigError, DataError), match=r"label"):
        read_manifest(path, task="classification")
    table = read_manifest(path, task="classification", classes=["well", "ill"], unlabelled=True)
    assert (list(table["case"]), list(table["label"]), table.attrs["labelled"]) == (["a.png"], [""], False)


def test_rows_without_a_label_among_labelled_ones_stay_out_of_a_classification(write_csv):
    path = write_csv("image,patient_id,label", "a.png,1,well", "b.png,2,")
    table = read_manifest(path, task="classification", unlabelled=True)
    assert (list(table["case"]), table.attrs["labelled"]) == (["a.png"], True)


def test_hostile_manifests_are_refused(tmp_path):
    path = tmp_path / "m.csv"
    path.write_text("image,label\na\0.png,1\n")
    with pytest.raises(DataError, match="NUL"):
        read_manifest(path)
    with path.open("wb") as file:
        file.truncate(2**32)  # sparse: it takes no room
    with pytest.raises(DataError, match="over the limit"):
        read_manifest(path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(DataError, match="no file"):
        read_manifest(path)
