"""The importer is seen from the files, named by the user, or described."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path

import pytest

from medgcsam.errors import ConfigError, DataError
from medgcsam.intake.described import describe_folder, find_description, guess_kind, with_selection
from medgcsam.intake.description import read_description

_spec = importlib.util.spec_from_file_location("dicom_phantoms", Path(__file__).with_name("dicom_phantoms.py"))
make = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(make)


def test_kinds_are_seen(tmp_path):
    for name in ("list.json", "t.csv", "x.npz", "a.zip", "DICOMDIR"):
        (tmp_path / name).write_text("{}")
    kinds = {"list.json": "datalist", "t.csv": "table", "x.npz": "medmnist", "a.zip": "dicom", "DICOMDIR": "dicom"}
    assert {name: guess_kind(tmp_path / name) for name in kinds} == kinds
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "dataset.json").write_text(json.dumps({"training": []}))
    assert guess_kind(tmp_path / "m") == guess_kind(tmp_path / "m" / "dataset.json") == "msd"
    (tmp_path / "m" / "dataset.json").write_text(json.dumps({"channel_names": {}}))
    assert guess_kind(tmp_path / "m") == "nnunet"
    make.write_image(tmp_path / "d" / "deep" / "no_ending", make.DX, "1.2", "1.2.1")
    assert guess_kind(tmp_path / "d") == "dicom"
    (tmp_path / "c" / "ill").mkdir(parents=True)
    (tmp_path / "c" / "ill" / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert guess_kind(tmp_path / "c") == "classes"
    (tmp_path / "e").mkdir()
    with pytest.raises(DataError, match="no file in this folder"):
        guess_kind(tmp_path / "e")
    (tmp_path / "e" / "notes.txt").write_text("hello")
    with pytest.raises(ConfigError, match="say --kind"):
        guess_kind(tmp_path / "e")
    (tmp_path / "e" / "a.npz").write_bytes(b"")
    assert guess_kind(tmp_path / "e") == "medmnist"


def test_a_table_beside_folders_of_images_is_not_passed_over(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    for name in ("m.csv", "m.left_out.csv"):  # what an earlier import has written
        (tmp_path / name).write_text("image\n")
    assert guess_kind(tmp_path) == "classes"
    (tmp_path / "labels.csv").write_text("image\n")
    with pytest.raises(ConfigError, match=r"a table \(labels\.csv\) and folders of images"):
        guess_kind(tmp_path)
    (tmp_path / "images" / "a.png").unlink()
    assert guess_kind(tmp_path) == "table"


def test_what_cannot_be_described_is_refused(tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        describe_folder(tmp_path / "nowhere", None, {})
    with pytest.raises(ConfigError, match=r"--kind dcm: .*nearest: 'dicom'|--kind dcm: the kinds"):
        describe_folder(tmp_path, "dcm", {})
    with pytest.raises(ConfigError, match="'finding' is no standard column"):
        describe_folder(tmp_path, "table", {"finding": "x"})
    with pytest.raises(ConfigError, match=r"one \.csv file \(none\)"):
        describe_folder(tmp_path, "table", {})


def test_choices_are_laid_over_the_description():
    described = find_description("soft_tissue_sarcoma")
    chosen = with_selection(described, {"modality": ("PT",), "labels": None, "fold": None, "keep_irregular": False})
    assert (chosen.select.modality, chosen.select.labels) == (("PT",), "rtstruct")
    with pytest.raises(ConfigError, match=r"--description: .*no regular expression"):
        with_selection(described, {"description": "("})


def test_descriptions_are_found_by_name_by_path_and_by_configuration(tmp_path, monkeypatch):
    assert find_description("busi").importer == find_description("busi.yaml").importer == "classes"
    assert find_description("pneumoniamnist").importer == "medmnist"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.yaml").write_text("name: run\ndata: {manifest: busi.yaml}\n")
    assert find_description("run.yaml").title == find_description("busi").title
    (tmp_path / "run.yaml").write_text("name: run\ndata: {manifest: m.csv}\n")
    with pytest.raises(ConfigError, match=r"m\.csv, which is no data description"):
        find_description("run.yaml")
    with pytest.raises(ConfigError, match="shipped data descriptions are breast_ultrasound"):
        find_description("nothing_of_this_name")
    (tmp_path / "own.yaml").write_text("importer: table\ntitel: x\n")
    with pytest.raises(ConfigError, match="unknown key 'titel'"):
        find_description("own.yaml")


def test_choices_of_another_kind_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="--fold belongs to the kind nnunet, and this is dicom"):
        with_selection(find_description("soft_tissue_sarcoma"), {"fold": 0})
    with pytest.raises(ConfigError, match="--modality belongs to the kind dicom"):
        with_selection(find_description("busi"), {"modality": ("CT",)})
    with pytest.raises(ConfigError, match="--column and --patient-column belong to the kind table"):
        describe_folder(tmp_path, "classes", {"patient_id": "x"})
    assert describe_folder(tmp_path, "dicom", {"label": "Finding"})[0].columns == {"label": "Finding"}


@pytest.mark.parametrize("text", ["[" * 100_000, "title: 2001-99-99", "a: \0", "x" * 11_000_000])
def test_hostile_descriptions_are_refused(tmp_path, text):
    (tmp_path / "d.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"d\.yaml: this"):
        read_description(tmp_path / "d.yaml")


def test_a_pipe_is_no_description(tmp_path):
    os.mkfifo(tmp_path / "d.yaml")
    with pytest.raises(ConfigError, match="small text file"):
        read_description(tmp_path / "d.yaml")
