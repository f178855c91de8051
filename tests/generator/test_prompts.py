from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.generator.backbones import text_tokenizer

from pressmark.generator.backbone import sid_token_names, words_of
from pressmark.generator.config import PromptConfig
from pressmark.generator.model import item_tokens
from pressmark.generator.prompts import NOTHING, Asked, Prompts, text_rows, with_drawn_carts
from pressmark.sids.table import SidTable

TABLE = SidTable(np.array([[0, 1], [1, 0], [1, 1], [0, 0]]), (2, 2), "books")
TOKENIZER = text_tokenizer()
TOKENIZER.add_tokens([*sid_token_names((2, 2)), "<context_0>", "<context_1>"], special_tokens=True)
WORDS = words_of(TOKENIZER, (2, 2), ("north", "south"), "here")
TITLES = text_rows(TOKENIZER, ["oat milk", "red tea", "", "green tea item"], 2)


def shown(config: PromptConfig, asked: Asked, titles: torch.Tensor | None = None) -> list[str]:
    ids, mask = Prompts(WORDS, config, titles).of(item_tokens(TABLE), asked)
    assert (ids[mask == 0] == WORDS.pad).all()
    return [TOKENIZER.decode(row[: int(own.sum())]) for row, own in zip(ids, mask, strict=True)]


def test_a_prompt_by_hand() -> None:
    asked = Asked(
        torch.tensor([[2, 0], [1, -1], [-1, -1]]),
        torch.tensor([2, 1, 0]),
        torch.tensor([1, -1, 0]),
        torch.tensor([[3, -1], [-1, -1], [0, 1]]),
    )
    assert shown(PromptConfig(cart_share=0.5), asked) == [
        "<context_1> history : <sid_0_1> <sid_1_1> <sid_0_0> <sid_1_1> cart : <sid_0_0> <sid_1_0> </s>",
        "history : <sid_0_1> <sid_1_0> </s>",
        "<context_0> history : cart : <sid_0_0> <sid_1_1> <sid_0_1> <sid_1_0> </s>",
    ]


def test_the_newest_items_have_titles() -> None:
    asked = Asked(torch.tensor([[0, 1], [3, -1]]), torch.tensor([2, 1]))
    assert shown(PromptConfig(titled_items=1, title_tokens=2), asked, TITLES) == [
        "history : <sid_0_0> <sid_1_1> <sid_0_1> <sid_1_0> red tea </s>",
        "history : <sid_0_0> <sid_1_0> green tea </s>",
    ]


def test_no_prompt_is_longer_than_is_said() -> None:
    config = PromptConfig(titled_items=3, title_tokens=2, cart_share=1.0, cart_length=2)
    asked = Asked(torch.tensor([[0, 1, 3, 0]]), torch.tensor([4]), torch.tensor([0]), torch.tensor([[1, 1]]))
    ids, _ = Prompts(WORDS, config, TITLES).of(item_tokens(TABLE), asked)
    assert ids.shape[1] == Prompts(WORDS, config).longest(4, 2)


def test_drawn_carts_are_the_newest_of_a_history() -> None:
    torch.manual_seed(0)
    items = torch.arange(600).reshape(200, 3)
    lengths = torch.arange(200) % 4
    items = items.masked_fill(torch.arange(3) >= lengths[:, None], NOTHING)
    found = with_drawn_carts(Asked(items, lengths), PromptConfig(cart_share=0.5, cart_length=2))
    assert found.cart is not None
    for row in range(200):
        before = [int(one) for one in items[row] if one >= 0]
        left = [int(one) for one in found.items[row] if one >= 0]
        cart = [int(one) for one in found.cart[row] if one >= 0]
        assert left + cart == before
        assert len(left) == int(found.lengths[row])
        assert len(cart) <= 2
    drawn = (found.cart[lengths > 0] >= 0).any(1).float().mean()
    assert 0.35 < drawn < 0.65
    still = Asked(items, lengths)
    assert with_drawn_carts(still, PromptConfig()) is still


def test_contexts_are_numbered_and_unknown_ones_refused() -> None:
    assert WORDS.numbers(np.array(["south", "", "north"], object), 3).tolist() == [1, NOTHING, 0]
    assert WORDS.numbers(None, 2).tolist() == [NOTHING, NOTHING]
    with pytest.raises(
        ValueError, match="context 'web' is unknown; this generator was trained on 'north', 'south'"
    ):
        WORDS.numbers(np.array(["web"], object), 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cart_share": 1.5}, "cart_share is 1.5"),
        ({"titled_items": -1}, "titled_items"),
        ({"cart_length": 0}, "1"),
    ],
)
def test_bad_settings_are_refused(changes: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PromptConfig(**changes)  # type: ignore[arg-type]
