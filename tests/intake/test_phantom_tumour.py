"""The synthetic abdominal cohort: same bytes every time, sound geometry, lesions in the liver, and worth a network."""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
from collections import Counter
from pathlib import Path

import nibabel
import numpy as np
import pytest
from scipy.ndimage import label as components
from scipy.stats import fisher_exact

from medgcsam.cohort import read_manifest
from medgcsam.errors import ConfigError, DataError
from medgcsam.imaging import read_image, read_label
from medgcsam.intake import phantom, phantom_tumour
from medgcsam.intake.phantom import ensure_phantom
from medgcsam.intake.phantom_tumour import make_tumour_phantom
from medgcsam.intake.phantom_tumour_cohort import plan_cohort

PATIENTS, SEED = 8, 2


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> Path:
    return make_tumour_phantom(tmp_path_factory.mktemp("cohort") / "tumour", patients=PATIENTS, seed=SEED, workers=1)


@pytest.fixture(scope="module")
def volumes(manifest) -> list[tuple[dict[str, str], np.ndarray, np.ndarray, np.ndarray]]:
    """(row, HU, label, affine), voxel axes turned to R, A and S by nibabel."""
    found = []
    for row in rows_of(manifest):
        image, mask = (nibabel.as_closest_canonical(nibabel.load(manifest.parent / row[k])) for k in ("image", "mask"))
        found.append((row, image.get_fdata(), np.asarray(mask.dataobj), image.affine))
    return found


