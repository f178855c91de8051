"""What the generator learns from: the codes of the next item, and that item among all others."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pressmark.generator.beam_search import SearchTrie
from pressmark.generator.config import Normalizer
from pressmark.generator.item_head import ItemHead, PathPrior
from pressmark.sids.table import SidTable
from pressmark.sids.trie import build_trie
from pressmark.sids.vocabulary import Vocabulary


class CodeLoss:
    """Minus the log-probability of each code of a target, given its history and its coarser codes.

    Under the normalizer "trie" a code competes with those that some item has behind the same coarser ones, so
    the codes' losses sum to that of the SID among all SIDs, and nothing is spent on SIDs that do not exist:
    with 256 codes at 4 levels there are 22 nats of those and 9 of 12,000 items. "level" lets all codes of the
    level compete, "full" the whole vocabulary, as TIGER and HF have it.

    Args:
        table: SIDs.
        items: (n,) int64 item_index of the items that may be targets; a target outside is no valid input.
        normalizer: What a code competes with.
        device: Where the losses are computed.
    """

    def __init__(
        self, table: SidTable, items: np.ndarray, normalizer: Normalizer, device: torch.device | str = "cpu"
    ) -> None:
        vocabulary = Vocabulary(table.level_sizes)
        self.rows = [
            slice(vocabulary.offset(level), vocabulary.offset(level) + size)
            for level, size in enumerate(table.level_sizes)
        ]
        self.normalizer = normalizer
        needed = np.ones(table.sids.shape, bool)
        if normalizer == "trie":
            trie = build_trie(table.sids, table.level_sizes, items)
            self.trie = SearchTrie.of(trie, device)
            self._built, self._device = trie, device
            # The node in front of each level; edges and their children have one number in a trie just built.
            nodes = np.full(table.sids.shape, trie.root, np.int64)
            nodes[:, 1:] = trie.walk(table.sids)[:, :-1]
            self.nodes = torch.from_numpy(nodes).to(device)  # (N, L)
            for level, first in enumerate(trie.first_edge):
                needed[:, level] = np.diff(first)[nodes[:, level]] > 1
            needed = np.logical_or.accumulate(needed[:, ::-1], axis=1)[:, ::-1]
        # The last row is that of no item.
        self._needed = np.pad(needed, ((0, 1), (0, 0)))

    @functools.cached_property
    def prior(self) -> PathPrior:
        """What an item head says along the ways of targets; within the trie alone."""
        return PathPrior(self._built, self._device)

    def needed(self, item_index: np.ndarray) -> np.ndarray:
        """(..., L) bool: which codes of items (...) a model has to tell.

        A code without siblings is certain, and so is all behind it unless there is a choice again; -1, "no
        item", needs nothing.
        """
        return self._needed[item_index]

    def __call__(
        self,
        logits: Callable[[int, slice], Tensor],
        labels: Tensor,
        item_index: Tensor,
        prior: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """The losses of n targets.

        Args:
            logits: A level and tokens to score -> (n, tokens) what the model says of them in front of it.
            labels: (n, L) int64 sid_tokens.
            item_index: (n,) int64.
            prior: For each level (n, W) float32 logits of the edges that the model's are added to; within the
                trie alone.

        Returns:
            (n, L) float32.
        """
        terms = []
        for level, rows in enumerate(self.rows):
            wanted = slice(None) if self.normalizer == "full" else rows
            scores = logits(level, wanted).float()
            label = labels[:, level] - (wanted.start or 0)
            if self.normalizer == "trie":
                edge, closed = self.trie.edges(level, self.nodes[item_index, level, None], None)
                code = self.trie.code(level, edge)[:, 0]
                some = scores.gather(1, code)
                if prior is not None:
                    some = some + prior[level]
                own = some.gather(1, (code == label[:, None]).int().argmax(1, keepdim=True))[:, 0]
                terms.append(some.masked_fill(closed[:, 0], -torch.inf).logsumexp(1) - own)
            else:
                terms.append(F.cross_entropy(scores, label, reduction="none"))
        return torch.stack(terms, 1)


class ItemLoss:
    """Minus the log-probability of the target among all items, by the shopper's vector alone.

    It is the full softmax of SASRec's best form, over vectors that are sums of codes' and of the text's: every
    code learns from every item that has it, and a new item has a vector. Where the decoder starts from the
    head's scores they are there already, see `item_head.PathPrior`; this is for a decoder that does not.

    Args:
        tokens: (N + 1, L) int64 from `model.item_tokens`, where the losses are computed.
        content: (N + 1, D) float32, or None.
        items: (n,) int64 item_index of the items that may be targets.
        bias: (N,) float32, what each item's scores gain.
        num_others: Items drawn at each step, uniformly, to compare with; 0 takes all of them.

    Source: sampled softmax, Jean et al. 2015, section 3.
    """

    def __init__(
        self, tokens: Tensor, content: Tensor | None, items: np.ndarray, bias: Tensor, num_others: int
    ) -> None:
        self.tokens, self.content, self.bias = tokens, content, bias
        self.items = torch.from_numpy(items).to(tokens.device)
        self.num_others = num_others if num_others < len(items) else 0

    def __call__(self, head: ItemHead, queries: Tensor, item_index: Tensor) -> Tensor:
        """(n,) float32 losses of n targets item_index (n,) int64, for shoppers (n, D)."""
        score = (queries * self._vectors(head, item_index)).sum(1) + self.bias[item_index]
        others, shift = self.items, 0.0
        if self.num_others:
            drawn = torch.randint(len(others), (self.num_others,), device=others.device)
            others, shift = others[drawn], math.log(len(self.items) / self.num_others)
        scores = queries @ self._vectors(head, others).T + self.bias[others] + shift
        scores = scores.masked_fill(others == item_index[:, None], -torch.inf)
        return torch.logaddexp(scores.logsumexp(1), score) - score

    def _vectors(self, head: ItemHead, items: Tensor) -> Tensor:
        known = None if self.content is None else head.known(self.content[items], items)
        return head.items(self.tokens[items], known).float()
