"""Splits: made once, seeded, written to disk, read by every stage. Nothing hidden is left in view."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from pressmark.interactions.cases import Cases, Split
from pressmark.interactions.histories import Histories
from pressmark.interactions.log import Log
from pressmark.settings import shares

_TRAIN, _VALID, _TEST, _UNUSED = 0, 1, 2, 3


@dataclass(frozen=True)
class Config:
    """What is trained on and what is held out; definitions in docs/evaluation.md.

    Attributes:
        protocol: leave_one_out: a user's last item is the test case, the one before the validation case;
            cold_items: the same, and a share of the test targets is hidden from all training; temporal:
            training before a date, cases after it.
        unit: user; or session, where a user is one basket, baskets are divided 90 / 5 / 5 by hash, and the
            target is the last item.
        ties: published: the order of the file; shuffled: interactions of equal time within a user permuted.
        cold_share: Share of the distinct test targets that cold_items hides, 0 to 1.
        cold_valid_share: Share of the distinct validation targets that cold_items also hides, to choose
            what concerns cold items, 0 to 1.
        valid_quantile: Quantile of time at which temporal validation starts.
        test_quantile: Quantile of time at which temporal test starts.
        tokenizer_sees_cold: What is fitted (tokenizer, k-means, TF-IDF) may look at cold items' content.
    """

    protocol: Literal["leave_one_out", "cold_items", "temporal"] = "cold_items"
    unit: Literal["user", "session"] = "user"
    ties: Literal["published", "shuffled"] = "published"
    cold_share: float = 0.05
    cold_valid_share: float = 0.0
    valid_quantile: float = 0.8
    test_quantile: float = 0.9
    tokenizer_sees_cold: bool = False

    def __post_init__(self) -> None:
        shares("split", self, "cold_share", "cold_valid_share", below_1=True)
        if not 0 < self.valid_quantile < self.test_quantile < 1:
            raise ValueError(
                f"split.valid_quantile is {self.valid_quantile} and split.test_quantile {self.test_quantile}; "
                "they must ascend between 0 and 1, such as 0.8 and 0.9."
            )
        if self.protocol == "temporal" and self.unit == "session":
            raise ValueError(
                "split.protocol temporal with split.unit session: baskets have no time to cut at. "
                "Use split.unit user, or the protocol cold_items."
            )


@dataclass(frozen=True)
class _Parts:
    """The log with a role for every row.

    Attributes:
        log: M rows sorted by user and place.
        user: (M,) int64 number of the row's user.
        role: (M,) int8: _TRAIN, _UNUSED, or the target of a case: at most one _VALID and one _TEST a user.
        visible: role of a target -> (M,) bool, rows that such a case shows of its own user.
        cold: role of a target -> (N,) bool, items that count as cold there.
        between: (M,) bool, rows that are past when the test asks and train nothing; None for none.
    """

    log: Log
    user: np.ndarray
    role: np.ndarray
    visible: dict[int, np.ndarray]
    cold: dict[int, np.ndarray]
    between: np.ndarray | None = None


def make_split(log: Log, num_items: int, config: Config, seed: int) -> Split:
    """Divides a log by `config.protocol`.

    The same arguments give the same split. Cases stand in the order of user_id; `case_id` counts on from
    the validation cases to the test cases.

    Args:
        log: M interactions, sorted.
        num_items: N, items in the catalog.
        config: The protocol.
        seed: Draws the cold items, and permutes ties.

    Raises:
        ValueError: If the protocol needs times that the log lacks, or nothing to train on or no test case
            is left.
    """
    if not len(log):
        raise ValueError("the log holds no interaction: there is nothing to split.")
    counts = _settings(config, seed)
    if config.ties == "shuffled":
        log, counts["split_ties_moved"] = shuffle_ties(log, seed)
    if config.protocol == "temporal":
        parts = _temporal(log, num_items, config, counts)
    elif config.unit == "session":
        parts = _sessions(log, num_items, counts)
    else:
        parts = _leave_one_out(log, num_items, counts)
    if config.protocol == "cold_items":
        parts = _hide_cold(parts, config, seed, counts)
    return _assemble(parts, config, counts)


def _settings(config: Config, seed: int) -> dict[str, Any]:
    """The keys of the config that this protocol reads."""
    of_one = {"cold_items": ("cold_share", "cold_valid_share"), "temporal": ("valid_quantile", "test_quantile")}
    unread = {key for protocol, keys in of_one.items() if protocol != config.protocol for key in keys}
    settings = {"seed": seed, **dataclasses.asdict(config)}
    return {f"split_{key}": value for key, value in settings.items() if key not in unread}


def shuffle_ties(log: Log, seed: int) -> tuple[Log, int]:
    """Permutes a user's interactions of equal timestamp among their places; rows without time stay.

    Timestamps and positions keep their places: only `item_index` moves.

    Returns:
        The log, and how many rows hold another item than before.
    """
    known = np.flatnonzero(~np.isnan(log.timestamp))
    user, time = _user_numbers(log)[known], log.timestamp[known]
    # Ties need not stand side by side: a position may contradict the time.
    places = known[np.lexsort((known, time, user))]
    random = np.random.default_rng([seed, 2]).random(len(known))  # apart from the draws of cold items
    drawn = known[np.lexsort((random, time, user))]
    item_index = log.item_index.copy()
    item_index[places] = log.item_index[drawn]
    moved = int((item_index != log.item_index).sum())
    return dataclasses.replace(log, item_index=item_index), moved


def _leave_one_out(log: Log, num_items: int, counts: dict[str, Any]) -> _Parts:
    offsets = log.user_offsets()
    long = np.diff(offsets) >= 3
    role = np.full(len(log), _TRAIN, np.int8)
    role[offsets[1:][long] - 1] = _TEST
    role[offsets[1:][long] - 2] = _VALID
    counts["split_users_with_fewer_than_3"] = int((~long).sum())
    visible = {_VALID: role == _TRAIN, _TEST: role != _TEST}
    return _Parts(log, _user_numbers(log), role, visible, _nothing_cold(num_items))


def _sessions(log: Log, num_items: int, counts: dict[str, Any]) -> _Parts:
    offsets = log.user_offsets()
    lengths = np.diff(offsets)
    hundredth = np.array([_hundredth(session) for session in log.user_id[offsets[:-1]]], np.int64)
    part = np.where(hundredth < 5, _TEST, np.where(hundredth < 10, _VALID, _TRAIN)).astype(np.int8)
    counts["split_held_out_sessions_of_one_item_that_train"] = int(((lengths == 1) & (part != _TRAIN)).sum())
    part[lengths == 1] = _TRAIN
    visible = {one: np.repeat(part == one, lengths) for one in (_VALID, _TEST)}
    for shown in visible.values():
        shown[offsets[1:] - 1] = False
    role = np.repeat(np.where(part == _TRAIN, _TRAIN, _UNUSED).astype(np.int8), lengths)
    role[offsets[1:] - 1] = part
    return _Parts(log, _user_numbers(log), role, visible, _nothing_cold(num_items))


def _hundredth(session: str) -> int:
    """0 to 99 by SHA-256: the same on every machine and for every seed, which hash() is not."""
    return int.from_bytes(hashlib.sha256(session.encode("utf-8")).digest()[:8], "big") % 100


def _temporal(log: Log, num_items: int, config: Config, counts: dict[str, Any]) -> _Parts:
    timed = ~np.isnan(log.timestamp)
    counts["split_without_time"] = int((~timed).sum())
    if not timed.any():
        raise ValueError(
            "split.protocol is temporal, but not one interaction has a timestamp. "
            "Name the column with --data.columns.timestamp, or use the protocol cold_items."
        )
    context = None if log.context is None else log.context[timed]
    log = Log(log.user_id[timed], log.item_index[timed], log.timestamp[timed], log.position[timed], context)
    time, user = log.timestamp, _user_numbers(log)
    valid_from, test_from = map(float, np.quantile(time, [config.valid_quantile, config.test_quantile]))
    counts |= {"split_valid_from_second": valid_from, "split_test_from_second": test_from}
    role = np.where(time < valid_from, _TRAIN, _UNUSED).astype(np.int8)
    role[_first_of_user(user, time, (time >= valid_from) & (time < test_from))] = _VALID
    role[_first_of_user(user, time, time >= test_from)] = _TEST
    counts["split_unused_interactions"] = int((role == _UNUSED).sum())
    first_seen = np.full(num_items, -np.inf)  # an item never bought is not cold: nothing of it is hidden
    by_time = np.argsort(-time, kind="stable")
    first_seen[log.item_index[by_time]] = time[by_time]
    cold = {_VALID: first_seen >= valid_from, _TEST: first_seen >= test_from}
    between = (time >= valid_from) & (time < test_from)
    return _Parts(log, user, role, {_VALID: time < valid_from, _TEST: time < test_from}, cold, between)


def _first_of_user(user: np.ndarray, time: np.ndarray, within: np.ndarray) -> np.ndarray:
    """Each user's earliest row of those `within`; of equal times the one that stands first."""
    rows = np.flatnonzero(within)
    rows = rows[np.lexsort((rows, time[rows], user[rows]))]
    return rows[np.unique(user[rows], return_index=True)[1]]


