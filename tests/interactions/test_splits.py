from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tests.interactions.same import assert_same

from pressmark.catalog.items import Columns, load_items
from pressmark.interactions.cases import Cases, Split
from pressmark.interactions.log import Log, load_interactions
from pressmark.interactions.splits import Config, make_split, shuffle_ties

DATA = Path(__file__).parents[3] / "shared" / "data"
NAN = float("nan")
NUM_ITEMS = 12


def make_log(users: dict[str, list[int]], times: dict[str, list[float]] | None = None) -> Log:
    """A log from {user: items in order}; positions count from 0, times are NaN unless given."""
    names = sorted(users)
    return Log(
        np.array([name for name in names for _ in users[name]], object),
        np.array([item for name in names for item in users[name]], np.int64),
        np.array([t for name in names for t in (times or {}).get(name, [NAN] * len(users[name]))], np.float64),
        np.array([position for name in names for position in range(len(users[name]))], np.int64),
    )


def asked(cases: Cases) -> dict[str, tuple[list[int], int]]:
    """user -> history, target"""
    return {
        user: (cases.histories[row].tolist(), int(cases.target[row])) for row, user in enumerate(cases.user_id)
    }


def train(split: Split) -> dict[str, list[int]]:
    return {user: split.train[row].tolist() for row, user in enumerate(split.train_user_id)}


# ---- leave one out ----


def test_leave_one_out_by_hand() -> None:
    log = make_log({"a": [0, 1, 2, 3], "b": [4, 5, 6], "c": [7, 8], "d": [9]})
    split = make_split(log, NUM_ITEMS, Config(protocol="leave_one_out"), seed=0)
    assert train(split) == {"a": [0, 1], "b": [4], "c": [7, 8], "d": [9]}
    assert asked(split.valid) == {"a": ([0, 1], 2), "b": ([4], 5)}
    assert asked(split.test) == {"a": ([0, 1, 2], 3), "b": ([4, 5], 6)}
    assert split.train_position.tolist() == [0, 1, 0, 0, 1, 0]
    assert split.valid.case_id.tolist() + split.test.case_id.tolist() == [0, 1, 2, 3]
    assert not split.cold.any()
    assert split.fitted_on.all()
    assert split.counts["split_users_with_fewer_than_3"] == 2
    assert split.counts["split_test_cases"] == 2


# ---- cold items ----

EIGHT = {f"u{n}": [10, n, 11, (n + 1) % 8] for n in range(8)}  # test targets 0 to 7, each in another's training


def test_cold_items_are_drawn_by_the_published_recipe() -> None:
    split = make_split(make_log(EIGHT), NUM_ITEMS, Config(cold_share=0.3), seed=5)
    expected = np.random.default_rng(5).choice(np.arange(8), round(0.3 * 8), replace=False)
    assert np.flatnonzero(split.cold).tolist() == sorted(expected.tolist())
    assert (split.fitted_on == ~split.cold).all()
    assert split.counts["split_cold_items"] == 2


def test_cold_items_leave_training_and_histories_but_stay_test_targets() -> None:
    split = make_split(make_log(EIGHT), NUM_ITEMS, Config(cold_share=0.3), seed=5)
    for user, (_, first, second, target) in EIGHT.items():
        seen = [item for item in (10, first) if not split.cold[item]]
        assert train(split)[user] == seen
        assert asked(split.valid)[user] == (seen, second)
        assert asked(split.test)[user] == ([*seen, second], target)
    assert split.test.cold.tolist() == split.cold[split.test.target].tolist()
    assert split.test.cold.sum() == 2
    assert not split.valid.cold.any()
    assert split.counts["split_hidden_training_interactions"] == 2


def test_a_validation_case_with_a_cold_target_is_dropped_and_counted() -> None:
    log = make_log({"a": [0, 1, 2], "b": [3, 2, 4], "c": [2, 5, 6]})
    seed = next(s for s in range(100) if _drawn([2, 4, 6], 0.34, s) == [2])
    split = make_split(log, NUM_ITEMS, Config(cold_share=0.34), seed)
    assert asked(split.valid) == {"a": ([0], 1), "c": ([], 5)}
    assert asked(split.test) == {"a": ([0, 1], 2), "b": ([3], 4), "c": ([5], 6)}
    assert split.test.cold.tolist() == [True, False, False]
    assert train(split) == {"a": [0], "b": [3]}
    assert split.counts["split_valid_cases_dropped_with_cold_target"] == 1
    assert split.counts["split_valid_cases_with_empty_history"] == 1


