from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pressmark.tokenizer import contrastive
from pressmark.tokenizer.config import ContrastiveConfig
from pressmark.tokenizer.contrastive import code_similarities, level_weights, pair_targets
from pressmark.tokenizer.residual import squared_distances
from pressmark.tokenizer.rqvae import RQVAE, RQVAEConfig, RQVAEOutput

NAN = float("nan")
FORMS = ["kernel", "cosine", "agreement"]
# In these the temperatures of the forms are 1: no factor to carry through the arithmetic.
COSINE = ContrastiveConfig(form="cosine", temperature=5.0)
AGREEMENT = ContrastiveConfig(form="agreement", temperature=20.0)


def contrastive_loss(output: RQVAEOutput, targets: Tensor, valid: Tensor, config: ContrastiveConfig) -> Tensor:
    return contrastive.contrastive_loss(code_similarities(output, config), targets, valid, config)


def output_of(
    latents: Tensor, entries: Sequence[Tensor], distances: Sequence[Tensor] | None = None
) -> RQVAEOutput:
    """A forward pass whose levels chose `entries`; of no distances, those that say so."""
    residuals, residual = [], latents
    for entry in entries:
        residuals.append(residual)
        residual = residual - entry.detach()
    if distances is None:
        distances = [squared_distances(one, entry) for one, entry in zip(residuals, entries, strict=True)]
    return RQVAEOutput(
        inputs=latents,
        reconstruction=latents,
        codes=torch.zeros(len(latents), len(entries), dtype=torch.int64),
        residuals=tuple(residuals),
        quantized=tuple(entries),
        error=residual,
        distances=tuple(distances),
        mean_square=torch.ones(()),
    )


def test_level_weights_fall_and_sum_to_one() -> None:
    assert level_weights(4, 0.5) == pytest.approx([8 / 15, 4 / 15, 2 / 15, 1 / 15])
    assert level_weights(3, 1.0) == pytest.approx([1 / 3] * 3)


def graded() -> Tensor:
    """Item 0: a twin in its leaf, a sibling, an unrelated one, one unknown."""
    return torch.tensor(
        [
            [1.0, 1.0, 0.5, 0.0, NAN],
            [1.0, 1.0, 0.5, 0.0, NAN],
            [0.5, 0.5, 1.0, 0.0, NAN],
            [0.0, 0.0, 0.0, 1.0, NAN],
            [NAN, NAN, NAN, NAN, NAN],
        ]
    )


# Powers of 1 and 0.5 as shares of their sum.
@pytest.mark.parametrize(("power", "twin"), [(0.0, 1 / 2), (1.0, 2 / 3), (2.0, 4 / 5)])
def test_targets_by_hand(power: float, twin: float) -> None:
    targets, valid = pair_targets(graded(), torch.arange(5), power)
    rest = 1 - twin
    expected = [[0, twin, rest, 0, 0], [twin, 0, rest, 0, 0], [0.5, 0.5, 0, 0, 0], [0] * 5, [0] * 5]
    torch.testing.assert_close(targets, torch.tensor(expected))
    assert valid[0].tolist() == [False, True, True, True, False]
    assert not valid[4].any()


def test_an_item_drawn_twice_is_no_pair() -> None:
    targets, valid = pair_targets(torch.ones(3, 3), torch.tensor([7, 7, 8]))
    assert valid.tolist() == [[False, False, True], [False, False, True], [True, True, False]]
    assert targets.tolist() == [[0, 0, 1], [0, 0, 1], [0.5, 0.5, 0]]


def three_items() -> tuple[Tensor, Tensor]:
    """Items 0 and 1 share a leaf, item 2 is unrelated."""
    similarity = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    return pair_targets(similarity, torch.arange(3))


def loss_of(entries: list, config: ContrastiveConfig, error: Sequence[float] = (1.0, 0.0)) -> Tensor:
    """Of three items that chose (3, L, 2) `entries`; all latents lie `error` beside the sum of theirs."""
    levels = torch.tensor(entries, dtype=torch.float32).unbind(1)
    return contrastive_loss(output_of(sum(levels) + torch.tensor(error), levels), *three_items(), config)


def test_cosine_by_hand() -> None:
    # One level. Anchor 0 sees cosine 0 to 1 and 1 to 2; anchor 1 sees 0 and 0; anchor 2 has no relative.
    loss = loss_of([[[2.0, 0.0]], [[0.0, 3.0]], [[1.0, 0.0]]], COSINE)
    expected = torch.tensor([math.log(1 + math.e), math.log(2), 0.0]) * 3 / 2
    torch.testing.assert_close(loss, expected)


