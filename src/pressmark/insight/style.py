"""Colours of the doctor's pictures."""

from __future__ import annotations

import numpy as np

from pressmark.catalog.taxonomy import Taxonomy

# Okabe and Ito's colours, which stay apart for colour-blind readers, then four of Tol's.
COLOURS = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D1F"),
    *("#882255", "#332288", "#44AA99", "#999933"),
)
INK, QUIET, GRID, OTHER = "#24292f", "#57606a", "#e3e6ea", "#c3c9d0"


def top_colours(taxonomy: Taxonomy) -> dict[int, str]:
    """Top-level node -> colour, for the commonest among the items' first paths; the same in every picture."""
    top = taxonomy.item_nodes[:, 0, 0]
    counts = np.bincount(top[top >= 0], minlength=taxonomy.num_nodes)
    order = [int(node) for node in np.argsort(-counts, kind="stable") if counts[node]]
    return dict(zip(order, COLOURS, strict=False))


def plain(text: str, width: int = 28) -> str:
    """A user's text for a picture: matplotlib would read $...$ as mathematics; long text is cut.

    >>> plain("Care & $hine", 8)
    'Care &\\u2026'
    """
    text = " ".join(text.split())
    text = text if len(text) <= width else text[: width - 1].rstrip() + "\u2026"
    return text.replace("$", r"\$")
