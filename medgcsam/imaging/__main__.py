"""`python -m medgcsam.imaging support --data FOLDER`: print `dicom-support.md`, what becomes of every DICOM file."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from medgcsam.imaging.support import FILES, SERIES, support_document


def main(arguments: list[str] | None = None) -> int:
    """Print the document; 2 where the data sets are not there."""
    parser = argparse.ArgumentParser(prog="python -m medgcsam.imaging", description=__doc__)
    parser.add_argument("command", choices=["support"])
    parser.add_argument(
        "--data", type=Path, default=os.environ.get("MEDGCSAM_DATA"), help="folder of data sets; default MEDGCSAM_DATA"
    )
    options = parser.parse_args(arguments)
    missing = [name for name in (FILES, SERIES) if options.data is None or not (options.data / name).is_dir()]
    if missing:
        print(f"There is no {missing[0]} in {options.data}; give --data the folder that holds it.", file=sys.stderr)
        return 2
    print(support_document(options.data), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
