from __future__ import annotations

import dataclasses

import pytest
import torch
from tests.generator.models import TINY, encode_lists, random_model, random_table

from pressmark.generator.model import encoder_arguments
from pressmark.generator.t5_decoder import T5Decoder
from pressmark.sids.vocabulary import PAD

TABLE = random_table(1, 30, (5, 4, 6))
# Long enough for every kind of relative-position bucket, and one without any item.
HISTORIES = [list(range(25)), [], [3], [1, 2, 3, 4]]


@pytest.mark.parametrize("feed_forward", ["relu", "gated-gelu"])
@pytest.mark.parametrize("history_input", ["tokens", "items", "causal"])
def test_encoder_and_decoder_are_hfs(feed_forward: str, history_input: str) -> None:
    config = dataclasses.replace(
        TINY, feed_forward=feed_forward, history_input=history_input, num_decoder_layers=3
    )
    model = random_model(2, TABLE, config, max(len(one) for one in HISTORIES))
    encoded = encode_lists(TABLE, HISTORIES, history_input)
    arguments = encoder_arguments(model, encoded.input_ids)
    num_tokens = model.config.vocab_size
    # Two beams a user, four positions, any tokens at all.
    tokens = torch.randint(0, num_tokens, (len(HISTORIES), 2, 4), generator=torch.Generator().manual_seed(0))
    tokens[..., 0] = PAD
    decoder = T5Decoder(model)
    with torch.inference_mode():
        states = decoder.encode(encoded.input_ids, encoded.attention_mask)
        expected = model.encoder(**arguments, attention_mask=encoded.attention_mask).last_hidden_state
        inside = encoded.attention_mask.bool()
        torch.testing.assert_close(states[inside], expected[inside], atol=1e-5, rtol=1e-5)

        cross_kv, cache = decoder.cross_kv(states, encoded.attention_mask), None
        parent = torch.arange(2).expand(len(HISTORIES), 2)
        for position in range(4):
            logits, cache = decoder.step(tokens[..., position], cross_kv, cache, parent, slice(2, None))
            for beam in range(2):
                whole = model(
                    **arguments,
                    attention_mask=encoded.attention_mask,
                    decoder_input_ids=tokens[:, beam, : position + 1],
                ).logits
                torch.testing.assert_close(logits[:, beam], whole[:, -1, 2:], atol=1e-4, rtol=1e-5)


def test_it_keeps_its_own_copy_of_the_weights() -> None:
    model = random_model(2, TABLE)
    encoded = encode_lists(TABLE, HISTORIES)
    decoder = T5Decoder(model)
    before = decoder.encode(encoded.input_ids, encoded.attention_mask)
    for weight in model.parameters():
        weight.data.zero_()
    torch.testing.assert_close(
        decoder.encode(encoded.input_ids, encoded.attention_mask), before, atol=0, rtol=0
    )