def _hide_cold(parts: _Parts, config: Config, seed: int, counts: dict[str, Any]) -> _Parts:
    """Draws the cold items, and takes their interactions out of training and every history."""
    item, role = parts.log.item_index, parts.role.copy()
    num_items = len(parts.cold[_TEST])
    test_cold = _draw(item[role == _TEST], config.cold_share, np.random.default_rng(seed), num_items)
    dropped = (role == _VALID) & test_cold[item]
    counts["split_valid_cases_dropped_with_cold_target"] = int(dropped.sum())
    role[dropped] = _UNUSED
    # A generator of its own: the test cold items do not depend on whether this set is drawn.
    generator = np.random.default_rng([seed, 1])
    valid_cold = _draw(item[role == _VALID], config.cold_valid_share, generator, num_items)
    dropped = (role == _TEST) & valid_cold[item]
    counts["split_test_cases_dropped_with_cold_valid_target"] = int(dropped.sum())
    role[dropped] = _UNUSED
    hidden = (test_cold | valid_cold)[item]
    counts["split_hidden_training_interactions"] = int(((role == _TRAIN) & hidden).sum())
    role[(role == _TRAIN) & hidden] = _UNUSED
    visible = {one: shown & ~hidden for one, shown in parts.visible.items()}
    cold = {_VALID: valid_cold, _TEST: test_cold}
    return dataclasses.replace(parts, role=role, visible=visible, cold=cold)


