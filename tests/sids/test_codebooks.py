from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pressmark.sids.codebooks import codebook_fingerprint, read_codebooks, write_codebooks
from pressmark.sids.table import SidTable


def books(num_levels: int = 12) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.normal(size=(2 + level, 3)).astype(np.float32) for level in range(num_levels)]


def table_of(codebooks: list[np.ndarray]) -> SidTable:
    sizes = tuple(len(book) for book in codebooks)
    return SidTable(np.zeros((1, len(sizes)), np.int64), sizes, codebook_fingerprint(codebooks))


def test_they_come_back_in_the_order_of_levels(tmp_path: Path) -> None:
    path = tmp_path / "codebooks.safetensors"
    write_codebooks(path, books())
    found = read_codebooks(path, table_of(books()))
    assert all((one == other).all() for one, other in zip(found, books(), strict=True))
    assert [book.dtype for book in found] == [np.float32] * 12


def test_other_codebooks_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "codebooks.safetensors"
    others = books()
    others[3][0, 0] += 1e-6
    write_codebooks(path, others)
    with pytest.raises(ValueError, match=r"codebooks\.safetensors: holds codebooks .* the SID table is of"):
        read_codebooks(path, table_of(books()))


def test_a_missing_file_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is missing"):
        read_codebooks(tmp_path / "codebooks.safetensors", table_of(books()))