def test_an_empty_history_stays_a_case_and_is_counted() -> None:
    log = make_log({"a": [2, 2, 4], "b": [0, 1, 2]})
    seed = next(s for s in range(100) if _drawn([2, 4], 0.5, s) == [2])
    split = make_split(log, NUM_ITEMS, Config(cold_share=0.5), seed)
    assert asked(split.test)["a"] == ([], 4)
    assert split.counts["split_test_cases_with_empty_history"] == 1


def test_cold_valid_hides_a_second_set_drawn_from_validation_targets() -> None:
    users = {f"u{n}": [10, 11, n, n + 4] for n in range(4)}  # validation targets 0 to 3, test targets 4 to 7
    users["v"] = [0, 1, 2, 3, 11, 0]  # test target 0 is also a validation target
    config = Config(cold_share=0.0, cold_valid_share=0.5)
    splits = (make_split(make_log(users), NUM_ITEMS, config, seed) for seed in range(50))
    split = next(one for one in splits if not one.fitted_on[0])
    hidden = np.flatnonzero(~split.fitted_on).tolist()
    assert len(hidden) == round(0.5 * 5)
    assert not split.cold.any()
    assert split.valid.target[split.valid.cold].tolist() == [item for item in hidden if item < 4]
    assert len(split.valid) == 5
    assert train(split)["v"] == [item for item in range(4) if item not in hidden]
    assert "v" not in asked(split.test)
    assert split.counts["split_test_cases_dropped_with_cold_valid_target"] == 1
    assert split.counts["split_cold_valid_items"] == len(hidden)


def test_the_test_cold_items_do_not_depend_on_cold_valid() -> None:
    log = make_log(EIGHT)
    one = make_split(log, NUM_ITEMS, Config(cold_share=0.3), 1)
    other = make_split(log, NUM_ITEMS, Config(cold_share=0.3, cold_valid_share=0.9), 1)
    assert (one.cold == other.cold).all()


def test_the_tokenizer_sees_cold_items_only_where_asked() -> None:
    split = make_split(make_log(EIGHT), NUM_ITEMS, Config(cold_share=0.3, tokenizer_sees_cold=True), 5)
    assert split.cold.sum() == 2
    assert split.fitted_on.all()
    assert split.counts["split_tokenizer_sees_cold"] is True


def _drawn(targets: list[int], share: float, seed: int) -> list[int]:
    chosen = np.random.default_rng(seed).choice(
        sorted(set(targets)), round(share * len(set(targets))), replace=False
    )
    return sorted(chosen.tolist())


# ---- temporal ----


def test_temporal_by_hand() -> None:
    users = {"a": [0, 1, 2, 3], "b": [0, 4, 5], "c": [6, 1], "d": [0]}
    times = {"a": [0, 1, 5, 8], "b": [2, 6, 9], "c": [9, 3], "d": [NAN]}
    config = Config(protocol="temporal", valid_quantile=0.5, test_quantile=0.8)
    split = make_split(make_log(users, times), NUM_ITEMS, config, 0)
    # 9 times 0 1 2 3 5 6 8 9 9: the cuts are 5 and, between the 6th and 7th place, 8.4.
    assert split.counts["split_valid_from_second"] == 5
    assert split.counts["split_test_from_second"] == pytest.approx(8.4)
    assert train(split) == {"a": [0, 1], "b": [0], "c": [1]}
    assert asked(split.valid) == {"a": ([0, 1], 2), "b": ([0], 4)}
    # c's item 6 stands before its item 1 by position, but after it in time.
    assert asked(split.test) == {"b": ([0, 4], 5), "c": ([1], 6)}
    assert split.counts["split_without_time"] == 1
    assert split.counts["split_unused_interactions"] == 1
    # First seen after the test cut: 5 and 6; after the validation cut: 2, 3 and 4 too.
    assert np.flatnonzero(split.cold).tolist() == [5, 6]
    assert np.flatnonzero(~split.fitted_on).tolist() == [2, 3, 4, 5, 6]
    assert split.valid.cold.all()
    assert split.test.cold.all()
    # Known when the test asks, and not trained on: what was bought from 5 on and before 8.4, by anybody.
    assert split.between.tolist() == [[2, 4, 3], [5, 6, 8]]


