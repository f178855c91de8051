from __future__ import annotations

import numpy as np
import pytest
import torch

from pressmark.generator.new_rows import axes_for, drawn_rows, rows_of_codebooks

KNOWN = 3.0 + 0.2 * torch.randn(500, 16, generator=torch.Generator().manual_seed(0))


def books(width: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [5 + (level + 1) * rng.normal(size=(40, width)).astype(np.float32) for level in range(2)]


@pytest.mark.parametrize("width", [6, 16])
def test_distances_of_codes_are_those_of_their_entries(width: int) -> None:
    torch.manual_seed(0)
    rows = rows_of_codebooks(KNOWN, books(width), axes_for(books(width), 16))
    for level, book in enumerate(books(width)):
        own = rows[40 * level : 40 * (level + 1)]
        ratio = torch.pdist(own) / torch.pdist(torch.from_numpy(book))
        torch.testing.assert_close(ratio, ratio.mean().expand_as(ratio), rtol=1e-3, atol=0)


@pytest.mark.parametrize("width", [6, 16, 40])
def test_rows_have_the_mean_and_scale_of_those_that_are_there(width: int) -> None:
    torch.manual_seed(0)
    found = rows_of_codebooks(KNOWN, books(width), axes_for(books(width), 16))
    assert found.shape == (80, 16)
    for rows in (found[:40], found[40:], drawn_rows(KNOWN, 400)):
        spread = (rows - KNOWN.mean(0)).square().mean().sqrt()
        assert float(spread) == pytest.approx(0.2, rel=0.1)
        torch.testing.assert_close(rows.mean(0), KNOWN.mean(0), atol=0.05, rtol=0)


def test_wider_entries_keep_their_principal_axes() -> None:
    rng = np.random.default_rng(0)
    book = (rng.normal(size=(40, 4)) @ rng.normal(size=(4, 30))).astype(np.float32)
    torch.manual_seed(0)
    rows = rows_of_codebooks(KNOWN, [book], axes_for([book], 16))
    ratio = torch.pdist(rows) / torch.pdist(torch.from_numpy(book))
    torch.testing.assert_close(ratio, ratio.mean().expand_as(ratio), rtol=1e-3, atol=0)


def test_a_level_whose_entries_are_alike_is_drawn() -> None:
    torch.manual_seed(0)
    alike = [books(6)[0], np.ones((9, 6), np.float32)]
    rows = rows_of_codebooks(KNOWN, alike, axes_for(alike, 16))[40:]
    assert torch.pdist(rows).min() > 0
