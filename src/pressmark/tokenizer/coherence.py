"""Do codes mean anything outside the vectors? Code prefixes against the category tree and against shoppers.

Both sides tend to look better the longer the prefix is: groups shrink, and a group of one item is pure by
itself. So every figure here stands beside what chance gives for groups of the same sizes.
"""

from __future__ import annotations

import numpy as np

from pressmark.catalog.taxonomy import Taxonomy
from pressmark.interactions.histories import Histories
from pressmark.tokenizer.quantizer import prefix_number

# Chance is averaged over as many shuffles as make this many items: a small catalog needs more of them.
SHUFFLED_ITEMS = 20_000


def tree_agreement(codes: np.ndarray, taxonomy: Taxonomy, length: int = 1, seed: int = 0) -> dict[str, float]:
    """How well groups of items with the same first codes agree with the categories.

    An item counts by its first path; one without is left out. An item whose path ends above a depth counts
    there by its last node.

    Args:
        codes: (N, L) int64.
        taxonomy: The tree of the same N items.
        length: Codes of the prefix, 1 to L.
        seed: Of the shuffles behind the figures of chance.

    Returns:
        For each depth d of the tree (`depth<d>`, 1 the first name of the path as given: names that the whole
        catalog shares count too, as in trees that keep them) and for the last node of each path (`leaf`):

        purity<length>_<d>: share of items that belong to the largest category of their prefix.
        nmi<length>_<d>: mutual information of prefix and category over the arithmetic mean of their entropies
            (natural logarithm).
        purity<length>_<d>_chance, nmi<length>_<d>_chance: the same with categories shuffled over the items, so
            with groups of the same sizes. Both figures rise by themselves as prefixes get longer: read
            (figure - chance) / (1 - chance), the share of what chance leaves open (`above_chance`).

        {} for a tree without a node; no depth at which all items are of one category.
    """
    known = np.flatnonzero(taxonomy.path_length[:, 0] > 0) if len(codes) else np.empty(0, np.int64)
    if len(known) == 0:
        return {}
    group = prefix_number(codes[known, :length])
    found: dict[str, float] = {}
    rng = np.random.default_rng((seed, length))
    shuffles = [rng.permutation(len(known)) for _ in range(max(1, SHUFFLED_ITEMS // len(known)))]
    for name, label in tree_categories(taxonomy, known).items():
        purity, nmi = _agreement(group, label)
        chance = np.array([_agreement(group, label[order]) for order in shuffles]).mean(axis=0)
        found[f"purity{length}_{name}"], found[f"purity{length}_{name}_chance"] = purity, float(chance[0])
        found[f"nmi{length}_{name}"], found[f"nmi{length}_{name}_chance"] = nmi, float(chance[1])
    return found


def above_chance(figure: float, chance: float) -> float:
    """What share of the room between chance and 1 a figure takes; 0 where chance leaves no room.

    >>> above_chance(0.75, 0.5), above_chance(1.0, 1.0)
    (0.5, 0.0)
    """
    return (figure - chance) / (1 - chance) if chance < 1 else 0.0


def tree_categories(taxonomy: Taxonomy, items: np.ndarray) -> dict[str, np.ndarray]:
    """Depth name -> (n,) int64 node of each item, -1 without; depths that tell no two items apart left out."""
    nodes, leaf = taxonomy.item_nodes[items, 0], taxonomy.item_leaf[items, 0]
    by_depth = {
        f"depth{level + 1 + taxonomy.num_stripped}": np.where(nodes[:, level] >= 0, nodes[:, level], leaf)
        for level in range(nodes.shape[1])
    }
    return {name: one for name, one in {**by_depth, "leaf": leaf}.items() if len(np.unique(one[one >= 0])) > 1}


def _agreement(group: np.ndarray, label: np.ndarray) -> tuple[float, float]:
    """Purity and normalised mutual information of two (n,) int64 partitions."""
    width = int(label.max()) + 1
    pair, counts = np.unique(group * width + label, return_counts=True)
    largest = np.zeros(int(group.max()) + 1, np.int64)
    np.maximum.at(largest, pair // width, counts)
    of_group, of_label = entropy(np.bincount(group)), entropy(np.bincount(label))
    mutual = max(0.0, of_group + of_label - entropy(counts))
    mean = (of_group + of_label) / 2
    return float(largest.sum() / len(group)), mutual / mean if mean > 0 else 0.0


def entropy(counts: np.ndarray) -> float:
    """Of (n,) counts, in nats; 0 of nothing."""
    share = counts[counts > 0] / max(1, counts.sum())
    return float(-(share * np.log(share)).sum())


def cooccurrence(codes: np.ndarray, histories: Histories) -> dict[str, float]:
    """Do items that shoppers take one after the other share codes?

    A pair is two consecutive items of one history. An item that follows itself makes no pair: it shares every
    code and says nothing.

    Args:
        codes: (N, L) int64.
        histories: Training histories of item_index; hidden interactions must not be among them.

    Returns:
        cooccurrence_share_<l>: share of the pairs with equal codes up to level l.
        lift_<l>: that share over what independence gives: the sum, over all prefixes of l codes, of the share
            of pairs whose first item has it times the share of pairs whose second item has it. A pair at random
            has 1.
        num_pairs: pairs.

        {} where there is no pair.
    """
    user = histories.row_of_value()
    first, second = histories.values[:-1], histories.values[1:]
    kept = (user[:-1] == user[1:]) & (first != second)
    first, second = first[kept], second[kept]
    if len(first) == 0:
        return {}
    found: dict[str, float] = {"num_pairs": len(first)}
    for length in range(1, codes.shape[1] + 1):
        prefix = prefix_number(codes[:, :length])
        a, b = prefix[first], prefix[second]
        size = int(prefix.max()) + 1
        share = float((a == b).mean())
        chance = float(np.bincount(a, minlength=size) @ np.bincount(b, minlength=size)) / len(a) ** 2
        found[f"cooccurrence_share_{length}"] = share
        if chance > 0:  # else no item of a first place ever stands second, and no lift is defined
            found[f"lift_{length}"] = share / chance
    return found