def test_temporal_without_times_stops_the_run() -> None:
    with pytest.raises(ValueError, match=r"temporal, but not one interaction has a timestamp.*timestamp"):
        make_split(make_log({"a": [0, 1, 2]}), NUM_ITEMS, Config(protocol="temporal"), 0)


# ---- sessions ----

BASKETS = {f"basket{n}": [n % 7, 7 + n % 5, n % 3][: 1 + n % 3] for n in range(600)}


def test_sessions_are_divided_by_hash() -> None:
    split = make_split(make_log(BASKETS), NUM_ITEMS, Config(protocol="leave_one_out", unit="session"), 0)
    parts = [train(split), asked(split.valid), asked(split.test)]
    assert set().union(*parts) == set(BASKETS)
    assert sum(map(len, parts)) == len(BASKETS)
    assert 10 < len(parts[1]) < 40
    assert 10 < len(parts[2]) < 40
    for user, (history, target) in {**parts[1], **parts[2]}.items():
        assert [*history, target] == BASKETS[user]
        assert history
    assert all(items == BASKETS[user] for user, items in parts[0].items())


def test_the_hash_is_the_same_on_every_machine() -> None:
    split = make_split(make_log(BASKETS), NUM_ITEMS, Config(protocol="leave_one_out", unit="session"), 0)
    # sha256sum's first 16 digits as a number, modulo 100: 0 to 4 test, 5 to 9 validation.
    hundredths = {
        name: int(hashlib.sha256(name.encode()).hexdigest()[:16], 16) % 100
        for name, items in BASKETS.items()
        if len(items) > 1
    }
    assert hundredths["basket14"] in range(5)
    assert set(asked(split.test)) == {name for name, one in hundredths.items() if one < 5}
    assert set(asked(split.valid)) == {name for name, one in hundredths.items() if 5 <= one < 10}
    other = make_split(make_log(BASKETS), NUM_ITEMS, Config(protocol="leave_one_out", unit="session"), 1)
    assert other.test.user_id.tolist() == split.test.user_id.tolist()


def test_cold_items_apply_to_sessions_too() -> None:
    split = make_split(make_log(BASKETS), NUM_ITEMS, Config(unit="session", cold_share=0.2), 3)
    assert split.cold.any()
    assert not split.cold[split.train.values].any()
    assert (split.test.cold == split.cold[split.test.target]).all()
    assert split.test.cold.any()


# ---- ties ----


def test_shuffled_ties_move_only_within_equal_times_of_a_user() -> None:
    users = {"a": [0, 1, 2, 3, 4, 5], "b": [6, 7, 8]}
    times = {"a": [1, 1, 2, 1, NAN, NAN], "b": [1, 1, 1]}
    log = make_log(users, times)
    seen = Counter()
    for seed in range(200):
        shuffled, moved = shuffle_ties(log, seed)
        assert shuffled.item_index[[2, 4, 5]].tolist() == [2, 4, 5]
        assert sorted(shuffled.item_index[[0, 1, 3]]) == [0, 1, 3]
        assert moved == (shuffled.item_index != log.item_index).sum()
        seen[tuple(shuffled.item_index[6:])] += 1
    assert set(seen) == set(itertools.permutations([6, 7, 8]))
    assert min(seen.values()) > 15  # 33 expected of each


def test_ties_are_shuffled_by_seed_and_only_where_asked() -> None:
    log = make_log({"a": list(range(9))}, {"a": [1] * 9})
    shuffled = [
        make_split(log, NUM_ITEMS, Config("leave_one_out", ties="shuffled"), seed) for seed in (0, 0, 1)
    ]
    orders = [[*train(one)["a"], *one.valid.target, *one.test.target] for one in shuffled]
    assert orders[0] == orders[1] != orders[2]
    assert train(make_split(log, NUM_ITEMS, Config("leave_one_out"), 0))["a"] == list(range(7))
    assert shuffled[0].train_position.tolist() == list(range(7))


# ---- configuration and dead ends ----


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"cold_share": 1.0}, r"split\.cold_share is 1\.0"),
        ({"cold_valid_share": -0.1}, r"split\.cold_valid_share is -0\.1"),
        ({"valid_quantile": 0.9, "test_quantile": 0.8}, "must ascend"),
        ({"protocol": "temporal", "unit": "session"}, "baskets have no time"),
    ],
)
def test_impossible_settings_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Config(**wrong)


