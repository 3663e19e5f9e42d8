"""The synthetic cohort: same bytes every time, whole or absent, and nothing but the image tells the label."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.pixels import apply_modality_lut, apply_windowing
from scipy.stats import fisher_exact, mannwhitneyu

from medgcsam.errors import ConfigError, DataError, MachineError
from medgcsam.intake import phantom
from medgcsam.intake.phantom import ensure_phantom, make_chest_phantom
from medgcsam.intake.phantom_cohort import plan_cohort

PATIENTS, SIZE = 40, 96


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> Path:
    return make_chest_phantom(
        tmp_path_factory.mktemp("cohort") / "chest", patients=PATIENTS, seed=3, size=SIZE, workers=1
    )


@pytest.fixture(scope="module")
def rows(manifest) -> list[dict[str, str]]:
    with open(manifest, encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def shown(path: Path) -> np.ndarray:
    """The picture as a viewer shows it, 0 black to 1 white."""
    data = pydicom.dcmread(path)
    picture = apply_windowing(apply_modality_lut(data.pixel_array, data), data) / (2**data.BitsStored - 1)
    return 1 - picture if data.PhotometricInterpretation == "MONOCHROME1" else picture


def test_manifest_lists_every_file_once_with_all_columns(manifest, rows):
    assert tuple(rows[0]) == phantom.COLUMNS
    on_disk = {f"images/{path.name}" for path in (manifest.parent / "images").iterdir()}
    assert [row["image"] for row in rows] == sorted(on_disk)
    assert all(value for row in rows for value in row.values())


def test_description_says_synthetic_and_counts_what_is_there(manifest, rows):
    told = json.loads((manifest.parent / "PHANTOM.json").read_text(encoding="utf-8"))
    assert told["notice"] == "SYNTHETIC DATA"
    assert told["version"] == phantom.VERSION
    assert told["seed"] == 3
    assert told["counts"]["images"] == len(rows)
    assert told["counts"]["patients"] == len({row["patient_id"] for row in rows}) == PATIENTS
    assert told["counts"]["labels"] == dict(Counter(row["label"] for row in rows))


def test_one_to_three_images_per_patient_and_some_patients_in_both_classes(rows):
    images = Counter(row["patient_id"] for row in rows)
    assert set(images.values()) == {1, 2, 3}
    both = [p for p in images if len({row["label"] for row in rows if row["patient_id"] == p}) == 2]
    assert 1 <= len(both) <= PATIENTS * 0.15


def test_headers_agree_with_the_manifest(manifest, rows):
    for row in rows:
        data = pydicom.dcmread(manifest.parent / row["image"], stop_before_pixels=True)
        assert (data.PatientID, data.PatientSex, data.StudyID) == (row["patient_id"], row["sex"], row["study"])
        assert int(data.PatientAge[:3]) == int(row["age"])
        assert data.StudyDate == row["date"].replace("-", "")
        assert data.ManufacturerModelName == row["scanner"]
        assert "normal" not in str(data).lower()
        assert "opacity" not in str(data).lower()


def test_formats_are_mixed_and_one_third_is_compressed(manifest, rows):
    headers = [pydicom.dcmread(manifest.parent / row["image"], stop_before_pixels=True) for row in rows]
    syntaxes = Counter(data.file_meta.TransferSyntaxUID.name for data in headers)
    compressed = sum(data.file_meta.TransferSyntaxUID.is_compressed for data in headers)
    assert set(syntaxes) == {
        "Explicit VR Little Endian",
        "RLE Lossless",
        "JPEG 2000 Image Compression (Lossless Only)",
    }
    assert abs(compressed - len(rows) / 3) <= 2
    first = sum(data.PhotometricInterpretation == "MONOCHROME1" for data in headers)
    assert abs(first - len(rows) / 2) <= 2
    assert {data.BitsStored for data in headers} == {12}


def test_the_two_sites_differ_in_noise_and_window(manifest, rows):
    noise, width = {}, {}
    for site in ("north", "south"):
        files = [manifest.parent / row["image"] for row in rows if row["site"] == site]
        pictures = [shown(path) for path in files]
        # Lower abdomen: no fine anatomy, so the second difference along a row is noise.
        noise[site] = np.median([np.std(np.diff(p[-12:-4, 30:60], n=2, axis=1)) for p in pictures])
        width[site] = np.median([float(pydicom.dcmread(path, stop_before_pixels=True).WindowWidth) for path in files])
    assert noise["south"] > 1.2 * noise["north"]
    assert width["north"] > 1.3 * width["south"]


@pytest.mark.parametrize("seed", [0, 1])
def test_nothing_around_the_image_tells_the_label(seed):
    images = [(plan, image) for plan in plan_cohort(patients=640, seed=seed) for image in plan.images]
    ill = np.array([image.label == "opacity" for _, image in images])
    assert 0.4 < ill.mean() < 0.5
    traits = {
        "site": [plan.site == "north" for plan, _ in images],
        "photometric": [image.photometric == "MONOCHROME1" for _, image in images],
        "compressed": [image.compression != "none" for _, image in images],
        "rle among all": [image.compression == "rle" for _, image in images],
        "sex": [plan.sex == "F" for plan, _ in images],
    }
    for name, values in traits.items():
        table = [[np.sum(ill & np.equal(values, v)), np.sum(~ill & np.equal(values, v))] for v in (True, False)]
        assert fisher_exact(table).pvalue > 0.05, name
    for values in ([plan.index for plan, _ in images], [image.date.toordinal() for _, image in images]):
        order = np.array(values)
        assert mannwhitneyu(order[ill], order[~ill]).pvalue > 0.01


def test_mean_brightness_of_stored_values_hardly_tells_the_label(manifest, rows):
    stored = np.array([pydicom.dcmread(manifest.parent / row["image"]).pixel_array.mean() for row in rows])
    ill = np.array([row["label"] == "opacity" for row in rows])
    auc = mannwhitneyu(stored[ill], stored[~ill]).statistic / (ill.sum() * (~ill).sum())
    assert 0.3 < auc < 0.7


def test_same_seed_gives_the_same_bytes_with_any_number_of_processes(tmp_path):
    alone = make_chest_phantom(tmp_path / "alone", patients=12, size=64, seed=5, workers=1).parent
    shared = make_chest_phantom(tmp_path / "shared", patients=12, size=64, seed=5, workers=2).parent
    other = make_chest_phantom(tmp_path / "other", patients=12, size=64, seed=6, workers=1).parent
    assert digests(alone) == digests(shared)
    images = [{h for name, h in digests(f).items() if name.endswith(".dcm")} for f in (alone, other)]
    assert not images[0] & images[1]


def test_made_from_a_script_without_main_guard(tmp_path):
    code = "from pathlib import Path; from medgcsam.intake.phantom import make_chest_phantom as make\n"
    script = tmp_path / "plain.py"
    script.write_text(code + f"make(Path({str(tmp_path / 'c')!r}), patients=5, size=64, workers=2)\n", encoding="utf-8")
    root = str(Path(phantom.__file__).parents[2])
    done = subprocess.run(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": root},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert len({p.name.split("_")[0] for p in (tmp_path / "c" / "images").iterdir()}) == 5


def test_an_equal_cohort_is_reused_and_another_replaces_it(tmp_path, monkeypatch):
    folder = tmp_path / "chest"
    first = make_chest_phantom(folder, patients=4, size=64, workers=1)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert make_chest_phantom(folder, patients=4, size=64, workers=1) == first
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    make_chest_phantom(folder, patients=5, size=64, workers=1)
    assert json.loads((folder / "PHANTOM.json").read_text())["patients"] == 5
    monkeypatch.setattr(phantom, "VERSION", phantom.VERSION + 1)
    make_chest_phantom(folder, patients=5, size=64, workers=1)
    assert json.loads((folder / "PHANTOM.json").read_text())["version"] == phantom.VERSION


def test_a_cohort_with_a_missing_image_is_made_anew(tmp_path):
    folder = make_chest_phantom(tmp_path / "chest", patients=4, size=64, workers=1).parent
    before = digests(folder)
    next((folder / "images").iterdir()).unlink()
    make_chest_phantom(folder, patients=4, size=64, workers=1)
    assert digests(folder) == before


def test_interrupted_generation_leaves_nothing_behind(tmp_path):
    def stop(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_chest_phantom(tmp_path / "chest", patients=4, size=64, workers=1, progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_stale_leftovers_of_a_killed_process_are_removed_and_fresh_ones_kept(tmp_path):
    stale, fresh = tmp_path / ".chest-unfinished-a", tmp_path / ".chest-unfinished-b"
    stale.mkdir()
    fresh.mkdir()
    os.utime(stale, (0, 0))
    make_chest_phantom(tmp_path / "chest", patients=4, size=64, workers=1)
    assert not stale.exists()
    assert fresh.exists()


def test_another_process_that_finished_first_wins(tmp_path):
    folder = tmp_path / "chest"

    def overtake(done: int, total: int) -> None:
        if done == total:
            make_chest_phantom(folder, patients=4, size=64, workers=1)

    assert make_chest_phantom(folder, patients=4, size=64, workers=1, progress=overtake).is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["chest"]


def test_progress_counts_patients(tmp_path):
    seen = []
    make_chest_phantom(tmp_path / "c", patients=4, size=64, workers=1, progress=lambda *told: seen.append(told))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_ensure_phantom_keeps_cohorts_apart_and_names_the_known_ones(tmp_path, monkeypatch):
    monkeypatch.setitem(phantom.PHANTOMS, "chest_xray", (lambda f, **o: make_chest_phantom(f, size=64, **o), 4))
    default, more = ensure_phantom("chest_xray", tmp_path), ensure_phantom("chest_xray", tmp_path, patients=5)
    assert default != more
    assert default.is_file()
    assert more.is_file()
    with pytest.raises(ConfigError, match="chest_xray"):
        ensure_phantom("knee", tmp_path)


def test_somebodys_own_folder_is_not_overwritten(tmp_path):
    (tmp_path / "thesis.txt").write_text("irreplaceable")
    with pytest.raises(DataError, match="not a phantom"):
        make_chest_phantom(tmp_path, patients=4, size=64)
    assert (tmp_path / "thesis.txt").read_text() == "irreplaceable"


@pytest.mark.parametrize("wrong", [{"patients": 3}, {"seed": -1}, {"size": 10}])
def test_arguments_out_of_range_are_configuration_errors(tmp_path, wrong):
    with pytest.raises(ConfigError, match=r"phantom cannot be made"):
        make_chest_phantom(tmp_path / "chest", **{"patients": 4, "size": 64, **wrong})


def test_unwritable_place_is_a_machine_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineError, match="MEDGCSAM_CACHE"):
        make_chest_phantom(tmp_path / "file" / "chest", patients=4, size=64)
