"""`pressmark audit`: what stands on the wrong shelf or twice in the catalog, and shelves codes do not see."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa

from pressmark import files
from pressmark.catalog.embeddings import Config
from pressmark.insight.categories import page
from pressmark.insight.categories.assemble import (
    Shop,
    add_options,
    all_vectors,
    check_options,
    pool_of,
    read_listed,
    read_shop,
)
from pressmark.insight.categories.duplicates import Duplicate, duplicates
from pressmark.insight.categories.findings import Finding, findings, write_findings
from pressmark.insight.categories.folds import make_folds
from pressmark.insight.categories.leaves import Leaves, leaves_of
from pressmark.insight.categories.review import NOTHING, Review, read_review
from pressmark.insight.categories.shapes import Shape, shapes
from pressmark.insight.categories.suspicion import Judgement, judge
from pressmark.sids.table import read_sids
from pressmark.tokenizer.train import load_quantizer

FAIRLY, IMPLAUSIBLE, FEW = 0.2, 0.2, 1000
"""Confidence worth a look; the share of wrong labels and the number of labels that make the audit doubtful."""
BESIDE = (".duplicates.parquet", ".categories.parquet")


def audit(arguments: Sequence[str], vectors: Config) -> None:
    """Runs the command.

    Args:
        arguments: Command line without the command.
        vectors: How the run embeds texts.

    Raises:
        ValueError: For a run or a review file that cannot be used.
    """
    options = parser().parse_args(arguments)
    check_options(options)
    if not 0 <= options.cosine <= 1:
        raise ValueError(f"--cosine is {options.cosine}; it must lie in 0..1.")
    living, catalog = read_listed(options.run)
    leaves = leaves_of(catalog)
    review = read_review(options.review, living, leaves) if options.review else NOTHING
    shop = read_shop(options.run, vectors, options.trust_vectors, options.seed)
    folds = make_folds(leaves.label, options.seed)
    pool = pool_of(shop, leaves, folds, options.seed)
    judged = judge(leaves, pool, folds.fold, options.seed, shop.content.told)
    run_codes, sids = _run_codes(options.run, shop)
    found = [one for one in findings(shop, leaves, judged, sids, options.confidence)
             if page.finding_key(one, shop, leaves) not in review.decided]  # fmt: skip
    alike = duplicates(run_codes, shop.content.vectors, options.cosine, shop.content.word_vectors(),
                       shop.content.numbers())  # fmt: skip
    twins = [one for one in alike if page.twin_key(one, shop) not in review.decided]
    shaped = [
        one for one in shapes(run_codes[:, 0], leaves) if page.shape_key(one, leaves) not in review.decided
    ]
    about = (
        f"{options.run}: {leaves.labelled.sum():,} of {len(shop.catalog):,} products have a category, "
        f"{len(leaves):,} categories hold some. About {judged.confidence.mean():.1%} of these look wrong."
        f"{_below(judged, options.confidence)}"
    )
    out = options.out
    write_findings(out, found, shop, leaves)
    files.write_parquet(out.with_suffix(BESIDE[0]), _twins_table(twins, shop, leaves))
    files.write_parquet(out.with_suffix(BESIDE[1]), _shapes_table(shaped, shop, leaves))
    html = page.render(about, shop, leaves, found, twins, shaped, review.rows)
    with files.replacing(out.with_suffix(".html")) as partial:
        partial.write_text(html, "utf-8")
    print(about)
    print(f"content: {shop.content.statement}")
    for note in (*_doubts(shop, judged), *_left_out(shop, leaves, sids), *review.notes):
        print(f"mind: {note}")
    print(_summary(found, twins, shaped, review))
    print(", ".join([str(out), *(out.with_suffix(one).name for one in (*BESIDE, ".html"))]))


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    made = argparse.ArgumentParser(
        prog="pressmark audit",
        description="Products of doubtful category, near duplicates, and categories that codes split or merge.",
    )
    add_options(made, out="parquet to write; the page and two more stand beside it")
    made.add_argument(
        "--review", type=Path, help="what the page exported: decided findings are not shown again"
    )
    made.add_argument(
        "--confidence", type=float, default=0.5, help="least, that a category is wrong (default: .5)"
    )
    made.add_argument("--cosine", type=float, default=0.95, help="least, of near duplicates (default: .95)")
    return made


def _run_codes(run: Path, shop: Shop) -> tuple[np.ndarray, np.ndarray | None]:
    """(N, L) nearest codes before collisions were resolved, and the SIDs; plain codes without a tokenizer."""
    if not (run / "tokenizer" / "sids.parquet").is_file():
        return shop.plain_codes, None
    run_codes = load_quantizer(run / "tokenizer").encode(all_vectors(run, shop.living)[shop.rows])
    sids = read_sids(run / "tokenizer" / "sids.parquet", shop.living.catalog.item_id).sids
    return run_codes, sids[shop.rows]


def _below(judged: Judgement, least: float) -> str:
    """How many more a lower threshold would show."""
    num = int(((judged.confidence > FAIRLY) & (judged.confidence < least)).sum())
    return f" {num:,} more lie between {FAIRLY} and {least:g}: --confidence {FAIRLY} shows them." if num else ""


def _doubts(shop: Shop, judged: Judgement) -> list[str]:
    """Why the audit's own confidence is not to be believed, where it is not."""
    notes, share, num = [], judged.confidence.mean(), int(shop.content.told[judged.rows].sum())
    if share > IMPLAUSIBLE:
        notes.append(
            f"{share:.0%} wrong is not plausible: texts that tell categories badly apart look the same. Take "
            "confidence for an order, not for a probability."
        )
    if num < FEW:
        notes.append(
            f"{num:,} products have text and a category: of fewer than {FEW:,} the share of wrong ones "
            "comes out too high, and so does confidence."
        )
    return notes


