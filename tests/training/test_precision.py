from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from pressmark.training.precision import choose_precision, products


@pytest.mark.parametrize("precision", ["no", "bf16_products"])
def test_attention_is_the_same_and_taken_apart_only_where_products_are_onednns(precision: str) -> None:
    torch.manual_seed(0)
    query = torch.randn(3, 2, 5, 4, requires_grad=True)
    inside = torch.tensor([[True] * 5, [True] * 3 + [False] * 2, [True] + [False] * 4])[:, None, None, :]
    expected = F.scaled_dot_product_attention(query, query, query, attn_mask=inside)
    fused = torch.backends.cuda.flash_sdp_enabled()
    with products(precision):
        assert torch.backends.cuda.flash_sdp_enabled() == (fused and precision == "no")
        found = F.scaled_dot_product_attention(query, query, query, attn_mask=inside)
        torch.testing.assert_close(found, expected, rtol=2e-2, atol=2e-2)
    assert torch.backends.cuda.flash_sdp_enabled() == fused


def test_what_is_asked_for_is_what_is_taken() -> None:
    assert choose_precision("bf16_products", torch.device("cpu")) == "bf16_products"
    assert choose_precision("auto", torch.device("cpu")) in {"no", "bf16_products"}
