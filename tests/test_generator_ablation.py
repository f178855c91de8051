from __future__ import annotations

import operator

import numpy as np
import pytest
from tests.scripts import load_script

from pressmark.generator.train import Config
from pressmark.interactions.cases import Cases, Split
from pressmark.interactions.histories import Histories

ablation = load_script("generator_ablation")


def test_the_last_training_item_is_held_back_and_stays_in_the_histories_asked() -> None:
    asked = Cases(
        np.arange(2),
        np.array(["a", "c"], object),
        Histories.from_lists([[1, 2, 3], [5, 6]]),
        np.array([4, 7]),
        np.zeros(2, bool),
    )
    split = Split(
        Histories.from_lists([[1, 2, 3], [9], [5, 6]]),
        np.array(["a", "b", "c"], object),
        np.arange(6.0),
        np.arange(6) * 10,
        asked,
        asked,
        np.zeros(10, bool),
        np.ones(10, bool),
    )
    found = ablation.held_back(split)
    # An only item stays: a shopper without any would have no sequence.
    assert [found.train[row].tolist() for row in range(3)] == [[1, 2], [9], [5]]
    assert found.train_timestamp.tolist() == [0, 1, 3, 4]
    assert found.train_position.tolist() == [0, 10, 30, 40]
    assert found.valid.histories[0].tolist() == [1, 2, 3]


@pytest.mark.parametrize("name", ablation.CHANGES)
def test_every_change_is_one_of_the_configuration(name: str) -> None:
    config = ablation.changed(Config(), ablation.CHANGES[name])
    for key, value in ablation.CHANGES[name].items():
        assert operator.attrgetter(key)(config) == value
