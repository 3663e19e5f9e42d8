"""Near-duplicates found by `medgcsam check`: recall on copies of real images, false alarms, and the groups of BUSI.

Copies of every fourth image are put among all images of the set as those of another patient: compressed, resized,
cropped, or all of it. Recall is the share of copies that are paired with their original. What else is found across
patients is a false alarm, or a duplicate that nobody has listed: the pairs are written out for the eye.

    python benchmarks/near_duplicates.py --data FOLDER --output benchmarks/results/near_duplicates.json
"""

from __future__ import annotations

import argparse
import csv
import os
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image as Picture
from timing import machine, table, write

from medgcsam.intake.examine import CLOSER
from medgcsam.intake.frequencies import coefficients
from medgcsam.intake.near_duplicates import near_duplicates
from medgcsam.intake.pictures import THUMBNAIL, thumbnail

Edit = Callable[[Picture.Image, np.random.Generator], Picture.Image]
EVERY = 4


def crop(picture: Picture.Image, left: float, top: float, right: float, bottom: float) -> Picture.Image:
    """Cut off these shares of width and height."""
    width, height = picture.size
    edges = (round(left * width), round(top * height), width - round(right * width), height - round(bottom * height))
    return picture.crop(edges)


def jpeg(picture: Picture.Image, quality: int) -> Picture.Image:
    """Through JPEG and back."""
    stream = BytesIO()
    picture.save(stream, "JPEG", quality=quality)
    return Picture.open(stream).convert("L")


def resized(picture: Picture.Image, rows: float, columns: float) -> Picture.Image:
    """Bicubic, by these factors."""
    size = round(picture.width * columns), round(picture.height * rows)
    return picture.resize(size, Picture.Resampling.BICUBIC)


EDITS: dict[str, Edit] = {
    "JPEG, quality 50": lambda picture, random: jpeg(picture, 50),
    "0.7 of the size": lambda picture, random: resized(picture, 0.7, 0.7),
    "1.5 times as high, 1.6 times as wide": lambda picture, random: resized(picture, 1.5, 1.6),
    "gamma 0.8": lambda picture, random: picture.point([round(255 * (value / 255) ** 0.8) for value in range(256)]),
    "0 to 3 % off each side": lambda picture, random: crop(picture, *random.uniform(0, 0.03, 4)),
    "0 to 5 % off each side": lambda picture, random: crop(picture, *random.uniform(0, 0.05, 4)),
    "5 % off each side": lambda picture, random: crop(picture, 0.05, 0.05, 0.05, 0.05),
    "10 % off one side": lambda picture, random: crop(picture, 0.1, 0, 0, 0),
    "0 to 4 % off each side, 0.8 of the size, JPEG 70": lambda picture, random: jpeg(
        resized(crop(picture, *random.uniform(0, 0.04, 4)), 0.8, 0.8), 70
    ),
}


def thumbnails(pictures: list[Picture.Image]) -> tuple[np.ndarray, np.ndarray]:
    """uint8 (n, size, size) of both sizes that the search looks at."""
    joined = (b"".join(thumbnail(picture, size) for picture in pictures) for size in (THUMBNAIL, CLOSER))
    small, large = (np.frombuffer(content, np.uint8) for content in joined)
    return small.reshape(-1, THUMBNAIL, THUMBNAIL), large.reshape(-1, CLOSER, CLOSER)


