"""How many levels, of how many codes, for N items: a rule of thumb that says what it rests on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

# FAISS warns below so many points a centroid: fewer, and k-means fits an entry to single items.
ITEMS_PER_CODE = 39
LEAST_CODES, MOST_CODES = 16, 4096
# Content is clumped, so there must be far more SIDs than items. Items without nearest codes of their own, by
# SIDs an item: Instacart 3 x 256 25 % (340), Beauty 3 x 256 14 % (1,400), Instacart 4 x 256 8 % (86,000),
# Beauty 4 x 256 5 % (350,000).
SIDS_PER_ITEM = 100_000
USUAL_LEVELS = 4
# The doctor calls fewer bad: worth a level or two more, which cost a step of decoding each.
ENOUGH_SIDS_PER_ITEM = 1_000
MOST_LEVELS = 6
# What may never be undercut: with fewer, relocation has nowhere to go and the catalog no room to grow.
LEAST_SIDS_PER_ITEM = 10


@dataclass(frozen=True)
class Suggestion:
    """Levels and sizes for a catalog.

    Attributes:
        num_items: N, items that need a SID.
        num_fitted: Items that the tokenizer may be fitted on.
        level_sizes: What to set `tokenizer.level_sizes` to.
        items_per_code: Fitted items a code of a level: the sample behind one k-means entry.
        sids_per_item: Capacity, the product of the sizes, over N.
        items_per_prefix: N over the product of the first l sizes: items on a prefix of l codes if all were used
            alike.
        reason: One or two sentences.
    """

    num_items: int
    num_fitted: int
    level_sizes: tuple[int, ...]
    items_per_code: float
    sids_per_item: float
    items_per_prefix: tuple[float, ...]
    reason: str


def suggest(num_items: int, num_fitted: int | None = None) -> Suggestion:
    """Levels of equal size by this rule.

    1. Codes a level: the largest power of two with at least 39 fitted items a code, within 16 and 4,096; fewer
       than 16 only where there are fewer fitted items than that.
    2. Levels: the fewest, two at least, that make 100,000 SIDs an item, but no more than four; then as many
       as make a thousand, but no more than six; and as many as make ten in any case.

    Args:
        num_items: N >= 1.
        num_fitted: Items to fit on; all by default.

    Raises:
        ValueError: If a number is below 1.

    >>> suggest(12_101).level_sizes, suggest(1_000_000).level_sizes
    ((256, 256, 256, 256), (4096, 4096, 4096, 4096))
    """
    num_fitted = num_items if num_fitted is None else num_fitted
    if num_items < 1 or num_fitted < 1:
        raise ValueError(f"{num_items} items, {num_fitted} of them to fit on; both must be at least 1.")
    wanted = min(MOST_CODES, max(LEAST_CODES, num_fitted / ITEMS_PER_CODE))
    # No level may have more codes than fitted items; two, because one code says nothing.
    codes = max(2, _power_of_two(min(wanted, num_fitted)))
    levels = 2
    for wanted_sids, most in ((SIDS_PER_ITEM, USUAL_LEVELS), (ENOUGH_SIDS_PER_ITEM, MOST_LEVELS)):
        while codes**levels < wanted_sids * num_items and levels < most:
            levels += 1
    while codes**levels < LEAST_SIDS_PER_ITEM * num_items:
        levels += 1
    sizes = (codes,) * levels
    found = sids_per_item(sizes, num_items)
    reason = (
        f"{codes:,} codes a level leave {num_fitted / codes:,.0f} fitted items to each (an entry of k-means "
        f"wants {ITEMS_PER_CODE}); {levels} levels make {_many(found)} SIDs an item (content is clumped: with "
        f"{SIDS_PER_ITEM:,} some 5-10 % of the items still have to be moved)."
    )
    return Suggestion(
        num_items,
        num_fitted,
        sizes,
        num_fitted / codes,
        found,
        tuple(num_items / codes**length for length in range(1, levels + 1)),
        reason,
    )


def sids_per_item(level_sizes: Sequence[int], num_items: int) -> float:
    """Capacity over items; below 1 not every item can have its own SID.

    >>> sids_per_item((4, 4), 8)
    2.0
    """
    return math.prod(level_sizes) / num_items


def _power_of_two(most: float) -> int:
    return 1 << (int(most).bit_length() - 1)


def _many(number: float) -> str:
    """Two digits are enough.

    >>> _many(354_930.3), _many(1386.0), _many(12.3)
    ('350,000', '1,400', '12')
    """
    return f"{float(f'{number:.2g}'):,.0f}"
