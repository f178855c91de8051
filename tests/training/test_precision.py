from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from pressmark.training import precision as precision_module
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


@pytest.mark.parametrize(("onednn", "expected"), [(0.9, "no"), (0.5, "bf16_products")])
@pytest.mark.parametrize(
    "busy", [range(0), range(0, 60), range(40, 100)], ids=["idle", "at first", "in the end"]
)
def test_a_busy_machine_does_not_change_the_choice(
    monkeypatch: pytest.MonkeyPatch, onednn: float, expected: str, busy: range
) -> None:
    calls = []

    def seconds() -> float:
        calls.append(torch.get_num_threads())
        taken = onednn if torch.backends.mkldnn.matmul.fp32_precision == "bf16" else 1.0
        return taken * (10 if len(calls) in busy else 1)

    monkeypatch.setattr(precision_module, "_seconds", seconds)
    before = torch.get_num_threads()
    assert choose_precision("auto", torch.device("cpu")) == expected
    assert set(calls) == {1}
    assert torch.get_num_threads() == before
