"""The selected network at work on validation and test cases: masks on the grids of their files, and cases.csv."""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import torch
from torch import nn

from medgcsam.evaluation.segmentation import case_metrics
from medgcsam.imaging import Image
from medgcsam.imaging.labels.write import write_nifti_label
from medgcsam.journal import Journal
from medgcsam.pipeline.grids import back_to_grid
from medgcsam.pipeline.segmentation_cases import SegmentationCases
from medgcsam.pipeline.volumes import read_pair
from medgcsam.run_folder import RunFolder, write_json, write_table
from medgcsam.scoring_segmentation import nsd_tolerances
from medgcsam.training.components import choose_components, keep_largest
from medgcsam.training.sliding_window import sliding_window
from medgcsam.training.threshold_baseline import METHOD, Threshold, threshold_label, threshold_table

_BESIDE = ("site", "scanner", "sex", "age")
MAX_WORD = 60
"""Letters of a structure's name in the name of a file."""


@dataclass(frozen=True)
class Packed:
    """A label in little memory: most of its voxels are alike."""

    shape: tuple[int, ...]
    dtype: str
    data: bytes

    @classmethod
    def of(cls, label: np.ndarray) -> Packed:
        """Pack a label."""
        return cls(label.shape, label.dtype.str, zlib.compress(np.ascontiguousarray(label).tobytes(), 1))

    def label(self) -> np.ndarray:
        """The label again."""
        return np.frombuffer(zlib.decompress(self.data), self.dtype).reshape(self.shape)


def segment_partitions(
    cases: SegmentationCases, network: nn.Module, run: RunFolder, *, device: torch.device, journal: Journal
) -> str:
    """Write masks, components.json, cases.csv and, where it is wanted, the baseline's cases of a run.

    Returns the baseline's rule in words, "" where none is wanted.

    Validation comes first: it decides whether only the largest part of each structure is kept.
    """
    rows = cases.rows("validation", "test")
    packed: dict[int, Packed] = {}
    with journal.bar("segmenting") as advance:
        for done, row in enumerate(rows, 1):
            packed[row] = Packed.of(segment_row(cases, network, row, device=device, scratch=run.path))
            advance(done, len(rows))
    largest = _write_components(cases, packed, run)
    lines = []
    with journal.bar("measuring") as advance:
        for done, row in enumerate(rows, 1):
            image, reference = reference_of(cases, row)
            predicted = keep_largest(packed.pop(row).label(), largest, overlapping=cases.overlapping)
            write_masks(run.masks, cases.names("case", [row])[0], predicted, image, cases.structures)
            lines += _lines(cases, row, image, reference, predicted)
            advance(done, len(rows))
    write_table(run.cases, pandas.DataFrame(lines))
    if not cases.config.evaluation.baseline:
        return ""
    found = threshold_table(_References(cases, cases.rows("train")), cases.structures, overlapping=cases.overlapping)
    write_table(run.baseline, pandas.DataFrame(list(_baseline(cases, found))))
    rule = "; ".join(map(str, found))
    journal.say(f"baseline  {rule}")
    return f"{METHOD}: {rule}"


def _write_components(cases: SegmentationCases, packed: Mapping[int, Packed], run: RunFolder) -> list[int]:
    """Decide and write which structures (numbers from 1) keep their largest part alone."""
    patients = cases.table["patient_id"].to_numpy()
    pairs = (
        (patients[row], reference_of(cases, row)[1], packed[row].label()) for row in cases.rows("validation").tolist()
    )
    found = choose_components(pairs, cases.structures, overlapping=cases.overlapping)
    asked = cases.config.inference.components
    rule = {
        name: {"keep": asked if asked != "auto" else "largest" if choice.largest else "all"}
        | {key: getattr(choice, key) for key in ("dice_all", "dice_largest", "patients")}
        for name, choice in found.items()
    }
    write_json(run.components, {"asked": asked, "chosen_on": "validation", "structures": rule})
    return [number for number, name in enumerate(cases.structures, 1) if rule[name]["keep"] == "largest"]


def segment_row(
    cases: SegmentationCases, network: nn.Module, row: int, *, device: torch.device, scratch: Path
) -> np.ndarray:
    """The label of one row on the grid of its file: int16 (1, *spatial), or if overlapping uint8 (S, *spatial)."""
    config, store = cases.config, cases.store
    probabilities = sliding_window(
        network, store.image(row), patch=config.patches.size, overlap=config.inference.overlap,
        outputs=len(cases.structures) + (not cases.overlapping), device=device, overlapping=cases.overlapping,
        precision=config.training.precision, intensity=store.intensity, mirror=config.inference.mirror,
        stitch=config.inference.stitch, scratch=scratch,
    )  # fmt: skip
    return back_to_grid(probabilities, store.grid(row), overlapping=cases.overlapping)


