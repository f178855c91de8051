"""Codebooks that follow the latents: each entry the running mean of the residuals that choose it.

The optimizer's steps on entries lag behind an encoder that moves; a running mean needs no learning rate. As in
k-means, crowded codes pay for their size while means are taken, so that all codes stay in use; a product is
always coded by its nearest entry.

Source: van den Oord et al. (2017), appendix A.1, for the running mean; `kmeans` for the balance.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pressmark.distributed import all_reduce_sum, num_processes
from pressmark.tokenizer.config import Config
from pressmark.tokenizer.kmeans import TEMPERATURE, at_level
from pressmark.tokenizer.residual import lowest
from pressmark.tokenizer.rqvae import RQVAE, RQVAEOutput

# Rows an even code has seen in the window of the running mean: enough that a code is not dead by chance.
WINDOW = 100
# Of the logarithm of a code's size, in units of the balance in `kmeans`, where a transport finds the prices.
PRICE = 4.0


class RunningCodebooks:
    """Gathers a step's residuals by code, then moves the model's usage, and its entries where they are means.

    Holds nothing from step to step: usage stands in the model, so that a resumed run goes on alike.

    Args:
        config: The tokenizer's; `codebooks` and `balance` are read.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self._counts: list[Tensor] = []
        self._sums: list[Tensor] = []
        self._rows = 0

    @torch.no_grad()
    def observe(self, model: RQVAE, output: RQVAEOutput) -> None:
        """Adds a forward pass."""
        if not self._counts:
            self._counts = [distance.new_zeros(distance.shape[1]) for distance in output.distances]
            self._sums = [torch.zeros_like(book) for book in model.books]
        self._rows += len(output.codes)
        for level, (residual, distance) in enumerate(zip(output.residuals, output.distances, strict=True)):
            code = lowest(distance + self._price(distance, model.usage(level), level))
            self._counts[level] += torch.bincount(code, minlength=distance.shape[1])
            self._sums[level].index_add_(0, code, residual)

    def _price(self, distance: Tensor, usage: Tensor, level: int) -> Tensor:
        strength = at_level(self.config.balance, level)
        if not strength:
            return torch.zeros_like(usage)
        nearest = all_reduce_sum(distance.min(dim=1).values.clamp_min(0).mean()) / num_processes()
        return PRICE * strength * TEMPERATURE * nearest * (usage * len(usage)).clamp_min(0.01).log()

    @torch.no_grad()
    def update(self, model: RQVAE) -> None:
        """Moves usage and entries by what was observed, alike on every process, and forgets it."""
        flat = [*self._counts, *(one.flatten() for one in self._sums)]
        together = all_reduce_sum(torch.cat([*flat, flat[0].new_tensor([float(self._rows)])]))
        num_rows = float(together[-1])
        parts = together[:-1].split([len(one) for one in flat])
        num_levels = len(self._counts)
        for level, (count, total) in enumerate(zip(parts[:num_levels], parts[num_levels:], strict=True)):
            momentum = min(0.1, num_rows / (WINDOW * len(count)))
            usage, share = model.usage(level), count / num_rows
            if self.config.codebooks == "ema":
                book = model.books[level]
                mean = total.view_as(book) / count.clamp_min(1).unsqueeze(1)
                new = momentum * share
                # An entry that nobody chose stays where it is, however little is left of its usage.
                gain = torch.where(new > 0, new / (new + (1 - momentum) * usage), 0.0)
                book.lerp_(mean, gain.unsqueeze(1))
            usage.lerp_(share, momentum)
        self._counts, self._sums, self._rows = [], [], 0
