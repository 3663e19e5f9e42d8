"""docs/data.md says what is so: its code runs, its kinds of faults and of imports are all that there are."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from medgcsam.config.data import DataConfig
from medgcsam.intake.check import KINDS
from medgcsam.intake.importers import COLLECTORS


def page(repository: Path) -> str:
    return (repository / "docs" / "data.md").read_text("utf-8")


def test_the_python_reads_a_series_and_its_contours(repository, shared_data) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", page(repository), re.DOTALL)
    series = shared_data / "sarcoma_dicom" / "STS_001" / "PET"
    names = {"folder": series / "image", "contours": series / "mask" / "RS.dcm"}
    exec(block, names)
    assert names["image"].unit == "SUV"
    assert names["label"].array.shape == names["image"].array.shape
    assert names["label"].array.any()


def test_the_yaml_is_a_section_data(repository) -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", page(repository), re.DOTALL)
    section = DataConfig.model_validate({"manifest": "m.csv", **yaml.safe_load(block)["data"]})
    assert list(section.structures) == ["tumour", "kidney"]


def test_every_kind_of_fault_and_of_import_is_listed(repository) -> None:
    text = page(repository)
    assert [tuple(row) for row in re.findall(r"^\| `(\w+)` \| (.*?) \|$", text.split("## What `check`")[1], re.M)] == [
        *KINDS.items()
    ]
    listed = text.split("| `--kind` |")[1].split("Without `--kind`")[0]
    assert set(re.findall(r"`(\w+)`", "".join(row.split("|")[1] for row in listed.splitlines()[2:] if row))) == set(
        COLLECTORS
    )
