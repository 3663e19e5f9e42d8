"""New images, one by one: what comes of each is written before the next is begun."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medgcsam.errors import ConfigError, DataError, MachineError
from medgcsam.imaging import Image, read_image, source_digest
from medgcsam.intake.inputs import Input, find_inputs
from medgcsam.journal import Journal
from medgcsam.places import shown
from medgcsam.recipes.stopping import resumable
from medgcsam.run_folder import ensure_writable, read_json, read_table, write_json, write_table

if TYPE_CHECKING:
    import torch

    from medgcsam.training.predictor import Trained

SHOWN = 20
"""Failed images that are named on the terminal."""


def predict_images(
    run: Path, inputs: Path, output: Path, *, device: str, overwrite: bool, journal: Journal
) -> dict[str, Any]:
    """Predict the images of ``inputs`` with the run, or the runs below it, and write OUTPUT/predictions.csv.

    predictions.csv has a line per image: image (as the input names it), status (``done`` or ``failed``), reason, and of
    a classification p_CLASS and the class at the run's operating point, of a segmentation the mask's file and the size
    of each structure in ml (mm2 or pixels of pictures). Masks lie in OUTPUT/masks.

    Returns:
        {"output", "done", "failed": [{"image", "reason"}], "passed_over", "known"}.

    Raises:
        ConfigError: no finished run, or the output folder holds predictions of other runs.
        DataError: no image in the input.
        MachineError: the output cannot be written, or the device is too small.
        Interrupted: SIGINT or SIGTERM; the same command goes on.
    """
    from medgcsam.training.device import choose_device
    from medgcsam.training.predictor import finished_runs, load_trained

    runs = finished_runs(run)
    ensure_writable(output)
    _check_same_runs(output, [read_json(one.provenance)["config_sha256"] for one in runs], overwrite)
    found = find_inputs(inputs)
    place = choose_device(device)
    trained = load_trained(runs, place)
    journal.say(f"{len(found.images)} images, {len(trained)} network{'s' if len(trained) > 1 else ''}")
    table = output / "predictions.csv"
    lines = _lines_before(table, overwrite)
    known = 0
    predict = partial(_predict, trained, output, place)
    with resumable("predict"), journal.bar("predicting") as advance:
        for done, image in enumerate(found.images, 1):
            line = lines.get(image.name)
            if line is None or line["status"] != "done" or line["source"] != _digest(image):
                lines[image.name] = predict(image)
                _write(table, lines)
            else:
                known += 1
            advance(done, len(found.images))
    for name, reason in found.refused:
        lines[name] = {"image": name, "status": "failed", "reason": reason}
    _write(table, lines)
    wanted = [image.name for image in found.images] + [name for name, _ in found.refused]
    failed = [{"image": name, "reason": lines[name]["reason"]} for name in wanted if lines[name]["status"] != "done"]
    _say(journal, table, len(wanted), failed, found.passed_over, known)
    return {
        "output": str(output),
        "done": len(wanted) - len(failed),
        "known": known,
        "failed": failed,
        "passed_over": [{"name": name, "reason": reason} for name, reason in found.passed_over],
    }


def _check_same_runs(output: Path, runs: list[str], overwrite: bool) -> None:
    """Predictions of one folder are those of one set of networks."""
    path = output / "networks.json"
    if path.is_file() and not overwrite and read_json(path) != {"config_sha256": runs}:
        raise ConfigError(
            f"{output}: it holds predictions of other networks; name another folder with --output, or add --overwrite."
        )
    write_json(path, {"config_sha256": runs})


def _lines_before(table: Path, overwrite: bool) -> dict[str, dict[str, Any]]:
    if overwrite or not table.is_file():
        return {}
    return {line["image"]: line for line in read_table(table).to_dict("records")}


def _write(path: Path, lines: Mapping[str, Mapping[str, Any]]) -> None:
    import pandas

    if lines:
        write_table(path, pandas.DataFrame(list(lines.values())))


def _digest(image: Input) -> str:
    try:
        return source_digest(image.reference)[:16]
    except (DataError, OSError):
        return ""


def _predict(trained: list[Trained], output: Path, device: torch.device, image: Input) -> dict[str, Any]:
    """The line of one image; what is wrong with it is its reason."""
    section = trained[0].config.image
    head = {"image": image.name, "status": "done", "reason": "", "source": _digest(image)}
    try:
        read = read_image(
            image.reference, irregular=section.irregular, pet=section.pet, orientation=section.orientation
        )
        task = trained[0].config.task
        return head | (_segment if task == "segmentation" else _classify)(trained, read, image, output, device)
    except DataError as error:
        reason = str(error).removeprefix(image.reference).lstrip(": ").rstrip(".")
    except MachineError as error:
        if "out of memory" not in str(error) and "does not fit" not in str(error):
            raise  # a full disk stops everything
        reason = str(error).rstrip(".")
    return head | {"status": "failed", "reason": reason}


def _classify(trained: list[Trained], read: Image, image: Input, output: Path, device: torch.device) -> dict[str, Any]:
    from medgcsam.training.predictor import classify

    metrics, probabilities = trained[0].metrics, classify(trained, read, device)
    line: dict[str, Any] = {f"p_{name}": float(p) for name, p in zip(metrics["classes"], probabilities, strict=True)}
    point = metrics.get("operating_point")
    if metrics["task"] == "binary" and point and len(trained) == 1:
        positive = metrics["positive"]
        other = next(name for name in metrics["classes"] if name != positive)
        line["predicted"] = positive if line[f"p_{positive}"] >= point["threshold"] else other
    elif metrics["task"] == "multiclass":
        line["predicted"] = metrics["classes"][int(probabilities.argmax())]
    return line


def _segment(trained: list[Trained], read: Image, image: Input, output: Path, device: torch.device) -> dict[str, Any]:
    from medgcsam.imaging.labels.write import write_seg
    from medgcsam.training.predictor import segment
    from medgcsam.training.segmented import write_masks

    structures = list(trained[0].metrics["structures"])
    label = segment(trained, read, device, scratch=output)
    name = _file_name(image)
    files = write_masks(output / "masks", name, label, read, structures)
    line: dict[str, Any] = {
        "mask": "|".join(f"masks/{file}" for file in files),
        "dicom_seg": "",
        "dicom_seg_reason": "",
    }
    if read.reference is not None:
        try:
            whole = Image(array=label.astype(np.int16), unit="label", affine=read.affine, spacing=read.spacing)
            write_seg(whole, read, output / "masks" / f"{name}.seg.dcm", structures)
            line["dicom_seg"] = f"masks/{name}.seg.dcm"
        except (ConfigError, DataError) as error:  # the NIfTI mask is there, and is what counts
            line["dicom_seg_reason"] = str(error).removeprefix(str(output / "masks" / f"{name}.seg.dcm")).strip()
    unit, factor = _unit(read)
    for number, structure in enumerate(structures, 1):
        voxels = label[number - 1] > 0 if len(label) > 1 else label[0] == number
        line[f"{structure}_{unit}"] = round(float(voxels.sum()) * factor, 3)
    return line


def _unit(read: Image) -> tuple[str, float]:
    """What sizes are given in, and the size of one voxel."""
    if read.spacing is None:
        return "pixels", 1.0
    size = float(np.prod(read.spacing))
    return ("ml", size / 1000) if len(read.spacing) == 3 else ("mm2", size)


def _file_name(image: Input) -> str:
    """A file name that no other image of the input has."""
    stem = re.sub(r"[^A-Za-z0-9._-]+", "_", image.name.partition("#")[0]).strip("_")
    for ending in (".gz", ".nii", ".nrrd", ".mha", ".mhd", ".dcm", ".png", ".jpg", ".jpeg", ".tif", ".tiff"):
        stem = stem.removesuffix(ending)
    return f"{stem[-80:]}-{hashlib.sha256(image.name.encode()).hexdigest()[:8]}"


def _say(
    journal: Journal, table: Path, wanted: int, failed: list[dict[str, str]], passed_over: tuple, known: int
) -> None:
    for entry in failed[:SHOWN]:
        journal.say(f"failed: {entry['image']}: {entry['reason']}")
    if len(failed) > SHOWN:
        journal.say(f"and {len(failed) - SHOWN} more, all in predictions.csv")
    if passed_over:
        journal.say(f"note: {len(passed_over)} files are no images and were passed over")
    before = f", {known} of them before" if known else ""
    journal.say(f"{wanted - len(failed)} of {wanted} images predicted{before}; {shown(table)}")
