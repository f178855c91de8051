from __future__ import annotations

import operator

import pytest
from tests.scripts import load_script

from pressmark.experiment import Experiment, with_keys

ablation = load_script("ablation")


CHANGES = [(model, name) for model, changes in ablation.CHANGES.items() for name in changes]


@pytest.mark.parametrize(("model", "name"), CHANGES)
def test_every_change_is_one_of_the_configuration(model: str, name: str) -> None:
    change = ablation.CHANGES[model][name]
    config = with_keys(getattr(Experiment(), model), change)
    assert all(operator.attrgetter(key)(config) == value for key, value in change.items())
