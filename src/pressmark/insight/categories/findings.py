"""What an audit hands over: products on a doubtful shelf, with the evidence that somebody needs to decide."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from pressmark.files import write_parquet
from pressmark.insight.categories.assemble import Shop
from pressmark.insight.categories.leaves import Leaves
from pressmark.insight.categories.sources import Codes
from pressmark.insight.categories.suspicion import Judgement

NUM_SHOWN = 5
LEAST_OTHERS = 5
"""Other products that a code prefix must have to be evidence."""


@dataclass(frozen=True)
class Finding:
    """A product whose category is doubted.

    Attributes:
        item_index: The product.
        current: Its leaf.
        suggested: Leaves that fit better, the likeliest first.
        suggested_confidence: Probability of each to be right.
        confidence: Probability that `current` is wrong.
        severity: Of standing at `current` instead of the first suggestion, in [0, 1].
        neighbours: item_index of the nearest products by content.
        cosines: Of each.
        plain_prefix: First plain codes, made without labels, that it shares with some others; () without.
        plain_prefix_size: Other products that have them.
        usual: The commonest leaves of those, and the share of each.
        sid: The product's SID of the run, trained on labels, so no evidence; () without a tokenizer or text.
    """

    item_index: int
    current: int
    suggested: tuple[int, ...]
    suggested_confidence: tuple[float, ...]
    confidence: float
    severity: float
    neighbours: tuple[int, ...]
    cosines: tuple[float, ...]
    plain_prefix: tuple[int, ...]
    plain_prefix_size: int
    usual: tuple[tuple[int, float], ...]
    sid: tuple[int, ...]


def findings(
    shop: Shop, leaves: Leaves, judged: Judgement, sids: np.ndarray | None, least: float
) -> list[Finding]:
    """Findings of at least some confidence, the most harmful first, products without text last.

    Args:
        shop: The products.
        leaves: Their labels.
        judged: What the sources say of them.
        sids: (N, L) int64 SIDs of the run, to stand beside the evidence, or None.
        least: Least confidence.
    """
    alike = Codes(shop.plain_codes, leaves.label, len(leaves), shop.content.told)
    order = np.lexsort([-judged.harm, ~shop.content.told[judged.rows]])
    shown = order[(judged.confidence[order] >= least) & (judged.suggested[order, 0] >= 0)]
    return [_finding(shop, leaves, judged, int(at), sids, alike) for at in shown]


def _finding(
    shop: Shop, leaves: Leaves, judged: Judgement, at: int, sids: np.ndarray | None, alike: Codes
) -> Finding:
    item = int(judged.rows[at])
    current = int(leaves.label[item])
    suggested = tuple(int(one) for one in judged.suggested[at] if one >= 0)
    near = shop.near.item_index[item][:NUM_SHOWN]
    near = near[near >= 0]
    prefix, size, usual = prefix_of(shop.plain_codes, alike, item)
    return Finding(
        item_index=item,
        current=current,
        suggested=suggested,
        suggested_confidence=tuple(map(float, judged.suggested_confidence[at, : len(suggested)])),
        confidence=float(judged.confidence[at]),
        severity=float(leaves.severity(np.array(current), np.array(suggested[0]))),
        neighbours=tuple(map(int, near)),
        cosines=tuple(map(float, shop.near.weight[item][: len(near)])),
        plain_prefix=prefix,
        plain_prefix_size=size,
        usual=usual,
        sid=() if sids is None or not alike.told[item] else tuple(map(int, sids[item])),
    )


def prefix_of(
    codes: np.ndarray, alike: Codes, item: int
) -> tuple[tuple[int, ...], int, tuple[tuple[int, float], ...]]:
    """The longest prefix with enough other labelled products, their number and commonest leaves.

    Nothing where the product shares no code, or its codes mean nothing.

    Args:
        codes: (N, L) int64.
        alike: Counts of the same codes.
        item: item_index of a labelled product.
    """
    best: tuple[tuple[int, ...], int, tuple[tuple[int, float], ...]] = ((), 0, ())
    for length in range(1, codes.shape[1] + 1) if alike.told[item] else ():
        counts = alike.counts[length - 1][alike.prefix[length - 1][item]].toarray()[0]
        counts[alike.label[item]] -= 1
        size = int(counts.sum())
        if size < LEAST_OTHERS and (best[1] or not size):
            break
        top = [int(leaf) for leaf in np.argsort(-counts, kind="stable")[:3] if counts[leaf]]
        prefix = tuple(int(code) for code in codes[item, :length])
        best = prefix, size, tuple((leaf, float(counts[leaf]) / size) for leaf in top)
    return best


def write_findings(path: Path, found: list[Finding], shop: Shop, leaves: Leaves) -> None:
    """One row a finding, in order: what stands in `Finding`, with ids and paths for numbers."""
    catalog = shop.catalog
    rows = [
        {
            "item_id": str(catalog.item_id[one.item_index]),
            "title": str(catalog.title[one.item_index]),
            "brand": str(catalog.brand[one.item_index]),
            "current": leaves.name(one.current),
            "suggested": [leaves.name(leaf) for leaf in one.suggested],
            "suggested_confidence": list(one.suggested_confidence),
            "confidence": one.confidence,
            "severity": one.severity,
            "neighbours": [str(catalog.item_id[other]) for other in one.neighbours],
            "neighbour_titles": [str(catalog.title[other]) for other in one.neighbours],
            "neighbour_categories": [leaves.name(int(leaves.label[other])) for other in one.neighbours],
            "neighbour_cosines": list(one.cosines),
            "plain_prefix": "_".join(map(str, one.plain_prefix)),
            "plain_prefix_size": one.plain_prefix_size,
            "plain_prefix_categories": [leaves.name(leaf) for leaf, _ in one.usual],
            "plain_prefix_shares": [share for _, share in one.usual],
            "sid": "_".join(map(str, one.sid)),
        }
        for one in found
    ]
    write_parquet(path, pa.Table.from_pylist(rows, schema=SCHEMA))


_TEXT, _NUMBER = pa.string(), pa.float64()
SCHEMA = pa.schema(
    [
        ("item_id", _TEXT),
        ("title", _TEXT),
        ("brand", _TEXT),
        ("current", _TEXT),
        ("suggested", pa.list_(_TEXT)),
        ("suggested_confidence", pa.list_(_NUMBER)),
        ("confidence", _NUMBER),
        ("severity", _NUMBER),
        ("neighbours", pa.list_(_TEXT)),
        ("neighbour_titles", pa.list_(_TEXT)),
        ("neighbour_categories", pa.list_(_TEXT)),
        ("neighbour_cosines", pa.list_(_NUMBER)),
        ("plain_prefix", _TEXT),
        ("plain_prefix_size", pa.int64()),
        ("plain_prefix_categories", pa.list_(_TEXT)),
        ("plain_prefix_shares", pa.list_(_NUMBER)),
        ("sid", _TEXT),
    ]
)
