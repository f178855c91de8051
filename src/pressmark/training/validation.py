"""How well a recommender in training does on its validation cases, asked by all processes together."""

from __future__ import annotations

import numpy as np
import torch

from pressmark import distributed, metrics
from pressmark.interactions.cases import Cases
from pressmark.recommender import Recommender, Requests


def validated(
    model: Recommender, cases: Cases, device: torch.device, mask_history: bool = True
) -> dict[str, float]:
    """Item-level NDCG and recall at 10; each process asks its share of the cases.

    Args:
        model: The same on every process.
        cases: All of them, on every process.
        device: Where the processes exchange their sums.
        mask_history: As in `Requests`.

    Returns:
        "ndcg_at_10" and "recall_at_10", the same on every process; nothing where there are no cases.
    """
    share = cases.take(np.arange(distributed.rank(), len(cases), distributed.num_processes()))
    requests = Requests(share.histories, mask_history=mask_history, context=share.context)
    answer = model.recommend(requests, 10)
    rank = metrics.rank_of_target(answer.item_index, share.target)
    sums = [metrics.ndcg_at_k(rank, 10).sum(), metrics.recall_at_k(rank, 10).sum(), len(share)]
    ndcg, recall, num = distributed.all_reduce_sum(
        torch.tensor(sums, dtype=torch.float64, device=device)
    ).tolist()
    return {"ndcg_at_10": ndcg / num, "recall_at_10": recall / num} if num else {}