def test_a_log_without_cases_stops_the_run() -> None:
    with pytest.raises(ValueError, match=r"no test case is left.*3 interactions"):
        make_split(make_log({"a": [0, 1], "b": [2]}), NUM_ITEMS, Config(), 0)
    with pytest.raises(ValueError, match="nothing to split"):
        make_split(make_log({}), NUM_ITEMS, Config(), 0)


# ---- leaks ----

moments = st.one_of(st.just(NAN), st.integers(0, 6).map(float))
user_rows = st.lists(st.tuples(st.integers(0, NUM_ITEMS - 1), moments), min_size=1, max_size=8)
logs = st.dictionaries(st.text("uvwx", min_size=1, max_size=3), user_rows, min_size=1, max_size=5).map(
    lambda users: make_log(
        {user: [row[0] for row in rows] for user, rows in users.items()},
        {user: [row[1] for row in rows] for user, rows in users.items()},
    )
)
configs = st.builds(
    Config,
    protocol=st.sampled_from(["leave_one_out", "cold_items"]),
    unit=st.sampled_from(["user", "session"]),
    ties=st.sampled_from(["published", "shuffled"]),
    cold_share=st.sampled_from([0.0, 0.3, 0.6]),
    cold_valid_share=st.sampled_from([0.0, 0.4]),
    tokenizer_sees_cold=st.booleans(),
)


def split_or_skip(log: Log, config: Config, seed: int) -> Split:
    try:
        return make_split(log, NUM_ITEMS, config, seed)
    except ValueError as error:
        assume("left" not in str(error) and "has a timestamp" not in str(error))
        raise


@settings(deadline=None, max_examples=60)
@given(logs, configs, st.integers(0, 3))
def test_nothing_hidden_is_left_in_view(log: Log, config: Config, seed: int) -> None:
    split = split_or_skip(log, config, seed)
    shown = shuffle_ties(log, seed)[0] if config.ties == "shuffled" else log
    # The hidden items are known from the cases: they are nobody's history and nobody's training.
    cold_valid = np.zeros(NUM_ITEMS, bool)
    cold_valid[split.valid.target[split.valid.cold]] = True
    hidden = split.cold | cold_valid
    assert (split.hidden == hidden).all()
    assert not hidden[split.train.values].any()
    assert not hidden[split.valid.histories.values].any()
    assert not hidden[split.test.histories.values].any()
    assert not split.cold[split.valid.target].any()
    assert not cold_valid[split.test.target].any()
    assert (split.test.cold == split.cold[split.test.target]).all()
    assert (split.fitted_on == (np.ones(NUM_ITEMS, bool) if config.tokenizer_sees_cold else ~hidden)).all()
    # A case shows all of its user's rows before the target but hidden ones, and no others.
    sequences = {user: shown.item_index[shown.user_id == user] for user in set(shown.user_id)}
    visible = {user: items[~hidden[items]].tolist() for user, items in sequences.items()}
    for user, (history, target) in asked(split.test).items():
        assert target == sequences[user][-1]
        assert history == [item for item in sequences[user][:-1] if not hidden[item]]
    for user, (history, target) in asked(split.valid).items():
        end = -1 if config.unit == "session" else -2
        assert target == sequences[user][end]
        assert history == [item for item in sequences[user][:end] if not hidden[item]]
    # Training shows no target: it is a beginning of the visible sequence, disjoint from what cases ask.
    for user, items in train(split).items():
        assert items == visible[user][: len(items)]
    users = {*split.valid.user_id, *split.test.user_id}
    if config.unit == "session":
        assert users.isdisjoint(split.train_user_id)
    else:
        for user in users & {*split.train_user_id}:
            kept = [item for item in sequences[user][:-2] if not hidden[item]]
            assert train(split)[user] == kept


@settings(deadline=None, max_examples=40)
@given(logs, configs, st.integers(0, 3))
def test_every_split_is_well_formed_and_comes_out_the_same_again(log: Log, config: Config, seed: int) -> None:
    split = split_or_skip(log, config, seed)
    case_ids = np.concatenate([split.valid.case_id, split.test.case_id])
    assert len(set(case_ids.tolist())) == len(case_ids)
    assert (split.train.lengths > 0).all()
    assert len(set(split.train_user_id)) == len(split.train_user_id)
    for one in (split.valid, split.test):
        assert len(set(one.user_id)) == len(one)
    again = make_split(log, NUM_ITEMS, config, seed)
    assert_same(split, again)


