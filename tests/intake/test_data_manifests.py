"""The shipped descriptions of public sets, each on a phantom in the layout in which the set is given away."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from medgcsam.config import DataConfig, load
from medgcsam.config.shipped import shipped_names
from medgcsam.intake import open_dataset
from medgcsam.intake.described import find_description
from medgcsam.intake.importers import COLLECTORS, Imported

UNPUBLISHED = "chest_xray_dicom.yaml"
FINDINGS = (
    "No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung Lesion,Edema,Consolidation,Pneumonia,"
    "Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,Support Devices"
)


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


def table(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def take(name: str, folder: Path) -> Imported:
    return COLLECTORS[find_description(name).importer](find_description(name), folder, None)


def rows(imported: Imported, *columns: str) -> list[tuple[str, ...]]:
    return [tuple(row.get(name, "") for name in columns) for row in imported.rows]


def test_chexpert(tmp_path):
    folder = tmp_path / "CheXpert-v1.0-small"
    frontal, lateral = "train/patient00001/study1/view1_frontal.jpg", "train/patient00001/study1/view2_lateral.jpg"
    healthy = "train/patient00002/study1/view1_frontal.jpg"
    touch(folder, frontal, lateral, healthy)
    table(
        folder / "train.csv", f"Path,Sex,Age,Frontal/Lateral,AP/PA,{FINDINGS}",
        f"CheXpert-v1.0-small/{frontal},Female,68,Frontal,AP,,,,,,,-1.0,,,0.0,1.0,,,1.0",
        f"CheXpert-v1.0-small/{healthy},Male,41,Frontal,AP,1.0,,,,,,,,,0.0,,,,",
        f"CheXpert-v1.0-small/{lateral},Female,68,Lateral,,1.0,,,,,,,,,0.0,,,,1.0",
    )  # fmt: skip
    imported = take("chexpert", folder)
    assert rows(imported, "image", "patient_id", "study", "sex", "age") == [
        (frontal, "patient00001", "patient00001/study1", "Female", "68"),
        (healthy, "patient00002", "patient00002/study1", "Male", "41"),
    ]
    assert imported.rows[1]["label"] == "?Support Devices", "No Finding is about all the others"
    label = imported.rows[0]["label"].split("|")
    assert label[:2] == ["Pleural Effusion", "Support Devices"]
    assert set(label[2:]) == {f"?{name}" for name in FINDINGS.split(",")} - {
        "?No Finding", "?Pneumothorax", "?Pleural Effusion", "?Support Devices"
    }  # fmt: skip
    assert imported.reasons() == {"Frontal/Lateral is Lateral": 1}
    dataset = open_dataset(DataConfig(manifest="chexpert.yaml", root=str(folder)), base=tmp_path, cache=tmp_path / "c")
    assert list(dataset.table["label"]) == [row["label"] for row in imported.rows]
    assert "No Finding" not in dataset.classes


@pytest.mark.parametrize("sex", ["Patient Gender", "Patient Sex"])
def test_nih_chest_xray14(tmp_path, sex, monkeypatch):
    data, tmp_path = tmp_path, tmp_path / "chest_xray14"
    touch(tmp_path, "images_001/images/00000001_000.png", "images_002/images/00000002_000.png")
    table(
        tmp_path / "Data_Entry_2017_v2020.csv",
        f"Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,{sex},View Position,OriginalImage[Width,"
        "Height],OriginalImagePixelSpacing[x,y],",
        "00000001_000.png,Cardiomegaly|Effusion,0,1,57,M,PA,2682,2749,0.143,0.143,",
        "00000002_000.png,No Finding,0,2,80,F,AP,2500,2048,0.171,0.171,",
        "00000003_000.png,Mass,0,3,80,F,AP,2500,2048,0.171,0.171,",
    )
    table(tmp_path / "train_val_list.txt", "00000001_000.png")
    table(tmp_path / "test_list.txt", "00000002_000.png", "00000003_000.png")
    imported = take("nih_chest_xray14.yaml", tmp_path)
    assert rows(imported, "image", "patient_id", "label", "partition", "sex", "age") == [
        ("images_001/images/00000001_000.png", "1", "Cardiomegaly|Effusion", "train", "M", "57"),
        ("images_002/images/00000002_000.png", "2", "No Finding", "test", "F", "80"),
    ]
    monkeypatch.setenv("MEDGCSAM_DATA", str(data))
    config = load("nih_chest_xray14.yaml")
    dataset = open_dataset(config.data, base=config.base, cache=tmp_path / "c", task=config.task)
    assert list(dataset.table["label"]) == ["Cardiomegaly|Effusion", "none"]
    assert dataset.excluded == {"file missing": 1}


def test_rsna_pneumonia(tmp_path):
    touch(tmp_path, "stage_2_train_images/p1.dcm", "stage_2_train_images/p2.dcm")
    table(
        tmp_path / "stage_2_train_labels.csv", "patientId,x,y,width,height,Target",
        "p1,,,,,0", "p2,264.0,152.0,213.0,379.0,1", "p2,562.0,152.0,256.0,453.0,1",
    )  # fmt: skip
    imported = take("rsna_pneumonia", tmp_path)
    assert rows(imported, "image", "patient_id", "label") == [
        ("stage_2_train_images/p1.dcm", "", "0"), ("stage_2_train_images/p2.dcm", "", "1")
    ]  # fmt: skip
    dataset = open_dataset(
        DataConfig(manifest="rsna_pneumonia.yaml", root=str(tmp_path)), base=tmp_path, cache=tmp_path
    )
    assert (list(dataset.table["label"]), dataset.patients) == (["no_pneumonia", "pneumonia"], "unknown")
    assert dataset.excluded == {"another row of an image that is taken": 1}


def test_covid19_image_collection(tmp_path):
    touch(tmp_path, "images/a.jpg", "images/b.jpg", "images/c.jpg", "images/d.jpg", "volumes/e.nii.gz")
    table(
        tmp_path / "metadata.csv", "patientid,offset,sex,age,finding,view,modality,date,folder,filename,license,",
        "2,0,M,65,Pneumonia/Viral/COVID-19,PA,X-ray,\"January 22, 2020\",images,a.jpg,,",
        "3,0,F,,Pneumonia/Bacterial/Streptococcus,AP,X-ray,2016,images,b.jpg,CC BY,",
        "4,0,F,,No Finding,AP Supine,X-ray,2016,images,c.jpg,,", "5,0,F,,Tuberculosis,PA,X-ray,2016,images,d.jpg,,",
        "6,0,F,,Pneumonia/Viral/COVID-19,Axial,CT,2020,volumes,e.nii.gz,,",
    )  # fmt: skip
    imported = take("covid19_image_collection", tmp_path)
    assert rows(imported, "image", "patient_id", "label") == [
        ("images/a.jpg", "2", "COVID-19"), ("images/b.jpg", "3", "Pneumonia"), ("images/c.jpg", "4", "No Finding"),
        ("images/d.jpg", "5", ""),
    ]  # fmt: skip
    data = DataConfig(manifest="covid19_image_collection.yaml", root=str(tmp_path))
    dataset = open_dataset(data, base=tmp_path, cache=tmp_path / "c", task="classification")
    assert list(dataset.table["label"]) == ["covid19", "other_pneumonia", "no_finding"]
    assert dataset.excluded == {"modality is CT": 1, "no label": 1}


def test_busi_and_bus_bra(tmp_path):
    folder = tmp_path / "Dataset_BUSI_with_GT"
    touch(folder, "benign/benign (1).png", "benign/benign (1)_mask.png", "benign/benign (1)_mask_1.png")
    touch(folder, "normal/normal (1).png", "normal/normal (1)_mask.png")
    busi = take("busi", folder)
    assert rows(busi, "image", "label", "mask") == [
        ("benign/benign (1).png", "benign", "benign/benign (1)_mask.png|benign/benign (1)_mask_1.png"),
        ("normal/normal (1).png", "normal", "normal/normal (1)_mask.png"),
    ]
    assert not busi.left_out
    folder = tmp_path / "BUSBRA"
    touch(folder, "Images/bus_0001-l.png", "Masks/mask_0001-l.png", "Images/bus_0001-r.png", "Masks/mask_0001-r.png")
    table(
        folder / "bus_data.csv", "ID,Case,Histology,Pathology,BIRADS,Device", "bus_0001-l,1,IDC,malignant,4,GE",
        "bus_0001-r,1,IDC,malignant,4,GE",
    )  # fmt: skip
    assert rows(take("bus_bra", folder), "image", "patient_id", "label", "mask") == [
        (f"Images/bus_0001-{side}.png", "1", "malignant", f"Masks/mask_0001-{side}.png") for side in "lr"
    ]


@pytest.mark.parametrize("name", [name for name in shipped_names("data_manifests") if name.startswith("msd_")])
def test_decathlon_tasks(tmp_path, name):
    description = find_description(name)
    folder = tmp_path / str(description.folder)
    touch(folder, "imagesTr/a_001.nii.gz", "labelsTr/a_001.nii.gz", "imagesTs/a_002.nii.gz")
    content = {
        "labels": {"0": "background", "1": "organ"}, "modality": {"0": "CT"}, "test": ["./imagesTs/a_002.nii.gz"],
        "training": [{"image": "./imagesTr/a_001.nii.gz", "label": "./labelsTr/a_001.nii.gz"}],
    }  # fmt: skip
    (folder / "dataset.json").write_text(json.dumps(content))
    imported = take(name, folder)
    assert rows(imported, "image", "mask") == [("imagesTr/a_001.nii.gz", "labelsTr/a_001.nii.gz")]
    assert imported.structures == {"organ": 1}
    assert folder.name.startswith(f"Task{name[4:6]}_")


@pytest.mark.parametrize(
    ("name", "images", "patients", "masks", "left_out"),
    [
        ("sarcoma_dicom", 12, 4, 12, 1),
        ("sarcoma_pet", 35, 35, 35, 14),
        ("sarcoma_mr", 14, 14, 14, 35),
        ("breast_ultrasound_masks", 149, None, 149, 0),
        ("chest_xray_dicom", 5, 5, 0, 2),
    ],
)
def test_the_sets_at_hand(shared_data, name, images, patients, masks, left_out):
    imported = COLLECTORS[find_description(name).importer](find_description(name), None, None)
    assert len(imported.rows) == images
    assert patients is None or len({row["patient_id"] for row in imported.rows}) == patients
    assert sum(bool(row.get("mask")) for row in imported.rows) == masks
    assert len(imported.left_out) == left_out
    for row in imported.rows:
        for reference in (row["image"], *filter(None, row.get("mask", "").split("|"))):
            assert (imported.root / reference.partition("#")[0]).exists()


def test_every_description_says_what_it_must():
    for name in shipped_names("data_manifests"):
        description = find_description(name)
        assert description.licence
        assert description.citation
        assert description.source
        if description.importer != "phantom":
            assert {"licence", "citation"} <= {*description.verified, *description.unverified} or name == UNPUBLISHED
            assert all("doi.org/" in text or "arxiv.org/" in text for text in _told(description, "citation"))


def _told(description, key: str) -> list[str]:
    return [description.verified[key]] if key in description.verified else []
