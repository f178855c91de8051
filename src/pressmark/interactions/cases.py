"""Cases and the split: what every stage trains on and what every model is asked."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from pressmark.interactions.histories import Histories


@dataclass(frozen=True)
class Cases:
    """C questions: given this history, which item comes next?

    Attributes:
        case_id: (C,) int64, the key of a case in every file of recommendations.
        user_id: (C,) object array of str; a basket's id where `split.unit` is session.
        histories: C histories of item_index, oldest first; everything visible before the target, empty
            ones too.
        target: (C,) int64 item_index.
        cold: (C,) bool, whether the target is held out of training.
        context: (C,) object array of str, where the next interaction takes place, "" where unknown or not in
            training; None where the data say nothing of it.
    """

    case_id: np.ndarray
    user_id: np.ndarray
    histories: Histories
    target: np.ndarray
    cold: np.ndarray
    context: np.ndarray | None = None

    def __post_init__(self) -> None:
        lengths = {len(self.case_id), len(self.user_id), len(self.histories), len(self.target), len(self.cold)}
        assert len(lengths) == 1, f"columns of different lengths: {lengths}"

    def __len__(self) -> int:
        return len(self.case_id)

    def take(self, rows: np.ndarray) -> Cases:
        """The cases at `rows` (indices or a (C,) bool mask), in that order."""
        rows = np.asarray(rows)
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows.astype(np.int64)
        return Cases(
            self.case_id[rows],
            self.user_id[rows],
            self.histories.take(rows),
            self.target[rows],
            self.cold[rows],
            None if self.context is None else self.context[rows],
        )

    def target_in_history(self) -> np.ndarray:
        """(C,) bool: the target stands in the visible history, so that a masked ranking cannot hold it."""
        row = self.histories.row_of_value()
        hits = row[self.histories.values == self.target[row]]
        return np.bincount(hits, minlength=len(self)) > 0


@dataclass(frozen=True)
class Split:
    """Who may see what; made once, written to the run folder and read by every stage.

    Attributes:
        train: One sequence a training user, whole, oldest first; U sequences, none of them empty.
        train_user_id: (U,) object array of str.
        train_timestamp: (len(train.values),) float64 seconds since 1970, NaN where unknown.
        train_position: (len(train.values),) int64, -1 where unknown.
        valid: Validation cases: everything is chosen on them.
        test: Test cases, read once a model.
        cold: (N,) bool, items whose interactions are hidden from everything but the test targets.
        fitted_on: (N,) bool, items that whatever is fitted (tokenizer, k-means, standardisation, TF-IDF)
            may look at.
        counts: What was dropped and hidden, and the settings: the split's statement. JSON values.
        train_context: (len(train.values),) object array of str, where each took place, "" where unknown; None
            where the data say nothing of it.
        between: (2, M) float64 item_index and seconds of purchases, anybody's, that nothing is trained on and
            that are past when the test asks: those between the cuts of a temporal split.
    """

    train: Histories
    train_user_id: np.ndarray
    train_timestamp: np.ndarray
    train_position: np.ndarray
    valid: Cases
    test: Cases
    cold: np.ndarray
    fitted_on: np.ndarray
    counts: dict[str, int | float | str | bool] = field(default_factory=dict)
    train_context: np.ndarray | None = None
    between: np.ndarray = field(default_factory=lambda: np.zeros((2, 0)))

    def __post_init__(self) -> None:
        assert len(self.train) == len(self.train_user_id)
        assert len(self.train.values) == len(self.train_timestamp) == len(self.train_position)
        assert len(self.cold) == len(self.fitted_on)

    @property
    def hidden(self) -> np.ndarray:
        """(N,) bool, items whose interactions no training may hold: those of the test and of the validation.

        With `split.tokenizer_sees_cold`, of what is cold in the validation the targets alone.
        """
        hidden = self.cold | ~self.fitted_on
        hidden[self.valid.target[self.valid.cold]] = True
        return hidden

    def purchases(self, asked_at: Literal["valid", "test"]) -> tuple[np.ndarray, np.ndarray]:
        """What was bought, and when, as far as is known when the validation or the test asks.

        Returns:
            (P,) int64 item_index and (P,) float64 seconds, NaN where unknown.
        """
        item, time = self.train.values, self.train_timestamp
        if asked_at == "valid":
            return item, time
        return np.append(item, self.between[0].astype(np.int64)), np.append(time, self.between[1])

    def held_back(self) -> Split:
        """The split with each training sequence's last item left out, but for the only one of a shopper.

        Validation is then like the test: its histories hold an item that nothing was trained on. As the split
        stands they hold none, and flatter a model that knows its training sequences by heart. What was bought
        `between` is left out: it lies ahead of the validation.
        """
        train = self.train
        last = np.zeros(len(train.values), bool)
        last[train.offsets[1:] - 1] = True
        last[train.offsets[:-1][train.lengths == 1]] = False
        lengths = train.lengths - (train.lengths > 1)
        return replace(
            self,
            train=Histories(train.values[~last], np.concatenate([[0], np.cumsum(lengths)])),
            train_timestamp=self.train_timestamp[~last],
            train_position=self.train_position[~last],
            train_context=None if self.train_context is None else self.train_context[~last],
            between=self.between[:, :0],
        )

    def simulating_cold(self, share: float, seed: int) -> Split:
        """`held_back`, with a share of the distinct validation targets hidden as the test's cold items are.

        Their interactions leave training and every history; as validation targets they stay, cold. Whatever is
        to be chosen about cold items can be chosen there, and nothing of the test is in it.

        Args:
            share: Of the distinct validation targets.
            seed: Decides which.
        """
        inner = self.held_back()
        targets = np.unique(inner.valid.target)
        drawn = np.random.default_rng([seed, 2]).choice(targets, round(share * len(targets)), replace=False)
        hidden = np.zeros(len(self.cold), bool)
        hidden[drawn] = True
        # Validation may have cold targets of its own.
        cold = hidden.copy()
        cold[inner.valid.target[inner.valid.cold]] = True
        train, kept = _without(inner.train, hidden)
        left = np.flatnonzero(train.lengths)
        histories, _ = _without(inner.valid.histories, hidden)
        none = np.zeros(0, np.int64)
        return replace(
            inner,
            train=train.take(left),
            train_user_id=inner.train_user_id[left],
            train_timestamp=inner.train_timestamp[kept],
            train_position=inner.train_position[kept],
            train_context=None if inner.train_context is None else inner.train_context[kept],
            valid=replace(inner.valid, histories=histories, cold=cold[inner.valid.target]),
            test=self.test.take(none),
            cold=cold | self.cold,
            fitted_on=self.fitted_on & ~hidden,
        )


def _without(histories: Histories, hidden: np.ndarray) -> tuple[Histories, np.ndarray]:
    """The sequences less some items, (N,) bool, and which of the values that leaves, (total,) bool."""
    kept = ~hidden[histories.values]
    lengths = np.bincount(histories.row_of_value()[kept], minlength=len(histories))
    return Histories(histories.values[kept], np.concatenate([[0], np.cumsum(lengths)])), kept
