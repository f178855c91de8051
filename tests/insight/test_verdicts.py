from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from pressmark.catalog.taxonomy import build_taxonomy
from pressmark.experiment import Experiment
from pressmark.insight.definitions import DEFINITIONS, definition_of, matching, pattern_of
from pressmark.insight.rules import RULES, Rule
from pressmark.insight.verdicts import advice, judge, unite
from pressmark.tokenizer.quality import quality

SIZES = (16, 16, 16)


def tree_content(num_items: int = 1_600) -> tuple[np.ndarray, np.ndarray, list]:
    """Vectors in 16 clumps of 16 clumps of 16, the codes that say where, and categories that follow them."""
    rng = np.random.default_rng(0)
    codes = rng.permuted(np.arange(num_items * 3).reshape(3, num_items) % 16, axis=1).T
    books = [rng.normal(size=(16, 12)) * scale for scale in (4.0, 2.0, 1.0)]
    vectors = sum(book[codes[:, level]] for level, book in enumerate(books))
    paths = [((f"top{one // 4}", f"aisle{one}", f"shelf{one}-{two // 8}"),) for one, two, _ in codes]
    return vectors.astype(np.float32), codes, paths


def figures_of(codes: np.ndarray, vectors: np.ndarray, paths: list) -> dict[str, float]:
    decoded = np.stack([vectors[(codes == one).all(axis=1)].mean(axis=0) for one in codes])
    found = quality(vectors, codes, decoded, SIZES, build_taxonomy(paths), 0)
    return found | {f"perplexity_share_{level}": found[f"perplexity_{level}"] / 16 for level in (1, 2, 3)}


def test_a_healthy_tokenizer_is_told_so() -> None:
    vectors, codes, paths = tree_content()
    found = {one.rule.title: one for one in judge(figures_of(codes, vectors, paths), "rqvae")}
    for title in (
        "Usage",
        "Perplexity / size",
        "Gini",
        "Sandglass",
        "Reconstruction R2",
        "Spearman, neighbours",
    ):
        assert found[title].grade == "good", title
        assert found[title].changes == found[title].worst == ()


def test_a_collapsed_middle_level_is_named() -> None:
    vectors, codes, paths = tree_content()
    codes[: int(0.97 * len(codes)), 1] = 5  # usage stays 1, as in the collapse that usage hides
    figures = figures_of(codes, vectors, paths)
    found = {one.rule.title: one for one in judge(figures, "rqvae")}
    assert found["Usage"].grade == "good"
    assert found["Perplexity / size"].grade == "bad"
    assert found["Perplexity / size"].worst == ("perplexity_share_2",)
    assert found["Gini"].worst == ("gini_2",)
    assert found["Sandglass"].grade == "bad"
    assert {one.key for one in found["Perplexity / size"].changes} == {
        one.key
        for rule in RULES
        if rule.title == "Perplexity / size"
        for one in rule.changes
        if one.kind != "rqkmeans"
    }


def test_codes_that_say_nothing_are_bad() -> None:
    vectors, codes, paths = tree_content()
    codes = codes[np.random.default_rng(1).permutation(len(codes))]
    found = {one.rule.title: one.grade for one in judge(figures_of(codes, vectors, paths), "rqkmeans")}
    assert found["Usage"] == "good"
    assert found["Spearman, neighbours"] == found["Spearman, random pairs"] == "bad"


def test_without_a_tree_no_verdict_on_it() -> None:
    vectors, codes, paths = tree_content()
    bare = {one.rule.title for one in judge(figures_of(codes, vectors, [()] * len(paths)), "rqvae")}
    assert "Usage" in bare
    assert not bare & {"Purity, first code", "Mutual information, leaf", "Cold: category gap"}


@pytest.mark.parametrize(
    ("value", "grade"), [(0.99, "good"), (0.989, "watch"), (0.90, "watch"), (0.899, "bad"), (1.0, "good")]
)
def test_limits_belong_to_the_better_grade(value: float, grade: str) -> None:
    (verdict,) = judge({"usage_1": 1.0, "usage_2": value}, "rqvae")
    assert verdict.grade == grade
    assert verdict.worst == (() if grade == "good" else ("usage_2",))


def test_low_is_better_where_the_rule_says_so() -> None:
    grades = [judge({"share_relocated": value}, "rqvae")[0].grade for value in (0.0, 0.05, 0.051, 0.1, 0.11)]
    assert grades == ["good", "good", "watch", "watch", "bad"]
    assert judge({"num_item_collisions_after": 1}, "rqvae")[0].grade == "bad"


def test_advice_fits_the_tokenizer() -> None:
    figures = {"perplexity_share_1": 0.1, "purity1_above_chance": 0.1}
    for kind, other in (("rqvae", "rqkmeans"), ("rqkmeans", "rqvae")):
        for verdict in judge(figures, kind):
            assert verdict.changes
            assert all(change.kind != other for change in verdict.changes)


def test_of_advice_that_differs_the_worst_verdict_speaks() -> None:
    figures = {"perplexity_share_1": 0.7, "spearman_neighbours": 0.2, "nmi1_above_chance": 0.4}
    judged = judge(figures, "rqvae")
    how = {one.key: one.how for one in advice(unite(judged))}
    assert {one.grade for one in judged} == {"watch", "bad"}
    assert how["tokenizer.latent_dim"].startswith("raise")  # the bad Spearman's, not the perplexity's
    assert how["tokenizer.level_sizes"].startswith("raise the first size")
    how = {one.key: one.how for one in advice(unite(judge({**figures, "spearman_neighbours": 0.9}, "rqvae")))}
    assert how["tokenizer.latent_dim"].startswith("lower")
    for one in unite(judged):
        assert set(one.changes) <= set(advice(unite(judged)))


def test_sizes_that_break_the_rule_of_thumb_are_said_first() -> None:
    judged = judge({"spearman_neighbours": 0.2, "items_per_code": 3.0}, "rqvae")
    (sizes,) = [one for one in advice(unite(judged, (32, 32))) if one.key == "tokenizer.level_sizes"]
    assert sizes.how == "set [32,32], the rule of thumb"
    (sizes,) = [one for one in advice(unite(judged)) if one.key == "tokenizer.level_sizes"]
    assert sizes.how == "lower the largest size"


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.title)
def test_every_rule_is_whole(rule: Rule) -> None:
    assert definition_of(rule.figure.replace("<l>", "1"))
    assert (rule.good >= rule.watch) == (rule.better == "high") or rule.good == rule.watch
    assert rule.why.endswith(".")
    assert rule.source
    for kind in ("rqvae", "rqkmeans"):
        assert any(change.kind in ("", kind) for change in rule.changes), kind
    for change in rule.changes:
        held: object = Experiment()
        for name in change.key.split("."):
            assert name in {one.name for one in dataclasses.fields(held)}, change.key  # type: ignore[arg-type]
            held = getattr(held, name)


def test_every_figure_has_exactly_one_definition() -> None:
    assert definition_of("purity3_depth10_chance") == DEFINITIONS["purity<l>_<d>_chance"]
    assert pattern_of("purity1_above_chance") == "purity1_above_chance"
    with pytest.raises(KeyError):
        definition_of("usage_x")
    for pattern in DEFINITIONS:
        name = pattern.replace("<l>", "2").replace("<d>", "leaf")
        assert [other for other in DEFINITIONS if matching(other, [name])] == [pattern]