def reference_of(cases: SegmentationCases, row: int) -> tuple[Image, np.ndarray]:
    """The image of a row as its file has it, and its reference label on that grid."""
    return read_pair(
        cases.table["image"].iat[row], cases.table["mask"].iat[row], cases.config.image, cases.dataset.structures,
        overlapping=cases.overlapping,
    )  # fmt: skip


def write_masks(folder: Path, name: str, label: np.ndarray, image: Image, structures: Sequence[str]) -> list[str]:
    """``NAME.nii.gz`` on the grid of ``image``; of overlapping structures one file for each, ``NAME_STRUCTURE``.

    Returns the names of the files, in the order of the structures.
    """
    stems = [name] if len(label) == 1 else [f"{name}_{word}" for word in file_words(structures)]
    files = [f"{stem}.nii.gz" for stem in stems]
    for file, channel in zip(files, label, strict=True):
        mask = Image(array=channel[None].astype(np.int16), unit="label", affine=image.affine, spacing=image.spacing)
        write_nifti_label(mask, folder / file)
    return files


def file_words(names: Sequence[str]) -> list[str]:
    """Each name as a part of a file name: what that cannot hold becomes an underscore.

    Where two would become the same, or the same but for capitals, which some file systems do not tell apart, all of
    them get their number, counted from 1.
    """
    words = [re.sub(r"[^A-Za-z0-9._+-]", "_", name)[:MAX_WORD] for name in names]
    counts = Counter(word.lower() for word in words)
    numbered = [f"{word}-{n}" if counts[word.lower()] > 1 else word for n, word in enumerate(words, 1)]
    unique = len({word.lower() for word in numbered}) == len(words)
    return numbered if unique else [f"{n}-{word}" for n, word in enumerate(words, 1)]


def _lines(
    cases: SegmentationCases, row: int, image: Image, reference: np.ndarray, predicted: np.ndarray
) -> Iterator[dict[str, Any]]:
    """The lines of cases.csv of one row, one for each structure."""
    head = {
        "case": cases.names("case", [row])[0],
        "patient": cases.names("patient", [row])[0],
        "partition": cases.split.partition.iat[row],
    }
    tolerances = nsd_tolerances(cases.config.evaluation.nsd_tolerance, cases.structures)
    beside = {name: cases.table[name].iat[row] for name in _BESIDE if name in cases.table}
    for number, structure in enumerate(cases.structures, 1):
        pair = (part[number - 1] > 0 if cases.overlapping else part[0] == number for part in (reference, predicted))
        found = case_metrics(*pair, spacing=image.spacing, tolerance=tolerances[structure])
        yield head | {"structure": structure} | found | beside


@dataclass(frozen=True)
class _References:
    """Rows with the values and the reference label of their files, read anew each time they are gone over."""

    cases: SegmentationCases
    rows: Sequence[int]

    def __iter__(self) -> Iterator[tuple[int, str, np.ndarray, np.ndarray]]:
        for row in self.rows:
            image, reference = reference_of(self.cases, row)
            yield (
                row,
                self.cases.table["patient_id"].iat[row],
                comparable(image, self.cases.config.image.intensity),
                reference,
            )


def comparable(image: Image, intensity: str) -> np.ndarray:
    """Values (channels, *spatial) that a threshold can be set on: as the file has them (SUV, HU, gray), but where the
    network sees z-scores, because the numbers of two images mean different things, as deviations from the image's mean
    over the voxels that are not 0. Of several channels of measurements the first alone, which is that of the
    baseline."""
    values = image.array if image.unit == "display" else image.array[:1]
    if intensity != "zscore" or not (used := values[values != 0]).size:
        return values
    return (values - used.mean(dtype=np.float64)) / max(float(used.std(dtype=np.float64)), 1e-8)


def _baseline(cases: SegmentationCases, found: Sequence[Threshold]) -> Iterator[dict[str, Any]]:
    """Lines as those of cases.csv, of the best fixed threshold in each structure."""
    for row in cases.rows("validation", "test"):
        image, reference = reference_of(cases, row)
        predicted = threshold_label(
            comparable(image, cases.config.image.intensity), found, overlapping=cases.overlapping
        )
        yield from _lines(cases, row, image, reference, predicted)