def test_cosine_levels_are_cumulative_and_weighted() -> None:
    # Level 1 alone would be opposite for items 0 and 1; the sums are equal.
    entries = [[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [1.0, 0.0]], [[-1.0, 0.0], [0.0, -1.0]]]
    first = [math.log(math.exp(0) + math.exp(-1)) - 0, math.log(math.exp(0) + math.exp(0)) - 0]
    second = [math.log(math.exp(1) + math.exp(-1)) - 1] * 2
    expected = [(2 / 3 * a + 1 / 3 * b) * 3 / 2 for a, b in zip(first, second, strict=True)]
    torch.testing.assert_close(loss_of(entries, COSINE), torch.tensor([*expected, 0.0]))


def test_kernel_by_hand() -> None:
    # Squared distances of sums: 0-1 4, 0-2 1, 1-2 5; each item leaves 1 + 1 = 2 over; temperature 0.5.
    loss = loss_of(
        [[[0.0, 0.0]], [[2.0, 0.0]], [[0.0, 1.0]]], ContrastiveConfig(temperature=0.5), error=(1.0, 1.0)
    )
    expected = [math.log(math.exp(-4) + math.exp(-1)) + 4, math.log(math.exp(-4) + math.exp(-5)) + 4, 0.0]
    torch.testing.assert_close(loss, torch.tensor(expected) * 3 / 2)


def test_kernel_measures_each_levels_sums_by_what_that_level_leaves_over() -> None:
    entries = torch.tensor([[[0.0, 0.0], [2.0, 0.0]], [[2.0, 0.0], [0.0, 0.5]], [[4.0, 0.0], [1.0, 1.0]]])
    latents = entries.sum(dim=1) + torch.tensor([[0.1, 0.0], [0.0, 0.2], [0.3, 0.0]])
    found = contrastive_loss(
        output_of(latents, entries.unbind(1)), *three_items(), ContrastiveConfig(level_decay=0.25)
    )
    expected = [0.0, 0.0, 0.0]
    for level, weight in ((0, 0.8), (1, 0.2)):
        sums = entries[:, : level + 1].sum(dim=1).tolist()
        error = sum(math.dist(a, b) ** 2 for a, b in zip(latents.tolist(), sums, strict=True)) / 3
        near = [[math.exp(-(math.dist(a, b) ** 2) / error) for b in sums] for a in sums]
        for i, j in ((0, 1), (1, 0)):
            expected[i] += weight * 3 / 2 * -math.log(near[i][j] / (near[i][j] + near[i][2]))
    torch.testing.assert_close(found, torch.tensor(expected))


def test_agreement_by_hand() -> None:
    # Soft codes (3/4, 1/4), (1/4, 3/4), (1/2, 1/2) at each of two levels; the nearest distances are 1.
    far = 1 + math.log(3)
    distances = torch.tensor([[1.0, far], [far, 1.0], [1.0, 1.0]])
    output = output_of(torch.zeros(3, 2), [torch.zeros(3, 2)] * 2, [distances, distances])
    # Items 0 and 1 agree by 3/8, each of them with item 2 by 1/2; up to level 1 by the squares.
    one, two = math.log((3 / 8 + 1 / 2) / (3 / 8)), math.log((9 / 64 + 1 / 4) / (9 / 64))
    expected = torch.tensor([1.0, 1.0, 0.0]) * (2 / 3 * one + 1 / 3 * two) * 3 / 2
    torch.testing.assert_close(contrastive_loss(output, *three_items(), AGREEMENT), expected)


@pytest.mark.parametrize("config", [ContrastiveConfig(), COSINE, AGREEMENT], ids=FORMS)
def test_the_loss_is_zero_where_codes_mirror_equal_targets(config: ContrastiveConfig) -> None:
    similarity = torch.tensor([[1.0, 0.5, 0.5], [0.5, 1.0, 0.5], [0.5, 0.5, 1.0]])
    loss = contrastive_loss(
        output_of(torch.eye(3) + 0.5, [torch.eye(3)]), *pair_targets(similarity, torch.arange(3)), config
    )
    torch.testing.assert_close(loss, torch.zeros(3), atol=1e-6, rtol=0)


def test_kernel_is_zero_where_distances_mirror_a_graded_tree() -> None:
    # Items 0 and 1 share their codes; item 2, their sibling, stands where its kernel is half of theirs.
    similarity = torch.tensor([[1.0, 1.0, 0.5], [1.0, 1.0, 0.5], [0.5, 0.5, 1.0]])
    place = torch.tensor([[0.0, 0.0], [0.0, 0.0], [math.sqrt(math.log(2)), 0.0]])
    output = output_of(place + torch.tensor([0.0, 1.0]), [place])
    targets, valid = pair_targets(similarity, torch.arange(3), power=1.0)
    loss = contrastive_loss(output, targets, valid, ContrastiveConfig())
    torch.testing.assert_close(loss, torch.zeros(3), atol=1e-6, rtol=0)


