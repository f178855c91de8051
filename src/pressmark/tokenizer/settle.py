"""SIDs for new items beside those that are given, and whether the items still fit."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

import numpy as np

from pressmark.catalog.embeddings import read_vectors
from pressmark.catalog.items import Catalog, read_catalog
from pressmark.interactions.split_files import read_split
from pressmark.sids.codebooks import read_codebooks
from pressmark.sids.table import FREED
from pressmark.tokenizer import collisions, drift
from pressmark.tokenizer.appended import Batch
from pressmark.tokenizer.quantizer import Quantizer
from pressmark.tokenizer.state import State
from pressmark.tokenizer.train import drift_reference, reconstruction_errors


def moved(batch: Batch, sids: np.ndarray) -> np.ndarray:
    """(n,) bool: which items' (n, L) SIDs are not their nearest codes; a suffix is no move."""
    return (sids[:, : batch.codes.shape[1]] != batch.codes).any(axis=1)


def settle(new: Catalog, vectors: np.ndarray, quantizer: Quantizer, state: State) -> tuple[Batch, np.ndarray]:
    """Codes new items and gives each a SID that nobody has or had, freed ones apart.

    All are settled by relocation, under `collisions: suffix` too: a suffix level cannot grow, since the
    generator's vocabulary has its size. Where its numbers run out items move to a near cell.

    Args:
        new: n items.
        vectors: (n, D) float32.
        quantizer: Of the run.
        state: Of the run.

    Returns:
        The batch, and its (n, L) int64 SIDs; L counts a suffix level too.

    Raises:
        ValueError: If SIDs run out, or quantizer, codebooks and SIDs are not of one training.
    """
    register = state.register
    books = read_codebooks(state.folder / "codebooks.safetensors", register.table)
    for level, book in enumerate(quantizer.codebooks()):
        if not np.array_equal(book, books[level]):
            raise ValueError(
                f"{state.folder}: model.safetensors has another level {level} than codebooks.safetensors. "
                "Both files must come from one training."
            )
    reserved = register.table.sids[register.status != FREED]
    capacity = math.prod(register.table.level_sizes)
    if len(reserved) + len(new) > capacity:
        raise ValueError(
            f"{len(new)} new items and {len(reserved)} SIDs given need {len(reserved) + len(new)} SIDs; level "
            f"sizes {register.table.level_sizes} make {capacity}. Nothing was written. Train a new run with "
            "larger tokenizer.level_sizes, or free SIDs of removed products (--remove FILE --free)."
        )
    latents, codes = quantizer.latents(vectors), quantizer.encode(vectors)
    errors = reconstruction_errors(vectors, quantizer.decode(codes))
    numbered = np.pad(codes, ((0, 0), (0, len(books) - codes.shape[1])))
    sids = collisions.relocate(latents, numbered, books, reserved).sids
    return Batch(new, vectors, codes, errors), sids


def watch(
    batch: Batch, sids: np.ndarray, quantizer: Quantizer, state: State, limits: drift.Thresholds
) -> dict[str, Any]:
    """Drift of this append and of all appends so far, removed products included: figures, verdict, reasons."""
    reference = _reference(state, quantizer)
    sid_of = dict(zip(state.register.item_id, state.register.table.sids, strict=True))
    batches = [*state.living.batches, batch]
    known = [np.stack([sid_of[name] for name in one.catalog.item_id]) for one in state.living.batches]
    both = zip(batches, [*known, sids], strict=True)
    this = drift.measure(reference, batch.errors, batch.codes, moved(batch, sids))
    total = drift.measure(
        reference,
        np.concatenate([one.errors for one in batches]),
        np.concatenate([one.codes for one in batches]),
        np.concatenate([moved(one, given) for one, given in both]),
    )
    answer, reasons = drift.verdict(reference, this, total, limits)
    return {
        "verdict": answer,
        "reasons": reasons,
        "this_append": this,
        "all_appended": total,
        "compared_with": "held-out items" if len(reference.held_out) else "fitted items",
        "limits": asdict(limits),
    }


def _reference(state: State, quantizer: Quantizer) -> drift.Reference:
    """What training left; made up for where the run was trained before it was kept."""
    path = state.folder / "drift.safetensors"
    if path.is_file():
        return drift.read_reference(path)
    own = read_catalog(state.run / "data" / "items.parquet")
    vectors = read_vectors(state.run)
    codes = quantizer.encode(vectors)
    return drift_reference(quantizer, vectors, codes, read_split(state.run / "data", own).fitted_on)
