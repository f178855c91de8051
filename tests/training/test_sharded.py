"""FSDP2 on two real processes (gloo) beside one: the same losses and weights, and a resumed run's too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.processes import begun, ended
from tests.training.test_loop import Line, new_model, quick

from pressmark import distributed
from pressmark.training.loop import fit


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """By "alone", "rank-0" and "rank-1"."""
    folder = tmp_path_factory.mktemp("sharded")
    ended(begun("tests.training.sharded_processes", folder), 100)
    return {name: json.loads((folder / f"{name}.json").read_text()) for name in ("alone", "rank-0", "rank-1")}


@pytest.mark.parametrize("case", ["whole", "micro", "resumed"])
def test_a_divided_model_learns_what_a_whole_one_does(found: dict[str, Any], case: str) -> None:
    alone, first, second = (
        found[one].get(case) or found[one]["whole"] for one in ("alone", "rank-0", "rank-1")
    )
    assert len(first["losses"]) == 12
    assert first["losses"] == pytest.approx(alone["losses"], rel=1e-5)
    assert first["score"] == pytest.approx(alone["score"], rel=1e-4)
    assert first == second
    assert first["losses"][-1] < first["losses"][0]


def test_a_resumed_one_ends_bit_for_bit_the_same(found: dict[str, Any]) -> None:
    assert found["rank-0"]["resumed"] == found["rank-0"]["whole"]


def test_a_task_that_changes_weights_itself_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    distributed.start()
    monkeypatch.setattr(distributed, "sharding", lambda: "FSDP")
    with pytest.raises(ValueError, match=r"the line is small and trains whole .*ddp\.yaml"):
        fit(new_model(), Line(), quick(), tmp_path, 0, "f")
