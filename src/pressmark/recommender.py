"""The seam that every model answers: requests in, ranked items out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np

from pressmark.interactions.histories import Histories


@dataclass(frozen=True)
class Requests:
    """A batch of B requests.

    Attributes:
        histories: B histories of `item_index`, oldest first; the whole visible history, empty ones too.
            A model may read only the newest items, but masks all of them.
        filter: Which items may be the answer: a filter's name (see `Recommender.filters`), or several such
            as "in_stock & !alcohol", which asks for the first without the second; None is the whole catalog.
            One for the whole batch, or a list of B, one a request.
        mask_history: Remove the items of the history from the answer.
        user_id: (B,) object str who asks, or None. Only the synthetic store's oracle reads it: a model that
            did could not answer new users.
        certify: Search further where the answer is not yet proven to be the best there is; `exact` says for
            whom that did not help. Models that score every item have nothing to prove.
        context: (B,) object str where each asks, such as a store or a channel, "" where unknown; or None. A
            model that reads no context (`reads` lacks "context") answers without.
        cart: B carts of `item_index`, what each has chosen and not bought yet; or None. Few models read one
            (`reads` then holds "cart"); ask the others `with_cart_as_history`.
    """

    histories: Histories
    filter: str | Sequence[str | None] | None = None
    mask_history: bool = True
    user_id: np.ndarray | None = None
    certify: bool = False
    context: np.ndarray | None = None
    cart: Histories | None = None

    def __len__(self) -> int:
        return len(self.histories)

    def each_filter(self) -> list[str | None]:
        """The filter of each of the B requests."""
        one_for_all = self.filter is None or isinstance(self.filter, str)
        return [self.filter] * len(self) if one_for_all else list(self.filter)  # type: ignore[list-item, arg-type]

    def by_filter(self) -> tuple[list[str | None], np.ndarray]:
        """The distinct filters asked for, and (B,) int64 which of them each request has."""
        if self.filter is None or isinstance(self.filter, str):
            return [self.filter], np.zeros(len(self), np.int64)
        distinct = list(dict.fromkeys(self.filter)) or [None]
        number = {one: place for place, one in enumerate(distinct)}
        return distinct, np.array([number[one] for one in self.filter], np.int64)

    def also(self, name: str) -> Requests:
        """The same requests, whose answers pass the filter `name` too."""
        if self.filter is None or isinstance(self.filter, str):
            return replace(self, filter=joined(self.filter, name))
        return replace(self, filter=[joined(one, name) for one in self.filter])

    def take(self, rows: np.ndarray) -> Requests:
        """The requests at (n,) rows, as a batch of their own."""
        one_for_all = self.filter is None or isinstance(self.filter, str)
        every = self.each_filter()
        return replace(
            self,
            histories=self.histories.take(rows),
            filter=self.filter if one_for_all else [every[row] for row in rows],
            user_id=None if self.user_id is None else self.user_id[rows],
            context=None if self.context is None else self.context[rows],
            cart=None if self.cart is None else self.cart.take(rows),
        )

    @property
    def seen(self) -> Histories:
        """Each history with its cart behind it: what `mask_history` masks."""
        return self.histories if self.cart is None else self.histories.followed_by(self.cart)

    def with_cart_as_history(self) -> Requests:
        """The same requests for a model that reads no carts: a cart is the newest of the history."""
        return replace(self, histories=self.seen, cart=None)


def joined(expression: str | None, name: str) -> str:
    """A filter expression that asks for `name` too."""
    return name if expression is None else f"{expression} & {name}"


@dataclass(frozen=True)
class Recommendations:
    """Ranked items, best first.

    Attributes:
        item_index: (B, k) int64, padded with -1 behind the valid items.
        scores: (B, k) float32, never increasing along a row, padded with -inf. Equal scores: lower
            item_index first.
        num_valid: (B,) int64, how many of a row's k places hold an item.
        exact: (B,) bool where the model can prove its top-k, else None.
    """

    item_index: np.ndarray
    scores: np.ndarray
    num_valid: np.ndarray
    exact: np.ndarray | None = None

    def __post_init__(self) -> None:
        valid = np.arange(self.item_index.shape[1]) < self.num_valid[:, None]
        assert self.item_index.dtype == np.int64, self.item_index.dtype
        assert self.scores.dtype == np.float32, self.scores.dtype
        assert ((self.item_index >= 0) == valid).all(), "valid items must stand first and padding be -1"
        # A NaN score would count as "greater than nothing" somewhere and flatter a model.
        assert np.isfinite(self.scores[valid]).all(), "scores of valid items must be finite"


@runtime_checkable
class Recommender(Protocol):
    """Anything that ranks a catalog.

    Attributes:
        num_items: Items in the catalog; item_index runs from 0 to num_items - 1.
        filters: name -> (num_items,) bool mask of the items allowed; fill it by `filters[name] = mask`
            before naming it in a request.
    """

    num_items: int
    filters: dict[str, np.ndarray]

    def recommend(self, requests: Requests, k: int) -> Recommendations:
        """Answers each request with its k best items.

        Raises:
            ValueError: If k < 1, an item_index is out of range, or the filter is unknown.
        """
        ...


def check_request(recommender: Recommender, requests: Requests, k: int) -> None:
    """Raises ValueError for a request that no recommender can answer."""
    if k < 1:
        raise ValueError(f"k is {k}; it must be at least 1.")
    values = requests.histories.values
    if len(values) and (values.min() < 0 or values.max() >= recommender.num_items):
        bad = values[(values < 0) | (values >= recommender.num_items)][0]
        raise ValueError(
            f"history holds item_index {bad}; the catalog has items 0 to {recommender.num_items - 1}."
        )
    _check_beside(recommender, requests)
    num_filters = len(requests.each_filter())
    if num_filters != len(requests):
        raise ValueError(f"{num_filters} filters for {len(requests)} requests; give one, or one for each.")
    for one in requests.by_filter()[0]:
        _parts(recommender.filters, one, recommender.num_items)


def _check_beside(recommender: Recommender, requests: Requests) -> None:
    """Context and cart are one a request, and a cart is read."""
    for name, one in (("contexts", requests.context), ("carts", requests.cart)):
        if one is not None and len(one) != len(requests):
            raise ValueError(f"{len(one)} {name} for {len(requests)} requests; give one for each.")
    if requests.cart is None:
        return
    if "cart" not in getattr(recommender, "reads", ()):
        raise ValueError(f"{type(recommender).__name__} reads no cart: ask it Requests.with_cart_as_history().")
    values = requests.cart.values
    if len(values) and (values.min() < 0 or values.max() >= recommender.num_items):
        bad = values[(values < 0) | (values >= recommender.num_items)][0]
        raise ValueError(
            f"a cart holds item_index {bad}; the catalog has items 0 to {recommender.num_items - 1}."
        )


def filter_mask(filters: Mapping[str, np.ndarray], expression: str | None, num_items: int) -> np.ndarray | None:
    """The items that a filter allows: (N,) bool; None for the whole catalog.

    Args:
        filters: name -> (N,) bool.
        expression: Names joined by "&", each with "!" before it where its items are denied.
        num_items: N.

    Raises:
        ValueError: If a name is unknown, or its mask is not one of N items.
    """
    allowed = None
    for mask, denied in _parts(filters, expression, num_items):
        mask = ~mask if denied else mask
        allowed = mask if allowed is None else allowed & mask
    return allowed


def _parts(
    filters: Mapping[str, np.ndarray], expression: str | None, num_items: int
) -> list[tuple[np.ndarray, bool]]:
    """The masks that an expression names, and whether each is denied."""
    if expression is None:
        return []
    # A copy: another thread may register a filter meanwhile.
    odd = [name for name in list(filters) if "&" in name or name.startswith("!") or name != name.strip()]
    if odd:
        raise ValueError(
            f"filter name {odd[0]!r}: a name holds no '&', starts with no '!' and has no outer spaces."
        )
    found = []
    for part in map(str.strip, expression.split("&")):
        name = part.removeprefix("!").strip()
        if name not in filters:
            known = ", ".join(sorted(filters)) or "none"
            raise ValueError(f"filter {name!r} is not registered; known filters: {known}.")
        mask = np.asarray(filters[name])
        if mask.shape != (num_items,) or mask.dtype != bool:
            raise ValueError(
                f"filter {name!r} has the shape {mask.shape} and type {mask.dtype}; it must be a bool mask of "
                f"the {num_items} items of this catalog."
            )
        found.append((mask, part.startswith("!")))
    return found


def grown_filters(
    filters: Mapping[str, np.ndarray], num_items: int, num_new: int, passes: Mapping[str, np.ndarray] | None
) -> dict[str, np.ndarray]:
    """The filters with n new items behind those known.

    Args:
        filters: name -> (N,) bool.
        num_items: N.
        num_new: n.
        passes: name -> (n,) bool; a new item passes no filter that is not named here.

    Returns:
        name -> (N + n,) bool.

    Raises:
        ValueError: If a name is unknown, or a mask is not one of as many items.
    """
    passes = {name: np.asarray(one) for name, one in (passes or {}).items()}
    for name, one in passes.items():
        if name not in filters:
            known = ", ".join(sorted(filters)) or "none"
            raise ValueError(f"filter {name!r} is not registered; known filters: {known}.")
        if one.shape != (num_new,) or one.dtype != bool:
            raise ValueError(
                f"passes[{name!r}] has the shape {one.shape} and type {one.dtype}; it must be a bool for "
                f"each of the {num_new} new products."
            )
    for name in filters:
        filter_mask(filters, name, num_items)
    none = np.zeros(num_new, bool)
    return {name: np.concatenate([mask, passes.get(name, none)]) for name, mask in filters.items()}


def known_items(item_index: np.ndarray | Sequence[int], num_items: int) -> np.ndarray:
    """(n,) int64 of items that there are.

    Raises:
        ValueError: If they are no (n,) integers, or one lies outside 0..num_items - 1.
    """
    items = np.asarray(item_index)
    if items.ndim != 1 or (len(items) and items.dtype.kind not in "iu"):
        raise ValueError(f"item_index is {items.dtype} of the shape {items.shape}; it must be (n,) integers.")
    if len(items) and not 0 <= items.min() <= items.max() < num_items:
        raise ValueError(f"item_index must lie in 0..{num_items - 1}; got {items.tolist()[:5]}.")
    return items.astype(np.int64)


def allowed_items(filters: Mapping[str, np.ndarray], requests: Requests, num_items: int) -> np.ndarray:
    """Items each request may be answered with: (B, num_items) bool, from filter and history."""
    distinct, which = requests.by_filter()
    masks = [filter_mask(filters, one, num_items) for one in distinct]
    allowed = np.stack([np.ones(num_items, bool) if mask is None else mask for mask in masks])[which]
    if requests.mask_history:
        allowed[requests.seen.row_of_value(), requests.seen.values] = False
    return allowed


def filter_by_filter(
    requests: Requests, answer: Callable[[Requests, str | None], Recommendations]
) -> Recommendations:
    """Answers the requests of each filter apart, for a model that takes one filter a batch."""
    distinct, which = requests.by_filter()
    if len(distinct) == 1:
        return answer(requests, distinct[0])
    parts = [answer(requests.take(np.flatnonzero(which == number)), one) for number, one in enumerate(distinct)]
    back = np.argsort(np.argsort(which, kind="stable"), kind="stable")
    return Recommendations(
        *(
            np.concatenate([getattr(part, name) for part in parts])[back]
            for name in ("item_index", "scores", "num_valid")
        )
    )


def check_scores(scores: np.ndarray) -> None:
    """Raises ValueError where a score of (B, n) is NaN or +inf: it compares with nothing, or beats everything.

    Whoever sorts without asking loses such items without anybody noticing.
    """
    if not (scores < np.inf).all():
        row, place = np.argwhere(~(scores < np.inf))[0]
        raise ValueError(
            f"request {row}: the score at place {place} is {scores[row, place]}; scores must be finite, or "
            "-inf for what has none. Weights or vectors of the model hold a NaN or an infinity: make it again."
        )


def top_k(scores: np.ndarray, allowed: np.ndarray, k: int) -> Recommendations:
    """Ranks dense scores.

    Args:
        scores: (B, num_items) float32, finite where allowed.
        allowed: (B, num_items) bool.
        k: Places a row; more than num_items gives padding.

    Raises:
        ValueError: If the score of an allowed item is NaN or +inf.
    """
    scores = np.where(allowed, scores, -np.inf).astype(np.float32)
    check_scores(scores)
    num_items = scores.shape[1]
    width = min(k, num_items)
    if width < num_items:
        # argpartition alone would pick arbitrarily among items tied with the k-th score; keep all of them.
        kth = -np.partition(-scores, width - 1, axis=1)[:, width - 1]
    else:
        kth = np.full(len(scores), -np.inf, np.float32)
    item_index = np.full((len(scores), k), -1, np.int64)
    ranked = np.full((len(scores), k), -np.inf, np.float32)
    num_valid = np.minimum(np.isfinite(scores).sum(axis=1), k).astype(np.int64)
    for row in range(len(scores)):
        candidates = np.flatnonzero((scores[row] >= kth[row]) & np.isfinite(scores[row]))
        order = candidates[np.argsort(-scores[row, candidates], kind="stable")][: num_valid[row]]
        item_index[row, : len(order)] = order
        ranked[row, : len(order)] = scores[row, order]
    return Recommendations(item_index, ranked, num_valid)
