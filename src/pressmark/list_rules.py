"""Rules about a whole list, over any recommender: a least share of some items, at most so many of a group.

    with_rules(model, requests, k=20, at_least={"cold": 0.2}, at_most={"brand": 2}, groups={"brand": brand_of})

Items are chosen by score, highest first, wherever the rules leave a choice: first as many as a rule of a
least share asks for, then the best of all others. Groups that are full are closed by a filter and the model
is asked again, so a list is short only where no further item may join it; `num_valid` says so. With one limit
that is the best list there is. With several, an item taken early may keep out two that would have fitted: the
choice is greedy.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from pressmark.recommender import Recommendations, Recommender, Requests, filter_mask, joined

Limits = Sequence[tuple[np.ndarray, int]]
"""(num_items,) groups and how many items of one a list may hold."""

_ROOMS = itertools.count()
"""Numbers of the filters that close full groups: several threads may ask one recommender, each for its own."""

DEEPER = 2
"""A question asks for this many times k items where a group is limited."""


def with_rules(
    recommender: Recommender,
    requests: Requests,
    k: int,
    at_least: Mapping[str, float] | None = None,
    at_most: Mapping[str, int] | None = None,
    groups: Mapping[str, np.ndarray] | None = None,
) -> Recommendations:
    """The k best items for each request, under rules about the list.

    Args:
        recommender: Any.
        requests: Requests; their own filters hold throughout.
        k: Places a list.
        at_least: Filter name -> share: at least ceil(share * k) of the list pass the filter, or as many as
            there are. One rule; several would need a search over which items serve two of them.
        at_most: Group name -> how many items of one group a list may hold.
        groups: Group name -> (num_items,) int64 which group each item is in, -1 for none.

    Returns:
        Lists, best first. `exact` where every question behind a list was answered exactly; None of a model that
        proves nothing.

    Raises:
        ValueError: If a filter or group is unknown, or a number makes no sense.
    """
    at_least, at_most = at_least or {}, at_most or {}
    groups = {name: np.asarray(one) for name, one in (groups or {}).items()}
    if k < 1:
        raise ValueError(f"k is {k}; it must be at least 1.")
    _check(recommender, at_least, at_most, groups)
    lists = [_List() for _ in range(len(requests))]
    limits = [(groups[name], most) for name, most in at_most.items()]
    for name, share in at_least.items():
        _fill(recommender, requests, lists, name, math.ceil(share * k - 1e-9), k, limits)
    _fill(recommender, requests, lists, None, k, k, limits)
    item_index = np.full((len(lists), k), -1, np.int64)
    scores = np.full((len(lists), k), -np.inf, np.float32)
    for row, one in enumerate(lists):
        order = np.lexsort((np.array(one.items), -np.array(one.scores)))
        item_index[row, : len(order)] = np.array(one.items, np.int64)[order]
        scores[row, : len(order)] = np.array(one.scores, np.float32)[order]
    exact = None if any(one.exact is None for one in lists) else np.array([one.exact for one in lists], bool)
    return Recommendations(item_index, scores, (item_index >= 0).sum(axis=1), exact)


@dataclass
class _List:
    """A list in the making."""

    items: list[int] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    exact: bool | None = True

    def full(self, limits: Limits) -> list[np.ndarray]:
        """For each limit the groups that may have no further item."""
        found = []
        for group, most in limits:
            numbers, counts = np.unique(group[self.items], return_counts=True)
            found.append(numbers[(counts >= most) & (numbers >= 0)])
        return found

    def take(self, items: np.ndarray, scores: np.ndarray, wanted: int, limits: Limits) -> None:
        """Adds the first items of a ranking that the limits allow, until `wanted` stand here."""
        for item, score in zip(items.tolist(), scores.tolist(), strict=True):
            if len(self.items) >= wanted:
                return
            room = all(
                group[item] < 0 or int((group[self.items] == group[item]).sum()) < most
                for group, most in limits
            )
            if room and item not in self.items:
                self.items.append(item)
                self.scores.append(score)


def _fill(
    recommender: Recommender,
    requests: Requests,
    lists: list[_List],
    name: str | None,
    wanted: int,
    k: int,
    limits: Limits,
) -> None:
    """Brings every list to `wanted` items, the best that pass the filter `name`, where there are so many."""
    rows = np.array([row for row, one in enumerate(lists) if len(one.items) < wanted], np.int64)
    # What is chosen already comes again and is passed over.
    depth = (DEEPER if limits else 1) * k + max((len(one.items) for one in lists), default=0)
    while len(rows):
        part = requests.take(rows) if name is None else requests.take(rows).also(name)
        closed: dict[str, np.ndarray] = {}
        names = part.each_filter()
        for place, row in enumerate(rows):
            full = [
                np.isin(group, gone) for (group, _), gone in zip(limits, lists[row].full(limits), strict=True)
            ]
            if any(one.any() for one in full):
                room = f"room {next(_ROOMS)}"
                closed[room] = ~np.logical_or.reduce(full)
                names[place] = joined(names[place], room)
        recommender.filters.update(closed)
        try:
            answer = recommender.recommend(replace(part, filter=names), depth)
        finally:
            for one in closed:
                recommender.filters.pop(one, None)
        left = []
        for place, row in enumerate(rows):
            valid = int(answer.num_valid[place])
            proven = None if answer.exact is None else bool(answer.exact[place])
            lists[row].exact = proven and lists[row].exact
            lists[row].take(answer.item_index[place, :valid], answer.scores[place, :valid], wanted, limits)
            if valid == depth and len(lists[row].items) < wanted:
                left.append(row)
        rows = np.array(left, np.int64)


def _check(
    recommender: Recommender,
    at_least: Mapping[str, float],
    at_most: Mapping[str, int],
    groups: Mapping[str, np.ndarray],
) -> None:
    if len(at_least) > 1:
        raise ValueError(f"at_least holds {len(at_least)} rules ({', '.join(at_least)}); it can keep one.")
    for name, share in at_least.items():
        filter_mask(recommender.filters, name, recommender.num_items)
        if not 0 <= share <= 1:
            raise ValueError(f"at_least of {name!r} is {share}; it must be a share from 0 to 1.")
    for name, most in at_most.items():
        if name not in groups:
            raise ValueError(f"at_most names the group {name!r}; known groups: {', '.join(groups) or 'none'}.")
        if groups[name].shape != (recommender.num_items,) or groups[name].dtype.kind != "i":
            raise ValueError(
                f"group {name!r} is {groups[name].dtype} of the shape {groups[name].shape}; it must be an "
                f"integer for each of the {recommender.num_items} items."
            )
        if most < 1:
            raise ValueError(f"at_most of {name!r} is {most}; it must be at least 1.")
