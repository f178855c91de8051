"""Colours of the doctor's pictures."""

from __future__ import annotations

import numpy as np

from pressmark import drawing
from pressmark.catalog.taxonomy import Taxonomy

# Categories are many: a brown, then four of Tol's colours.
COLOURS = (*drawing.COLOURS, "#8C6D1F", "#882255", "#332288", "#44AA99", "#999933")


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
    return drawing.literal(text)
