from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pressmark.evaluation import lists
from pressmark.interactions.cases import Cases
from pressmark.interactions.histories import Histories
from pressmark.recommender import Requests


class Scripted:
    """Answers one request with given items and scores; checks nothing."""

    num_items = 100

    def __init__(self, items: list[int], scores: list[float]) -> None:
        self.filters = {"cold": np.arange(100) >= 50}
        padding = lists.LIST_LENGTH - len(items)
        self.answer: Any = SimpleNamespace(
            item_index=np.array([items + [-1] * padding]),
            scores=np.array([scores + [-np.inf] * padding], np.float32),
            num_valid=np.array([len(items)]),
        )

    def recommend(self, requests: Requests, k: int) -> Any:
        return self.answer


def ask(model: Scripted, filter_name: str | None = None, mask: bool = True) -> Any:
    one = np.array([1])
    cases = Cases(one, np.array(["u"], object), Histories.from_lists([[7, 8]]), one, one > 1)
    return lists.ask(model, cases, filter_name, mask, 4, "fake: all items")


@pytest.mark.parametrize(
    ("items", "scores", "fault"),
    [
        ([60, 61], [1.0, float("nan")], "NaN"),
        ([60, 61], [float("inf"), 1.0], "NaN or infinite"),
        ([60, 61], [1.0, 2.0], "rise"),
        ([60, 100], [2.0, 1.0], "outside"),
        ([60, 60], [2.0, 1.0], "twice"),
        ([60, 3], [2.0, 1.0], "'cold'"),
        ([60, 7], [2.0, 1.0], "history"),
    ],
)
def test_a_broken_answer_is_refused(items: list[int], scores: list[float], fault: str) -> None:
    with pytest.raises(ValueError, match=f"fake: all items: .*{fault}"):
        ask(Scripted(items, scores), "cold" if fault == "'cold'" else None)


def test_nan_behind_an_empty_list_is_refused() -> None:
    model = Scripted([], [])
    ask(model)
    model.answer.scores[:] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        ask(model)


def test_a_short_answer_is_refused() -> None:
    model = Scripted([60], [1.0])
    model.answer.item_index = model.answer.item_index[:, :10]
    with pytest.raises(ValueError, match=r"\(1, 10\)"):
        ask(model)


def test_history_items_are_fine_without_masking() -> None:
    assert ask(Scripted([60, 7], [2.0, 1.0]), mask=False).item_index[0, :3].tolist() == [60, 7, -1]


def test_answers_come_back_in_the_order_of_the_histories(store: Any) -> None:
    model = store.recommenders()["generator"]
    cases, histories = store.split.test, store.split.test.histories
    together = lists.ask(model, cases, None, True, 1000, "")
    apart = lists.ask(model, cases, None, True, 7, "")
    assert model.num_calls == 1 + -(-len(histories) // 7)
    assert (together.item_index == apart.item_index).all()
    row = int(np.argmax(histories.lengths))
    alone = model.recommend(Requests(histories.take(np.array([row]))), 50)
    assert (together.item_index[row] == alone.item_index[0]).all()
    # The synthetic store's oracle is asked by user.
    assert sorted(model.users[: len(cases)]) == sorted(cases.user_id)


def test_lists_on_disk(tmp_path: Path, store: Any) -> None:
    cases = store.split.test
    model = replace(store.recommenders()["dual_tower"], unscored=np.arange(130) > 40)
    answer = lists.ask(model, cases, None, True, 64, "")
    path = tmp_path / "full" / "m.parquet"
    lists.write_lists(path, answer, cases.case_id, store.catalog.item_id, "abc")
    table = pq.read_table(path)
    assert table.schema.names == ["case_id", "rank", "item_id", "score"]
    assert [str(one) for one in table.schema.types] == ["int64", "int64", "string", "float"]
    assert table.column("rank").to_numpy().min() == 1
    assert answer.num_valid.min() < 50
    found = lists.read_lists(path, cases.case_id, store.catalog)
    assert (found.item_index == answer.item_index).all()
    assert (found.scores == answer.scores).all()
    assert (found.num_valid == answer.num_valid).all()
    targets = pa.array(store.catalog.item_id[cases.target].tolist())
    hit = answer.item_index == cases.target[:, None]
    expected = np.where(hit.any(axis=1), hit.argmax(axis=1) + 1, 0)
    assert (lists.read_ranks(path, cases.case_id, targets) == expected).all()


def test_lists_of_another_split_are_refused(tmp_path: Path, store: Any) -> None:
    cases = store.split.test
    answer = lists.ask(store.recommenders()["generator"], cases, None, True, 64, "")
    path = tmp_path / "m.parquet"
    lists.write_lists(path, answer, cases.case_id, store.catalog.item_id, "")
    with pytest.raises(ValueError, match=r"m\.parquet"):
        lists.read_lists(path, cases.case_id + 1, store.catalog)


def test_finished_means_the_same_fingerprint(tmp_path: Path, store: Any) -> None:
    cases = store.split.test
    answer = lists.ask(store.recommenders()["generator"], cases, None, True, 64, "")
    path = tmp_path / "m.parquet"
    assert not lists.is_finished(path, "abc")
    lists.write_lists(path, answer, cases.case_id, store.catalog.item_id, "abc")
    assert lists.is_finished(path, "abc")
    assert not lists.is_finished(path, "abd")
    lists.write_lists(path, answer, cases.case_id, store.catalog.item_id, "")
    assert not lists.is_finished(path, "")
    path.write_bytes(path.read_bytes()[:200])
    assert not lists.is_finished(path, "abc")
