from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from pressmark.tokenizer.agreement import (
    LEAST,
    agreement_loss,
    content_weights,
    log_agreement,
    soft_codes,
    unevenness,
)
from pressmark.tokenizer.config import AgreementConfig
from pressmark.tokenizer.residual import squared_distances

# Of the soft assignments: one mean nearest distance.
PLAIN = AgreementConfig(temperature=20.0)
FAR = 1 + math.log(3)
# Soft codes (3/4, 1/4), (1/4, 3/4) and (1/2, 1/2) at PLAIN's temperature: the nearest distances are 1.
DISTANCES = torch.tensor([[1.0, FAR], [FAR, 1.0], [1.0, 1.0]])


def test_soft_codes_by_hand() -> None:
    expected = torch.tensor([[3 / 4, 1 / 4], [1 / 4, 3 / 4], [1 / 2, 1 / 2]])
    torch.testing.assert_close(soft_codes(DISTANCES, 1.0), expected)
    # Nearest distances 1 and 3: the unit is their mean, 2, and half of it the temperature.
    uneven = torch.tensor([[1.0, FAR], [FAR + 2, 3.0]])
    torch.testing.assert_close(soft_codes(uneven, 0.5), expected[:2])


def test_soft_codes_do_not_depend_on_the_scale_of_the_space() -> None:
    torch.testing.assert_close(soft_codes(700 * DISTANCES, 1.0), soft_codes(DISTANCES, 1.0))
    # Far codes stay at e^-30: neither zero nor a denormal number.
    expected = torch.tensor([[1.0, math.exp(-30.0)]])
    torch.testing.assert_close(soft_codes(torch.tensor([[0.0, 1.0]]), 1.0), expected, rtol=1e-4, atol=0)


def test_log_agreement_by_hand() -> None:
    codes = torch.tensor([[0.75, 0.25], [0.0, 1.0]])
    others = torch.tensor([[0.25, 0.75], [1.0, 0.0], [0.5, 0.5]])
    expected = torch.tensor([[3 / 8, 3 / 4, 1 / 2], [3 / 4, LEAST, 1 / 2]]).log()
    torch.testing.assert_close(log_agreement(codes, others), expected)


def test_a_hopeless_pair_has_no_gradient() -> None:
    codes = torch.tensor([[1.0, 0.0]], requires_grad=True)
    log_agreement(codes, torch.tensor([[0.0, 1.0]])).sum().backward()
    assert codes.grad is not None
    assert codes.grad.tolist() == [[0.0, 0.0]]


def test_content_weights_by_hand() -> None:
    # Cosines 1, 0.8 and 0.6 with item 0; item 3 has no text.
    units = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.6, 0.8], [0.0, 0.0]])
    found = content_weights(units, AgreementConfig(twin_cosine=0.9, sharpness=20.0, min_cosine=0.65))
    torch.testing.assert_close(found[0], torch.tensor([1.0, math.exp(-2), 0.0, 0.0]))
    assert found[3].tolist() == [0.0] * 4
    torch.testing.assert_close(found, found.T)
    assert content_weights(units, AgreementConfig(twin_cosine=0.7, sharpness=20.0, min_cosine=0.59))[
        0
    ].tolist() == pytest.approx([1.0, 1.0, math.exp(-2), 0.0], rel=1e-4)


def test_agreement_loss_by_hand() -> None:
    # Items 0 and 1 agree by 3/8 a level, 0 and 2 by 1/2; a pair counts once, half at each end.
    weights = torch.tensor([[0.0, 2.0, 1.0], [2.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    one, other = math.log(8 / 3), math.log(2)
    level_0 = torch.tensor([2 * one + other, 2 * one, other]) / 2
    # Up to level 1 the logarithm doubles, and weighs half: the same once more.
    for num_levels, factor in ((1, 1.0), (2, 2.0)):
        shape = AgreementConfig(num_levels=num_levels, temperature=20.0, level_decay=0.5)
        torch.testing.assert_close(agreement_loss([DISTANCES] * 3, weights, shape), factor * level_0)
    shape = AgreementConfig(num_levels=2, temperature=20.0, level_decay=0.25)
    torch.testing.assert_close(agreement_loss([DISTANCES] * 2, weights, shape), 1.5 * level_0)


def force(places: list[float], num_levels: int = 1) -> Tensor:
    """Gradient of a pair of weight 1 on a line with entries at -1 and 1."""
    rows = torch.tensor(places).unsqueeze(1).requires_grad_()
    distances = squared_distances(rows, torch.tensor([[-1.0], [1.0]]))
    weights = torch.ones(2, 2) - torch.eye(2)
    agreement_loss(
        [distances], weights, AgreementConfig(num_levels=num_levels, temperature=6.0)
    ).sum().backward()
    assert rows.grad is not None
    return rows.grad.squeeze(1)


def test_a_pair_astride_a_border_is_drawn_to_one_side_of_it() -> None:
    near_border, further = force([0.1, -0.5])
    # Down the gradient: the first goes left, over the border; the second, less, to the right.
    assert near_border > 0 > further
    assert near_border > 2 * further.abs()
    torch.testing.assert_close(force([-0.1, 0.5]), -torch.stack([near_border, further]))


def test_a_pair_deep_in_one_cell_feels_almost_nothing() -> None:
    astride, deep = force([0.1, -0.1]).abs().min(), force([0.8, 0.7]).abs().max()
    assert deep < 1e-2 * astride


def test_unevenness_by_hand() -> None:
    even, leaning = DISTANCES[:2], DISTANCES[[0, 0]]
    one_sided = 3 / 4 * math.log(3 / 2) + 1 / 4 * math.log(1 / 2)
    torch.testing.assert_close(unevenness([even], PLAIN), torch.zeros(2))
    torch.testing.assert_close(unevenness([leaning], PLAIN), torch.full((2,), one_sided))
    # Two levels are looked at, the second weighs half.
    torch.testing.assert_close(unevenness([even, leaning, leaning], PLAIN), torch.full((2,), one_sided / 2))
    all_the_same = torch.tensor([[0.0, 1.0, 1.0, 1.0]] * 5)
    torch.testing.assert_close(unevenness([all_the_same], PLAIN), torch.full((5,), math.log(4)))


def test_unevenness_draws_items_to_the_idle_code() -> None:
    rows = torch.tensor([[0.2], [0.3], [0.4]], requires_grad=True)
    unevenness([squared_distances(rows, torch.tensor([[-1.0], [1.0]]))], PLAIN).sum().backward()
    assert rows.grad is not None
    assert (rows.grad > 0).all()


def test_unevenness_of_a_code_that_nobody_leans_to_is_finite_and_so_is_its_gradient() -> None:
    rows = torch.tensor([[0.0], [0.1]], requires_grad=True)
    loss = unevenness(
        [squared_distances(rows, torch.tensor([[0.0], [0.05], [1e4]]))], AgreementConfig(num_levels=1)
    )
    loss.sum().backward()
    assert loss.isfinite().all()
    assert rows.grad is not None
    assert rows.grad.isfinite().all()


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("num_levels", 0),
        ("num_neighbours", 0),
        ("temperature", 0.0),
        ("sharpness", -1.0),
        ("level_decay", 0.0),
        ("min_cosine", 0.0),
        ("twin_cosine", 1.5),
    ],
)
def test_wrong_options_are_refused(option: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"tokenizer.agreement.*{option} \({value}\)"):
        AgreementConfig(**{option: value})
