"""The codebooks behind a SID table: what each code stands for, as vectors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pressmark import files
from pressmark.sids.table import SidTable


def codebook_fingerprint(codebooks: Sequence[np.ndarray]) -> str:
    """What a SID table and a generator pin: 16 hex digits of the entries themselves."""
    return files.fingerprint(*codebooks)


def write_codebooks(path: str | Path, codebooks: Sequence[np.ndarray]) -> None:
    """Writes `codebooks.safetensors`: float32 (K, d) `level_0`, `level_1`, ...

    Args:
        path: The file.
        codebooks: L effective codebooks; the entries of a SID's codes sum up to what it stands for.
    """
    files.write_tensors(path, {f"level_{level}": book for level, book in enumerate(codebooks)})


def read_codebooks(path: str | Path, table: SidTable) -> list[np.ndarray]:
    """Reads `codebooks.safetensors` and checks that they are those of `table`.

    Returns:
        L arrays (K, d) float32.

    Raises:
        ValueError: If the file is missing, or holds other codebooks than the table's.
    """
    if not Path(path).is_file():
        raise ValueError(f"{path} is missing. Run train_tokenizer first.")
    tensors = files.read_tensors(path)
    codebooks = [tensors[name].numpy() for name in (f"level_{level}" for level in range(len(tensors)))]
    found = codebook_fingerprint(codebooks)
    if found != table.codebook_fingerprint:
        raise ValueError(
            f"{path}: holds codebooks {found}, the SID table is of codebooks {table.codebook_fingerprint}. "
            "Both files must come from one run of train_tokenizer: run it again."
        )
    return codebooks
