"""The seam of every quantizer: content vectors in, one code a level out, and back."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from pressmark.tokenizer.residual import dequantize, quantize

# Rows of one matrix product. The last chunk is filled up to it, so that a row meets the same arithmetic in
# whatever batch it comes: an item's codes must not depend on its company. 1,024 rows keep the intermediate
# results in the cache and the products long.
CHUNK = 1024
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
        """Nearest codes: (N, D) float32 -> (N, L) int64. The same for any split into batches or threads.

        A memory-mapped array is read a chunk at a time; memory beyond it does not grow but for the codes.

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
    check_width(vectors, input_dim)
    for start in range(0, len(vectors), CHUNK):
        check_finite(vectors[start : start + CHUNK], start)


def check_width(vectors: np.ndarray, input_dim: int) -> None:
    """Raises ValueError for vectors of another width."""
    if vectors.ndim != 2 or vectors.shape[1] != input_dim:
        raise ValueError(
            f"vectors have shape {vectors.shape}; this tokenizer reads (items, {input_dim}). "
            "It was trained on other text vectors: embed with the same model, or train it again."
        )


def check_finite(rows: np.ndarray, start: int) -> None:
    """Raises ValueError if one of (n, D) rows is not finite; `start` is the item_index of the first."""
    with np.errstate(over="ignore", invalid="ignore"):
        if math.isfinite(rows.sum()):  # one pass without a temporary; a sum that overflows is looked at closely
            return
    bad = ~np.isfinite(rows).all(axis=1)
    if bad.any():
        raise ValueError(
            f"the vector of item_index {start + int(bad.argmax())} holds NaN or an infinite value. "
            "Embed this item again."
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
    """Fills `out` with `function` of `rows`, CHUNK rows at a time.

    A row's result is the same to the last bit however many rows come with it, and for any number of threads:
    each thread takes chunks of its own, and no product is split.

    Args:
        rows: (N, w) float or int, also memory-mapped. Copied as float32 or int64.
        out: (N, ...) for the results.
        device: Where `function` runs.
        function: (CHUNK, w) -> (CHUNK, ...), row by row. It may overwrite its argument.

    Returns:
        `out`.

    Raises:
        ValueError: If a row is not finite; names the first.
    """
    num_chunks = -(-len(rows) // CHUNK)
    num_threads = torch.get_num_threads()
    num_workers = max(1, min(num_threads if device.type == "cpu" else 1, num_chunks))
    # Runs of whole chunks, in order: the first error raised is then that of the first bad row.
    bounds = [CHUNK * (num_chunks * worker // num_workers) for worker in range(num_workers + 1)]
    torch.set_num_threads(1)  # also of threads that start from here on
    try:
        if num_workers == 1:
            _fill(rows, out, device, function, 0, len(rows))
        else:
            with ThreadPoolExecutor(num_workers) as pool:
                for done in [
                    pool.submit(_fill, rows, out, device, function, start, min(stop, len(rows)))
                    for start, stop in pairwise(bounds)
                ]:
                    done.result()
    finally:
        torch.set_num_threads(num_threads)
    return out


@torch.no_grad()
def _fill(
    rows: np.ndarray,
    out: np.ndarray,
    device: torch.device,
    function: Callable[[Tensor], Tensor],
    first: int,
    last: int,
) -> None:
    """`by_chunks` for rows `first` to `last` - 1 in this thread, always from the same piece of memory."""
    dtype, width = torch.float32 if rows.dtype.kind == "f" else torch.int64, rows.shape[1]
    # Rows at multiples of 64 bytes: MKL sums a row elsewhere in another order on some CPUs.
    chunk = torch.zeros(CHUNK, width + -width % 16, dtype=dtype)[:, :width]
    for start in range(first, last, CHUNK):
        count = min(CHUNK, last - start)
        held = chunk.numpy()[:count]
        held[...] = rows[start : start + count]
        check_finite(held, start)
        out[start : start + count] = function(chunk.to(device))[:count].cpu().numpy()


def quantize_rows(latents: np.ndarray, codebooks: Sequence[np.ndarray]) -> np.ndarray:
    """`residual.quantize` on the CPU for numpy arrays of any length: (N, d) float32 -> (N, L) int64."""
    books = [torch.from_numpy(book) for book in codebooks]
    codes = np.empty((len(latents), len(books)), np.int64)
    return by_chunks(latents, codes, torch.device("cpu"), lambda chunk: quantize(chunk, books))


def dequantize_rows(codes: np.ndarray, codebooks: Sequence[np.ndarray]) -> np.ndarray:
    """`residual.dequantize` for numpy arrays: (N, L) int64 -> (N, d) float32."""
    return dequantize(torch.from_numpy(codes), [torch.from_numpy(book) for book in codebooks]).numpy()


def fit_standardisation(mean: Tensor, scale: Tensor, vectors: np.ndarray, scaling: str) -> None:
    """Checks (N, D) vectors and fills a quantizer's (D,) `mean` and `scale` with their `standardisation`.

    Raises:
        ValueError: If the vectors have another width, or one is not finite.
    """
    check_vectors(vectors, len(mean))
    for own, found in zip((mean, scale), standardisation(vectors, scaling), strict=True):
        own.copy_(torch.from_numpy(found))


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
    # A chunk at a time: numpy would make a float64 copy of all vectors.
    chunks = [slice(start, start + 65_536) for start in range(0, len(vectors), 65_536)]
    mean = sum(vectors[chunk].sum(axis=0, dtype=np.float64) for chunk in chunks) / len(vectors)
    variance = sum(np.square(vectors[chunk] - mean).sum(axis=0) for chunk in chunks) / len(vectors)
    std = np.sqrt(np.full_like(variance, variance.mean()) if scaling == "shared" else variance)
    return mean.astype(np.float32), np.where(std < MIN_STD, 1.0, std).astype(np.float32)
