"""New images, one by one: what comes of each is written before the next is begun."""

from __future__ import annotations

import hashlib
import re
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medgcsam.errors import ConfigError, DataError, MachineError
from medgcsam.imaging import Image, read_image, source_digest
from medgcsam.intake.importers.result import told
from medgcsam.intake.inputs import LISTED_TWICE, Input, Inputs, find_inputs, rows_of
from medgcsam.journal import Journal
from medgcsam.places import shown
from medgcsam.recipes.prediction_folder import MASKS, PredictionFolder, prediction_folder
from medgcsam.recipes.stopping import resumable

if TYPE_CHECKING:
    import torch

    from medgcsam.training.predictor import Trained

SHOWN = 20
"""Failed images that are named on the terminal."""
UNITS = ("ml", "mm2", "pixels")
NAME_BYTES = 80
"""Of the readable part of a mask's file name; file systems take 255 in all."""
CHANGED = (
    "has changed since it was predicted, and that result is kept; add --overwrite to replace it, or name another "
    "folder with --output"
)
TOO_LARGE = "does not fit into memory; use --device cpu or a larger machine, or cut out the part that is wanted"


@dataclass(frozen=True)
class Outcome:
    """What came of one image: "" or why it failed, and whether it was predicted by an earlier command."""

    image: str
    reason: str
    known: bool = False


def predict_images(
    run: Path, inputs: Path, output: Path, *, device: str, overwrite: bool, journal: Journal
) -> dict[str, Any]:
    """Predict the images of ``inputs`` with the run, or the runs below it, and write OUTPUT/predictions.csv.

    predictions.csv has a line per image: image (as the input names it), status (``done`` or ``failed``), reason, its
    path and the digest of its content, and of a classification p_CLASS and the class at the run's operating point, of a
    segmentation the mask's file and the size of each structure in ml (mm2 or pixels of pictures). Masks lie in
    OUTPUT/masks. A result is replaced only with ``overwrite``, or where its file is gone.

    Returns:
        {"output", "done", "known", "failed": [{"image", "reason"}], "passed_over": [{"name", "reason"}], "excluded"}.

    Raises:
        ConfigError: no finished run, or the output folder holds predictions of other runs.
        DataError: no image in the input.
        MachineError: the output cannot be written, another process writes to it, or the device is not there.
        Interrupted: SIGINT or SIGTERM; the same command goes on.
    """
    from medgcsam.training.device import choose_device
    from medgcsam.training.predictor import finished_runs, load_trained

    place = choose_device(device, key="--device")
    trained = load_trained(finished_runs(run), place)
    found = find_inputs(
        inputs,
        resampled=trained[0].config.image.irregular == "resample",
        without=Path(output, MASKS).absolute(),
    )
    networks = f"{len(trained)} network{'s' * (len(trained) > 1)}"
    journal.say(f"{_counted(len(found.images), 'image')}, {networks}")
    identities = {str(one.run.path.absolute()): one.identity for one in trained}
    asked = [image.reference for image in found.images]
    columns, sizes = _columns(trained[0])
    outcomes = []
    with (
        resumable("predict"),
        prediction_folder(output, identities, asked, columns=columns, sizes=sizes, overwrite=overwrite) as folder,
        journal.bar("predicting") as advance,
    ):
        folder.forget_failed(rows_of(inputs))  # rows without an image have a line by their number, which may be another
        for done, image in enumerate(found.images, 1):
            outcomes.append(_outcome(trained, image, folder, place, overwrite))
            advance(done, len(found.images))
    failed = [{"image": one.image, "reason": one.reason} for one in outcomes if one.reason]
    known = sum(one.known for one in outcomes)
    _say(journal, folder.table, found, failed, known)
    return {
        "output": str(output),
        "done": len(outcomes) - len(failed),
        "known": known,
        "failed": failed,
        "passed_over": [{"name": name, "reason": reason} for name, reason in found.passed_over],
        "excluded": dict(found.excluded),
    }


def _columns(one: Trained) -> tuple[list[str], list[str]]:
    """The columns of every table, and those of sizes, of which the table has what occurs."""
    if one.config.task == "segmentation":
        sizes = [f"{structure}_{unit}" for unit in UNITS for structure in one.outputs]
        return ["mask", "dicom_seg", "dicom_seg_reason"], sizes
    return [*(f"p_{name}" for name in one.outputs), "predicted"], []


def _outcome(
    trained: Sequence[Trained], image: Input, folder: PredictionFolder, device: torch.device, overwrite: bool
) -> Outcome:
    """Predict one image and write its line, unless there is a result of it that is to be kept."""
    reason, digest = image.fault, ""
    if not reason:
        reason, digest = _digest(image)
    if folder.has_result(image.reference) and not overwrite:
        unchanged = digest == folder.lines[image.reference]["source"]
        return Outcome(image.name, "" if unchanged else reason or CHANGED, known=unchanged)
    line = {"image": image.name, "status": "failed", "reason": reason, "path": image.reference, "source": digest}
    if not reason:
        line |= _predicted(trained, image, folder, device)
    folder.add(line)
    return Outcome(image.name, line["reason"])


