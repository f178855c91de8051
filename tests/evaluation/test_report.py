from __future__ import annotations

from typing import Any

from pressmark.evaluation.report import figure, headline_protocols, short, terminal_table


def test_terminal_table_is_plain_and_aligned(evaluated: Any) -> None:
    text = terminal_table(evaluated.report)
    lines = text.splitlines()
    num = evaluated.report["num_cases"]
    assert lines[0] == f"recall@10 on {num['warm']} warm cases [95 % interval]"
    assert lines[6] == f"recall@10 on {num['cold']} cold cases [95 % interval]"
    head = lines[7]
    assert head.split() == ["full", "quota_0.1", "quota_0.3", "cold_only"]
    # A figure begins under the name of its protocol.
    assert all(line[head.index("quota_0.3")] == "." for line in lines[8:11])
    assert [line.split()[0] for line in lines[8:11]] == ["generator", "popularity", "dual_tower"]
    mean = evaluated.report["protocols"]["cold_only"]["models"]["popularity"]["cold"]["recall_at_10"]["mean"]
    assert short(mean) in lines[9]
    assert "cold_only" not in "".join(lines[:6])


def test_the_terminal_says_which_cases_are_left_out(evaluated: Any) -> None:
    report = evaluated.report
    left_out = 240 - report["num_cases"]["all"]
    assert left_out > 0
    last = terminal_table(report).splitlines()[-1]
    assert last.startswith(f"{left_out} of 240 test cases have a target that the user already had; masking")
    assert "full_unmasked in report.json" in last
    alone = {**report, "protocols": {"full": report["protocols"]["full"]}}
    assert terminal_table(alone).endswith("(with them: --evaluation.unmasked_twin true).")
    seeds = [{"cases_of_split": 0, "cases": report["statement"]["cases"]}] * 2
    assert f"\n{left_out} of 240 " in terminal_table({**report, "statement": {"runs": seeds}})


def test_columns_and_cells(evaluated: Any) -> None:
    report = evaluated.report
    assert headline_protocols(report, "warm") == ["full", "quota_0.1", "quota_0.3"]
    assert headline_protocols(report, "cold")[-1] == "cold_only"
    assert figure(report, "full", "generator", "no_such_slice", "recall_at_10") is None


def test_statement_says_what_a_figure_means(evaluated: Any) -> None:
    statement = evaluated.report["statement"]
    assert next(iter(statement)) == "dataset"
    assert "removed from the ranking" in statement["masking"]
    assert "lower item_index first" in statement["ranking"]
    assert statement["items"] == {"catalog": 130, "cold": 20}
    assert statement["split"] == {"split_protocol": "cold_items"}
    assert set(statement["slices"]) == set(evaluated.report["num_cases"])
    assert set(statement["protocols"]) == set(evaluated.report["protocols"])


def test_short_rounds_without_a_minus_before_zero() -> None:
    assert short(-0.00001) == ".0000"
    assert short(-0.25) == "-.2500"
