"""What every figure of the doctor means, in one line each: shown by `--explain` and kept in its JSON."""

from __future__ import annotations

import re
from collections.abc import Iterable

# <l> is a level, counted from 1, or a number of codes of a prefix; <d> a depth of the tree (depth3, leaf).
DEFINITIONS = {
    "usage_<l>": "share of the level's codes that some item has",
    "perplexity_<l>": "exp of the entropy of the level's codes: the number of codes if all are used alike",
    "perplexity_share_<l>": "perplexity over the level's number of codes",
    "gini_<l>": "Gini coefficient of items a code, unused codes included; 0 is even",
    "largest_share_<l>": "share of the items on the level's commonest code",
    "branches_<l>": "perplexity of the code given the codes before it: ways in which a prefix goes on",
    "num_prefixes_<l>": "distinct prefixes of l codes",
    "sandglass": (
        "1 - perplexity share of a middle level over the smaller of the largest share before and the largest "
        "after it; the worst middle level, 0 at least"
    ),
    "items_sharing_a_sid": "share of items whose nearest codes are those of another item too",
    "num_item_collisions": "items beyond the first on each set of nearest codes",
    "largest_sid": "most items with the same nearest codes",
    "share_equal_vectors": "share of items whose vector another item has too: no codebook can part them",
    "num_item_collisions_after": "items beyond the first of each SID as saved",
    "share_relocated": "share of items whose saved codes are not their nearest ones",
    "mean_extra_distance": "of relocated items: growth of the squared distance of latent and coded sum",
    "reconstruction_r2": "1 - squared error of the decoded vectors over squared distance to their mean",
    "spearman_random": "rank correlation of cosine and shared prefix length over 50,000 random pairs",
    "spearman_neighbours": "rank correlation of cosine and shared prefix length, each item and its 50 nearest",
    "share_cosine90_code<l>": "of pairs with cosine >= 0.9: share with equal codes up to level l",
    "num_anchors": "items whose neighbours were looked at",
    "purity<l>_<d>": "share of items in the largest category of their prefix of l codes",
    "purity<l>_<d>_chance": "the same with categories shuffled over the items",
    "nmi<l>_<d>": "mutual information of prefix and category over the mean of their entropies",
    "nmi<l>_<d>_chance": "the same with categories shuffled over the items",
    "purity1_above_chance": (
        "(purity - chance) / (1 - chance) of the first code, two names below what all paths share, or at "
        "the leaf"
    ),
    "nmi1_above_chance": "(mutual information - chance) / (1 - chance) of first code and last category",
    "cooccurrence_share_<l>": "share of adjacent training interactions with equal codes up to level l",
    "lift_<l>": "that share over what independence of first and second item gives",
    "num_pairs": "adjacent training interactions of two different items",
    "reconstruction_r2_cold": "reconstruction of cold items, around the mean of the warm ones",
    "reconstruction_r2_warm": "reconstruction of warm items, around their mean",
    "reconstruction_r2_gap": "reconstruction of warm items less that of cold ones",
    "prefix_shared_<l>_cold": "share of cold items whose first l codes some warm item has",
    "prefix_shared_<l>_warm": "share of warm items whose first l codes some other warm item has",
    "prefix_shared_<l>_gap": "the warm share less the cold one",
    "majority_<d>_cold": "share of cold items in the commonest category of warm items with their first code",
    "majority_<d>_warm": "the same of warm items and the other warm items",
    "majority_<d>_gap": "the warm share less the cold one",
    "items_per_code": "items fitted on over the codes of the largest level",
    "sids_per_item": "product of the level sizes over items",
}


def definition_of(figure: str) -> str:
    """The definition of one figure; level, length and depth may be any.

    >>> definition_of("gini_3") == DEFINITIONS["gini_<l>"]
    True

    Raises:
        KeyError: If there is none.
    """
    return DEFINITIONS[pattern_of(figure)]


def pattern_of(figure: str) -> str:
    """The key of DEFINITIONS that a figure falls under.

    Raises:
        KeyError: If there is none.
    """
    for pattern in DEFINITIONS:
        if figure in matching(pattern, [figure]):
            return pattern
    raise KeyError(figure)


def matching(pattern: str, figures: Iterable[str]) -> list[str]:
    """The figures of a pattern, in the order given.

    >>> matching("purity<l>_<d>", ["purity1_leaf", "purity1_leaf_chance", "purity2_depth10", "usage_1"])
    ['purity1_leaf', 'purity2_depth10']
    """
    exact = re.compile(re.escape(pattern).replace("<l>", r"\d+").replace("<d>", r"(depth\d+|leaf)"))
    return [figure for figure in figures if exact.fullmatch(figure)]
