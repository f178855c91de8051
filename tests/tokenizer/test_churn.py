from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pressmark.sids.table import LISTED, WITHDRAWN, Register, SidTable, write_register
from pressmark.tokenizer.churn import churn, find_register, table_of


def register(rows: dict[str, list[int]], codebooks: str = "x", version: int = 0) -> Register:
    sids = np.array(list(rows.values()), np.int64)
    table = SidTable(sids, (9,) * sids.shape[1], codebooks, version)
    zeros = np.zeros(len(sids), np.int64)
    return Register(np.array(list(rows), object), table, zeros, np.full(len(sids), LISTED, object))


OLD = {"a": [1, 1, 0], "b": [1, 1, 1], "c": [1, 2, 0], "d": [3, 0, 0], "gone": [5, 5, 5]}


def test_churn_by_hand() -> None:
    # b changes its last code, c its second, d all; together by one code: ab, ac, bc; by two: ab.
    new = {"new": [8, 8, 8], "d": [4, 0, 0], "c": [1, 3, 0], "b": [1, 1, 2], "a": [1, 1, 0]}
    report = churn(register(OLD), register(new))
    assert (report["num_old"], report["num_new"], report["num_both"]) == (5, 5, 4)
    assert [one["changed"] for one in report["rows"]] == [0.25, 0.5, 0.75]
    assert [(one["pairs"], one["kept_pairs"]) for one in report["rows"]] == [(3, 1.0), (1, 1.0), (0, None)]
    assert "50.0%" in table_of(report)


def test_other_names_for_the_same_groups_are_all_churn_and_no_pair_lost() -> None:
    renamed = {name: [8 - code for code in sid] for name, sid in OLD.items()}
    report = churn(register(OLD), register(renamed, "y"))
    assert [one["changed"] for one in report["rows"]] == [1, 1, 1]
    assert [one["kept_pairs"] for one in report["rows"]] == [1.0, 1.0, None]
    assert not report["same_codebooks"]
    assert "other names" in table_of(report)
    split = {**OLD, "b": [2, 1, 1]}
    assert [one["kept_pairs"] for one in churn(register(OLD), register(split))["rows"]] == [1 / 3, 0.0, None]


def test_sids_of_another_length_have_changed() -> None:
    longer = {name: [*sid, 0] for name, sid in OLD.items()}
    assert [one["changed"] for one in churn(register(OLD), register(longer))["rows"]] == [0, 0, 0, 1]


def test_removed_products_are_counted() -> None:
    now = register(OLD)
    now.status[1] = WITHDRAWN
    assert churn(register(OLD), now)["removed"] == 1
    assert churn(now, now)["removed"] == 0


def test_a_register_is_found_in_a_run_a_tokenizer_folder_or_by_its_file(tmp_path: Path) -> None:
    later = register(OLD, version=2)
    later.since[-1] = 2
    write_register(tmp_path / "tokenizer" / "sids.parquet", later)
    for path in (tmp_path, tmp_path / "tokenizer", tmp_path / "tokenizer" / "sids.parquet"):
        assert len(find_register(path)) == 5
    assert find_register(tmp_path, 1).item_id.tolist() == ["a", "b", "c", "d"]
    with pytest.raises(ValueError, match="version is 3; these SIDs have versions 0 to 2"):
        find_register(tmp_path, 3)
    with pytest.raises(ValueError, match="neither a run folder"):
        find_register(tmp_path / "nowhere")


def test_tables_without_a_common_item_are_refused() -> None:
    with pytest.raises(ValueError, match="no item_id is in both tables"):
        churn(register(OLD), register({"A": [1, 1, 1]}))
