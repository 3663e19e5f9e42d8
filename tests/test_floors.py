"""The house stands: a room imports only from floors below its own."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import medgcsam

ROOT = Path(medgcsam.__file__).parent
FLOORS = {
    "errors": 0, "privacy": 0.1, "run_folder": 0.1, "places": 0.1, "journal": 0.2, "case_lines": 0.1,
    "locks": 0.2,
    "config": 1, "optim": 1, "imaging": 1, "evaluation": 1,
    "cohort": 2, "intake": 3, "pipeline": 4, "networks": 4, "scoring": 4, "scoring_segmentation": 4.1,
    "training": 5, "study": 6, "report": 7, "recipes": 8, "cli": 9, "__main__": 10,
}  # fmt: skip
WITHOUT_TORCH = {
    "evaluation", "report", "scoring", "scoring_segmentation", "case_lines", "cohort", "intake", "config",
    "run_folder", "imaging",
}  # fmt: skip
MODULES = sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")


def room(path: Path) -> str:
    return path.relative_to(ROOT).with_suffix("").parts[0]


def imported(path: Path) -> set[str]:
    """Rooms of medgcsam, and packages from elsewhere, that a file imports anywhere in it."""
    names: set[str] = set()
    package = ("medgcsam", *path.relative_to(ROOT).parts[:-1])
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            stem = ".".join((*above, *([node.module] if node.module else ())))
            names |= {stem} | {f"{stem}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_room_imports_only_from_floors_below(path: Path) -> None:
    own = room(path)
    assert own in FLOORS, f"{own} has no floor yet: give it one here and in docs/architecture.md"
    rooms = {name.split(".")[1] for name in imported(path) if name.startswith("medgcsam.")} & set(FLOORS)
    above = {other for other in rooms - {own} if FLOORS[other] >= FLOORS[own]}
    assert not above, f"{path.name} imports from {sorted(above)}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_torch_stays_out_of_the_rooms_that_promise_so(path: Path) -> None:
    packages = {name.split(".")[0] for name in imported(path)}
    if room(path) == "optim":
        assert not packages & {"monai", "numpy", "pandas", "scipy"}
        assert "medgcsam" not in packages or all(
            name.startswith("medgcsam.optim") for name in imported(path) if name.startswith("medgcsam")
        )
    if room(path) in WITHOUT_TORCH:
        assert not packages & {"torch", "monai"}


def test_files_are_one_idea() -> None:
    long = {str(path.relative_to(ROOT)): n for path in MODULES if (n := len(path.read_text().splitlines())) > 350}
    assert not long
