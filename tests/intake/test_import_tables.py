"""Tables become rows: cells made of others, rows chosen, images searched, partitions from lists."""

from __future__ import annotations

from pathlib import Path

import pytest

from medgcsam.cohort import read_manifest
from medgcsam.config import DataConfig
from medgcsam.errors import ConfigError, DataError
from medgcsam.intake import open_dataset
from medgcsam.intake.description import Computed, Description
from medgcsam.intake.importers import COLLECTORS
from medgcsam.intake.importers.result import Imported, write_left_out, write_manifest
from medgcsam.intake.importers.table import compute_cell


def described(**changes) -> Description:
    content = {"title": "t", "licence": "l", "citation": "c", "source": "s", "importer": "table", "folder": "f"}
    return Description(**content, **{"file": "t.csv", **changes})


def take(folder: Path, **changes) -> Imported:
    return COLLECTORS["table"](described(**changes), folder, None)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four pictures in two folders, and a table of five rows."""
    for name in ("one/a.png", "one/b.png", "two/c.png", "two/d.png", "two/a.png"):
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "images" / name).write_bytes(b"")
    lines = ["Name,View,Who,Finding", "b.png,PA,1,x", "c.png,L,1,x", "d.png,PA,2,y", "gone.png,PA,3,y", "a.png,PA,4,y"]
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


COLUMNS = {"image": "Name", "patient_id": "Who", "label": "Finding"}


def test_rows_are_chosen_images_are_searched_and_the_rest_is_listed(folder):
    imported = take(folder, columns=COLUMNS, images="images", search=True, where={"View": ["PA"]})
    assert [(row["image"], row["patient_id"], row["label"]) for row in imported.rows] == [
        ("one/b.png", "1", "x"), ("two/d.png", "2", "y")
    ]  # fmt: skip
    assert [(left.reference, left.reason) for left in imported.left_out] == [
        ("c.png", "View is L"), ("gone.png", "file missing"), ("a.png", "several files of this name")
    ]  # fmt: skip


def test_partitions_from_lists(folder):
    (folder / "train.txt").write_text("b.png\n")
    (folder / "test.txt").write_text("d.png\n")
    lists = {"train": "train.txt", "test": "test.txt"}
    imported = take(folder, columns=COLUMNS, images="images", search=True, partitions=lists)
    assert {row["image"]: row["partition"] for row in imported.rows} == {
        "one/b.png": "train", "two/c.png": "", "two/d.png": "test"
    }  # fmt: skip
    (folder / "test.txt").write_text("d.png\nb.png")
    with pytest.raises(DataError, match=r"b\.png is in two partitions"):
        take(folder, columns=COLUMNS, images="images", search=True, partitions=lists)


def test_rows_that_repeat_an_image_are_joined_or_all_left_out(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.dcm").write_bytes(b"")
    lines = ["id,box,Target", "a,1,1", "a,2,1", "b,,0", "b,3,1"]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    imported = take(
        tmp_path, columns={"label": "Target"}, compute={"image": {"text": "{id}.dcm"}}, one_row_per_image=True
    )
    assert [(row["image"], row["label"]) for row in imported.rows] == [("a.dcm", "1")]
    assert imported.reasons() == {
        "rows of one image contradict each other": 2, "another row of an image that is taken": 1
    }  # fmt: skip


def test_cells_are_made_of_others():
    row = {"Path": "X-1/train/patient007/study2/v.jpg", "masks": "a.png; b.png", "label": "ill", "none": ""}
    assert compute_cell(Computed(text="{Path}", pattern=r"patient\d+"), row) == "patient007"
    assert (
        compute_cell(Computed(text="{Path}", pattern=r"train/(.*)", take=r"t_\1"), row) == "t_patient007/study2/v.jpg"
    )
    assert compute_cell(Computed(text="{label}/{masks}", each="masks"), row) == "ill/a.png|ill/b.png"
    assert compute_cell(Computed(text="{label}/{none}", each="none"), row) == ""
    assert compute_cell(Computed(text="{Path}", pattern="absent"), row) == ""


def test_label_columns_are_joined(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    lines = ["image,E,C", "a.png,1.0,-1.0", "a.png,,7"]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    imported = take(tmp_path, label_columns={"Edema": "E", "Cardiomegaly": "C"})
    assert [row["label"] for row in imported.rows] == ["Edema|?Cardiomegaly"]
    assert imported.reasons() == {"label column without 1, 0, -1 or nothing": 1}


def test_columns_that_are_not_there_are_named(folder):
    with pytest.raises(ConfigError, match=r"'Whom' \(nearest: 'Who'\), 'image'"):
        take(folder, columns={"patient_id": "Whom"})
    with pytest.raises(ConfigError, match="'Nam'"):
        take(folder, compute={"image": {"text": "{Nam}.png"}})
    names = {"image": ["Name", "Image Index"], "sex": ["Sex", "View"]}
    assert take(folder, columns=names, images="images/one").rows[0]["sex"] == "PA", (
        "the first of several names there is"
    )


def test_the_manifest_is_read_back_as_it_was_imported(folder, tmp_path):
    imported = take(folder, columns=COLUMNS, images="images", search=True)
    imported.rows[0]["mask"] = "one/a.png|two/a.png"
    path = tmp_path / "elsewhere" / "deep" / "m.csv"
    write_manifest(path, imported)
    table = read_manifest(path)
    assert list(table["image"]) == [str(folder / "images" / row["image"]) for row in imported.rows]
    assert table["mask"][0] == f"{folder / 'images/one/a.png'}|{folder / 'images/two/a.png'}"
    assert list(table["label"]) == ["x", "x", "y"]
    write_left_out(tmp_path / "left.csv", imported.left_out)
    assert (tmp_path / "left.csv").read_text().splitlines()[0] == "reference,patient_id,reason,detail"
    assert len((tmp_path / "left.csv").read_text().splitlines()) == 3
    imported.rows = []
    with pytest.raises(DataError, match=r"nothing was taken .*file missing: 1"):
        write_manifest(path, imported)


@pytest.mark.parametrize("name", ["a, b.png", 'quote".png', "two  blanks.png", "umlaut \u00fc.png", "semi;colon.png"])
def test_odd_names_survive(tmp_path, name):
    write_manifest(tmp_path / "m.csv", Imported(root=tmp_path, rows=[{"image": name, "patient_id": "1", "label": "x"}]))
    assert read_manifest(tmp_path / "m.csv")["image"][0] == str(tmp_path / name)


def test_a_described_table_is_opened_with_what_it_leaves_out_counted(folder, tmp_path):
    import yaml

    content = described(columns=COLUMNS, images="images", search=True, where={"View": ["PA"]}).model_dump(mode="json")
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(content))
    data = DataConfig(manifest="own.yaml", root=str(folder))
    dataset = open_dataset(data, base=tmp_path, cache=tmp_path / "cache", task="classification")
    assert list(dataset.table["image"]) == [str(folder / "images/one/b.png"), str(folder / "images/two/d.png")]
    assert list(dataset.table["case"]) == ["one/b.png", "two/d.png"]
    assert dataset.excluded == {"View is L": 1, "file missing": 1, "several files of this name": 1}


def test_files_outside_of_the_folder_are_not_taken(folder, tmp_path_factory):
    other = tmp_path_factory.mktemp("other") / "secret.png"
    other.write_bytes(b"")
    (folder / "images" / "link.png").symlink_to(other)
    (folder / "images" / "loop").symlink_to("loop")
    inside = folder / "images" / "one" / "a.png"
    names = [other, "../../x.png", "link.png", "link.png#1", "loop", inside, "../images/one/b.png"]
    (folder / "t.csv").write_text("\n".join(["image,label", *(f"{name},1" for name in names)]))
    imported = take(folder, images="images")
    assert [row["image"] for row in imported.rows] == [str(inside), "../images/one/b.png"]
    assert imported.reasons() == {"file outside of the folder": 4, "file missing": 1}
    assert "line 4: link.png is not below" in imported.left_out[2].detail
