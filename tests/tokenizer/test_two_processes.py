"""Two real processes (gloo) beside one: the same losses, gradients, codebooks and codes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tests.processes import begun, ended
from tests.tokenizer.two_processes import LOSSES, TRAININGS, everything

Found = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """What one process wrote, and what two did."""
    alone, together = tmp_path_factory.mktemp("alone"), tmp_path_factory.mktemp("together")
    process = begun("tests.tokenizer.two_processes", together)
    try:
        everything(alone)
    finally:
        ended(process, 120)
    return alone, together


def read(folder: Path, name: str, rank: int = 0) -> Found:
    with np.load(folder / f"rank-{rank}.npz") as archive:
        return {key.split("/", 1)[1]: archive[key] for key in archive if key.startswith(f"{name}/")}


@pytest.mark.parametrize("form", LOSSES)
def test_two_shares_have_the_loss_gradient_and_codebooks_of_the_whole(
    folders: tuple[Path, Path], form: str
) -> None:
    alone, together = (read(folder, form) for folder in folders)
    assert {name for name in alone if name.startswith("gradient of books")} == {
        f"gradient of books.{level}" for level in range(3)
    }
    assert alone.keys() == together.keys()
    for name, expected in alone.items():
        unit = max(1e-3, float(np.abs(expected).max()))
        np.testing.assert_allclose(together[name] / unit, expected / unit, rtol=0, atol=1e-5, err_msg=name)
        assert np.isfinite(expected).all(), name


@pytest.mark.parametrize("name", TRAININGS)
def test_one_seed_on_two_processes_trains_the_same_codes(folders: tuple[Path, Path], name: str) -> None:
    one, two = (json.loads((folder / "losses.json").read_text())[name] for folder in folders)
    assert len(one) == len(two) >= 50
    assert two[:50] == pytest.approx(one[:50], rel=1e-5)
    alone, together = (read(folder, name) for folder in folders)
    assert len(alone["codes"]) == 400
    assert (alone["codes"][:, 0] == together["codes"][:, 0]).mean() >= 0.99


@pytest.mark.parametrize("name", [*LOSSES, *TRAININGS])
def test_both_processes_hold_the_same_quantizer(folders: tuple[Path, Path], name: str) -> None:
    ours, theirs = (read(folders[1], name, rank) for rank in (0, 1))
    assert ours.keys() == theirs.keys()
    for key, value in ours.items():
        assert np.array_equal(value, theirs[key]), key
