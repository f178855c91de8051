"""A process of two is killed: the other says so and ends, and the same command goes on to the same end."""

from __future__ import annotations

import json
import signal
from pathlib import Path

from tests.processes import begun, ended


def test_a_killed_process_is_named_by_the_other_and_the_run_goes_on(tmp_path: Path) -> None:
    ended(begun("tests.training.two_processes", tmp_path), 200)
    # Status 2 is the end of one that knew why; None would be one that hung for a minute.
    codes = json.loads((tmp_path / "ended.json").read_text())
    assert codes == {"whole": [0, 0], "killed": [2, -signal.SIGKILL], "again": [0, 0]}
    assert (tmp_path / "too_late.txt").read_text() == "False", "the kill came too late to test anything"
    said = (tmp_path / "said.txt").read_text()
    assert "error: process 0 of 2 has lost another one, which was killed" in said, said
    assert "line goes on from its last checkpoint in" in said
    assert "give the same command again" in said
    assert "Traceback" not in said

    expected, found = (json.loads((tmp_path / one / "record.json").read_text()) for one in ("whole", "killed"))
    assert found["losses"] == expected["losses"]
    assert len(found["losses"]) == 120
    assert found["validations"][-1]["score"] == expected["validations"][-1]["score"]
