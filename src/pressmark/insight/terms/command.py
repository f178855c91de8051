"""`pressmark terms`: writes a vocabulary of product terms, or says which terms titles are about."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pressmark import files
from pressmark.catalog.items import Catalog
from pressmark.catalog.taxonomy import build_taxonomy
from pressmark.insight.doctor import read_tokenized
from pressmark.insight.terms import mining
from pressmark.insight.terms.encoders import CHOICES, TextEncoder, text_encoder
from pressmark.insight.terms.examples import mask_titles
from pressmark.insight.terms.file import read_terms, write_terms
from pressmark.insight.terms.matching import Matcher
from pressmark.insight.terms.model import Config, TermModel, fit, load_model
from pressmark.insight.words import words_of
from pressmark.interactions.split_files import read_split
from pressmark.sids.table import read_sids

VERSION = "terms-1"
"""Changes where the same input would give another model."""


@dataclass(frozen=True)
class Found:
    """A term that a title is about.

    Attributes:
        term: The term.
        said: Whether the title says it.
        chance: Of the terms that the title does not say: how likely it is the one left out.
    """

    term: str
    said: bool
    chance: float


def terms(arguments: Sequence[str]) -> None:
    """Runs the command.

    Raises:
        ValueError: For a run, a vocabulary or titles that cannot be used.
    """
    options = _parser().parse_args(arguments)
    _check(options)
    catalog, seen = read_seen(options.run)
    if options.vocabulary:
        vocabulary = read_terms(options.vocabulary)
    else:
        changes = {} if options.min_titles is None else {"min_titles": options.min_titles}
        vocabulary = mining.mine_terms(
            catalog, _places(options.run, catalog), seen, replace(mining.Config(), **changes)
        )
    if options.out:
        write_terms(options.out, vocabulary)
        covered = np.mean([bool(found) for found in map(Matcher(vocabulary).find, catalog.title)])
        print(
            f"{options.out}: {len(vocabulary):,} terms; {covered:.0%} of the titles say at least one. Edit it."
        )
        return
    titles = options.title or _lines(options.titles)
    cache = options.run / "terms"
    encoder = text_encoder(options.encoder, options.run, cache / "vectors")
    model = fitted(cache, catalog, seen, vocabulary, encoder)
    for title, found in zip(titles, terms_of(model, encoder, titles, options.k, options.least), strict=True):
        print(title)
        for one in found:
            print(f"  {one.term:32}  {'in the title' if one.said else f'{one.chance:.2f}'}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pressmark terms",
        description="The product terms of a catalog: writes them to edit, or finds those of a title.",
    )
    parser.add_argument("--run", type=Path, required=True, help="run folder with a trained tokenizer")
    parser.add_argument("--out", type=Path, help="text file to write the vocabulary to")
    parser.add_argument("--force", action="store_true", help="replace a vocabulary that --out names")
    parser.add_argument("--vocabulary", type=Path, help="text file, one term a line (default: mined)")
    parser.add_argument("--titles", type=Path, help="text file of titles, one a line")
    parser.add_argument(
        "--k", type=int, default=5, help="terms that a title does not say, at most (default: 5)"
    )
    parser.add_argument("--least", type=float, default=0.05, help="chance that they must have (default: .05)")
    parser.add_argument("--min-titles", type=int, help="titles that must say a mined term (default: 8)")
    parser.add_argument(
        "--encoder",
        default="auto",
        help=f"text vectors: {', '.join(CHOICES)}, or a sentence-transformers folder (default: auto, the first "
        "of dual_tower, minilm and words that is there)",
    )
    parser.add_argument("title", nargs="*", help="titles")
    return parser


def _check(options: argparse.Namespace) -> None:
    if options.out and (options.title or options.titles):
        raise ValueError("--out writes the vocabulary; give it without titles.")
    if options.force and not options.out:
        raise ValueError("--force is for --out: it replaces the vocabulary there.")
    if options.out and options.out.exists() and not options.force:
        raise ValueError(
            f"--out {options.out}: exists already, and somebody may have edited it. Give another name, or "
            "--force to replace it."
        )
    if not options.out and bool(options.title) == bool(options.titles):
        raise ValueError("give --out FILE to write the vocabulary, or titles, or --titles FILE; one of them.")
    if options.k < 1 or not 0 <= options.least <= 1:
        raise ValueError(f"--k ({options.k}) must be at least 1 and --least ({options.least}) from 0 to 1.")
    if options.min_titles is not None and (options.vocabulary or options.min_titles < 1):
        raise ValueError("--min-titles is for mining, at least 1, and has no part where --vocabulary is given.")


def _lines(path: Path) -> list[str]:
    titles = [line for line in files.read_lines(path, "--titles") if line.strip()]
    if not titles:
        raise ValueError(f"--titles {path}: no title in it; write one a line.")
    return titles


def read_seen(run: Path) -> tuple[Catalog, np.ndarray]:
    """A run's items, and which of them may be learnt from: those that the split does not hide.

    Raises:
        ValueError: If the run is not prepared or has no tokenizer.
    """
    catalog = read_tokenized(run)
    return catalog, read_split(run / "data", catalog).fitted_on


def _places(run: Path, catalog: Catalog) -> np.ndarray:
    sids = read_sids(run / "tokenizer" / "sids.parquet", catalog.item_id).sids
    return mining.places_of(build_taxonomy(catalog.category), sids)


def fitted(
    folder: Path, catalog: Catalog, seen: np.ndarray, vocabulary: Sequence[str], encoder: TextEncoder
) -> TermModel:
    """The model of a vocabulary, fitted to a catalog's titles; kept on disk and made again where these change.

    Args:
        folder: Where it is kept.
        catalog: N items.
        seen: (N,) bool, items that may be learnt from.
        vocabulary: The terms.
        encoder: Of titles and terms.

    Raises:
        ValueError: If no title says a term, or another command is fitting one there.
    """
    titles = [str(title) for title in catalog.title[seen]]
    key = files.fingerprint(VERSION, titles, list(vocabulary), encoder.name, encoder.fingerprint)
    if (kept := load_model(folder, key)) is not None:
        return kept
    examples = mask_titles(titles, vocabulary)
    if not len(examples):
        raise ValueError(
            f"none of the {len(titles):,} titles says one of the {len(vocabulary):,} terms and another word; "
            "there is nothing to learn from. Add terms that titles say, or have them mined."
        )
    unsaid = len(vocabulary) - len(np.unique(examples.term))
    if unsaid:
        print(f"{unsaid:,} of {len(vocabulary):,} terms are said by no title alone: known by their names")
    print(f"learning {len(vocabulary):,} terms from {len(examples):,} titles; kept in {folder}", flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    with files.holding(folder, "pressmark terms") as take:
        take(False)
        names = encoder.encode(list(vocabulary))
        model = fit(vocabulary, names, examples, encoder.encode(examples.text), Config())
        model.save(folder, key)
    return model


def terms_of(
    model: TermModel, encoder: TextEncoder, titles: Sequence[str], most: int, least: float
) -> list[list[Found]]:
    """The terms of each title: those that it says, in order, then those that it does not, the likeliest first.

    Args:
        model: Of a vocabulary.
        encoder: That the model was fitted with.
        titles: n titles.
        most: Unsaid terms at most.
        least: Chance that an unsaid term must have.
    """
    matcher, chances = Matcher(model.terms), model.predict(titles, encoder.encode(titles))
    answers = []
    for title, row in zip(titles, chances, strict=True):
        said = list(dict.fromkeys(one.term for one in matcher.find(title)))
        row = row.copy() if words_of(title) else np.zeros_like(row)  # without a word it is about nothing
        row[said] = 0.0
        row /= max(float(row.sum()), 1e-12)
        likeliest = [int(one) for one in np.argsort(-row, kind="stable")[:most] if row[one] >= max(least, 1e-9)]
        answers.append(
            [Found(model.terms[one], True, 1.0) for one in said]
            + [Found(model.terms[one], False, float(row[one])) for one in likeliest]
        )
    return answers
