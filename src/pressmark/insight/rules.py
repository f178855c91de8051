"""What is expected of each figure, why it matters, and what to change where it fails.

The limits are those of four levels of 256 codes on text vectors, learned on Amazon Beauty (12,101 items, MiniLM
vectors of title, brand and category), unless a source is named. They are starting points: on other vectors
compare with RQ-KMeans on the same ones (`tokenizer.kind rqkmeans`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pressmark.insight.sizes import ENOUGH_SIDS_PER_ITEM, SIDS_PER_ITEM

Grade = Literal["good", "watch", "bad"]
GRADES: tuple[Grade, ...] = ("good", "watch", "bad")


@dataclass(frozen=True)
class Change:
    """One key of the config to change.

    Attributes:
        key: Such as "tokenizer.revive_below".
        how: Direction, and what it does.
        kind: The tokenizer that it helps, "" for any.
    """

    key: str
    how: str
    kind: Literal["", "rqvae", "rqkmeans"] = ""


@dataclass(frozen=True)
class Rule:
    """What is expected of a figure, or of a figure of each level.

    Attributes:
        title: Short name.
        figure: Key of DEFINITIONS; <l> stands for every level that there is.
        good: Limit of good, itself included.
        watch: Limit of watch, itself included; beyond it is bad.
        better: Whether high or low figures are good.
        why: Why it matters, in one sentence.
        changes: What to change, first choice first.
        source: Where the limits come from.
    """

    title: str
    figure: str
    good: float
    watch: float
    better: Literal["high", "low"]
    why: str
    changes: tuple[Change, ...]
    source: str

    def grade(self, value: float) -> Grade:
        """The verdict on one value."""
        sign = 1 if self.better == "high" else -1
        if sign * value >= sign * self.good:
            return "good"
        return "watch" if sign * value >= sign * self.watch else "bad"


# What each change does was tried on Beauty, one at a time, on short trainings and one seed (eval/LOG.md).
_BALANCE = Change(
    "tokenizer.balance", "raise, to 0.6 at most: crowded codes pay for their size while codebooks are fitted"
)
_CLOSER = Change(
    "tokenizer.neighbour_weight",
    "raise, to 3 say: near duplicates on two sides of a border move to one; a generator spells them no better",
    "rqvae",
)
_BEHAVIOUR = Change(
    "tokenizer.behaviour_weight", "set to 1, say: products bought one after the other share codes", "rqvae"
)
_TO_RQVAE = Change("tokenizer.kind", "set rqvae: it learns a space in which all levels fill", "rqkmeans")
_TO_TREE = Change(
    "tokenizer.kind", "set rqvae: it knows the categories (tokenizer.contrastive_weight)", "rqkmeans"
)
_REVIVE = Change(
    "tokenizer.revive_below",
    "keep within 0.03 and 0.1: above, codes move before they settle; at 0 they die",
    "rqvae",
)
_NARROWER = Change(
    "tokenizer.latent_dim",
    "lower, to half say: levels fill better, and new items are described better",
    "rqvae",
)
_WIDER = Change(
    "tokenizer.latent_dim",
    "raise, to twice say: near items share more codes, at a cost in reconstruction",
    "rqvae",
)
BY_THUMB = Change("tokenizer.level_sizes", "set the rule of thumb")
"""`verdicts.unite` puts in the sizes."""
_FEWER_CODES = Change("tokenizer.level_sizes", "lower the sizes of the levels that are not filled")
_LOWER_FIRST = Change(
    "tokenizer.level_sizes", "lower the first size: coarser groups hold more of what is alike"
)
_RAISE_FIRST = Change(
    "tokenizer.level_sizes", "raise the first size: tighter groups cut fewer neighbours apart"
)
_ADD_LEVEL = Change("tokenizer.level_sizes", "add a level, or raise the last one")
_MORE_TREE = Change(
    "tokenizer.contrastive_weight",
    "raise by half, and watch the neighbours' Spearman, which pays for it",
    "rqvae",
)
_LESS_TREE = Change("tokenizer.contrastive_weight", "lower: the tree draws codes off the vectors", "rqvae")
_LONGER = Change(
    "tokenizer.training.num_epochs", "raise: a longer decay of the learning rate settles the codes", "rqvae"
)
_TEXT = Change("vectors.columns", "name more text columns: what the vector lacks no code can tell")

# Figures of eval/results/tokenizer-beauty.json, where RQ-VAE is the default one; and what no file records.
_OURS = "our measurement on Beauty"
_EARLY = "our measurement on Beauty, an earlier tokenizer, one seed"

# Sizes come first: of verdicts that are as bad the first one speaks.
RULES: tuple[Rule, ...] = (
    Rule(
        "Room: SIDs an item",
        "sids_per_item",
        SIDS_PER_ITEM,
        ENOUGH_SIDS_PER_ITEM,
        "high",
        "Content is clumped, so room runs out locally long before it does in total; new products need room.",
        (BY_THUMB, _ADD_LEVEL),
        "items without codes of their own: Beauty 14 % at 1,400 and 5 % at 350,000, Instacart 8 % at 86,000",
    ),
    Rule(
        "Sample: items a code",
        "items_per_code",
        39,
        10,
        "high",
        "A k-means entry of a few items is those items; it will not hold for the next ones.",
        (BY_THUMB, Change("tokenizer.level_sizes", "lower the largest size")),
        "FAISS warns below 39 points a centroid",
    ),
    Rule(
        "Usage",
        "usage_<l>",
        0.99,
        0.90,
        "high",
        "A code that no item has is room paid for, and a token that the generator must learn never to say.",
        (_BALANCE, _REVIVE, _NARROWER, _FEWER_CODES),
        "target of this project; published RQ-VAEs without revival keep 12 % alive at 4,096 codes",
    ),
    Rule(
        "Perplexity / size",
        "perplexity_share_<l>",
        0.78,
        0.50,
        "high",
        "Full usage can hide a collapse: one code may hold most items, and the level then says little.",
        (_BALANCE, _TO_RQVAE, _REVIVE, _NARROWER, _FEWER_CODES),
        "target: 200 of 256; on Beauty RQ-VAE .89 .90 .93 .95, RQ-KMeans .80 .37 .30 .17",
    ),
    Rule(
        "Gini",
        "gini_<l>",
        0.45,
        0.60,
        "low",
        "Uneven codes make crowded and empty neighbourhoods: a generator learns the head and guesses the rest.",
        (_BALANCE, _TO_RQVAE, _REVIVE, _NARROWER, _FEWER_CODES),
        f"{_EARLY}: RQ-VAE .31-.37 a level, RQ-KMeans .36 .73 .76 .82",
    ),
    Rule(
        "Sandglass",
        "sandglass",
        0.15,
        0.40,
        "low",
        "If the middle concentrates, different starts run through the same few codes and part again: sparse "
        "paths that a generator hardly learns.",
        (_BALANCE, Change("tokenizer.level_sizes", "lower the middle sizes, or take a level out")),
        "Kuai et al. 2024, Breaking the Hourglass Phenomenon; the limits are ours",
    ),
    Rule(
        "Equal nearest codes",
        "items_sharing_a_sid",
        0.10,
        0.20,
        "low",
        "Items that the codes cannot tell apart have to be moved to codes that fit them less.",
        (_TO_RQVAE, _NARROWER, _ADD_LEVEL, _TEXT),
        "Beauty 4x256: RQ-VAE 7.7-8.2 %, RQ-KMeans 9.9-10.6 %, GRID's RK-Means 21.6 %",
    ),
    Rule(
        "Collisions left",
        "num_item_collisions_after",
        0,
        0,
        "low",
        "Two items with one SID are one item to the generator: it can never rank them apart.",
        (Change("tokenizer.collisions", "set relocate or suffix, and train again"),),
        "target of this project",
    ),
    Rule(
        "Relocated",
        "share_relocated",
        0.05,
        0.10,
        "low",
        "A relocated item's last code no longer describes it, and likenesses of that level are lost.",
        (
            _TO_RQVAE,
            _NARROWER,
            _ADD_LEVEL,
            Change("tokenizer.collisions", "set suffix: a number tells equal codes apart"),
        ),
        "target of this project; 4.2-4.6 % on Beauty, RQ-KMeans 5.6-5.9 %",
    ),
    Rule(
        "Reconstruction R2",
        "reconstruction_r2",
        0.55,
        0.40,
        "high",
        "What the codes do not say of the vector the generator cannot know of a product that is new to it.",
        (_LONGER, _LESS_TREE, _ADD_LEVEL),
        f"{_OURS}: RQ-VAE .64, with the strong tree and twins .59, RQ-KMeans .64",
    ),
    Rule(
        "Spearman, random pairs",
        "spearman_random",
        0.10,
        0.05,
        "high",
        "Products that look alike should share more codes than products that do not.",
        (_LOWER_FIRST,),
        "Beauty .11-.16: RQ-KMeans, RQ-VAE, LETTER; a production catalog, defined otherwise, .69-.84",
    ),
    Rule(
        "Spearman, neighbours",
        "spearman_neighbours",
        0.40,
        0.30,
        "high",
        "Among near products the nearer should share more codes: then a generator's near miss still fits.",
        (_CLOSER, _RAISE_FIRST, _WIDER),
        f"{_OURS}: RQ-KMeans .39, RQ-VAE .37, with the strong tree and twins .44",
    ),
    Rule(
        "Cosine >= 0.9, same first code",
        "share_cosine90_code1",
        0.99,
        0.95,
        "high",
        "Near twins with different first codes are strangers to the generator from the first step on.",
        (_CLOSER, _RAISE_FIRST, _WIDER),
        "target of this project; a production catalog reports 98-99 %, RQ-KMeans on Beauty 96 %, LETTER 76 %",
    ),
    Rule(
        "Purity, first code",
        "purity1_above_chance",
        0.75,
        0.50,
        "high",
        "A first code that stands for one kind of product transfers to products nobody has bought yet.",
        (_MORE_TREE, _NARROWER, _TO_TREE, _TEXT),
        f"{_EARLY}, depth 3: RQ-KMeans and RQ-VAE .72, with 30 % of the gap to 1 closed .80; LETTER .43",
    ),
    Rule(
        "Mutual information, leaf",
        "nmi1_above_chance",
        0.50,
        0.35,
        "high",
        "Purity alone is blind to a category that is torn over many codes; mutual information is not.",
        (
            _MORE_TREE,
            Change("tokenizer.level_sizes", "lower the first size, towards the number of leaf categories"),
        ),
        f"{_EARLY}: .57; Instacart .89",
    ),
    Rule(
        "Co-occurrence lift, one code",
        "lift_1",
        3.0,
        1.2,
        "high",
        "If what people take next often stays within a code, the first code of the next item is easy to say.",
        (_BEHAVIOUR, _RAISE_FIRST, _TEXT),
        "Beauty: RQ-KMeans 16, its leaf categories 5.9; Instacart 4.7",
    ),
    Rule(
        "Cold: reconstruction gap",
        "reconstruction_r2_gap",
        0.05,
        0.15,
        "low",
        "New products that the codebooks describe worse get SIDs that mean less, on their first day.",
        (_NARROWER, _LOWER_FIRST),
        f"{_EARLY}: RQ-VAE .05, RQ-KMeans .07",
    ),
    Rule(
        "Cold: first code met in training",
        "prefix_shared_1_cold",
        0.99,
        0.95,
        "high",
        "The generator has never said a first code that no warm item has: it cannot find what lies behind it.",
        (_LOWER_FIRST,),
        f"{_EARLY}: 1.00",
    ),
    Rule(
        "Cold: prefix gap, two codes",
        "prefix_shared_2_gap",
        0.05,
        0.15,
        "low",
        "Cold items that stand on paths of their own are out of reach of what was learned on warm ones.",
        (_LOWER_FIRST,),
        f"{_EARLY}: -.04 (71 % of cold items share two codes with a warm one)",
    ),
    Rule(
        "Cold: category gap",
        "majority_leaf_gap",
        0.05,
        0.15,
        "low",
        "A new product should stand among its own kind as the others do.",
        (_MORE_TREE, _TO_TREE, _TEXT),
        f"{_EARLY}: -.02",
    ),
)