def rows_of(manifest: Path) -> list[dict[str, str]]:
    with open(manifest, encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_manifest_and_description_say_what_is_there(manifest):
    rows = rows_of(manifest)
    assert tuple(rows[0]) == phantom_tumour.COLUMNS
    on_disk = {
        f"{folder}/{path.name}" for folder in ("images", "masks") for path in (manifest.parent / folder).iterdir()
    }
    assert on_disk == {row[key] for row in rows for key in ("image", "mask")}
    assert len(on_disk) == 2 * len(rows)
    assert all(value for row in rows for value in row.values())
    told = json.loads((manifest.parent / "PHANTOM.json").read_text(encoding="utf-8"))
    assert told["notice"] == "SYNTHETIC DATA"
    assert (told["phantom"], told["version"], told["seed"]) == ("tumour", phantom_tumour.VERSION, SEED)
    assert told["counts"]["images"] == len(rows) > PATIENTS
    assert told["counts"]["patients"] == len({row["patient_id"] for row in rows}) == PATIENTS
    assert len(read_manifest(manifest, unlabelled=True)) == len(rows)


def test_files_are_read_with_their_geometry_and_masks_lie_on_them(manifest):
    turned = set()
    for row in rows_of(manifest):
        stored = nibabel.load(manifest.parent / row["image"])
        assert stored.header["descrip"].item() == b"SYNTHETIC DATA"
        assert np.allclose(stored.get_qform(), stored.get_sform(), atol=1e-3)
        image = read_image(manifest.parent / row["image"])
        mask = read_label(manifest.parent / row["mask"], like=image)
        assert np.array_equal(image.array[0], stored.get_fdata(dtype=np.float32))
        assert np.array_equal(mask.array[0], np.asarray(nibabel.load(manifest.parent / row["mask"]).dataobj))
        assert np.allclose(image.affine, stored.affine, atol=1e-3)
        assert set(np.unique(mask.array)) <= {0, 1, 2}
        short, middle, long = sorted(image.spacing)
        assert 2.5 <= short <= middle <= 3.5
        assert 4.99 < long < 7.51
        turned.add("".join(nibabel.aff2axcodes(stored.affine)))
        tilt = np.abs(stored.affine[:3, :3] / image.spacing).max(axis=0)
        assert (tilt < 1).all(), "every volume is oblique"
        assert (tilt > 0.9).all()
    assert len(turned) >= 3


def test_values_are_those_of_ct_and_the_liver_lies_on_the_right(volumes):
    for _, values, label, affine in volumes:
        assert values.min() >= -1024
        assert np.median(values[:, :, values.shape[2] // 2][0]) < -900, "air around the body"
        liver = values[label == 1]
        assert 60 < np.median(liver) < 140
        ml = np.abs(np.linalg.det(affine)) / 1000
        assert 400 < (label > 0).sum() * ml < 2600
        middle = affine @ [*((np.array(values.shape) - 1) / 2), 1]
        centre = affine @ [*np.argwhere(label > 0).mean(axis=0), 1]
        assert centre[0] > middle[0] + 15


def test_lesions_are_as_many_as_planned_low_in_contrast_and_inside_the_liver(volumes):
    plans = {plan.patient_id: plan for plan in plan_cohort(patients=PATIENTS, seed=SEED)}
    assert {0, 1, 2, 3} <= {plan.lesions for plan in plans.values()}
    contrasts = []
    for row, values, label, _ in volumes:
        whole, parts = components(label > 0, np.ones((3, 3, 3)))
        assert parts == 1 or np.bincount(whole.ravel())[1:].max() > 0.97 * (label > 0).sum()
        lesions, count = components(label == 2, np.ones((3, 3, 3)))
        assert count == plans[row["patient_id"]].lesions
        for number in range(1, count + 1):
            assert (lesions == number).sum() >= 8, "even the smallest lesion has some voxels"
            contrasts.append(np.median(values[label == 1]) - np.median(values[lesions == number]))
    assert 15 < np.median(contrasts) < 70
    noise = np.std([values[label == 1] - np.median(values[label == 1]) for _, values, label, _ in volumes[:1]])
    assert min(contrasts) < 3 * noise


def test_no_threshold_finds_the_structures(volumes):
    """Any pair of values, even chosen with the reference in hand, is far from outlining liver or lesion."""
    steps = np.arange(-60, 201, 2)
    low, high = np.triu_indices(len(steps), 1)
    for number, limit in ((1, 0.75), (2, 0.25)):
        dice = []
        for _, values, label, _ in volumes:
            size = (label == number).sum()
            if size:
                parts = values[label == number], values
                inside, every = (np.append(0, np.histogram(part, steps)[0].cumsum()) for part in parts)
                dice.append(2 * (inside[high] - inside[low]) / (every[high] - every[low] + size))
        assert len(dice) >= 5
        assert np.mean(dice, axis=0).max() < limit


def test_sites_differ_and_tell_nothing_about_lesions():
    plans = plan_cohort(patients=60, seed=0)
    assert Counter(plan.lesions for plan in plans) == {0: 12, 1: 18, 2: 15, 3: 9, 4: 6}
    assert 10 <= sum(len(plan.volumes) == 2 for plan in plans) <= 14
    ill = np.array([plan.lesions > 0 for plan in plans])
    for values in ([plan.site == "north" for plan in plans], [plan.sex == "F" for plan in plans]):
        table = [[np.sum(ill & np.equal(values, v)), np.sum(~ill & np.equal(values, v))] for v in (True, False)]
        assert fisher_exact(table).pvalue > 0.2
    for plan in plans:
        dates = [volume.date for volume in plan.volumes]
        assert dates == sorted(set(dates))
        assert 18 <= plan.age <= plan.age_at(plan.volumes[-1]) <= plan.age + 1


def test_same_seed_gives_the_same_bytes_with_any_number_of_processes(tmp_path):
    alone = make_tumour_phantom(tmp_path / "alone", patients=4, seed=5, workers=1).parent
    shared = make_tumour_phantom(tmp_path / "shared", patients=4, seed=5, workers=2).parent
    assert digests(alone) == digests(shared)
    for path in (alone / "images").iterdir():
        data = path.read_bytes()
        assert data[4:8] == bytes(4), "no time in the gzip header"
        assert gzip.decompress(data)[:4] == (348).to_bytes(4, "little")


def test_another_seed_gives_other_volumes():
    first, second = (plan_cohort(patients=4, seed=seed)[0] for seed in (0, 1))
    one, two = (phantom_tumour.draw_volume(plan, plan.volumes[0], seed=s) for s, plan in enumerate((first, second)))
    assert one[0].shape != two[0].shape or not np.array_equal(one[0], two[0])
    again = phantom_tumour.draw_volume(first, first.volumes[0], seed=0)
    assert np.array_equal(one[0], again[0])


def test_a_cohort_is_reused_where_it_is_whole_and_made_anew_where_a_mask_is_missing(tmp_path, monkeypatch):
    def quick(plan, volume, *, seed):
        drawn.append(volume.name)
        values = np.full((4, 3, 2), seed + plan.index, np.int16)
        return values, values.astype(np.uint8), np.eye(4), np.random.default_rng(0)

    drawn: list[str] = []
    monkeypatch.setattr(phantom_tumour, "draw_volume", quick)
    folder = make_tumour_phantom(tmp_path / "tumour", patients=4, workers=1).parent
    before, count = digests(folder), len(drawn)
    make_tumour_phantom(folder, patients=4, workers=1)
    assert len(drawn) == count
    next((folder / "masks").iterdir()).unlink()
    make_tumour_phantom(folder, patients=4, workers=1)
    assert len(drawn) == 2 * count
    assert digests(folder) == before
    assert [path.name for path in tmp_path.iterdir()] == ["tumour"]


def test_it_is_known_by_name_and_does_not_take_the_place_of_another(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setitem(phantom.PHANTOMS, "tumour", (lambda folder, **rest: calls.append((folder, rest)), 60))
    ensure_phantom("tumour", tmp_path, seed=3)
    assert calls == [
        (tmp_path / "phantoms" / "tumour-60-patients-seed-3", {"patients": 60, "seed": 3, "progress": None})
    ]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("irreplaceable")
    with pytest.raises(DataError, match="not a phantom"):
        make_tumour_phantom(tmp_path / "mine", patients=4)


@pytest.mark.parametrize("wrong", [{"patients": 3}, {"seed": -1}])
def test_arguments_out_of_range_are_configuration_errors(tmp_path, wrong):
    with pytest.raises(ConfigError, match="phantom cannot be made"):
        make_tumour_phantom(tmp_path / "tumour", **{"patients": 4, **wrong})
