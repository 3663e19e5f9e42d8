"""A small cohort of pictures that is easy to learn, and configurations for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from medgcsam.config import Config, load

CONFIG = {
    "name": "discs",
    "data": {"manifest": "manifest.csv", "classes": ["dark", "bright"]},
    "split": {"folds": 4},
    "image": {"size": 32},
    "network": {"name": "small", "width": 4},
    "optimizer": {"name": "gcsam", "lr": 3e-3, "start": 0.0},
    "training": {"epochs": 3, "batch_size": 8, "device": "cpu", "threads": 1},
    "evaluation": {"replicates": 100},
    "pipeline": {"workers": 0},
    "output": {"folder": "runs"},
}


def draw_cohort(folder: Path, labels: list[str], levels: list[float], *, images: int = 2) -> None:
    """PNG files of noise whose centre is as bright as the level of its patient, and manifest.csv."""
    rng = np.random.default_rng(0)
    lines = ["image,patient_id,label,sex,age"]
    for number, (label, level) in enumerate(zip(labels, levels, strict=True)):
        for view in range(images):
            pixels = rng.normal(90, 25, (40, 40))
            pixels[12:28, 12:28] += level
            name = f"p{number:03d}_{view}.png"
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / name)
            lines.append(f"{name},P{number:03d},{label},{'FM'[number % 2]},{30 + number % 50}")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")


def write_config(folder: Path, **changes: dict) -> Path:
    """CONFIG with the sections of ``changes`` laid over it."""
    content = {**CONFIG, **{k: {**CONFIG.get(k, {}), **v} if isinstance(v, dict) else v for k, v in changes.items()}}
    path = folder / "discs.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture(scope="session")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 patients with two images each; "bright" ones have a brighter centre."""
    folder = tmp_path_factory.mktemp("discs")
    labels = ["dark", "bright"] * 24
    draw_cohort(folder, labels, [60.0 if label == "bright" else 0.0 for label in labels])
    return folder


@pytest.fixture
def config(cohort: Path, tmp_path: Path):
    """``config(section={...}, ...)`` loads CONFIG with changes; runs go to the test's own folder."""

    def make(overrides: tuple[str, ...] = (), **changes: dict) -> Config:
        data = {"root": str(cohort), "manifest": str(cohort / "manifest.csv"), **changes.pop("data", {})}
        output = {"folder": str(tmp_path / "runs")}
        return load(write_config(tmp_path, data=data, output=output, **changes), overrides)

    return make
