"""`python -m medgcsam.config DOCS`: write `configuration.md` and `config.schema.json` into the folder DOCS."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from medgcsam.config.json_schema import json_schema
from medgcsam.config.reference import reference


def write_docs(folder: Path) -> None:
    """Write both files that are made from the schema."""
    (folder / "configuration.md").write_text(reference(), encoding="utf-8")
    (folder / "config.schema.json").write_text(json.dumps(json_schema(), indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write_docs(Path(sys.argv[1]))