def search(pictures: tuple[np.ndarray, np.ndarray], patients: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of rows and their similarity."""
    small, large = pictures
    return near_duplicates(coefficients(small), patients, lambda rows: small[rows], lambda row: large[row])


def recall(
    folder: Path, names: list[str], originals: tuple[np.ndarray, np.ndarray], patients: np.ndarray
) -> dict[str, dict]:
    """For each edit: share of the copies found, similarity of those found, and pairs that are no copy."""
    rows = np.arange(0, len(names), EVERY)
    known = {tuple(pair) for pair in search(originals, patients)[0]}
    found = {}
    for name, edit in EDITS.items():
        random = np.random.default_rng(0)
        copies = thumbnails([edit(Picture.open(folder / names[row]).convert("L"), random) for row in rows])
        everything = tuple(np.concatenate(parts) for parts in zip(originals, copies, strict=True))
        owners = np.concatenate([patients, patients.max() + 1 + np.arange(len(rows))])
        pairs, similarity = search(everything, owners)
        expected = {(row, len(names) + place) for place, row in enumerate(rows)}
        hits = {tuple(pair): float(alike) for pair, alike in zip(pairs, similarity, strict=True)}
        # a copy of one image is as near to the duplicates of that image as the image itself
        same = {len(names) + place: row for place, row in enumerate(rows)}
        others = {(same.get(a, a), same.get(b, b)) for a, b in set(hits) - expected}
        others = {
            pair for pair in others if tuple(sorted(pair)) not in known and patients[pair[0]] != patients[pair[1]]
        }
        right = [alike for pair, alike in hits.items() if pair in expected]
        found[name] = {
            "copies": len(rows),
            "recall": round(len(right) / len(rows), 4),
            "similarity_5_percent": round(float(np.quantile(right, 0.05)), 3) if right else None,
            "others": len(others),
        }
    return found


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def measure(folder: Path, names: list[str], owners: list[str], groups: list[str] | None) -> dict:
    """Everything of one set; ``groups`` are its listed duplicates, which are then no reason to leave a pair out."""
    pictures = thumbnails([Picture.open(folder / name).convert("L") for name in names])
    patients = np.unique(owners, return_inverse=True)[1]
    alone = np.arange(len(names)) if groups else patients
    start = time.perf_counter()
    pairs, similarity = search(pictures, alone)
    seconds = time.perf_counter() - start
    result = {"images": len(names), "seconds": round(seconds, 2), "pairs": len(pairs)}
    if groups:
        labels = np.unique(groups, return_inverse=True)[1]
        first, second = np.triu_indices(len(names), 1)
        listed = set(zip(*(part[labels[first] == labels[second]].tolist() for part in (first, second)), strict=True))
        hits = {tuple(pair) for pair in pairs.tolist()}
        result |= {"listed": len(listed), "listed_found": len(listed & hits), "not_listed": len(hits - listed)}
        told = [
            (pair, alike) for pair, alike in zip(pairs.tolist(), similarity, strict=True) if tuple(pair) not in listed
        ]
        result["missed"] = [[names[a], names[b]] for a, b in sorted(listed - hits)]
    else:
        told = list(zip(pairs.tolist(), similarity, strict=True))
    result["to_look_at"] = [
        [names[a], names[b], round(float(alike), 3)] for (a, b), alike in sorted(told, key=lambda one: one[1])
    ]
    result["copies"] = recall(folder, names, pictures, patients)
    return result


def markdown(report: dict) -> str:
    """The report as a page."""
    facts = report["conditions"]
    lines = [
        "# Near-duplicates across patients",
        "",
        f"{facts['machine']}, {facts['date']}; thumbnails of {facts['thumbnail']}x{facts['thumbnail']} pixels, "
        "in doubt of twice that size.",
        "",
        'Copies of every fourth image, put among all others as those of another patient. "Others" are pairs that are',
        "no copy of each other and were not found without the copies: false alarms.",
        "",
    ]
    rows = []
    for name in EDITS:
        cells = [name]
        for found in report["sets"].values():
            one = found["copies"][name]
            cells += [f"{100 * one['recall']:.1f} %", f"{one['similarity_5_percent']}", str(one["others"])]
        rows.append(cells)
    head = ["copy"]
    for name, found in report["sets"].items():
        copies = next(iter(found["copies"].values()))["copies"]
        head += [
            f"{name}: recall ({copies} copies among {found['images']} images)",
            "5th percentile of similarity",
            "others",
        ]
    lines += table(head, rows, numbers=len(head) - 1)
    nih, busi = report["sets"]["NIH"], report["sets"]["BUSI"]
    lines += [
        "",
        f"NIH ({nih['images']} chest X-rays): {nih['pairs']} pairs of different patients without any copy added.",
        "",
        f"BUSI ({busi['images']} ultrasound images, each taken for a patient of its own): {busi['pairs']} pairs. "
        f"Of the {busi['listed']} pairs that `dup_group` lists, {busi['listed_found']} are found; "
        f"{busi['not_listed']} pairs are found that it does not list (all are in the .json, for the eye).",
        *([""] + facts["seen"].splitlines() if facts["seen"] else []),
        "",
        f"Made by `{facts['command']}`.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("MEDGCSAM_DATA"), help="default: MEDGCSAM_DATA")
    parser.add_argument("--seen", default="", help="what a person saw in the pairs, for the page")
    parser.add_argument("--output", type=Path, help="a .json file; a .md file is written beside it")
    options = parser.parse_args()
    if options.data is None:
        parser.error("--data FOLDER, or MEDGCSAM_DATA, must name the folder of the data sets")
    nih = read_rows(options.data / "chest_xray_nih" / "labels.csv")
    busi = read_rows(options.data / "breast_ultrasound_busi" / "labels.csv")
    busi_groups = [row["dup_group"] for row in busi]
    report = {
        "conditions": {
            **machine(),
            "thumbnail": THUMBNAIL,
            "seen": options.seen,
            "command": "python benchmarks/near_duplicates.py --data FOLDER",
        },
        "sets": {
            "NIH": measure(
                options.data / "chest_xray_nih" / "images",
                [row["file"] for row in nih],
                [row["patient_id"] for row in nih],
                None,
            ),
            "BUSI": measure(
                options.data / "breast_ultrasound_busi", [row["file"] for row in busi], busi_groups, busi_groups
            ),
        },
    }
    write(report, markdown(report), options.output)


if __name__ == "__main__":
    main()