def test_an_unrelated_product_costs_the_kernel_nothing_once_it_is_far() -> None:
    values = [
        float(loss_of([[[0.0, 0.0]], [[0.0, 0.0]], [[away, 0.0]]], ContrastiveConfig()).sum())
        for away in (1, 2, 9)
    ]
    assert values[0] > values[1] > 0.01
    assert values[2] < 1e-6
    # The cosine cannot do that: angles end at 180 degrees.
    assert loss_of([[[1.0, 0.0]], [[1.0, 0.0]], [[-9.0, 0.0]]], COSINE).sum() > 0.1


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(FORMS))
def test_the_loss_is_a_divergence_and_never_below_zero(seed: int, form: str) -> None:
    generator = torch.Generator().manual_seed(seed)
    similarity = torch.randint(0, 4, (6, 6), generator=generator) / 3
    similarity[torch.rand(6, 6, generator=generator) < 0.2] = NAN
    entries = [torch.randn(6, 3, generator=generator) for _ in range(2)]
    output = output_of(torch.randn(6, 3, generator=generator), entries)
    loss = contrastive_loss(output, *pair_targets(similarity, torch.arange(6)), ContrastiveConfig(form=form))
    assert (loss > -1e-4).all()


@pytest.mark.parametrize("config", [ContrastiveConfig(), COSINE], ids=["kernel", "cosine"])
def test_pulling_relatives_together_lowers_it(config: ContrastiveConfig) -> None:
    apart = loss_of([[[1.0, 0.0]], [[0.0, 1.0]], [[-1.0, 0.0]]], config).sum()
    close = loss_of([[[1.0, 0.0]], [[0.9, 0.4]], [[-1.0, 0.0]]], config).sum()
    assert close < apart


@pytest.mark.parametrize("form", FORMS)
def test_pairs_of_unknown_category_and_duplicates_are_left_out(form: str) -> None:
    generator = torch.Generator().manual_seed(0)
    latents, entries = torch.randn(5, 3, generator=generator), torch.randn(5, 3, generator=generator)
    distances = torch.rand(5, 4, generator=generator) + 1.0
    distances[:, 0] = 0.5
    temperature = 20.0 if form == "agreement" else 1.0
    targets, valid = pair_targets(graded()[[0, 2, 3, 0, 4]][:, [0, 2, 3, 0, 4]], torch.tensor([0, 2, 3, 0, 4]))

    def loss(changed: Tensor) -> Tensor:
        # Errors and nearest distances stay: they are of the batch, not of a pair.
        output = output_of(latents, [entries], [distances])
        output = output._replace(residuals=(latents + changed,), quantized=(entries + changed,))
        if form == "agreement":
            output = output._replace(distances=(distances + changed[:, :1] * torch.arange(4),))
        return contrastive_loss(output, targets, valid, ContrastiveConfig(form=form, temperature=temperature))

    still, moved = torch.zeros(5, 3), torch.zeros(5, 3)
    moved[4] = 2.0
    torch.testing.assert_close(loss(moved), loss(still))
    assert loss(still)[[2, 4]].tolist() == [0.0, 0.0]
    moved = torch.zeros(5, 3)
    moved[3] = 2.0  # item 0 once more: anchors 1 and 2 look at it, anchor 0 does not
    torch.testing.assert_close(loss(moved)[0], loss(still)[0])
    assert (loss(moved)[1] - loss(still)[1]).abs() > 1e-3


def kernel_force(places: list, offsets: list) -> Tensor:
    """Gradient at the latents of three items whose quantized sums stand at `places`."""
    latents = (torch.tensor(places) + torch.tensor(offsets)).requires_grad_()
    contrastive_loss(
        output_of(latents, [torch.tensor(places)]), *three_items(), ContrastiveConfig()
    ).sum().backward()
    assert latents.grad is not None
    return latents.grad


def test_kernel_force_by_hand() -> None:
    # Each leaves 1 over. Items 0 and 1 share their place, item 2 stands 1 to the right:
    # anchor 0 loses log(1 + exp(-d^2)), whose slope is -2 d exp(-1) / (1 + exp(-1)) at d = 1.
    force = kernel_force([[0.0, 0.0], [0.0, 0.0], [1.0, 0.0]], [[0.0, 1.0], [0.0, -1.0], [1.0, 0.0]])
    push = 2 * math.exp(-1) / (1 + math.exp(-1)) * 3 / 2
    torch.testing.assert_close(force, torch.tensor([[push, 0.0], [push, 0.0], [-2 * push, 0.0]]))