@settings(deadline=None, max_examples=60)
@given(logs, st.sampled_from(["published", "shuffled"]), st.integers(0, 3))
def test_no_future_in_a_temporal_history(log: Log, ties: Any, seed: int) -> None:
    config = Config("temporal", ties=ties, valid_quantile=0.4, test_quantile=0.7)
    split = split_or_skip(log, config, seed)
    valid_from, test_from = split.counts["split_valid_from_second"], split.counts["split_test_from_second"]
    assert isinstance(valid_from, float)
    assert isinstance(test_from, float)
    assert (split.train_timestamp < valid_from).all()
    assert ((split.between[1] >= valid_from) & (split.between[1] < test_from)).all()
    assert not split.cold[split.purchases("test")[0]].any()
    for inner in (split.held_back(), split.simulating_cold(0.3, seed)):
        assert (inner.purchases("test")[1] < valid_from).all()
    shown = shuffle_ties(log, seed)[0] if ties == "shuffled" else log
    for one, start, end in ((split.valid, valid_from, test_from), (split.test, test_from, np.inf)):
        for user, (history, target) in asked(one).items():
            own = shown.user_id == user
            items, times = shown.item_index[own], shown.timestamp[own]
            assert history == items[times < start].tolist()
            after = np.flatnonzero((times >= start) & (times < end))
            assert target == items[after[np.argmin(times[after])]]
    first = {
        item: np.nanmin(shown.timestamp[rows])
        for item in range(NUM_ITEMS)
        if not np.isnan(shown.timestamp[rows := shown.item_index == item]).all()
    }
    assert np.flatnonzero(split.cold).tolist() == [item for item, time in first.items() if time >= test_from]
    assert np.flatnonzero(~split.fitted_on).tolist() == [
        item for item, time in first.items() if time >= valid_from
    ]
    assert split.fitted_on[split.train.values].all()
    # So a generator may go on from that of an earlier cut (eval/warm_start.py): it saw nothing hidden since.
    later = Config("temporal", ties=ties, valid_quantile=0.6, test_quantile=0.8)
    assert not split_or_skip(log, later, seed).hidden[split.train.values].any()


# ---- real data ----


@pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data is not there")
def test_beauty_has_the_published_counts() -> None:
    catalog, _ = load_items(DATA / "amazon2014-beauty", Columns())
    log, counts = load_interactions(DATA / "amazon2014-beauty", Columns(), catalog)
    assert (counts["users"], len(catalog), len(log)) == (22363, 12101, 198502)
    assert counts["interactions_without_time"] == 287
    assert counts["interactions_unsorted"] == 0
    split = make_split(log, len(catalog), Config("leave_one_out"), 0)
    assert len(split.valid) == len(split.test) == 22363
    assert len(split.train.values) == 198502 - 2 * 22363
    split = make_split(log, len(catalog), Config("cold_items", cold_share=0.05), 0)
    assert (int(split.cold.sum()), int(split.test.cold.sum()), len(split.test)) == (399, 1171, 22363)


# ---- contexts ----


@pytest.mark.parametrize("protocol", ["leave_one_out", "temporal"])
def test_contexts_go_where_their_interactions_go(protocol: Any) -> None:
    users = {"a": [0, 1, 2, 3], "b": [4, 5, 6, 7]}
    log = make_log(users, {"a": [1.0, 2.0, 8.0, 9.0], "b": [3.0, 4.0, 8.5, 9.5]})
    places = np.array(["n", "s", "s", "new", "s", "n", "n", "s"], object)
    log = Log(log.user_id, log.item_index, log.timestamp, log.position, places)
    config = Config(protocol=protocol, valid_quantile=0.5, test_quantile=0.8)
    split = make_split(log, NUM_ITEMS, config, seed=0)
    assert split.train_context is not None
    place_of = dict(zip(log.item_index.tolist(), places, strict=True))
    assert split.train_context.tolist() == [place_of[item] for item in split.train.values]
    for cases in (split.valid, split.test):
        assert cases.context is not None
        # A place that training has not seen is none.
        assert cases.context.tolist() == [place_of[item].replace("new", "") for item in cases.target]
        assert cases.take(np.array([0])).context.tolist() == cases.context[:1].tolist()
    held = split.held_back()
    assert held.train_context.tolist() == [place_of[item] for item in held.train.values]
    simulated = split.simulating_cold(0.5, 0)
    assert simulated.train_context.tolist() == [place_of[item] for item in simulated.train.values]
