from __future__ import annotations

import sys

import pytest
from tests.scripts import EVAL, load_script


@pytest.fixture
def scale_tables(monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    monkeypatch.syspath_prepend(str(EVAL))
    yield load_script("scale_tables")
    sys.modules.pop("scale_tables")


def rounds(seconds: float) -> list[dict[str, object]]:
    return [
        {"processes": count, "work": {"cpu_seconds": count * seconds}} for count in (1, 2)
    ]  # what one process takes decides


RESULT = {
    "rows": [
        {
            "what": "stream", "num_histories": 100, "targets": 1000, "batches": 2, "look_cpu_seconds": 3.6,
            "cpu_seconds": 7.2, "peak_gib": 0.1, "targets_per_cpu_second": 10_000,
        },
        {"what": "tokenize_processes", "units": 1000, "rounds": rounds(10.0), "speedup_median": 1.9,
         "cpu_seconds_of_two_over_one": 1.01},
        {"what": "recommend_processes", "units": 500, "rounds": rounds(1.0), "speedup_median": 1.9,
         "cpu_seconds_of_two_over_one": 1.02},
    ]
}  # fmt: skip
OTHERS = {
    "tokenizer-bench": {"rows": [{"what": "encode", "num_items": 10, "cpu_seconds": 2.0}]},
    "training-beauty": {"rows": [{"engine": "hf"}, {"engine": "pressmark", "samples_per_second": 2000.0}]},
}


def test_what_more_would_take_is_reckoned_from_what_was_measured(scale_tables) -> None:  # type: ignore[no-untyped-def]
    hours = [line.split("|")[2].strip() for line in scale_tables.plan(RESULT, OTHERS).split("\n")[2:]]
    # 100 M items at 100 and at 5 a second; 1 G targets looked at in 3.6 ms each, read at 10,000 a second.
    expected = [1e8 / 100, 1e8 / 5, 1e9 * 0.0036, 1e9 / 10_000, 1e9 / 2000, 1e8 / 500]
    assert hours == [f"{seconds / 3600:,.2f}" for seconds in expected]


def test_what_was_measured_is_said(scale_tables) -> None:  # type: ignore[no-untyped-def]
    said = scale_tables.measured(RESULT)
    spent = "7.2, and 3.6 to look through them before"
    assert f"100 histories, 1,000 targets | {spent} | 10,000 targets | 0.100 |" in said
    assert "| `tokenize`, one process | 1,000 items | 10.0, start left out | 100 items | |" in said
    assert "- `recommend`: two processes take 1.02 times the CPU seconds" in said
    assert "1.90 times as fast by the clock, median of 1 rounds" in said