def _draw(targets: np.ndarray, share: float, generator: np.random.Generator, num_items: int) -> np.ndarray:
    """(num_items,) bool: a share of the distinct targets, the recipe of docs/evaluation.md."""
    candidates = np.unique(targets)  # sorted by item_index, which is the order of item_id
    mask = np.zeros(num_items, bool)
    mask[generator.choice(candidates, round(share * len(candidates)), replace=False)] = True
    return mask


def _assemble(parts: _Parts, config: Config, counts: dict[str, Any]) -> Split:
    log, train = parts.log, parts.role == _TRAIN
    valid = _cases(parts, _VALID, 0)
    test = _cases(parts, _TEST, len(valid))
    if not train.any() or not len(test):
        what = "no interaction is left to train on" if not train.any() else "no test case is left"
        raise ValueError(
            f"split.protocol {config.protocol} (split.unit {config.unit}): {what}, of {len(log)} interactions. "
            "A case needs a user with 3 interactions (2 in a session): give more data."
        )
    users, lengths = np.unique(parts.user[train], return_counts=True)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    cold, unfitted = parts.cold[_TEST], parts.cold[_TEST] | parts.cold[_VALID]
    counts |= {
        "split_train_users": len(users),
        "split_train_interactions": int(train.sum()),
        "split_valid_cases": len(valid),
        "split_valid_cases_cold": int(valid.cold.sum()),
        "split_valid_cases_with_empty_history": int((valid.histories.lengths == 0).sum()),
        "split_test_cases": len(test),
        "split_test_cases_cold": int(test.cold.sum()),
        "split_test_cases_with_empty_history": int((test.histories.lengths == 0).sum()),
        "split_cold_items": int(cold.sum()),
        "split_cold_valid_items": int(parts.cold[_VALID].sum()),
    }
    return Split(
        train=Histories(log.item_index[train], offsets),
        train_user_id=log.user_id[train][offsets[:-1]],
        train_timestamp=log.timestamp[train],
        train_position=log.position[train],
        valid=valid,
        test=test,
        cold=cold,
        fitted_on=np.ones_like(cold) if config.tokenizer_sees_cold else ~unfitted,
        counts=counts,
        train_context=None if log.context is None else log.context[train],
        between=_between(parts),
    )


def _between(parts: _Parts) -> np.ndarray:
    """(2, M) item_index and seconds, oldest first: nobody's sequence can be told from it."""
    if parts.between is None:
        return np.zeros((2, 0))
    item, time = parts.log.item_index[parts.between], parts.log.timestamp[parts.between]
    order = np.lexsort((item, time))
    return np.stack([item[order], time[order]])


def _cases(parts: _Parts, role: int, first_id: int) -> Cases:
    targets = np.flatnonzero(parts.role == role)
    users = parts.user[targets]
    asked = np.zeros(parts.user[-1] + 1, bool)
    asked[users] = True
    shown = parts.visible[role] & asked[parts.user]
    lengths = np.bincount(parts.user[shown], minlength=len(asked))[users]
    histories = Histories(
        parts.log.item_index[shown], np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    )
    target = parts.log.item_index[targets]
    case_id = np.arange(first_id, first_id + len(targets), dtype=np.int64)
    return Cases(
        case_id,
        parts.log.user_id[targets],
        histories,
        target,
        parts.cold[role][target],
        _known_context(parts, targets),
    )


def _known_context(parts: _Parts, rows: np.ndarray) -> np.ndarray | None:
    """(n,) where those interactions took place, "" for a place that training knows nothing of."""
    context = parts.log.context
    if context is None:
        return None
    seen = np.isin(context[rows].astype(str), context[parts.role == _TRAIN].astype(str))
    return np.where(seen, context[rows], "").astype(object)


def _nothing_cold(num_items: int) -> dict[int, np.ndarray]:
    return {_VALID: np.zeros(num_items, bool), _TEST: np.zeros(num_items, bool)}


def _user_numbers(log: Log) -> np.ndarray:
    lengths = np.diff(log.user_offsets())
    return np.repeat(np.arange(len(lengths)), lengths)
