from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pressmark import judging
from pressmark.experiment import Experiment


def test_several_seeds_have_one_report_beside_their_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    written: list[Path] = []
    seeds: list[int] = []
    joint: dict[str, Any] = {"title": "both"}

    def evaluate(experiment: Experiment) -> dict[str, Any]:
        seeds.append(experiment.seed)
        return {}

    monkeypatch.setattr("pressmark.stages.evaluate", evaluate)
    monkeypatch.setattr("pressmark.evaluation.combine.combine", lambda runs, config, title: joint)
    monkeypatch.setattr("pressmark.evaluation.report.terminal_table", lambda report: "table")
    monkeypatch.setattr("pressmark.evaluation.report.write", lambda folder, report: written.append(folder))
    assert judging.main("cold_items", ["--name", "x", "--seeds", "2"]) is joint
    assert seeds == [0, 1]
    assert written == [Path("runs/x/cold_items/evaluation-seeds-0-1")]
    assert capsys.readouterr().out.endswith("report: runs/x/cold_items/evaluation-seeds-0-1/report.html\n")
    judging.main("cold_items", ["--name", "x"])
    assert len(written) == 1
