"""The seam of every quantizer: content vectors in, one code a level out, and back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from pressmark.tokenizer.residual import dequantize, quantize

# Rows of one matrix product. Every chunk is padded to it, so that a row meets the same arithmetic in
# whatever batch it comes: an item's codes must not depend on its company.
CHUNK = 2048
MIN_STD = 1e-6


@runtime_checkable
class Quantizer(Protocol):
    """Anything that turns vectors into codes, coarse to fine.

    Attributes:
        input_dim: D, width of the vectors.
        level_sizes: Codes a level, one number for each of the L levels.
    """

    input_dim: int
    level_sizes: tuple[int, ...]

    def latents(self, vectors: np.ndarray) -> np.ndarray:
        """What the codebooks quantize: (N, D) float32 -> (N, d) float32.

        Raises:
            ValueError: If the vectors have another width than D, or one is not finite.
        """
        ...

    def codebooks(self) -> list[np.ndarray]:
        """The effective codebooks: one (K, d) float32 a level; a SID stands for the sum of its entries."""
        ...

    def encode(self, vectors: np.ndarray) -> np.ndarray:
        """Nearest codes: (N, D) float32 -> (N, L) int64. The same for any split into batches.

        Raises:
            ValueError: As `latents`.
        """
        ...

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """What the codes say of the vectors: (N, L) int64 -> (N, D) float32, in the vectors' own units.

        Raises:
            ValueError: If a code is outside its level.
        """
        ...

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> Any:
        """Writes config.json and model.safetensors."""
        ...


def check_vectors(vectors: np.ndarray, input_dim: int) -> None:
    """Raises ValueError for vectors that cannot be encoded; names the first bad row."""
    if vectors.ndim != 2 or vectors.shape[1] != input_dim:
        raise ValueError(
            f"vectors have shape {vectors.shape}; this tokenizer reads (items, {input_dim}). "
            "It was trained on other text vectors: embed with the same model, or train it again."
        )
    for start in range(0, len(vectors), 65_536):
        bad = ~np.isfinite(vectors[start : start + 65_536]).all(axis=1)
        if bad.any():
            row = start + int(bad.argmax())
            raise ValueError(
                f"the vector of item_index {row} holds NaN or an infinite value. Embed this item again."
            )


def check_codes(codes: np.ndarray, level_sizes: Sequence[int]) -> None:
    """Raises ValueError for codes outside their level."""
    if codes.ndim != 2 or codes.shape[1] != len(level_sizes):
        raise ValueError(f"codes have shape {codes.shape}; this tokenizer has {len(level_sizes)} levels.")
    bad = (codes < 0) | (codes >= np.asarray(level_sizes))
    if bad.any():
        row, level = np.argwhere(bad)[0]
        raise ValueError(
            f"code {codes[row, level]} of row {row} at level {level} is outside 0 to {level_sizes[level] - 1}."
        )


def prefix_number(codes: np.ndarray) -> np.ndarray:
    """(N, l) int64 codes -> (N,) int64: the same number, from 0 without gaps, for the same row of codes.

    >>> prefix_number(np.array([[3, 1], [0, 9], [3, 1], [3, 2]])).tolist()
    [1, 0, 1, 2]
    """
    number = np.zeros(len(codes), np.int64)
    for level in range(codes.shape[1]):  # one column at a time: sorting whole rows is far slower
        size = int(codes[:, level].max(initial=0)) + 1
        number = np.unique(number * size + codes[:, level], return_inverse=True)[1].ravel()
    return number


def by_chunks(
    rows: np.ndarray, out: np.ndarray, device: torch.device, function: Callable[[Tensor], Tensor]
) -> np.ndarray:
    """Fills `out` with `function` of `rows`, CHUNK rows at a time, the last chunk filled up with zeros.

    A row's result is then the same to the last bit however many rows come with it.

    Args:
        rows: (N, ...) to work on.
        out: (N, ...) for the results.
        device: Where `function` runs.
        function: (CHUNK, ...) -> (CHUNK, ...).

    Returns:
        `out`.
    """
    for start in range(0, len(rows), CHUNK):
        chunk = torch.from_numpy(np.array(rows[start : start + CHUNK]))
        padded = torch.zeros(CHUNK, *chunk.shape[1:], dtype=chunk.dtype)
        padded[: len(chunk)] = chunk
        out[start : start + len(chunk)] = function(padded.to(device))[: len(chunk)].cpu().numpy()
    return out


def quantize_rows(latents: np.ndarray, codebooks: Sequence[np.ndarray]) -> np.ndarray:
    """`residual.quantize` on the CPU for numpy arrays of any length: (N, d) float32 -> (N, L) int64."""
    books = [torch.from_numpy(book) for book in codebooks]
    codes = np.empty((len(latents), len(books)), np.int64)
    return by_chunks(latents, codes, torch.device("cpu"), lambda chunk: quantize(chunk, books))


def dequantize_rows(codes: np.ndarray, codebooks: Sequence[np.ndarray]) -> np.ndarray:
    """`residual.dequantize` for numpy arrays: (N, L) int64 -> (N, d) float32."""
    return dequantize(torch.from_numpy(codes), [torch.from_numpy(book) for book in codebooks]).numpy()


def standardisation(vectors: np.ndarray, scaling: str) -> tuple[np.ndarray, np.ndarray]:
    """Mean and scale of each dimension.

    Args:
        vectors: (N, D) float32 of the items that the quantizer is fitted on.
        scaling: "shared" divides all dimensions by one number, which keeps cosines and the order of
            distances; "each" gives every dimension unit variance.

    Returns:
        mean: (D,) float32.
        scale: (D,) float32, above 0. A dimension whose standard deviation is below 1e-6 is dead: MiniLM
            has three. Dividing by it would blow rounding noise up, so its scale is 1.
    """
    mean = vectors.mean(axis=0, dtype=np.float64)
    variance = vectors.var(axis=0, dtype=np.float64)
    std = np.sqrt(np.full_like(variance, variance.mean()) if scaling == "shared" else variance)
    return mean.astype(np.float32), np.where(std < MIN_STD, 1.0, std).astype(np.float32)
