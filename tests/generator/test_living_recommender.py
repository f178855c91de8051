"""Filters joined a request, proof on demand, and products that come and go while the model serves."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
import torch
from tests.generator.models import TINY, facts_of, random_model, random_table

from pressmark.generator.causal_t5 import CausalT5
from pressmark.generator.model import ItemFacts
from pressmark.generator.recommend import GeneratorRecommender
from pressmark.interactions.histories import Histories
from pressmark.recommender import Requests
from pressmark.sids.table import SidTable

TABLE = random_table(11, 150, (9, 9, 9), shared=True)
MODEL = random_model(11, TABLE)
HISTORIES = Histories.from_lists([[item % 60, 2 * item % 60] for item in range(12)])


def recommender(num_items: int = len(TABLE), beam: int = 40) -> GeneratorRecommender:
    table = SidTable(TABLE.sids[:num_items], TABLE.level_sizes, TABLE.codebook_fingerprint)
    found = GeneratorRecommender(MODEL, table, beam)
    rng = np.random.default_rng(0)
    found.filters |= {
        "stock": rng.random(len(TABLE))[:num_items] < 0.5,
        "wine": rng.random(len(TABLE))[:num_items] < 0.3,
    }
    return found


def test_filters_are_joined_and_each_user_has_their_own() -> None:
    model = recommender()
    wanted = ["stock & !wine", None, "wine", "!stock", " wine&stock "] * 3
    wanted = wanted[: len(HISTORIES)]
    together = model.recommend(Requests(HISTORIES, wanted), 10)
    stock, wine = model.filters["stock"], model.filters["wine"]
    masks = {
        "stock & !wine": stock & ~wine,
        None: stock | ~stock,
        "wine": wine,
        "!stock": ~stock,
        " wine&stock ": wine & stock,
    }
    for row, name in enumerate(wanted):
        # Alone, over a catalog of the allowed items.
        allowed = np.flatnonzero(masks[name])
        items = together.item_index[row, : together.num_valid[row]]
        assert np.isin(items, allowed).all()
        alone = model.recommend(Requests(HISTORIES.take(np.array([row])), name), 10)
        assert alone.item_index[0].tolist() == together.item_index[row].tolist()
    assert (together.num_valid == 10).all()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("stock & beer", "'beer' is not registered"),
        (["stock"], "1 filters for 12 requests"),
        ("!", "'' is not registered"),
    ],
)
def test_filters_that_do_not_exist(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        recommender().recommend(Requests(HISTORIES, name), 3)


def test_certify_proves_what_a_wide_beam_would_find() -> None:
    truth = recommender(beam=len(TABLE)).recommend(Requests(HISTORIES), 5)
    narrow = recommender(beam=6)
    plain = narrow.recommend(Requests(HISTORIES), 5)
    proven = narrow.recommend(Requests(HISTORIES, certify=True), 5)
    assert plain.exact is not None
    assert proven.exact is not None
    assert not plain.exact.all()
    assert proven.exact.all()
    np.testing.assert_array_equal(proven.item_index, truth.item_index)
    narrow.max_beam = 6
    assert (narrow.recommend(Requests(HISTORIES, certify=True), 5).exact == plain.exact).all()


def test_products_that_come_and_go_answer_as_a_fresh_start_does() -> None:
    fresh, living = recommender(), recommender(100)
    rows = np.arange(100, len(TABLE))
    for part in np.array_split(rows, 7):
        passes = {name: mask[part] for name, mask in fresh.filters.items()}
        assert living.insert(TABLE.sids[part], passes).tolist() == part.tolist()
    for name in (None, "stock", "stock & !wine"):
        one, other = (model.recommend(Requests(HISTORIES, name), 20) for model in (fresh, living))
        np.testing.assert_array_equal(one.item_index, other.item_index)
    gone = np.arange(0, 140, 3)
    living.withdraw(gone)
    kept = np.ones(len(TABLE), bool)
    kept[gone] = False
    fresh.filters["kept"] = kept
    for name in (None, "stock"):
        expected = fresh.recommend(Requests(HISTORIES, "kept" if name is None else f"kept & {name}"), 20)
        np.testing.assert_array_equal(
            living.recommend(Requests(HISTORIES, name), 20).item_index, expected.item_index
        )
    # A history may name what is gone, and what has come.
    assert living.recommend(Requests(Histories.from_lists([[0, 149]])), 3).num_valid.tolist() == [3]


def test_a_new_product_passes_no_filter_unasked() -> None:
    model = recommender(100)
    item = model.insert(TABLE.sids[[120]])[0]
    assert not model.filters["stock"][item]
    everything = Requests(Histories.from_lists([[]]))
    assert item in model.recommend(everything, 101).item_index
    assert item not in model.recommend(Requests(Histories.from_lists([[]]), "stock"), 101).item_index


def test_changes_that_cannot_be_made() -> None:
    model = recommender(100)
    with pytest.raises(ValueError, match="'beer' is not registered"):
        model.insert(TABLE.sids[[120]], {"beer": np.array([True])})
    with pytest.raises(ValueError, match=r"passes\['stock'\] has the shape \(2,\)"):
        model.insert(TABLE.sids[[120]], {"stock": np.ones(2, bool)})
    with pytest.raises(ValueError, match=r"must be \(n, L\) integers"):
        model.insert(TABLE.sids[120])
    with pytest.raises(ValueError, match="codes inside level_sizes"):
        model.insert(np.array([[0, 9, 0]]))
    with pytest.raises(ValueError, match=r"item_index must lie in 0\.\.99"):
        model.withdraw(np.array([100]))
    model.withdraw(np.array([3]))
    with pytest.raises(ValueError, match="item_index 3 is not in the trie"):
        model.withdraw(np.array([3]))
    assert model.num_items == 100
    with pytest.raises(ValueError, match=r"item_index is float64 of the shape \(1,\)"):
        model.withdraw([4.0])  # type: ignore[list-item]


def test_nothing_is_added_where_a_filter_is_of_another_shape() -> None:
    model = recommender(100)
    model.filters["two"] = np.ones((100, 2), bool)
    with pytest.raises(ValueError, match=r"'two' has the shape \(100, 2\)"):
        model.insert(TABLE.sids[[120]])
    assert (model.num_items, model.trie.num_items) == (100, 100)
    assert model.filters["stock"].shape == (100,)


def test_plain_lists_will_do() -> None:
    model = recommender(100)
    model.filters["all"] = [True] * 100  # type: ignore[assignment]
    assert model.insert(TABLE.sids[[120]].tolist(), {"all": [True]}).tolist() == [100]  # type: ignore[arg-type, dict-item]
    model.withdraw([3])
    model.withdraw([])
    model.restore(np.array([]))
    assert 3 not in model.recommend(Requests(HISTORIES, "all"), 101).item_index
    model.restore([3])
    assert model.trie.num_items == 101


def test_beams_with_nowhere_to_go_do_no_harm_after_a_withdrawal() -> None:
    # Beams wider than what is left, and a withdrawal that copies only the upper levels.
    sids = np.array([[0, 0, 0], [0, 1, 0], [1, 0, 0], [1, 0, 0], [2, 3, 3]])
    table = SidTable(sids, (4, 4, 4), "books")
    model = GeneratorRecommender(random_model(3, table), table, beam=20)
    left = set(range(5))
    for gone in (0, 4, 1, 3, 2):
        model.withdraw(np.array([gone]))
        left -= {gone}
        answer = model.recommend(Requests(Histories.from_lists([[], [0]]), mask_history=False), 5)
        assert [set(row[row >= 0].tolist()) for row in answer.item_index] == [left, left]
        assert answer.exact is not None
        assert answer.exact.all()
    model.restore(np.array([2, 3]))
    answer = model.recommend(Requests(Histories.from_lists([[3]])), 5)
    assert answer.item_index[0].tolist() == [2, -1, -1, -1, -1]
    with pytest.raises(ValueError, match="item_index 3 is in the trie"):
        model.restore(np.array([3]))


@pytest.mark.parametrize("name", ["food & drink", "!wine", " stock"])
def test_filter_names_that_would_read_as_something_else(name: str) -> None:
    model = recommender()
    model.filters[name] = np.ones(len(TABLE), bool)
    with pytest.raises(ValueError, match="a name holds no '&'"):
        model.recommend(Requests(HISTORIES, "stock"), 3)


def test_filters_follow_changes_of_items_and_masks() -> None:
    model = recommender(100)
    asked = Requests(Histories.from_lists([[]]), "stock")
    assert model.recommend(asked, 150).num_valid[0] == model.filters["stock"].sum()
    items = model.insert(TABLE.sids[100:], {"stock": np.ones(len(TABLE) - 100, bool)})
    assert set(items.tolist()) <= set(model.recommend(asked, 150).item_index[0].tolist())
    model.filters["stock"][items[0]] = False
    assert items[0] not in model.recommend(asked, 150).item_index
    model.filters["stock"][5] = not model.filters["stock"][5]
    assert (5 in model.recommend(asked, 150).item_index) == model.filters["stock"][5]
    model.withdraw(items[1:3])
    assert not np.isin(items[1:3], model.recommend(asked, 150).item_index).any()


VECTORS = np.random.default_rng(2).normal(size=(len(TABLE), 9)).astype(np.float32)
READS = random_model(
    11, TABLE, dataclasses.replace(TINY, history_input="causal", normalizer="trie"), vectors=VECTORS
)


COUNT = np.where(np.arange(len(TABLE)) < 100, np.arange(len(TABLE)) % 7, 0)
READS.config.popularity_discount = 0.5


def reader(items: np.ndarray) -> GeneratorRecommender:
    """A model that reads content and starts from its item head, over some of the items."""
    assert isinstance(READS, CausalT5)
    table = SidTable(TABLE.sids[items], TABLE.level_sizes, TABLE.codebook_fingerprint)
    model = copy.deepcopy(READS)
    # As if trained on the first hundred: the others came later and have no identity.
    identity = model.item_head.identity
    assert identity is not None
    model.item_head.identity = torch.nn.Embedding.from_pretrained(
        identity.weight.detach()[items] * torch.from_numpy(items < 100)[:, None]
    )
    every = facts_of(READS, VECTORS, COUNT)
    assert every.content is not None
    facts = ItemFacts(every.content[items], every.log_count[items])
    return GeneratorRecommender(model, table, beam=40, facts=facts)


def test_content_comes_and_goes_with_the_products() -> None:
    every = np.arange(len(TABLE))
    living, fresh = reader(every[:100]), reader(every)
    assert fresh.guided
    for part in np.array_split(every[100:], 3):
        living.insert(TABLE.sids[part], vectors=VECTORS[part])
        assert living.recommend(Requests(HISTORIES), 3).num_valid.min() == 3
    one, other = (model.recommend(Requests(HISTORIES), 20) for model in (fresh, living))
    np.testing.assert_array_equal(one.item_index, other.item_index)
    np.testing.assert_allclose(one.scores, other.scores, atol=1e-4)
    # Without what no history names: scores are relative to what is left.
    gone = every[(every > 59) & (every % 3 == 0)]
    kept = np.setdiff1d(every, gone)
    living.withdraw(gone)
    expected = reader(kept).recommend(
        Requests(Histories(np.searchsorted(kept, HISTORIES.values), HISTORIES.offsets)), 9
    )
    found = living.recommend(Requests(HISTORIES), 9)
    np.testing.assert_array_equal(found.item_index, kept[expected.item_index])
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-4)
    for every_last in (kept[:-1], kept[-1:]):
        living.withdraw(every_last)
        assert living.recommend(Requests(HISTORIES), 9).num_valid.max() <= 1
    living.restore(kept)
    living.restore(gone)
    np.testing.assert_array_equal(living.recommend(Requests(HISTORIES), 20).item_index, one.item_index)


def test_content_that_is_missing() -> None:
    model = reader(np.arange(20))
    with pytest.raises(ValueError, match="give the vectors of the 1 new products"):
        model.insert(TABLE.sids[[120]])
    with pytest.raises(ValueError, match="content vector 0 holds a number that is not finite"):
        model.insert(TABLE.sids[[120]], vectors=np.full((1, 9), np.nan, np.float32))
    with pytest.raises(ValueError, match=r"shape \(1,\); it must be \(items, 9\)"):
        model.insert(TABLE.sids[[120]], vectors=VECTORS[120, :1])
    with pytest.raises(ValueError, match=r"shape \(1, 4\); it must be \(items, 9\)"):
        model.insert(TABLE.sids[[120]], vectors=VECTORS[[120], :4])
    assert model.num_items == 20
    with pytest.raises(ValueError, match="reads content vectors or counts of its items: give their facts"):
        GeneratorRecommender(READS, TABLE)
