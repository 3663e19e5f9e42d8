"""A structure that no training mask holds is refused with what the masks hold; two metrics of one name as well."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from PIL import Image as Picture

from medgcsam.errors import ConfigError, DataError
from medgcsam.pipeline.absent import names_held
from tests.pipeline import segmentation_phantoms as phantoms
from tests.pipeline.test_segmentation_cases import cohort, prepare, settings


def pictures(folder, value: int, patients: int = 6):
    """Pictures with a square, whose masks have ``value`` in it."""
    folder.mkdir(parents=True)
    rows, random = [["image", "patient_id", "mask"]], np.random.default_rng(0)
    for number in range(patients):
        mask = np.zeros((24, 24), np.uint8)
        mask[6:18, 6:18] = value
        for name, array in (
            (f"{number}.png", random.integers(0, 99, (24, 24)) + (mask > 0) * 99),
            (f"{number}_m.png", mask),
        ):
            Picture.fromarray(array.astype(np.uint8)).save(folder / name)
        rows.append([f"{number}.png", f"patient {number}", f"{number}_m.png"])
    with open(folder / "manifest.csv", "w", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder / "manifest.csv"


@pytest.mark.parametrize("name", ["1", "255"])
def test_the_white_of_a_binary_picture_is_1_and_255(tmp_path, name):
    manifest = pictures(tmp_path / "set", 255)
    cases = prepare(settings(manifest, data={"structures": {"tumour": [name]}}), tmp_path)
    assert all(seen.voxels == (144,) for seen in cases.surveyed)


def test_what_the_masks_hold_is_said(tmp_path):
    manifest = pictures(tmp_path / "set", 3)
    with pytest.raises(DataError, match=r"no mask .* holds tumour, .*\(they hold 3\); correct the names or numbers"):
        prepare(settings(manifest, data={"structures": {"tumour": ["255"]}}), tmp_path)
    empty = pictures(tmp_path / "empty", 0)
    with pytest.raises(DataError, match="the first of them are empty"):
        prepare(settings(empty, data={"structures": {"tumour": ["1"]}}), tmp_path)


def test_what_can_be_named_of_several_masks_are_their_files_and_numbers(tmp_path):
    images, masks = phantoms.write_cohort(tmp_path / "set", 2)
    config = settings(tmp_path / "set" / "manifest.csv").image
    assert names_held([(images[0], "|".join(masks))], config) == ["1", "2", "p0_mask.nii.gz", "p1_mask.nii.gz"]
    assert names_held([("absent.nii", masks[0])], config) == []


@pytest.mark.parametrize("name", ["rate", "with_empty"])
def test_structures_named_like_a_part_of_a_metric_are_refused(tmp_path, name):
    config = settings(cohort(tmp_path), data={"structures": {"organ": ["1"], name: ["2"]}})
    with pytest.raises(ConfigError, match=rf"^data\.structures: '{name}': \w+_{name} would be both .* another name\.$"):
        prepare(config, tmp_path)
