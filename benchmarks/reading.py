"""Reading a classic DICOM series of 59 files: medgcsam against MONAI's PydicomReader and SimpleITK's series reader.

All read the same folder from the page cache with one thread and take turns round by round. What each must do is the
same: find the files of the series, sort them in space, and give the rescaled voxels with their affine; before the time
is taken, the voxels are compared. SimpleITK is also measured with the files already found and sorted, which spares it
a second look at every header.

    OMP_NUM_THREADS=1 python benchmarks/reading.py DATA/sarcoma_dicom/STS_001 --output benchmarks/results/reading.json
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK
import timing
import torch
from monai.data import PydicomReader

from medgcsam.imaging import read_image

SERIES = ("CT", "PET", "MR_T1")
OURS, MONAI = "medgcsam", "MONAI PydicomReader"
ITK, ITK_SORTED = "SimpleITK ImageSeriesReader", "SimpleITK ImageSeriesReader, files sorted before"
TARGETS = {MONAI: 2.0, ITK: 1.2}


def readers(folder: Path) -> dict[str, Callable[[], np.ndarray]]:
    """What is measured: each returns the voxels (i, j, k)."""
    names = SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder))

    def itk(files: Callable[[], Any]) -> np.ndarray:
        reader = SimpleITK.ImageSeriesReader()
        reader.SetFileNames(files())
        return SimpleITK.GetArrayFromImage(reader.Execute()).T  # the copy, because a view dies with the image

    def monai() -> np.ndarray:
        reader = PydicomReader()
        return reader.get_data(reader.read(str(folder)))[0]

    return {
        OURS: lambda: read_image(folder, pet="stored").array[0],
        MONAI: monai,
        ITK: lambda: itk(lambda: SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder))),
        ITK_SORTED: lambda: itk(lambda: names),
    }


def differences(runs: dict[str, Callable[[], np.ndarray]]) -> dict[str, float]:
    """Largest relative difference of each reader's voxels to medgcsam's."""
    expected = runs[OURS]().astype(np.float64)
    largest = np.abs(expected).max()
    return {name: float(np.abs(run() - expected).max() / largest) for name, run in runs.items() if name != OURS}


def measure(folder: Path, *, rounds: int) -> dict[str, Any]:
    """Times, ratios to medgcsam's and differences of one series."""
    runs = readers(folder)
    differing = differences(runs)
    times = timing.interleave(runs, rounds=rounds)
    return {
        "files": len(list(folder.iterdir())),
        "shape": [int(n) for n in runs[OURS]().shape],
        "milliseconds": timing.milliseconds(times),
        "times_as_long_as_medgcsam": {name: timing.ratio(times[name], times[OURS]) for name in runs if name != OURS},
        "largest_relative_difference": differing,
    }


def markdown(report: dict[str, Any]) -> str:
    """The report as a page."""
    facts = report["conditions"]
    rows = []
    for name, series in report["results"].items():
        for reader, times in series["milliseconds"].items():
            ratio = series["times_as_long_as_medgcsam"].get(reader)
            target = f"{TARGETS[reader]:.1f}" if reader in TARGETS else ""
            rows.append([
                name, reader, f"{times['median']:.1f} ({times['low']:.1f} to {times['high']:.1f})",
                f"{ratio['value']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})" if ratio else "1", target,
            ])  # fmt: skip
    sizes = "; ".join(f"{n} {s['files']} files, {'x'.join(map(str, s['shape']))}" for n, s in report["results"].items())
    differing = max(max(series["largest_relative_difference"].values()) for series in report["results"].values())
    return "\n".join([
        "# Reading a classic DICOM series",
        "",
        f"One patient of TCIA Soft-tissue-Sarcoma ({sizes}; uncompressed), from the page cache, one thread, "
        f"{facts['rounds']} interleaved rounds. medgcsam {facts['medgcsam']}, MONAI {facts['monai']}, "
        f"SimpleITK {facts['SimpleITK']}, pydicom {facts['pydicom']}; {facts['machine']}, {facts['cores']} cores, "
        f"load {facts['load_average_at_start']} at the start.",
        "",
        *timing.table(
            ["series", "reader", "ms (median, quartiles)", "times as long as medgcsam", "target"], rows, numbers=3
        ),
        "",
        f"The voxels of all readers agree to {differing:.1e} of the largest value.",
        "",
        f"Made by `{facts['command']}`.",
        "",
    ])  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("patient", type=Path, help="folder with CT/image, PET/image and MR_T1/image")
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--output", type=Path, help="a .json file; a .md file is written beside it")
    options = parser.parse_args()
    SimpleITK.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    torch.set_num_threads(1)
    versions = {name: metadata.version(name) for name in ("medgcsam", "monai", "SimpleITK", "pydicom")}
    report = {
        "conditions": timing.machine()
        | versions
        | {
            "rounds": options.rounds,
            "command": f"OMP_NUM_THREADS=1 python benchmarks/reading.py DATA/sarcoma_dicom/{options.patient.name} "
            f"--rounds {options.rounds}",
        },
        "results": {name: measure(options.patient / name / "image", rounds=options.rounds) for name in SERIES},
    }
    timing.write(report, markdown(report), options.output)


if __name__ == "__main__":
    main()
