"""Multi-label and multi-class runs, with unlabelled and uncertain entries."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from medgcsam.config import Config, load
from medgcsam.journal import Journal
from medgcsam.run_folder import RunFolder, read_json, read_table
from medgcsam.training import train


@pytest.fixture
def findings(tmp_path: Path) -> Config:
    """60 patients whose picture is bright at the left (a), the right (b), both or nowhere; some entries unknown."""
    rng = np.random.default_rng(0)
    lines = ["image,patient_id,a,b"]
    for number in range(60):
        left, right = number % 2, number // 2 % 2
        pixels = rng.normal(90, 20, (32, 32))
        pixels[8:24, 2:14] += 70 * left
        pixels[8:24, 18:30] += 70 * right
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(tmp_path / f"{number}.png")
        shown = [str(left), str(right)]
        if number % 7 == 3:
            shown[number % 2] = rng.choice(["-1", ""])
        lines.append(f"{number}.png,P{number},{shown[0]},{shown[1]}")
    (tmp_path / "manifest.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "findings.yaml").write_text(
        "name: findings\ntask: multilabel\n"
        "data: {manifest: manifest.csv, label_columns: {a: a, b: b}}\n"
        "split: {folds: 3}\nimage: {size: 32}\nnetwork: {width: 4}\n"
        "optimizer: {name: gcsam, lr: 5e-3}\ntraining: {epochs: 6, batch_size: 8, device: cpu, threads: 1}\n"
        "evaluation: {replicates: 100}\npipeline: {workers: 0}\n"
    )
    return load(tmp_path / "findings.yaml")


def test_findings_are_learnt_apart_from_each_other(findings) -> None:
    run = RunFolder(train(findings, journal=Journal(quiet=True)))
    metrics = read_json(run.metrics)
    test = metrics["partitions"]["test"]
    assert metrics["task"] == "multilabel"
    assert test["auroc_a"]["value"] > 0.9
    assert test["auroc_b"]["value"] > 0.9
    assert test["auroc"]["value"] == pytest.approx((test["auroc_a"]["value"] + test["auroc_b"]["value"]) / 2)
    assert set(metrics["operating_point"]) == {"a", "b"}
    predictions = read_table(run.predictions)
    assert any("?" in label for label in predictions["label"])
    assert test["auroc_a"]["n_images"] < len(predictions[predictions["partition"] == "test"])


def test_unknown_entries_change_nothing(findings, tmp_path) -> None:
    """Turning the unknown entries of the training patients into others gives the same weights."""
    weights = []
    for word in ("-1", ""):
        path = tmp_path / "manifest.csv"
        rows = [line.split(",") for line in path.read_text().splitlines()]
        rows = [[cell if cell not in ("-1", "") else word for cell in row] for row in rows]
        path.write_text("\n".join(",".join(row) for row in rows) + "\n")
        run = RunFolder(train(findings, journal=Journal(quiet=True), restart=True))
        weights.append(torch.load(run.best_checkpoint, weights_only=True)["network"])
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
