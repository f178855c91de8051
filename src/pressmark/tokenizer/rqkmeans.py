"""RQ-KMeans: residual k-means straight on the content vectors, with nothing else to learn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from pressmark.tokenizer.given import fitted_codebooks
from pressmark.tokenizer.kmeans import residual_kmeans, sample_rows
from pressmark.tokenizer.quantizer import by_chunks, check_codes, check_width, fit_standardisation
from pressmark.tokenizer.residual import dequantize, quantize


class RQKMeansConfig(PreTrainedConfig):
    """Shape of an `RQKMeans`.

    Args:
        input_dim: Width of the content vectors.
        level_sizes: Codes a level, coarse to fine.
    """

    model_type = "pressmark_rqkmeans"

    def __init__(
        self, input_dim: int = 384, level_sizes: Sequence[int] = (256, 256, 256, 256), **kwargs: Any
    ) -> None:
        self.input_dim = input_dim
        self.level_sizes = list(level_sizes)
        super().__init__(**kwargs)


class RQKMeans(PreTrainedModel):
    """Residual k-means, a `Quantizer`: level l holds the k-means centres of what the levels before it left.

    Source: the RK-Means variant of TIGER-like tokenizers (GRID, Ju et al. 2025; OneRec, Deng et al. 2025,
    section 2). No training loop; every level is a k-means of its own.
    """

    config_class = RQKMeansConfig
    main_input_name = "vectors"
    mean: Tensor
    scale: Tensor

    def __init__(self, config: RQKMeansConfig) -> None:
        super().__init__(config)
        self.input_dim = config.input_dim
        self.level_sizes = tuple(config.level_sizes)
        self.books = nn.ParameterList(
            nn.Parameter(torch.zeros(size, config.input_dim), requires_grad=False)
            for size in config.level_sizes
        )
        self.register_buffer("mean", torch.zeros(config.input_dim))
        self.register_buffer("scale", torch.ones(config.input_dim))
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Nothing is initialised at random."""

    @torch.no_grad()
    def fit(
        self,
        vectors: np.ndarray,
        scaling: str,
        seed: int,
        iterations: int = 20,
        balance: Sequence[float] = (0.0,),
    ) -> None:
        """Fits mean, scale and codebooks to (N, D) float32 vectors; `balance` as for `residual_kmeans`.

        Raises:
            ValueError: If there are fewer vectors than codes in a level, or one is not finite.
        """
        fit_standardisation(self.mean, self.scale, vectors, scaling)
        rows = torch.from_numpy(self.latents(sample_rows(vectors, self.level_sizes, seed))).to(self.device)
        centres = residual_kmeans(rows, self.level_sizes, seed, iterations, balance)
        for book, found in zip(self.books, centres, strict=True):
            book.copy_(found)

    @torch.no_grad()
    def fit_given(self, vectors: np.ndarray, codes: np.ndarray, scaling: str) -> None:
        """Fits mean, scale and codebooks to (N, D) float32 vectors that have (N, L) int64 codes already."""
        fit_standardisation(self.mean, self.scale, vectors, scaling)
        books = fitted_codebooks(self.latents(vectors), codes, self.level_sizes)
        for book, found in zip(self.books, books, strict=True):
            book.copy_(torch.from_numpy(found))

    def latents(self, vectors: np.ndarray) -> np.ndarray:
        """(N, D) float32 -> (N, D) float32, standardised."""
        check_width(vectors, self.input_dim)
        return by_chunks(vectors, np.empty(vectors.shape, np.float32), self.device, self._standardise)

    def _standardise(self, chunk: Tensor) -> Tensor:
        """In place."""
        return chunk.sub_(self.mean).div_(self.scale)

    def codebooks(self) -> list[np.ndarray]:
        """L arrays (K, D) float32, in standardised units."""
        return [book.detach().cpu().numpy().copy() for book in self.books]

    def encode(self, vectors: np.ndarray) -> np.ndarray:
        """(N, D) float32 -> (N, L) int64 nearest codes."""
        check_width(vectors, self.input_dim)
        codes, books = np.empty((len(vectors), len(self.books)), np.int64), list(self.books)
        return by_chunks(vectors, codes, self.device, lambda chunk: quantize(self._standardise(chunk), books))

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """(N, L) int64 -> (N, D) float32 in the units of the input."""
        check_codes(codes, self.level_sizes)
        out, books = np.empty((len(codes), self.input_dim), np.float32), list(self.books)
        return by_chunks(
            codes, out, self.device, lambda chunk: dequantize(chunk, books) * self.scale + self.mean
        )
