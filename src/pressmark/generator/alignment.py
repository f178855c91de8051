"""Alignment: a product's text to its SID and back, trained beside the recommendation task.

What a backbone knows of words then reaches the sid_tokens, and through them products that nobody has bought.
Source: LC-Rec (Zheng et al. 2024), section 3.3; PLUM (He et al. 2025) mixes both directions in as well.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pressmark.generator.config import AlignmentConfig
from pressmark.generator.prompts import CONTENT, NOTHING, SPELLED, Prompts

TO_SID, TO_CONTENT = 0, 1


@dataclass(frozen=True)
class Mixed:
    """Numbers of a batch's samples, taken apart.

    A batch is one array of sample numbers: those of the recommendation task below `num_samples`, then for each
    alignment task a product's number above them.

    Attributes:
        samples: Of the recommendation task.
        to_sid, to_content: item_index of the products of each alignment task.
    """

    samples: np.ndarray
    to_sid: np.ndarray
    to_content: np.ndarray

    @classmethod
    def of(cls, numbers: np.ndarray, num_samples: int, num_items: int) -> Mixed:
        """Takes sample numbers (n,) int64 apart."""
        above = numbers - num_samples
        kind, item = above // num_items, above % num_items
        return cls(numbers[above < 0], *(item[kind == one] for one in (TO_SID, TO_CONTENT)))


def mixed_in(
    batches: list[np.ndarray],
    config: AlignmentConfig,
    items: np.ndarray,
    num_samples: int,
    num_items: int,
    seed: list[int],
) -> list[np.ndarray]:
    """Batches with products drawn for each alignment task behind their samples; a function of the arguments.

    Args:
        batches: Sample numbers of the recommendation task.
        config: Which tasks, and how much of them.
        items: (n,) int64 item_index of the products that may take part.
        num_samples: Numbers below belong to the recommendation task.
        num_items: N.
        seed: Of the draws.
    """
    rng = np.random.default_rng(seed)
    found = []
    for batch in batches:
        num = max(1, round(config.share * len(batch)))
        drawn = [num_samples + kind * num_items + rng.choice(items, num) for kind in config.kinds]
        found.append(np.concatenate([batch, *drawn]))
    return found


def content_prompts(prompts: Prompts, texts: Tensor) -> tuple[Tensor, Tensor]:
    """Prompts (n, S) and masks that ask for the SIDs of texts (n, T), `NOTHING` behind a text."""
    return prompts.phrased(CONTENT, texts, texts)


def sid_prompts(prompts: Prompts, tokens: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
    """Prompts (n, S) and masks that ask for the texts of items (n,), by their sid_tokens (N + 1, L)."""
    return prompts.phrased(SPELLED, items, prompts.spelled(tokens, items))


def text_labels(texts: Tensor, eos: int) -> Tensor:
    """(n, T + 1) int64 what a decoder has to tell: the text and EOS, `NOTHING` behind."""
    labels = F.pad(texts, (0, 1), value=NOTHING)
    length = (texts != NOTHING).sum(1)
    labels[torch.arange(len(texts)), length] = eos
    return labels


def text_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """(n, T, V) logits and (n, T) labels -> (n,) float32 mean losses a token, `NOTHING` left out."""
    terms = F.cross_entropy(
        logits.float().flatten(0, 1), labels.flatten(), ignore_index=NOTHING, reduction="none"
    )
    told = labels != NOTHING
    return terms.view(labels.shape).sum(1) / told.sum(1).clamp_min(1)
