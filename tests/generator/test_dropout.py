from __future__ import annotations

import pytest
import torch
from tests.generator.models import random_model, random_table
from torch import nn

from pressmark.generator.dropout import ByteDropout, quicken_dropout


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_it_drops_at_its_rate_and_keeps_the_mean(rate: float) -> None:
    torch.manual_seed(0)
    values = torch.ones(401, 251, requires_grad=True)  # no multiple of eight
    dropped = ByteDropout(rate)(values)
    rounded = round(256 * rate) / 256
    assert (dropped == 0).float().mean().item() == pytest.approx(rounded, abs=0.005)
    torch.testing.assert_close(dropped[dropped > 0], torch.full_like(dropped[dropped > 0], 1 / (1 - rounded)))
    # Neighbours fall independently.
    both = ((dropped[:, 1:] == 0) & (dropped[:, :-1] == 0)).float().mean().item()
    assert both == pytest.approx(rounded**2, abs=0.005)
    dropped.sum().backward()
    torch.testing.assert_close(values.grad, dropped.detach())


def test_it_is_a_function_of_the_seed() -> None:
    values = torch.ones(64)
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(ByteDropout(0.5)(values))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_it_does_nothing_outside_training() -> None:
    values = torch.ones(64)
    assert ByteDropout(0.5).eval()(values) is values
    assert ByteDropout(0.0)(values) is values


def test_it_takes_the_place_of_every_dropout() -> None:
    model = random_model(0, random_table(0, 9, (3, 4)))
    names = list(model.state_dict())
    quicken_dropout(model)
    assert not any(isinstance(module, nn.Dropout) for module in model.modules())
    rates = {module.rate for module in model.modules() if isinstance(module, ByteDropout)}
    assert rates == {0.1}
    assert list(model.state_dict()) == names