def _left_out(shop: Shop, leaves: Leaves, sids: np.ndarray | None) -> list[str]:
    notes = []
    if num := int((~leaves.labelled).sum()):
        notes.append(
            f"{num:,} products without a category are not audited; `pressmark categorize` suggests one."
        )
    if num := int((~shop.content.told).sum()):
        speaks = "only what is bought together speaks" if shop.together else "nothing speaks"
        notes.append(f"{num:,} products without any text: {speaks} for or against their category.")
    if several := sum(map(bool, leaves.also)):
        notes.append(
            f"{several:,} products have several categories: the first is audited, the others count as right."
        )
    if sids is None:
        notes.append("the run has no tokenizer: codes are plain residual k-means.")
    single = int((leaves.counts == 1).sum())
    if single:
        notes.append(f"{single:,} categories hold one product: little can be said for or against it.")
    return notes


def _summary(
    found: Sequence[Finding], twins: Sequence[Duplicate], shaped: Sequence[Shape], review: Review
) -> str:
    counts = [sum(one.kind == kind for one in shaped) for kind in ("split", "merged")]
    text = (
        f"{len(found):,} doubtful categories, {len(twins):,} pairs of near duplicates, {counts[0]:,} split and "
        f"{counts[1]:,} merged categories"
    )
    return text + (f"; {len(review.rows):,} decided before" if review.rows else "")


def _twins_table(twins: Sequence[Duplicate], shop: Shop, leaves: Leaves) -> pa.Table:
    names = ("item_id", "title", "category", "other_id", "other_title", "other_category", "cosine", "sid")
    rows = []
    for one in twins:
        sides = [
            (
                str(shop.catalog.item_id[item]),
                str(shop.catalog.title[item]),
                leaves.name(int(leaves.label[item])),
            )
            for item in (one.first, one.second)
        ]
        rows.append(
            dict(zip(names, (*sides[0], *sides[1], one.cosine, "_".join(map(str, one.sid))), strict=True))
        )
    kinds = [pa.string()] * 6 + [pa.float64(), pa.string()]
    return pa.Table.from_pylist(rows, schema=pa.schema(list(zip(names, kinds, strict=True))))


def _shapes_table(shaped: Sequence[Shape], shop: Shop, leaves: Leaves) -> pa.Table:
    rows = [
        {
            **asdict(one),
            "leaf": leaves.name(one.leaf),
            "other": leaves.name(one.other),
            "codes": [int(code) for code in one.codes],
            "examples": [str(shop.catalog.item_id[item]) for item in one.examples],
        }
        for one in shaped
    ]
    text, several = pa.string(), pa.list_(pa.string())
    schema = pa.schema([("kind", text), ("leaf", text), ("other", text), ("share", pa.float64()),
                        ("codes", pa.list_(pa.int64())), ("examples", several)])  # fmt: skip
    return pa.Table.from_pylist(rows, schema=schema)