def _digest(image: Input) -> tuple[str, str]:
    """("", first digits of the sha256 of what an image is made of), or (why it cannot be read, "")."""
    try:
        return "", source_digest(image.reference)[:16]
    except Exception as error:
        return _reason(error, image), ""


def _predicted(
    trained: Sequence[Trained], image: Input, folder: PredictionFolder, device: torch.device
) -> dict[str, Any]:
    """The cells of one image; whatever is wrong with it is its reason, and the next image has its turn."""
    from medgcsam.training.suitability import unsuited

    section = trained[0].config.image
    try:
        read = read_image(
            image.reference, irregular=section.irregular, pet=section.pet, orientation=section.orientation
        )
        reason = next(filter(None, (unsuited(read, one.config) for one in trained)), "")
        if not reason:
            predict = _segment if trained[0].config.task == "segmentation" else _classify
            return {"status": "done", **predict(trained, read, image, folder, device)}
    except Exception as error:
        if isinstance(error, MachineError) and not _lacks_memory(error):
            raise  # a full disk stops everything
        reason = _reason(error, image)
    return {"status": "failed", "reason": reason}


def _reason(error: Exception, image: Input) -> str:
    """One line on why an image failed. The text of an error that nobody foresaw may name the patient, and stays out."""
    if _lacks_memory(error):
        return TOO_LARGE
    if isinstance(error, (DataError, ConfigError, MachineError)):
        return " ".join(str(error).removeprefix(image.reference).lstrip(": ").rstrip(".").split())
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"met a fault of medgcsam ({type(error).__name__} in {where.name}, {Path(where.filename).name}); report it"


def _lacks_memory(error: Exception) -> bool:
    words = ("out of memory", "not fit into memory", "can't allocate memory", "not enough memory")
    return isinstance(error, MemoryError) or (
        isinstance(error, (MachineError, RuntimeError)) and any(part in str(error) for part in words)
    )


def _classify(
    trained: Sequence[Trained], read: Image, image: Input, folder: PredictionFolder, device: torch.device
) -> dict[str, Any]:
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


def _segment(
    trained: Sequence[Trained], read: Image, image: Input, folder: PredictionFolder, device: torch.device
) -> dict[str, Any]:
    from medgcsam.imaging.labels.write import write_seg
    from medgcsam.training.predictor import segment
    from medgcsam.training.segmented import write_masks

    structures = trained[0].outputs
    label = segment(trained, read, device, scratch=folder.folder)
    name = _file_name(image)
    files = write_masks(folder.masks, name, label, read, structures)
    line: dict[str, Any] = {"mask": "|".join(f"{MASKS}/{file}" for file in files)}
    if read.reference is not None:
        seg = folder.masks / f"{name}.seg.dcm"
        try:
            whole = Image(array=label.astype(np.int16), unit="label", affine=read.affine, spacing=read.spacing)
            write_seg(whole, read, seg, structures)
            line["dicom_seg"] = f"{MASKS}/{seg.name}"
        except (ConfigError, DataError) as error:  # the NIfTI mask is there, and is what counts
            line["dicom_seg_reason"] = " ".join(str(error).removeprefix(str(seg)).split())
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
    """The image's name as far as a file name can hold it, and digits that make it the name of this image alone."""
    stem = image.name
    for ending in (".gz", ".nii", ".nrrd", ".mha", ".mhd", ".dcm", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".zip"):
        stem = stem.removesuffix(ending)
    stem = re.sub(r"[^\w.-]+", "_", stem.replace("#series=", "#").replace(".zip#", "#")).strip("_.") or "image"
    while len(stem.encode()) > NAME_BYTES:
        stem = stem[1:]
    return f"{stem}-{hashlib.sha256(image.reference.encode()).hexdigest()[:8]}"


def _say(journal: Journal, table: Path, found: Inputs, failed: list[dict[str, str]], known: int) -> None:
    for entry in failed[:SHOWN]:
        journal.say(f"failed: {entry['image']}: {entry['reason']}")
    if len(failed) > SHOWN:
        journal.say(f"and {len(failed) - SHOWN} more, all in {table.name}")
    again = sum(reason == LISTED_TWICE for _, reason in found.passed_over)
    if others := len(found.passed_over) - again:
        journal.say(f"note: {_counted(others, 'other file')} passed over")
    if again:
        journal.say(f"note: {_counted(again, 'row')} passed over, whose image is listed before")
    if found.excluded:
        journal.say(f"note: {_counted(sum(found.excluded.values()), 'row')} left out ({told(found.excluded)})")
    number, before = len(found.images), f", {known} of them before" if known else ""
    journal.say(f"{number - len(failed)} of {_counted(number, 'image')} predicted{before}; {shown(table)}")


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"
