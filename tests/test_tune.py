from __future__ import annotations

import operator

import pytest
from tests.scripts import load_script

from pressmark.experiment import Experiment, with_keys

tune = load_script("tune")


@pytest.mark.parametrize("model", tune.SPACE)
@pytest.mark.parametrize("trial", [1, 2, 3])
def test_every_trial_is_a_configuration(model: str, trial: int) -> None:
    settings = tune.drawn(model, trial, 0)
    config = with_keys(getattr(Experiment(), model), settings)
    assert all(operator.attrgetter(key)(config) == value for key, value in settings.items())
    assert settings == tune.drawn(model, trial, 0) != tune.drawn(model, trial + 1, 0)
    assert settings != tune.drawn(model, trial, 1)


def test_the_first_trial_is_the_configuration_as_it_stands() -> None:
    assert tune.drawn("sasrec", 0, 0) == {}


def test_all_trained_models_are_searched() -> None:
    assert set(tune.SPACE) == set(tune.TRAINED) - {"hybrid"}
    assert set(tune.SPACE) < set(tune.TUNED)
    assert "hybrid" not in tune.TUNED
