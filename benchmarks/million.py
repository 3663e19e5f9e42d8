"""`medgcsam check` of a manifest of a million rows: minutes, peak memory, and whether planted faults are found.

Makes ``files`` distinct PNG of 64x64 pixels in a folder, each the mean of crops of two real images (NIH, BUSI) of a
contrast of its own; a thousandth of them become copies of another one (cropped, JPEG, paler), another thousandth is cut
short. Each lies there under ``names`` names (hard links) of one patient and one label, so that the manifest has
files x names rows and every row is a file to be read. Then the command runs once, as a process of its own, and
remembers nothing of before. The folder, 4 GB for a million rows, is removed at the end.

    python benchmarks/million.py --data FOLDER --work FOLDER --files 250000 --output benchmarks/results/million.json
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image as Picture
from timing import machine, table, write

SIDE, LARGER = 64, 96
PER_FOLDER = 1000
CONFIG = "name: million\ntask: classification\ndata: {manifest: manifest.csv}\noutput: {folder: runs}\n"


def bases(data: Path) -> np.ndarray:
    """uint8 (n, LARGER, LARGER), all images of both sets."""
    files = sorted((data / "chest_xray_nih" / "images").iterdir())
    with (data / "breast_ultrasound_busi" / "labels.csv").open(encoding="utf-8") as stream:
        files += [data / "breast_ultrasound_busi" / row["file"] for row in csv.DictReader(stream)]
    size = LARGER, LARGER
    return np.stack([np.asarray(Picture.open(file).convert("L").resize(size)) for file in files])


def mixed(images: np.ndarray, random: np.random.Generator) -> Picture.Image:
    """A picture like no other: the mean of two crops, paler."""
    first, second = random.integers(0, len(images), 2)
    (row, column), (other_row, other_column) = random.integers(0, LARGER - SIDE + 1, (2, 2))
    one = images[first, row : row + SIDE, column : column + SIDE]
    other = images[second, other_row : other_row + SIDE, other_column : other_column + SIDE]
    other = other[:, ::-1] if random.random() < 0.5 else other
    share, contrast = random.uniform(0.35, 0.65), random.uniform(0.6, 1)
    gray = (share * one + (1 - share) * other) * contrast + random.uniform(0, 255 * (1 - contrast))
    return Picture.fromarray(gray.clip(0, 255).astype(np.uint8))


def copied(picture: Picture.Image, number: int) -> Picture.Image:
    """Cropped, through JPEG in another size, or paler, by turns."""
    if number % 3 == 0:
        return picture.crop((2, 1, SIDE, SIDE - 1))
    if number % 3 == 1:
        stream = BytesIO()
        picture.resize((90, 90), Picture.Resampling.BICUBIC).save(stream, "JPEG", quality=70)
        return Picture.open(stream).convert("L")
    return picture.point([30 + int(0.7 * value) for value in range(256)])


def make(folder: Path, data: Path, files: int, names: int) -> dict[str, object]:
    """The files and ``manifest.csv`` in a folder; which files are copies of which, and how many are cut short."""
    random, images = np.random.default_rng(1), bases(data)
    special = random.choice(files, 2 * (files // 1000), replace=False)
    copies, cut = np.split(special, 2)
    originals = random.choice(np.setdiff1d(np.arange(files), special), len(copies), replace=False)
    owner, label = random.integers(0, max(1, 3 * files // 10), files), random.integers(0, 2, files)
    owner[copies] = owner.max() + 1 + np.arange(len(copies))
    paths = [f"{number // PER_FOLDER:04d}/{number:07d}.png" for number in range(files)]
    for path in paths[::PER_FOLDER]:
        for name in range(names):
            (folder / f"images{name}" / path).parent.mkdir(parents=True, exist_ok=True)
    for number in np.setdiff1d(np.arange(files), copies):
        mixed(images, random).save(folder / "images0" / paths[number], compress_level=1)
    for number, (copy, original) in enumerate(zip(copies, originals, strict=True)):
        with Picture.open(folder / "images0" / paths[original]) as picture:
            copied(picture.convert("L"), number).save(folder / "images0" / paths[copy], compress_level=1)
    for number in cut:
        path = folder / "images0" / paths[number]
        path.write_bytes(path.read_bytes()[:800])
    with (folder / "manifest.csv").open("w", newline="", encoding="utf-8") as stream:
        lines = csv.writer(stream)
        lines.writerow(["image", "patient_id", "label"])
        for name in range(names):
            for number, path in enumerate(paths):
                if name:
                    os.link(folder / "images0" / path, folder / f"images{name}" / path)
                lines.writerow([f"images{name}/{path}", f"P{owner[number]}", "ab"[label[number]]])
    (folder / "million.yaml").write_text(CONFIG, encoding="utf-8")
    return {"copies": list(zip(copies.tolist(), originals.tolist(), strict=True)), "cut": len(cut) * names}


def check(folder: Path) -> tuple[dict, dict[str, float]]:
    """What the command says, and what it took; the largest process counts, which is the parent."""
    command = [sys.executable, "-m", "medgcsam", "check", "--json", "--config", "million.yaml"]
    environment = {**os.environ, "MEDGCSAM_CACHE": str(folder / "cache")}
    start = time.perf_counter()
    done = subprocess.run(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False
    )
    minutes = (time.perf_counter() - start) / 60
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    cost = {
        "minutes": round(minutes, 2),
        "processor_minutes": round((used.ru_utime + used.ru_stime) / 60, 2),
        "peak_megabytes": round(used.ru_maxrss / 1024),
    }
    return json.loads(done.stdout), cost


def judged(said: dict, made: dict) -> dict[str, int]:
    """Copies found, pairs that are none of them, cut files found."""
    number = {frozenset(pair) for pair in made["copies"]}
    pairs = {frozenset(int(Path(copy[end]).stem) for end in ("first", "second")) for copy in said["copies"]}
    return {
        "rows": said["images"],
        "patients": said["patients"],
        "copies": len(number),
        "copies_found": len(number & pairs),
        "other_pairs": len(pairs - number),
        "cut_rows": made["cut"],
        "cut_rows_found": said["kinds"].get("unreadable", 0),
    }


def markdown(report: dict) -> str:
    """The report as a page."""
    facts, found = report["conditions"], report["found"]
    cells = [f"{found['rows']}", *(f"{report['cost'][name]}" for name in ("minutes", "processor_minutes"))]
    cells += [f"{report['cost']['peak_megabytes']}", f"{found['copies_found']} of {found['copies']}"]
    cells += [f"{found['other_pairs']}", f"{found['cut_rows_found']} of {found['cut_rows']}"]
    head = ["rows", "minutes", "processor minutes", "peak memory, MB", "copies found", "other pairs", "cut rows found"]
    lines = [
        "# Checking a million rows",
        "",
        f"{facts['machine']}, {facts['cores']} cores, load average {facts['load_average_at_start']} at the start, "
        f"{facts['date']}. {facts['files']} distinct PNG of 64x64 pixels, each under {facts['names']} names.",
        "",
        *table(head, [cells], numbers=len(head)),
        "",
        f"Made by `{facts['command']}`.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("MEDGCSAM_DATA"), help="default: MEDGCSAM_DATA")
    parser.add_argument("--work", type=Path, required=True, help="a new folder for the files")
    parser.add_argument("--files", type=int, default=250_000)
    parser.add_argument("--names", type=int, default=4)
    parser.add_argument("--output", type=Path, help="a .json file; a .md file is written beside it")
    options = parser.parse_args()
    if options.data is None:
        parser.error("--data FOLDER, or MEDGCSAM_DATA, must name the folder of the data sets")
    conditions = {
        **machine(),
        "files": options.files,
        "names": options.names,
        "command": f"python benchmarks/million.py --data FOLDER --work FOLDER --files {options.files} "
        f"--names {options.names}",
    }
    options.work.mkdir(parents=True)
    try:
        made = make(options.work, options.data, options.files, options.names)
        said, cost = check(options.work)
    finally:
        shutil.rmtree(options.work)
    report = {"conditions": conditions, "cost": cost, "found": judged(said, made)}
    write(report, markdown(report), options.output)


if __name__ == "__main__":
    main()
