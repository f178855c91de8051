"""The RQ-VAE's training task: hierarchical batches, three loss terms, revival of dead codes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from pressmark.catalog.taxonomy import Taxonomy
from pressmark.distributed import all_reduce_sum, broadcast, gather_rows, num_processes
from pressmark.tokenizer import contrastive, quality, sampler
from pressmark.tokenizer.config import Config
from pressmark.tokenizer.residual import nearest
from pressmark.tokenizer.rqvae import RQVAE, quantization_loss, reconstruction_loss


class Batch(NamedTuple):
    """One process's share: (b,) int64 item_index and (b, D) float32 vectors."""

    items: Tensor
    vectors: Tensor


class RQVAETask:
    """What `training.loop.fit` needs to train an RQ-VAE.

    Args:
        vectors: (N, D) float32 of the whole catalog; only `items` are read.
        taxonomy: The tree of the same N items.
        items: (n,) int64, the items to train on.
        config: The tokenizer's.
        seed: Of batches and revivals.
    """

    name = "tokenizer"
    metric = ""

    def __init__(
        self, vectors: np.ndarray, taxonomy: Taxonomy, items: np.ndarray, config: Config, seed: int
    ) -> None:
        self.vectors, self.taxonomy, self.items = torch.from_numpy(vectors), taxonomy, items
        self.config, self.seed = config, seed
        self.sampler = sampler.HierarchicalSampler(
            taxonomy, items, config.training.batch_size, config.sampler, seed
        )
        self._counts = [torch.zeros(size) for size in config.level_sizes]
        self._rows = 0

    def plan(self, epoch: int) -> list[np.ndarray]:
        """Hierarchical batches, with equal shares for every process."""
        return sampler.equal_shares(self.sampler.plan(epoch), num_processes())

    def collate(self, samples: np.ndarray, device: torch.device) -> Batch:
        """Looks the vectors up."""
        items = torch.from_numpy(samples)
        return Batch(items.to(device), self.vectors[items].to(device))

    def weight(self, batch: Batch) -> float:
        """Rows."""
        return len(batch.items)

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The three terms, summed over rows; each one's mean to log."""
        output = model(batch.vectors)
        self._count(output.codes)
        terms = {
            "reconstruction": reconstruction_loss(output),
            "quantization": quantization_loss(output, self.config.commitment_weight),
        }
        total = terms["reconstruction"] + terms["quantization"]
        if self.config.contrastive_weight:
            items = gather_rows(batch.items)
            targets, valid = contrastive.pair_targets(batch_similarity(self.taxonomy, items), items)
            terms["contrastive"] = contrastive.contrastive_loss(
                output.residuals, output.quantized, targets, valid, self.config.contrastive
            )
            total = total + self.config.contrastive_weight * terms["contrastive"]
        return total.sum(), {name: term.detach().mean() for name, term in terms.items()}

    def _count(self, codes: Tensor) -> None:
        """Adds a micro-batch's codes to the step's counts."""
        self._rows += len(codes)
        for level, size in enumerate(self.config.level_sizes):
            self._counts[level] = self._counts[level].to(codes.device) + torch.bincount(
                codes[:, level], minlength=size
            )

    def after_step(self, model: nn.Module, step: int) -> None:
        """Updates the codes' running usage and revives dead ones; the same on every process."""
        assert isinstance(model, RQVAE)
        counts = all_reduce_sum(torch.cat([*self._counts, self._counts[0].new_tensor([self._rows])]))
        num_rows = float(counts[-1])
        for level, count in enumerate(counts[:-1].split(list(self.config.level_sizes))):
            # Wide enough a window that an even share is about 40 rows: a code is not dead by chance.
            momentum = min(0.05, num_rows / (40 * len(count)))
            model.usage(level).lerp_(count / num_rows, momentum)
            self._counts[level] = torch.zeros_like(count)
        self._rows = 0
        if self.config.revive_below and step % self.config.revive_every == 0:
            revive(model, self.vectors, self.items, self.config.revive_below, (self.seed, step))

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Use of the codes, collisions and reconstruction over (at most 20,000 of) the training items."""
        assert isinstance(model, RQVAE)
        rows = self.items[:: max(1, len(self.items) // 20_000)]
        vectors = self.vectors[rows].numpy()
        codes = model.encode(vectors)
        return {
            "reconstruction_r2": quality.reconstruction_r2(vectors, model.decode(codes)),
            **{
                name: value
                for name, value in quality.code_use(codes, model.level_sizes).items()
                if name.startswith("perplexity")
            },
            "items_sharing_a_sid": quality.shared_sids(codes)["items_sharing_a_sid"],
        }


def batch_similarity(taxonomy: Taxonomy, items: Tensor) -> Tensor:
    """`Taxonomy.pairwise_similarity` of (B,) int64 items: (B, B) float32, NaN where unknown.

    Looked up once for each different set of leaves, of which a batch has far fewer than items.
    """
    leaves = taxonomy.item_leaf[items.cpu().numpy()]
    _, first, which = np.unique(leaves, axis=0, return_index=True, return_inverse=True)
    table = torch.from_numpy(taxonomy.pairwise_similarity(items.cpu().numpy()[first])).to(items.device)
    where = torch.from_numpy(which.ravel()).to(items.device)
    return table[where][:, where]


@torch.no_grad()
def revive(model: RQVAE, vectors: Tensor, items: np.ndarray, below: float, seed: tuple[int, int]) -> int:
    """Moves unused entries, in place, to the residuals of random training items.

    The draw depends on `seed` = (seed, step) alone and every process holds all vectors, so processes agree;
    rank 0's entries are sent round all the same, since a last bit may differ between machines.

    Returns:
        How many entries moved.
    """
    dead = [
        (model.usage(level) * len(book) < below).nonzero().squeeze(1) for level, book in enumerate(model.books)
    ]
    num_dead = max(map(len, dead))
    if num_dead == 0:
        return 0
    draw = np.random.default_rng(seed).choice(items, min(len(items), num_dead), replace=False)
    residual = model.encoder((vectors[draw].to(model.device) - model.mean) / model.scale)
    for level, book in enumerate(model.books):
        number = dead[level][: len(residual)]
        revived = broadcast(residual[: len(number)])
        residual = residual - book[nearest(residual, book)]
        book[number] = revived
        # An even share to start with: the entry has one window's time to find its items.
        model.usage(level)[number] = 1.0 / len(book)
    return sum(map(len, dead))
