from __future__ import annotations

import numpy as np
import pytest

from pressmark.catalog.taxonomy import Taxonomy, build_taxonomy
from pressmark.tokenizer import pairs
from pressmark.tokenizer.pairs import CLASSES, LeafGroups


def tree() -> Taxonomy:
    """Paths of several lengths, items with two paths, with none, and on an inner node."""
    paths = [("a", "x", "1"), ("a", "x", "2"), ("a", "x"), ("a", "y", "3"), ("b", "z", "4"), ("b",)]
    rng = np.random.default_rng(0)
    category = [tuple(paths[one] for one in rng.permutation(6)[: rng.integers(0, 3)]) for _ in range(60)]
    return build_taxonomy(category)


@pytest.mark.parametrize("most", [2048, 0], ids=["one table", "a table a batch"])
def test_groups_tell_what_the_items_would(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs, "_MOST_IN_A_TABLE", most)
    taxonomy = tree()
    batch = np.random.default_rng(1).permutation(60)[:40]
    found = LeafGroups(taxonomy).pairs(batch)
    relation = taxonomy.relation(batch[:, None], batch)
    assert (found.relation[np.ix_(found.group, found.group)] == relation).all()
    similarity = found.similarity[np.ix_(found.group, found.group)]
    np.testing.assert_array_equal(similarity, taxonomy.similarity(batch[:, None], batch))
    assert found.size.tolist() == np.bincount(found.group).tolist()
    assert len(found.size) < 30
    upper = relation[np.triu_indices(40, k=1)]
    assert found.counts() == {name: int((upper == constant).sum()) for name, constant in CLASSES.items()}
    assert min(found.counts().values()) > 0
