from __future__ import annotations

import numpy as np
import pytest
from tests.scripts import load_script

from pressmark.generator.config import Config
from pressmark.interactions.cases import Cases
from pressmark.interactions.histories import Histories

backbones, pretrain = load_script("backbones"), load_script("pretrain_backbone")


@pytest.mark.parametrize("length", [4, 9, 60, 200])
def test_a_corrupted_text_is_whole_again_with_what_is_told(length: int) -> None:
    ids = np.arange(length)
    left, told = pretrain.corrupted(ids, 1000, np.random.default_rng(length))
    spans: dict[int, list[int]] = {}
    for token in told:
        if token >= 1000:
            spans[token] = []
        else:
            spans[max(spans)].append(token)
    whole = [one for token in left for one in (spans[token] if token >= 1000 else [token])]
    assert whole == ids.tolist()
    assert all(len(one) > 0 for one in spans.values())
    assert sorted(spans) == [1000 + number for number in range(len(spans))]


def test_the_text_tokenizer_knows_its_texts_and_ends_them() -> None:
    texts = ["oat milk", "red tea, 20 bags", "oat bread"] * 3
    found = pretrain.train_text_tokenizer(texts, 100)
    ids = found("oat tea")["input_ids"]
    assert ids[-1] == found.eos_token_id
    assert found.unk_token_id not in ids
    sentinels = found.convert_tokens_to_ids(
        [f"<extra_id_{number}>" for number in range(pretrain.NUM_SENTINELS)]
    )
    assert sentinels == list(range(sentinels[0], sentinels[0] + pretrain.NUM_SENTINELS))


def test_rows_change_what_they_name_alone() -> None:
    plain = backbones.configured(Config(), "folder", {}, 70)
    for name, (_, changes) in backbones.ROWS.items():
        row = backbones.configured(Config(), "folder", changes, 70)
        assert row.training.max_steps == plain.training.max_steps == 70
        assert (row == plain) == (not changes), name
    lora = backbones.configured(Config(), "folder", backbones.LORA, 70)
    assert (lora.finetune.tuning, plain.finetune.tuning) == ("lora", "full")


def test_every_cold_case_is_asked_and_some_others() -> None:
    num = 40
    cases = Cases(
        np.arange(num),
        np.array([f"u{number}" for number in range(num)], object),
        Histories.from_lists([[number % 2] for number in range(num)]),
        np.array([1] * 5 + [2] * 35),
        np.arange(num) >= 30,
    )
    found = backbones.asked_of(cases, 6, 0)
    assert int(found.cold.sum()) == 10
    assert int((~found.cold).sum()) == 6
    assert not found.target_in_history().any()
