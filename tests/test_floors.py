"""Imports go down only: the house's floors, read from the syntax trees."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "pressmark"

FLOORS = {
    "files": 0,
    "settings": 0,
    "drawing": 0,
    "metrics": 0,
    "distributed": 0,
    "catalog": 1,
    "interactions": 1,
    "sids": 1,
    "recommender": 1,
    "list_rules": 2,
    "run_config": 2,
    "tokenizer": 2,
    "training": 2,
    "generator": 3,
    "dual_tower": 3,
    "baselines": 3,
    "hybrid": 4,
    "evaluation": 4,
    "insight": 4,
    "load": 5,
    "experiment": 5,
    "stages": 5,
    "judging": 5,
    "living": 5,
    "recommending": 5,
    "tokenizing": 5,
    "shard_work": 1,
    "cli": 5,
}
# Imports between rooms of one floor that have a direction: the seam is made of histories, the log of a
# catalog's items, the tokenizer trains in the loop, and the explorer shows the judge's table.
SAME_FLOOR = {
    ("recommender", "interactions"),
    ("interactions", "catalog"),
    ("tokenizer", "training"),
    ("insight", "evaluation"),
}


def room(module: str) -> str:
    return module.removeprefix("pressmark").lstrip(".").split(".")[0]


def imports(tree: ast.Module) -> set[str]:
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {one.name for one in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | (
                {f"pressmark.{one.name}" for one in node.names} if node.module == "pressmark" else set()
            )
    return {one for one in found if one.split(".")[0] == "pressmark" and room(one)}


FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down_only(path: Path) -> None:
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for module in imports(ast.parse(path.read_text("utf-8"))):
        other = room(module)
        if own == other or FLOORS[own] == 5 or (own, other) in SAME_FLOOR:
            continue
        assert FLOORS[other] < FLOORS[own], (
            f"{own} (floor {FLOORS[own]}) imports {module} (floor {FLOORS[other]})"
        )


def test_every_room_has_a_floor() -> None:
    rooms = {path.stem for path in PACKAGE.iterdir() if path.is_dir() or path.suffix == ".py"}
    assert rooms - {"__init__", "__pycache__"} <= FLOORS.keys()


def third_party(path: Path) -> set[str]:
    """Top-level names of the modules that importing `path` imports at once."""
    found = set()
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.Import):
            found |= {one.name.split(".")[0] for one in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_heavy_libraries_are_imported_where_they_are_needed(path: Path) -> None:
    """Training from a run folder works without polars or FAISS, and imports stay quick."""
    heavy = {
        "peft",
        "polars",
        "faiss",
        "datasets",
        "matplotlib",
        "sklearn",
        "sentence_transformers",
        "bm25s",
        "pickle",
    }
    assert not third_party(path) & heavy


def test_peft_is_known_in_one_place() -> None:
    users = [path for path in FILES if "peft" in {one.split(".")[0] for one in all_imports(path)}]
    assert [path.relative_to(PACKAGE).as_posix() for path in users] == ["generator/lora.py"]


def all_imports(path: Path) -> set[str]:
    """Names of the modules that a file imports anywhere."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {one.name for one in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def test_only_the_experiment_reads_yaml_and_flags() -> None:
    for path in FILES:
        if path.stem not in {"experiment"}:
            assert "jsonargparse" not in third_party(path), path


def test_src_holds_entry_points_only() -> None:
    """`accelerate launch src/x.py` puts src/ on the path, where another file could shadow a library."""
    names = {path.name for path in PACKAGE.parent.glob("*.py")}
    assert names == {
        f"train_{stage}.py" for stage in ("tokenizer", "generator", "dual_tower", "sasrec", "hybrid")
    }
