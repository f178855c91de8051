"""What the report says was visible must be so with the run's own settings."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from pressmark import stages
from pressmark.catalog import embeddings
from pressmark.experiment import Experiment
from pressmark.generator import config as generator
from pressmark.generator.config import AlignmentConfig, FinetuneConfig
from pressmark.tokenizer import train as tokenizer

ALIGNED = FinetuneConfig(alignment=AlignmentConfig(content_to_sid=1.0, cold_items=True))
NOT_MIXED_IN = FinetuneConfig(alignment=AlignmentConfig(cold_items=True))
TEMPORAL = dataclasses.replace(Experiment().split, protocol="temporal")
SENTENCES = {
    "tokenizer.given": "The SIDs, those of cold items too, are given (sids.parquet)",
    "vectors": "The vectors, those of cold items too, are precomputed (own.parquet)",
    "init_from": "no interaction with an item that is hidden here is in that run's data/train.parquet",
    "stream": "The generator is trained on the histories of shards: none holds an item that is hidden here",
    "backbone": "What the generator's backbone (t5) was trained on before is not known here.",
    "cold_items": "The generator is trained on the text and the SIDs of cold items too",
    "hybrid": "from which the text of those targets was not hidden",
    "between": "What was bought between the cuts trained nothing.",
    "frozen": "They get SIDs from the frozen tokenizer.",
}


def said(**changes: Any) -> str:
    return str(stages._statement(Experiment(**changes))["what each stage saw"])


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {"frozen", "hybrid"}),
        ({"models": ("popularity",)}, {"frozen"}),
        ({"models": ("generator",)}, {"frozen"}),
        ({"models": ("hybrid_without_generator",)}, {"frozen", "hybrid"}),
        ({"tokenizer": tokenizer.Config(kind="given", given="sids.parquet")}, {"tokenizer.given", "hybrid"}),
        (
            {"vectors": embeddings.Config(model="precomputed", path="own.parquet")},
            {"frozen", "vectors", "hybrid"},
        ),
        ({"generator": generator.Config(init_from="yesterday")}, {"frozen", "init_from", "hybrid"}),
        # Who does not judge the generator is told nothing of it.
        ({"generator": generator.Config(init_from="yesterday"), "models": ("bm25",)}, {"frozen"}),
        # There is no hybrid with these.
        ({"generator": generator.Config(stream="shards")}, {"frozen", "stream"}),
        (
            {"generator": generator.Config(backbone="t5", finetune=ALIGNED)},
            {"frozen", "backbone", "cold_items"},
        ),
        ({"generator": generator.Config(backbone="t5", finetune=NOT_MIXED_IN)}, {"frozen", "backbone"}),
        ({"split": TEMPORAL}, {"frozen", "between", "hybrid"}),
        ({"split": TEMPORAL, "models": ("sasrec", "bm25")}, {"frozen"}),
    ],
)
def test_the_statement_names_what_was_not_hidden(changes: dict[str, Any], expected: set[str]) -> None:
    text = said(**changes)
    assert {name for name, sentence in SENTENCES.items() if sentence in text} == expected


def test_the_tokenizer_may_see_cold_items() -> None:
    assert "Cold items themselves are hidden from whatever is fitted here" in said()
    split = dataclasses.replace(Experiment().split, tokenizer_sees_cold=True)
    assert "Cold items themselves are shown to whatever is fitted here" in said(split=split)
