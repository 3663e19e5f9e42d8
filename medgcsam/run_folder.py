"""The run folder: the name of every file in it, and how each is written and read.

Files are written to a temporary name and renamed, so that a reader or a power cut never meets half a file.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medgcsam.errors import ConfigError, DataError, MachineError

if TYPE_CHECKING:
    import pandas

SCHEMA = 1


@dataclass(frozen=True)
class RunFolder:
    """Paths of one run, ``OUTPUT/NAME/SETTING/seed-S/fold-F``. Making the object touches nothing on disk."""

    path: Path

    @classmethod
    def of(cls, output: Path, name: str, setting: str, seed: int, fold: int) -> RunFolder:
        """The folder of one setting, seed and fold below an output folder."""
        return cls(Path(output) / name / setting / f"seed-{seed}" / f"fold-{fold}")

    @classmethod
    def existing(cls, path: Path) -> RunFolder:
        """The run at ``path``.

        Raises:
            ConfigError: there is no run there.
        """
        run = cls(Path(path))
        if not run.config.is_file():
            raise ConfigError(
                f"{path}: this is no run folder (it holds no config.yaml); "
                "name a folder such as runs/NAME/SETTING/seed-0/fold-0."
            )
        return run

    @property
    def config(self) -> Path:
        """Resolved configuration."""
        return self.path / "config.yaml"

    @property
    def split(self) -> Path:
        """Hashed patients per partition."""
        return self.path / "split.json"

    @property
    def fingerprints(self) -> Path:
        """Salted hashes of the pixels of the training and validation images, to find them again elsewhere."""
        return self.path / "fingerprints.json"

    @property
    def provenance(self) -> Path:
        """Versions, hashes, device."""
        return self.path / "provenance.json"

    @property
    def history(self) -> Path:
        """One line of JSON per epoch."""
        return self.path / "history.jsonl"

    @property
    def log(self) -> Path:
        """What was printed, as plain lines."""
        return self.path / "log.txt"

    @property
    def predictions(self) -> Path:
        """One line per case."""
        return self.path / "predictions.csv"

    @property
    def baseline(self) -> Path:
        """The sanity baseline's predictions, in the form of predictions.csv."""
        return self.path / "baseline.csv"

    @property
    def plan(self) -> Path:
        """Segmentation: each number that was planned from the training patients' images, and why."""
        return self.path / "plan.json"

    @property
    def cases(self) -> Path:
        """Segmentation: one line per case and structure."""
        return self.path / "cases.csv"

    @property
    def components(self) -> Path:
        """Segmentation: whether only the largest part of each structure is kept, as decided on validation."""
        return self.path / "components.json"

    @property
    def masks(self) -> Path:
        """Segmentation: folder of the predicted masks of validation and test cases, on the grids of their images."""
        return self.path / "masks"

    @property
    def metrics(self) -> Path:
        """Every number."""
        return self.path / "metrics.json"

    @property
    def report(self) -> Path:
        """The page for clinicians."""
        return self.path / "report.html"

    @property
    def last_checkpoint(self) -> Path:
        """State after the last finished epoch."""
        return self.path / "checkpoints" / "last.pt"

    @property
    def best_checkpoint(self) -> Path:
        """Weights of the epoch selected on the validation partition."""
        return self.path / "checkpoints" / "best.pt"

    def external(self, name: str) -> RunFolder:
        """Where the test of this run's network on another site's data goes."""
        return RunFolder(self.path / "external" / name)

    def finished(self) -> bool:
        """Whether the run has written its numbers, which happens last but for the report."""
        return self.metrics.is_file()


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; renamed to ``path`` at the end, removed if the block raises.

    Raises:
        MachineError: the folder is not writable or the disk is full.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise writing_failed(path, error) from error
    finally:
        temporary.unlink(missing_ok=True) if temporary.parent.is_dir() else None


def writing_failed(path: Path, error: OSError) -> MachineError:
    """The sentence for an operating system error met while writing ``path``."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return MachineError(f"{path}: the disk is full; free some space and run the same command again.")
    return MachineError(f"{path}: cannot be written ({error.strerror or error}); choose a writable folder.")


def ensure_writable(folder: Path, remedy: str = "choose another output.folder") -> None:
    """Make ``folder`` and prove by writing a file that it can be written to; ``remedy`` is what else can be done.

    Raises:
        MachineError: it cannot.
    """
    probe = Path(folder) / f".writable.{os.getpid()}"
    try:
        probe.parent.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise MachineError(
            f"{folder}: this folder cannot be written to ({error.strerror or error}); {remedy}, or change its owner."
        ) from error


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text with unix line ends, atomically."""
    with replacing(path) as temporary:
        temporary.write_bytes(text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write JSON, indented, keys in the given order, without NaN (which no other reader of JSON takes)."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file of a run.

    Raises:
        DataError: it is absent or damaged.
    """
    return _reading(path, lambda: json.loads(Path(path).read_text("utf-8")))


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """All records of a file of JSON lines, an empty list where the file is absent."""
    if not Path(path).is_file():
        return []
    return _reading(path, lambda: [json.loads(line) for line in Path(path).read_text("utf-8").splitlines() if line])


def write_json_lines(path: Path, records: list[dict[str, Any]]) -> None:
    """Write all records of a file of JSON lines, atomically."""
    write_text(path, "".join(json.dumps(record, allow_nan=False) + "\n" for record in records))


def write_table(path: Path, table: pandas.DataFrame) -> None:
    """Write a table as CSV: no index, numbers with 9 significant digits (exact for float32), unix line ends."""
    write_text(path, table.to_csv(index=False, float_format="%.9g", lineterminator="\n"))


def read_table(path: Path) -> pandas.DataFrame:
    """Read predictions.csv or a like table: columns ``p_...`` as float64, all others as text, empty where empty.

    Raises:
        DataError: it is absent or damaged.
    """
    import pandas

    table = _reading(path, lambda: pandas.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8"))
    for column in [name for name in table.columns if name.startswith("p_")]:
        table[column] = _reading(path, lambda column=column: pandas.to_numeric(table[column]).astype("float64"))
    return table


def _reading(path: Path, read: Callable[[], Any]) -> Any:
    try:
        return read()
    except FileNotFoundError as error:
        raise DataError(f"{path}: this file of the run is missing; {_remedy(path)}.") from error
    except OSError as error:
        raise MachineError(f"{path}: cannot be read ({error.strerror or error}).") from error
    except ValueError as error:
        remedy = f"delete it and {_remedy(path)}" if path.name == "metrics.json" else _remedy(path)
        raise DataError(f"{path}: this file of the run is damaged ({error}); {remedy}.") from error


def _remedy(path: Path) -> str:
    """How a file of a run comes back. A run without metrics.json is not finished, so it goes on where it stopped."""
    if path.name != "metrics.json":
        return "restore it, or make the run anew with --restart"
    if path.parent.parent.name == "external":
        return "repeat `medgcsam evaluate RUN --manifest FILE`, which tests again"
    return (
        "repeat the command that made the run (`medgcsam train` or `medgcsam compare`), which goes on after its last "
        "epoch and tests again"
    )
