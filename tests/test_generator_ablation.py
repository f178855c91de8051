from __future__ import annotations

import operator

import pytest
from tests.scripts import load_script

from pressmark.experiment import with_keys
from pressmark.generator.train import Config

ablation = load_script("generator_ablation")


@pytest.mark.parametrize("name", ablation.CHANGES)
def test_every_change_is_one_of_the_configuration(name: str) -> None:
    config = with_keys(Config(), ablation.CHANGES[name])
    for key, value in ablation.CHANGES[name].items():
        assert operator.attrgetter(key)(config) == value
