"""Small random catalogs, tries and models for the generator's tests."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import T5ForConditionalGeneration

from pressmark.generator.causal_t5 import CausalT5
from pressmark.generator.config import HistoryInput, ModelConfig
from pressmark.generator.model import ItemFacts, build_model, encoder_arguments, history_tokens, item_tokens
from pressmark.sids.table import SidTable
from pressmark.sids.vocabulary import Vocabulary

TINY = ModelConfig(
    num_layers=2,
    num_heads=2,
    d_kv=4,
    d_model=16,
    d_ff=24,
    dropout=0.1,
    history_input="tokens",
    normalizer="full",
)


def random_table(
    seed: int, num_items: int, level_sizes: tuple[int, ...], skew: float = 1.0, shared: bool = False
) -> SidTable:
    """Random SIDs; `skew` above 1 crowds low codes, `shared` allows items of one SID."""
    rng = np.random.default_rng(seed)
    sids = np.stack([(size * rng.random(num_items) ** skew).astype(np.int64) for size in level_sizes], 1)
    if not shared:
        sids = rng.permutation(np.unique(sids, axis=0))
    return SidTable(sids, level_sizes, "books")


def random_model(
    seed: int,
    table: SidTable,
    config: ModelConfig = TINY,
    history_length: int = 6,
    vectors: np.ndarray | None = None,
) -> T5ForConditionalGeneration:
    """A model with random weights, in evaluation mode, whose scores are far from flat."""
    torch.manual_seed(seed)
    model = build_model(config, table, history_length, vectors=vectors)
    for norm in (model.encoder.final_layer_norm, model.decoder.final_layer_norm):
        norm.weight.data.uniform_(1.0, 3.0)
    if isinstance(model, CausalT5):
        # Fresh, they are near 0 and would hide what they do.
        model.recency.weight.data.normal_()
        model.item_head.codes.weight.data.normal_(std=0.3)
        model.item_head.query.weight.data.normal_(std=0.1)
        if model.item_head.identity is not None:
            model.item_head.identity.weight.data.normal_(std=0.4)
    return model.eval()


@dataclass(frozen=True)
class Encoded:
    """Histories as encoder input."""

    input_ids: Tensor
    attention_mask: Tensor
    vectors: Tensor | None = None


def encode_lists(
    table: SidTable,
    histories: list[list[int]],
    history_input: HistoryInput = "tokens",
    vectors: Tensor | None = None,
) -> Encoded:
    """Spells lists of item_index; `vectors` (N, D) are those of the items."""
    width = max(len(one) for one in histories)
    items = torch.tensor([one + [-1] * (width - len(one)) for one in histories], dtype=torch.int64)
    items = items.reshape(len(histories), width)
    lengths = torch.tensor([len(one) for one in histories])
    if vectors is not None:
        vectors = F.pad(F.pad(vectors, (0, 0, 0, 1))[items], (0, 0, 1, 0))
    size = Vocabulary(table.level_sizes).size
    return Encoded(*history_tokens(item_tokens(table), items, lengths, history_input, size), vectors)


@torch.no_grad()
def exhaustive_scores(
    model: T5ForConditionalGeneration,
    encoded: Encoded,
    labels: Tensor,
    rivals: Tensor | None = None,
    prior: Tensor | None = None,
) -> Tensor:
    """(B, n) sums of log-probabilities of every label row by plain teacher forcing through HF.

    With `rivals` (n or 1, L, V) bool each code's probability is relative to those of them; `prior`
    (B, n, L, V) is added to the logits.
    """
    scores = []
    for row in range(len(encoded.input_ids)):
        vectors = None if encoded.vectors is None else encoded.vectors[row : row + 1]
        arguments = encoder_arguments(model, encoded.input_ids[row : row + 1], vectors)
        states = model.encoder(**arguments, attention_mask=encoded.attention_mask[row : row + 1])
        states.last_hidden_state = states.last_hidden_state.expand(len(labels), -1, -1)
        mask = encoded.attention_mask[row : row + 1].expand(len(labels), -1)
        logits = model(encoder_outputs=states, attention_mask=mask, labels=labels).logits
        if prior is not None:
            logits = logits + F.pad(prior[row], (0, logits.shape[2] - prior.shape[3]))
        if rivals is not None:
            outside = ~F.pad(rivals, (0, logits.shape[2] - rivals.shape[2]))
            logits = logits.masked_fill(outside, -torch.inf)
        scores.append(logits.log_softmax(-1).gather(2, labels[..., None])[..., 0].sum(1))
    return torch.stack(scores)


def level_rivals(table: SidTable) -> Tensor:
    """(1, L, V) bool: the codes of each level."""
    vocabulary = Vocabulary(table.level_sizes)
    token = torch.arange(vocabulary.size)
    starts = torch.from_numpy(vocabulary.offsets)[:, None]
    return ((token >= starts) & (token < starts + torch.tensor(table.level_sizes)[:, None]))[None]


def trie_rivals(labels: Tensor, tokens: Tensor, size: int) -> Tensor:
    """(n, L, V) bool: what follows, among SIDs `tokens` (N, L), each beginning of `labels` (n, L)."""
    rivals = torch.zeros((*labels.shape, size), dtype=torch.bool)
    for row, label in enumerate(labels):
        for level in range(labels.shape[1]):
            rivals[row, level, tokens[(tokens[:, :level] == label[:level]).all(1), level]] = True
    return rivals


def code_priors(scores: Tensor, tokens: Tensor, labels: Tensor, size: int) -> Tensor:
    """(B, n, L, V) log of the mass that scores (B, N) give to what follows each beginning of `labels`."""
    mass = torch.zeros((len(scores), *labels.shape, size))
    for row, label in enumerate(labels):
        for level in range(labels.shape[1]):
            same = (tokens[:, :level] == label[:level]).all(1)
            mass[:, row, level].index_add_(1, tokens[same, level], scores[:, same].exp())
    return mass.clamp_min(1e-30).log()


def facts_of(
    model: T5ForConditionalGeneration, vectors: np.ndarray, count: np.ndarray | None = None
) -> ItemFacts:
    """Facts of items with these vectors, bought so often; now and then unless told."""
    assert isinstance(model, CausalT5)
    count = np.arange(len(vectors)) % 7 if count is None else count
    return ItemFacts.of(model.item_head.content(vectors), count)
