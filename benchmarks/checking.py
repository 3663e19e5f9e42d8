"""`medgcsam check` of PNG files against bare decoding of the same files by Pillow.

Bare decoding opens each file and makes an array of it. The check does that and looks for faults, text, copies; it
remembers nothing between rounds. The competitors take turns. The work is compared by processor time, which other
programs on the machine disturb little; what two cores save, by the clock, which means something on an idle machine
alone.

    python benchmarks/checking.py --data FOLDER --output benchmarks/results/checking.json
"""

from __future__ import annotations

import argparse
import csv
import os
import resource
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
from PIL import Image as Picture
from PIL import __version__ as pillow_version
from timing import interleave, machine, milliseconds, ratio, table, write

from medgcsam.intake.check import check_dataset

TARGETS = {"check": 1.3, "check on two cores": 0.65}
CLOCKS = {"check": "processor", "check on two cores": "clock"}
LARGE = 1024


def real_files(data: Path, count: int) -> pd.DataFrame:
    """``count`` images of NIH ChestX-ray8 (320x320) and BUSI (256x256) with their patients, as a data set's table."""
    rows = []
    sets = (("chest_xray_nih", "images", "patient_id"), ("breast_ultrasound_busi", "", "dup_group"))
    for name, below, owner in sets:
        with (data / name / "labels.csv").open(encoding="utf-8") as stream:
            rows += [(str(data / name / below / row["file"]), row[owner]) for row in csv.DictReader(stream)]
    return as_table(rows[:count])


def as_table(rows: list[tuple[str, str]]) -> pd.DataFrame:
    """(image, patient) as ``read_manifest`` gives them."""
    frame = pd.DataFrame(rows, columns=["image", "patient_id"])
    lines = [str(number + 2) for number in range(len(rows))]
    return frame.assign(case=[Path(image).name for image, _ in rows], line=lines, label="")


def enlarged(rows: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """The same pictures at LARGE x LARGE, the size that NIH publishes, with a little noise as detectors have."""
    random, made = np.random.default_rng(0), []
    for number, (image, patient) in enumerate(zip(rows["image"], rows["patient_id"], strict=True)):
        pixels = Picture.open(image).convert("L").resize((LARGE, LARGE), Picture.Resampling.BICUBIC)
        noisy = np.asarray(pixels, np.float32) + random.normal(0, 1, (LARGE, LARGE))
        path = folder / f"{number}.png"
        Picture.fromarray(np.rint(noisy.clip(0, 255)).astype(np.uint8)).save(path)
        made.append((str(path), patient))
    return as_table(made)


def competitors(images: pd.DataFrame) -> dict[str, Callable[[], object]]:
    """Decoding, the check in one process, the check on two cores."""
    dataset = SimpleNamespace(table=images, faults=(), patients="known", root=Path())
    names = list(images["image"])
    return {
        "decoding": lambda: [np.asarray(Picture.open(name)) for name in names],
        "check": lambda: check_dataset(dataset),
        "check on two cores": lambda: check_dataset(dataset, workers=1),
    }


def processor_time() -> float:
    """Seconds that this process and its finished children have computed."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in used)


def measure(images: pd.DataFrame, rounds: int) -> dict:
    """Times, and ratios to decoding with their targets."""
    computed: dict[str, list[float]] = {name: [] for name in (*TARGETS, "decoding")}

    def timed(name: str, run: Callable[[], object]) -> None:
        start = processor_time()
        run()
        computed[name].append(1e3 * (processor_time() - start))

    runs = {name: partial(timed, name, run) for name, run in competitors(images).items()}
    times = {"clock": interleave(runs, rounds=rounds, warmup=1)}
    times["processor"] = {name: values[1:] for name, values in computed.items()}
    ratios = {}
    for name, target in TARGETS.items():
        chosen = times[CLOCKS[name]]
        found = ratio(chosen[name], chosen["decoding"])
        ratios[name] = {**found, "by": CLOCKS[name], "target": target, "met": found["value"] <= target}
    measured = {kind: milliseconds(values) for kind, values in times.items()}
    return {"images": len(images), "milliseconds": measured, "ratios": ratios}


def markdown(report: dict) -> str:
    """The report as a page."""
    facts = report["conditions"]
    lines = [
        "# Checking a data set",
        "",
        f"{facts['machine']}, {facts['cores']} cores, load average {facts['load_average_at_start']} at the start, "
        f"{facts['date']}; Pillow {facts['pillow']}; {facts['rounds']} interleaved rounds. Bare decoding is Pillow in "
        "one process, from file to array.",
        "",
    ]
    rows = []
    for name, found in report["sets"].items():
        for who in ("decoding", *TARGETS):
            medians = (found["milliseconds"][kind][who]["median"] for kind in ("processor", "clock"))
            each = [f"{value / found['images']:.3f}" for value in medians]
            judged = found["ratios"].get(who)
            verdict = [f"{judged['value']:.2f} ({judged['by']})", f"{judged['target']:.2f}"] if judged else ["1", ""]
            rows.append([name, who, *each, *verdict])
    head = ["images", "", "processor, ms per image", "clock, ms per image", "ratio to decoding", "at most"]
    lines += [*table(head, rows, numbers=4), "", f"Made by `{facts['command']}`.", ""]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("MEDGCSAM_DATA"), help="default: MEDGCSAM_DATA")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--large", type=int, default=100, help="how many of them are measured at 1024x1024 too")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--output", type=Path, help="a .json file; a .md file is written beside it")
    options = parser.parse_args()
    if options.data is None:
        parser.error("--data FOLDER, or MEDGCSAM_DATA, must name the folder of the data sets")
    conditions = {
        **machine(),
        "pillow": pillow_version,
        "rounds": options.rounds,
        "command": f"python benchmarks/checking.py --data FOLDER --images {options.images} --large {options.large} "
        f"--rounds {options.rounds}",
    }
    images = real_files(options.data, options.images)
    sets = {f"{len(images)} PNG as they are, 320x320 and 256x256": measure(images, options.rounds)}
    if options.large:
        with tempfile.TemporaryDirectory() as folder:
            large = enlarged(images.iloc[: options.large], Path(folder))
            sets[f"{len(large)} PNG enlarged to {LARGE}x{LARGE}"] = measure(large, options.rounds)
    report = {"conditions": conditions, "sets": sets}
    write(report, markdown(report), options.output)


if __name__ == "__main__":
    main()
