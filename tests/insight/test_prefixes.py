from __future__ import annotations

import numpy as np
import pytest

from pressmark.insight.prefixes import find_prefixes


@pytest.mark.parametrize(("num_items", "num_levels"), [(1, 2), (40, 2), (300, 3), (120, 8)])
def test_every_prefix_is_the_range_of_its_items(num_items: int, num_levels: int) -> None:
    sids = np.random.default_rng(num_items).integers(0, 4, (num_items, num_levels))
    found = find_prefixes(sids)
    codes = [found.codes(one) for one in range(len(found))]
    expected = {tuple(row[:length]) for row in sids.tolist() for length in range(num_levels + 1)}
    assert codes == sorted(expected)  # the walk's order is that of the codes
    for prefix, own in enumerate(codes):
        holders = [item for item, row in enumerate(sids.tolist()) if tuple(row[: len(own)]) == own]
        assert sorted(found.items(prefix)) == holders
        assert found.num_items[prefix] == len(holders)
        assert (found.of_item[holders, len(own)] == prefix).all()
        assert found.parent[prefix] == (codes.index(own[:-1]) if own else -1)
        assert found.find(own) == prefix
    assert found.find([9]) == -1


def test_items_that_share_a_sid_stand_by_index() -> None:
    found = find_prefixes(np.array([[1, 1], [0, 0], [1, 1]]))
    assert found.order.tolist() == [1, 0, 2]
