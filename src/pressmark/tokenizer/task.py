"""The RQ-VAE's training task: hierarchical batches, loss terms, codebooks that follow, dead codes revived."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from pressmark.catalog.taxonomy import Taxonomy
from pressmark.distributed import broadcast, gather_rows, num_processes, rank
from pressmark.interactions.histories import Histories
from pressmark.tokenizer import agreement, companions, contrastive, quality, sampler
from pressmark.tokenizer.config import Config
from pressmark.tokenizer.pairs import LeafGroups
from pressmark.tokenizer.residual import nearest
from pressmark.tokenizer.rqvae import RQVAE, quantization_loss, reconstruction_loss
from pressmark.tokenizer.running import RunningCodebooks


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
        histories: Training sequences of item_index, for the behaviour term; only pairs of `items` count.
    """

    name = "tokenizer"
    metric = ""

    def __init__(
        self,
        vectors: np.ndarray,
        taxonomy: Taxonomy,
        items: np.ndarray,
        config: Config,
        seed: int,
        histories: Histories | None = None,
    ) -> None:
        self.vectors, self.items = torch.from_numpy(vectors), items
        self.config, self.seed = config, seed
        self.groups = LeafGroups(taxonomy)
        self.together: Histories | None = None
        companion_lists = []
        if config.neighbour_weight:
            shape = config.agreement
            companion_lists.append(
                companions.neighbours(vectors, items, shape.num_neighbours, shape.min_cosine, seed)
            )
        if config.behaviour_weight:
            if histories is None:
                raise ValueError(
                    "tokenizer.behaviour_weight is above 0, but there are no training interactions."
                )
            self.together = companions.bought_together(histories, len(vectors), items)
            companion_lists.append(self.together)
        self.sampler = sampler.HierarchicalSampler(
            taxonomy, items, config.training.batch_size, config.sampler, seed, companion_lists
        )
        self.running = RunningCodebooks(config)
        self._mean_square = torch.ones(())

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
        """The weighted terms, summed over rows; each one's mean to log, and the batch's pairs of each class."""
        config = self.config
        output = model(batch.vectors, self._num_levels(len(batch.items), batch.items.device))
        self.running.observe(bare(model), output)
        self._mean_square = output.mean_square
        by_gradient = float(config.codebooks == "gradient")
        terms = {
            "reconstruction": reconstruction_loss(output),
            "quantization": quantization_loss(output, config.commitment_weight, by_gradient),
        }
        total = terms["reconstruction"] + terms["quantization"]
        counts: dict[str, int] = {}
        items = gather_rows(batch.items)
        if config.contrastive_weight or config.behaviour_weight:
            alike = contrastive.code_similarities(output, config.contrastive)
        if config.contrastive_weight:
            similarity, counts = self._related(items)
            targets, valid = contrastive.pair_targets(similarity, items, config.contrastive.grade_power)
            terms["contrastive"] = contrastive.contrastive_loss(alike, targets, valid, config.contrastive)
            total = total + config.contrastive_weight * terms["contrastive"]
        if self.together is not None:
            met = self._met(items)
            targets, valid = contrastive.pair_targets(met, items, power=0.0)
            terms["behaviour"] = contrastive.contrastive_loss(alike, targets, valid, config.contrastive)
            total = total + config.behaviour_weight * terms["behaviour"]
        if config.neighbour_weight:
            weights = self._close(items)[rank() * len(batch.items) :][: len(batch.items)]
            terms["agreement"] = agreement.agreement_loss(output.distances, weights, config.agreement)
            total = total + terms["agreement"]
        if config.entropy_weight:
            terms["unevenness"] = agreement.unevenness(output.distances, config.agreement)
            total = total + config.entropy_weight * terms["unevenness"]
        log = {name: term.detach().mean() for name, term in terms.items()}
        return total.sum(), log | {f"pairs/{name}": torch.tensor(float(n)) for name, n in counts.items()}

    def _num_levels(self, num_rows: int, device: torch.device) -> Tensor | None:
        """How many codes the decoder sees of each row: all, but for the share that is masked."""
        if not self.config.masking:
            return None
        most = len(self.config.level_sizes)
        drawn = torch.randint(1, most + 1, (num_rows,), device=device)
        return torch.where(torch.rand(num_rows, device=device) < self.config.masking, drawn, most)

    def _related(self, items: Tensor) -> tuple[Tensor, dict[str, int]]:
        """(B, B) float32 similarity in the tree, NaN where unknown, and the number of pairs of each class."""
        pairs = self.groups.pairs(items.cpu().numpy())
        group = torch.from_numpy(pairs.group).to(items.device)
        return torch.from_numpy(pairs.similarity).to(items.device)[group][:, group], pairs.counts()

    def _close(self, items: Tensor) -> Tensor:
        """(B, B) float32 weights of the agreement loss; an anchor's sum to neighbour_weight at most.

        However many twins a product has, and some have hundreds, they pull no harder than one: else the codes
        of a catalog full of variants would all run together.
        """
        units = nn.functional.normalize(self.vectors[items.cpu()].to(items.device), dim=1)
        weights = agreement.content_weights(units, self.config.agreement)
        weights.masked_fill_(items[:, None] == items[None, :], 0.0)
        return self.config.neighbour_weight * weights / weights.sum(dim=1, keepdim=True).clamp_min(1.0)

    def _met(self, items: Tensor) -> Tensor:
        """(B, B) float32: 1 for items that stood side by side in a training history, else 0."""
        assert self.together is not None
        return (
            torch.from_numpy(companions.pair_matrix(self.together, items.cpu().numpy()))
            .to(items.device)
            .float()
        )

    def after_step(self, model: nn.Module, step: int) -> None:
        """Moves codebooks to their running means, keeps the encoder's scale and revives dead codes.

        The same on every process.
        """
        assert isinstance(model, RQVAE)
        self.running.update(model)
        # A little of the way, as a batch is only a sample: validation looks at the encoder at rest.
        model.rescale((1.0 + 0.05 * (self._mean_square - 1.0)).rsqrt())
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


def bare(model: nn.Module) -> RQVAE:
    """The RQ-VAE inside a wrapper for several processes."""
    inner = getattr(model, "module", model)
    assert isinstance(inner, RQVAE)
    return inner


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
