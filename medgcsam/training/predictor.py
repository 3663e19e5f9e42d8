"""Trained networks on a new image: probabilities of classes, or the outlines of structures on the image's own grid."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from medgcsam.config import Config, load
from medgcsam.errors import ConfigError
from medgcsam.imaging import Image
from medgcsam.networks import build_network
from medgcsam.pipeline.batches import standardize
from medgcsam.pipeline.grids import mean_to_grid
from medgcsam.pipeline.preprocess import prepare
from medgcsam.pipeline.volumes import prepare_volume
from medgcsam.run_folder import RunFolder, read_json
from medgcsam.training import checkpoint
from medgcsam.training.components import keep_largest
from medgcsam.training.device import autocast, memory_errors
from medgcsam.training.segmentation import network_of
from medgcsam.training.sliding_window import sliding_window
from medgcsam.training.tasks import Task


@dataclass(frozen=True)
class Trained:
    """One finished run, ready to predict."""

    run: RunFolder
    config: Config
    metrics: dict[str, Any]
    network: nn.Module

    @property
    def outputs(self) -> list[str]:
        """Names of the classes or structures."""
        return list(self.metrics["structures" if self.config.task == "segmentation" else "classes"])

    @property
    def overlapping(self) -> bool:
        """Whether structures may share voxels."""
        return self.config.task == "segmentation" and self.config.data.overlapping

    @property
    def identity(self) -> str:
        """sha256 of all that decides what is predicted: weights, preparation of an image, decisions of the run.

        Where windows are stitched decides nothing.
        """
        config, point = self.config, self.metrics.get("operating_point")
        decides = {
            "task": config.task, "outputs": self.outputs, "overlapping": self.overlapping,
            "network": config.network.model_dump(mode="json", exclude={"weights"}),
            "image": config.image.model_dump(mode="json"), "precision": config.training.precision,
            "positive": self.metrics.get("positive"), "operating_point": point,
        }  # fmt: skip
        if config.task == "segmentation":
            decides["patch"] = list(config.patches.size)
            decides["inference"] = config.inference.model_dump(mode="json", exclude={"stitch"})
            decides["components"] = read_json(self.run.components)
        digest = hashlib.sha256(json.dumps(decides, sort_keys=True).encode())
        with open(self.run.best_checkpoint, "rb") as weights:
            digest.update(hashlib.file_digest(weights, "sha256").digest())
        return digest.hexdigest()


def finished_runs(path: Path) -> list[RunFolder]:
    """The run at ``path``, or all finished runs below it, such as the folds of one seed.

    Raises:
        ConfigError: there is none.
    """
    if RunFolder(path).config.is_file():
        run = RunFolder(path)
        if not run.finished():
            raise ConfigError(f"{path}: this run is not finished; run `medgcsam train` again to finish it.")
        return [run]
    found = sorted(file.parent for file in path.glob("**/metrics.json"))
    found = [folder for folder in found if "external" not in folder.relative_to(path).parts]
    runs = [RunFolder(folder) for folder in found if (folder / "config.yaml").is_file() and ".old-" not in folder.name]
    if not runs:
        raise ConfigError(f"{path}: there is no finished run here; name a run folder, or one that holds its folds.")
    return runs


def load_trained(runs: Sequence[RunFolder], device: torch.device) -> list[Trained]:
    """The networks of runs that answer the same question.

    Raises:
        ConfigError: they do not.
        DataError: a file of a run is absent or damaged.
    """
    trained = [_load(run, device) for run in runs]
    questions = set()
    for one in trained:
        image = one.config.image
        read_as = (image.dimensions, image.irregular, image.pet, image.orientation)
        questions.add((one.config.task, *read_as, one.overlapping, *one.outputs))
    if len(questions) > 1:
        raise ConfigError(f"{runs[0].path.parent}: its runs answer different questions; name the folds of one.")
    return trained


def _load(run: RunFolder, device: torch.device) -> Trained:
    config, metrics = load(run.config), read_json(run.metrics)
    if config.task == "segmentation":
        network = network_of(config, outputs=len(metrics["structures"]) + (not config.data.overlapping))
    else:
        network = build_network(config.network, channels=config.image.channels, outputs=len(metrics["classes"]))
    network.load_state_dict(checkpoint.load(run.best_checkpoint)["network"])
    return Trained(run, config, metrics, network.to(device).eval())


def classify(trained: Sequence[Trained], image: Image, device: torch.device) -> np.ndarray:
    """Mean over the networks of the probabilities (classes,) of one image."""
    found = []
    for one in trained:
        task = Task.of(one.config.task, tuple(one.metrics["classes"]), one.metrics["positive"])
        pixels = torch.from_numpy(prepare(image, one.config.image)[None]).to(device).float()
        with torch.inference_mode(), memory_errors("prediction"), autocast(device, one.config.training.precision):
            logits = one.network(standardize(pixels, one.config.image.intensity))
        found.append(task.probabilities(logits)[0].cpu().numpy())
    return np.mean(found, axis=0)


def segment(trained: Sequence[Trained], image: Image, device: torch.device, *, scratch: Path | None) -> np.ndarray:
    """The label of one image on its own grid: int16 (1, *spatial), or if overlapping uint8 (structures, *spatial).

    Each network sees the image as its run planned it. Probabilities of several are averaged on the image's own voxels.
    Only what all runs keep the largest part of is reduced to it.
    """
    first, overlapping = trained[0], trained[0].overlapping
    label = mean_to_grid([_probabilities(one, image, device, scratch) for one in trained], overlapping=overlapping)
    rules = [read_json(one.run.components)["structures"] for one in trained]
    names = first.outputs
    kept = [k for k, name in enumerate(names, 1) if all(rule[name]["keep"] == "largest" for rule in rules)]
    return keep_largest(label, kept, overlapping=overlapping)


def _probabilities(one: Trained, image: Image, device: torch.device, scratch: Path | None) -> tuple[np.ndarray, Any]:
    config = one.config
    volume, grid = prepare_volume(image, config.image)
    probabilities = sliding_window(
        one.network, volume, patch=config.patches.size, overlap=config.inference.overlap,
        outputs=len(one.metrics["structures"]) + (not config.data.overlapping), device=device,
        overlapping=config.data.overlapping, precision=config.training.precision, intensity=config.image.intensity,
        mirror=config.inference.mirror, stitch=config.inference.stitch, scratch=scratch,
    )  # fmt: skip
    return probabilities, grid
