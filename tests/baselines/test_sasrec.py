from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.cases import cases
from tests.contract.recommender_contract import check_recommender

from pressmark.baselines.content_neighbours import ContentNeighbours
from pressmark.baselines.sasrec import (
    SASRec,
    SASRecRecommender,
    SASRecTask,
    SASRecWithNeighbours,
    load_sasrec,
    new_model,
)
from pressmark.baselines.sasrec_config import Config
from pressmark.catalog.embeddings import unit_rows
from pressmark.interactions.histories import Histories
from pressmark.recommender import Requests
from pressmark.training import loop
from pressmark.training.config import TrainingConfig

torch.set_num_threads(1)
CPU = torch.device("cpu")
NUM_ITEMS = 12
SMALL = Config(
    dim=16,
    num_layers=1,
    num_heads=2,
    dropout=0.0,
    history_length=4,
    training=TrainingConfig(
        learning_rate=1e-2, batch_size=8, num_epochs=30, patience=0, mixed_precision="no", log_with=""
    ),
)


def task(lists: list[list[int]], **changes: object) -> SASRecTask:
    config = dataclasses.replace(SMALL, **changes)  # type: ignore[arg-type]
    return SASRecTask(Histories.from_lists(lists), cases([[0, 1]], [2]), NUM_ITEMS, config, seed=0)


def model(seed: int = 0) -> SASRec:
    made = new_model(NUM_ITEMS, SMALL, seed).eval()
    made.known[:] = True
    return made


def test_windows_hold_every_item_once() -> None:
    one = task([list(range(12)), [3], [5, 6]])
    covered = [one.train.values[start:end].tolist() for start, end in zip(one.start, one.end, strict=True)]
    # At most four items of history and a target; the newest window is whole.
    assert covered == [[0, 1], [2, 3, 4, 5, 6], [7, 8, 9, 10, 11], [3], [5, 6]]
    for epoch in (0, 1):
        assert sorted(np.concatenate(one.plan(epoch)).tolist()) == list(range(5))


def test_a_batch_by_hand() -> None:
    one = task([[7, 2, 9], [5]])
    batch = one.collate(np.array([0, 1]), CPU)
    assert batch.items.tolist() == [[7, 2], [5, -1]]  # the 5 is looked at by no state that is wanted
    assert batch.num == 4
    assert len(batch.place) == len(batch.target) == 64
    assert batch.place[:4].tolist() == [0, 1, 2, 3]
    assert one.bought[batch.target[:4]].tolist() == [7, 2, 9, 5]


def test_the_loss_is_the_full_softmax_over_what_was_bought() -> None:
    one, made = task([[7, 2, 9], [5, 7]]), model()
    loss, _ = one.loss(made, one.collate(np.array([0, 1]), CPU))
    expected = 0.0
    for history, target in [([], 7), ([7], 2), ([7, 2], 9), ([], 5), ([5], 7)]:
        scores = made.scores(Histories.from_lists([history]))[0]
        bought = scores[[2, 5, 7, 9]]
        expected -= (scores[target] - bought.logsumexp(0)).item()
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_a_state_sees_the_past_only_and_padding_nothing() -> None:
    made = model()
    items = torch.tensor([[1, 2, 3, 4], [1, 2, 9, 9], [1, 2, -1, -1]])
    states = made(items)
    torch.testing.assert_close(states[0, :3], states[1, :3])
    torch.testing.assert_close(states[0, :3], states[2, :3])
    assert not torch.allclose(states[0, 3], states[1, 3])


def test_items_never_bought_are_left_out() -> None:
    made = model()
    made.known[[3, 4]] = False
    answer = SASRecRecommender(made).recommend(Requests(Histories.from_lists([[0], []])), NUM_ITEMS)
    assert answer.num_valid.tolist() == [9, 10]
    assert not np.isin(answer.item_index, [3, 4]).any()


def test_it_learns_what_follows_what(tmp_path: Path) -> None:
    lists = [[item, (item + 1) % NUM_ITEMS, (item + 2) % NUM_ITEMS] for item in range(NUM_ITEMS)] * 4
    one, made = task(lists), new_model(NUM_ITEMS, SMALL, 0)
    made.known[one.bought] = True
    record = loop.fit(made, one, SMALL.training, tmp_path, 0, "print")
    assert record["losses"][-1] < 0.6 * record["losses"][0]
    answer = SASRecRecommender(made).recommend(Requests(Histories.from_lists([[3, 4], [8, 9]])), 1)
    assert answer.item_index.tolist() == [[5], [10]]


def test_saved_and_loaded_it_says_the_same(tmp_path: Path) -> None:
    made = model()
    made.known[5] = False
    made.save_pretrained(tmp_path / "sasrec")
    asked = Requests(Histories.from_lists([[1, 2], []]))
    ours, theirs = (one.recommend(asked, 5) for one in (SASRecRecommender(made), load_sasrec(tmp_path)))
    np.testing.assert_array_equal(ours.item_index, theirs.item_index)
    np.testing.assert_array_equal(ours.scores, theirs.scores)


def test_what_cannot_be_trained_or_loaded_says_so(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="1 distinct items"):
        task([[3], [3]])
    with pytest.raises(ValueError, match=r"train_sasrec\.py"):
        load_sasrec(tmp_path)


@pytest.mark.parametrize(
    "wrong",
    [{"num_heads": 5}, {"dim": 0}, {"history_length": 0}, {"dropout": 1.0}],
    ids=lambda one: next(iter(one)),
)
def test_bad_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=f"sasrec.*{next(iter(wrong))}"):
        Config(**wrong)  # type: ignore[arg-type]


def test_contract() -> None:
    check_recommender(SASRecRecommender(model()), NUM_ITEMS)


def neighbours() -> ContentNeighbours:
    vectors = unit_rows(np.random.default_rng(0).standard_normal((NUM_ITEMS, 6)).astype(np.float32))
    return ContentNeighbours(vectors, np.arange(NUM_ITEMS, dtype=np.float32), 0.5)


def test_what_was_never_bought_stands_behind_by_how_like_it_is() -> None:
    made = model()
    made.known[[2, 5, 7]] = False
    both, alike = SASRecWithNeighbours(made, neighbours=neighbours()), neighbours()
    check_recommender(SASRecWithNeighbours(made, neighbours=neighbours()), NUM_ITEMS)
    asked = Requests(Histories.from_lists([[1, 4], []]))
    answer = both.recommend(asked, NUM_ITEMS)
    alone = SASRecRecommender(made).recommend(asked, NUM_ITEMS)
    for row, history in enumerate(([1, 4], [])):
        num = alone.num_valid[row]
        assert answer.item_index[row, :num].tolist() == alone.item_index[row, :num].tolist()
        likeness = alike.scores(Histories.from_lists([history]))[0]
        rest = sorted((item for item in (2, 5, 7) if item not in history), key=lambda item: -likeness[item])
        assert answer.item_index[row, num : num + len(rest)].tolist() == rest
