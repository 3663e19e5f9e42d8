"""Patients, entries and folds that contradict or lack something are left out by name or refused, never guessed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from medgcsam.errors import ConfigError, DataError
from medgcsam.intake.described import find_description, with_selection
from medgcsam.intake.description import Description, NoFinding, Selection
from medgcsam.intake.importers import COLLECTORS, Imported

NO_PATIENT = "the pattern finds no patient"


def take(kind: str, folder: Path, file: str | None = None, **select) -> Imported:
    description = Description(
        title="t", licence="", citation="", source="", importer=kind, folder="x", file=file, select=Selection(**select)
    )
    return COLLECTORS[kind](description, folder, None)


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def write(path: Path, content: object) -> None:
    path.write_text(json.dumps(content))


def nnunet(folder: Path, *cases: str, **content: object) -> None:
    touch(folder, *(f"imagesTr/{case}_0000.nii.gz" for case in cases), *(f"labelsTr/{case}.nii.gz" for case in cases))
    labels = {"background": 0, "liver": 1, "ignore": 2}
    write(folder / "dataset.json", {"channel_names": {"0": "CT"}, "labels": labels} | content)


def test_items_in_which_the_pattern_finds_no_patient_are_left_out(tmp_path):
    touch(tmp_path / "c", "ill/p01_1.png", "well/p02_1.png", "well/stray.png", "well/p02_1_mask.png")
    nnunet(tmp_path / "n", "p01a", "stray")
    touch(tmp_path / "d", "p01.nii.gz", "p02.nii.gz", "stray.nii.gz", "named.nii.gz")
    items = [{"image": f"{name}.nii.gz", "label": 1} for name in ("p01", "p02", "stray")]
    write(tmp_path / "d" / "list.json", {"training": [*items, {"image": "named.nii.gz", "label": 1, "subject": "q"}]})
    for kind, folder, file, options, patients in (
        ("classes", "c", None, {"mask_suffix": "_mask"}, ["p01", "p02"]),
        ("nnunet", "n", None, {}, ["p01"]),
        ("datalist", "d", "list.json", {}, ["p01", "p02", "q"]),
    ):
        imported = take(kind, tmp_path / folder, file, patient_pattern=r"p\d\d", **options)
        assert [row["patient_id"] for row in imported.rows] == patients, kind
        assert imported.patients_known
        assert imported.reasons() == {NO_PATIENT: 1}
        assert "stray" in imported.left_out[0].reference


def test_a_pattern_of_the_command_makes_patients_known():
    described = find_description("busi")
    assert described.patients == "unknown"
    assert with_selection(described, {"patient_pattern": r"p\d+"}).patients == "known"
    assert with_selection(described, {"patient_pattern": None}).patients == "unknown"


@pytest.mark.parametrize("chosen", [{}, {"fold": 0}, {"fold": 1}])
def test_a_case_that_is_trained_and_validated_on_in_one_fold_is_refused(tmp_path, chosen):
    nnunet(tmp_path, "a", "b")
    write(tmp_path / "splits_final.json", [{"train": ["a"], "val": ["b"]}, {"train": ["a", "b"], "val": ["a"]}])
    with pytest.raises(DataError, match=r"splits_final\.json: fold 1 has a in both 'train' and 'val'; .+\."):
        take("nnunet", tmp_path, **chosen)


def test_the_ignore_label_of_nnunet_is_no_structure(tmp_path):
    nnunet(tmp_path, "a")
    imported = take("nnunet", tmp_path)
    assert imported.structures == {"liver": 1}
    assert any("2" in note and "ignore" in note for note in imported.notes)


def test_an_entry_that_a_datalist_repeats_is_taken_once(tmp_path):
    touch(tmp_path, "a.png", "b.png")
    again = {"image": "a.png", "label": 1}
    write(
        tmp_path / "list.json", {"training": [again, {"image": "./a.png", "label": 1}, {"image": "b.png", "label": 0}]}
    )
    imported = take("datalist", tmp_path, "list.json")
    assert [row["image"] for row in imported.rows] == ["a.png", "b.png"]
    assert imported.reasons() == {"another item of an image that is taken": 1}
    write(tmp_path / "list.json", {"training": [again, again | {"label": 0}, {"image": "b.png", "label": 0}]})
    imported = take("datalist", tmp_path, "list.json")
    assert [row["image"] for row in imported.rows] == ["b.png"]
    assert imported.reasons() == {"items of one image contradict each other": 2}
    write(tmp_path / "list.json", {"training": [again], "validation": [again]})
    with pytest.raises(DataError, match=r"a\.png is in train and in validation"):
        take("datalist", tmp_path, "list.json")


def test_no_finding_makes_the_findings_absent_but_says_nothing_about_devices(tmp_path):
    touch(tmp_path, *(f"{name}.png" for name in "abcd"))
    lines = ["image,N,E,C,D", "a.png,1.0,,0,", "b.png,,,1,", "c.png,1,,,1", "d.png,1,1,,"]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    columns = {"Edema": "E", "Cardiomegaly": "C", "Devices": "D"}
    description = Description(
        title="t", licence="", citation="", source="", importer="table", folder="x", file="t.csv",
        label_columns=columns, no_finding=NoFinding(column="N", not_about=("Devices",)),
    )  # fmt: skip
    imported = COLLECTORS["table"](description, tmp_path, None)
    assert [row["label"] for row in imported.rows] == ["?Devices", "Cardiomegaly|?Edema|?Devices", "Devices"]
    assert [row["E"] for row in imported.rows] == ["0", "", "0"], "whoever reads the columns again finds the same"
    assert imported.reasons() == {"no finding, and a finding": 1}
    assert imported.left_out[0].reference == "d.png"


def test_no_finding_names_columns_and_classes_that_are_there(tmp_path):
    (tmp_path / "t.csv").write_text("image,E\na.png,1\n")
    with pytest.raises(ConfigError, match="'N'"):
        COLLECTORS["table"](
            Description(
                title="t", licence="", citation="", source="", importer="table", folder="x", file="t.csv",
                label_columns={"Edema": "E"}, no_finding=NoFinding(column="N"),
            ), tmp_path, None,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (
            "label_columns: {E: e}\nno_finding: {column: N, not_about: [Devices]}",
            "'Devices', which is none of label_col",
        ),
        ("no_finding: {column: N}", "needs classes, but there are none of label_columns"),
    ],
)
def test_a_description_whose_no_finding_is_about_nothing_is_refused(tmp_path, keys, said):
    head = "title: t\nlicence: ''\ncitation: ''\nsource: ''\nimporter: table\nfolder: x\nfile: t.csv\n"
    (tmp_path / "own.yaml").write_text(f"{head}{keys}\n")
    with pytest.raises(ConfigError, match=said):
        find_description(str(tmp_path / "own.yaml"))


def test_an_expression_that_is_none_is_told_in_plain_words():
    with pytest.raises(ConfigError, match=r"^--patient-pattern: '\(' is no regular expression \(.+\); correct"):
        with_selection(find_description("busi"), {"patient_pattern": "("})
    with pytest.raises(ConfigError, match=r"^--fold: must be 0 or more, but is -1; correct"):
        with_selection(find_description("busi").model_copy(update={"importer": "nnunet"}), {"fold": -1})


def test_an_unknown_name_is_told_once():
    with pytest.raises(ConfigError) as caught:
        find_description("sarcoma")
    assert str(caught.value).count("--config") == 1
    assert "sarcoma_pet.yaml" in str(caught.value)