def test_pairs_that_share_their_codes_exert_no_force_on_each_other_and_neither_do_far_ones() -> None:
    offsets = [[0.0, 1.0], [0.3, -1.0], [1.0, 0.0]]
    assert kernel_force([[2.0, 1.0]] * 3, offsets).abs().max() < 1e-6
    assert kernel_force([[0.0, 0.0], [0.0, 0.0], [20.0, 0.0]], offsets).abs().max() < 1e-6
    # Relatives in different cells do.
    assert kernel_force([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]], offsets)[0].abs().max() > 0.1


@pytest.mark.parametrize("form", ["kernel", "cosine"])
def test_gradient_reaches_entries_of_every_level_and_the_latents(form: str) -> None:
    generator = torch.Generator().manual_seed(0)
    entries = [torch.randn(3, 4, generator=generator).requires_grad_() for _ in range(2)]
    latents = torch.randn(3, 4, generator=generator).requires_grad_()
    contrastive_loss(output_of(latents, entries), *three_items(), ContrastiveConfig(form=form)).sum().backward()
    # Item 2 has no relative, yet it is pushed: it stands among the pairs of 0 and 1.
    for tensor in (latents, *entries):
        assert tensor.grad is not None
        assert (tensor.grad.abs().sum(dim=1) > 1e-4).all()
    # Straight through: level 0's entries get what the latents get, for level 1's sums hold them too.
    torch.testing.assert_close(latents.grad, entries[0].grad)


def model_gradients(form: str, by_gradient: bool) -> tuple[RQVAE, RQVAEOutput]:
    torch.manual_seed(0)
    model = RQVAE(RQVAEConfig(4, (3, 5), hidden_sizes=(), latent_dim=2))
    with torch.no_grad():
        for book in model.books:
            book.copy_(torch.randn(book.shape))
    model.books.requires_grad_(by_gradient)
    output = model(torch.randn(3, 4))
    contrastive_loss(output, *three_items(), ContrastiveConfig(form=form, temperature=20.0)).sum().backward()
    return model, output


@pytest.mark.parametrize("by_gradient", [True, False], ids=["gradient", "ema"])
@pytest.mark.parametrize("form", FORMS)
def test_the_encoder_learns_and_the_entries_where_they_are_trained(form: str, by_gradient: bool) -> None:
    model, output = model_gradients(form, by_gradient)
    assert model.encoder.linear.weight.grad is not None
    assert model.encoder.linear.weight.grad.abs().max() > 1e-4
    for level, book in enumerate(model.books):
        if not by_gradient:
            assert book.grad is None
            continue
        reached = torch.ones(len(book), dtype=torch.bool)
        if form != "agreement":  # soft assignments speak of all entries, quantized sums of those chosen
            reached = torch.bincount(output.codes[:, level], minlength=len(book)) > 0
        assert book.grad is not None
        assert ((book.grad.abs().sum(dim=1) > 0) == reached).all()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("similarity", [0.0, NAN])
def test_a_batch_without_relatives_costs_nothing(similarity: float, form: str) -> None:
    targets, valid = pair_targets(torch.full((4, 4), similarity), torch.arange(4))
    latents, entries = torch.randn(4, 3).requires_grad_(), torch.randn(4, 3).requires_grad_()
    loss = contrastive_loss(output_of(latents, [entries]), targets, valid, ContrastiveConfig(form=form))
    loss.sum().backward()
    assert loss.tolist() == [0.0] * 4
    for tensor in (latents, entries):
        assert tensor.grad is None or tensor.grad.isfinite().all()


@pytest.mark.parametrize("form", FORMS)
def test_items_that_equal_their_codes_give_finite_gradients(form: str) -> None:
    # Nothing is left over: the unit of kernel and soft assignments would be 0.
    place = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    latents = place.clone().requires_grad_()
    loss = contrastive_loss(output_of(latents, [place]), *three_items(), ContrastiveConfig(form=form))
    loss.sum().backward()
    assert loss.isfinite().all()
    assert latents.grad is not None
    assert latents.grad.isfinite().all()


@pytest.mark.parametrize(
    ("option", "value"),
    [("temperature", 0.0), ("grade_power", -1.0), ("level_decay", 1.5), ("level_decay", 0.0)],
)
def test_wrong_options_are_refused(option: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"tokenizer.contrastive.*{option} \({value}\)"):
        ContrastiveConfig(**{option: value})
