from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tests.generator.backbones import FAMILIES, save_folder
from tests.generator.models import random_table
from torch import Tensor

from pressmark.generator.backbone import BuiltFor, build_backbone
from pressmark.generator.beam_search import SearchTrie, search
from pressmark.generator.config import FinetuneConfig
from pressmark.generator.hf_decoder import HfDecoder, Renumbered, decoder_of
from pressmark.generator.hf_generate import TrieBeamSearch
from pressmark.generator.model import item_tokens
from pressmark.generator.prompts import Asked, Prompts
from pressmark.generator.saved_backbone import load_backbone, save_backbone
from pressmark.sids.trie import build_trie

TABLE = random_table(3, 40, (6, 7, 5))
BOOKS = [
    np.random.default_rng(level).normal(size=(size, 5)).astype(np.float32)
    for level, size in enumerate((6, 7, 5))
]
BEAM = 8


@pytest.fixture(params=FAMILIES, scope="module")
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Prompts]:
    """A backbone with sid_tokens, saved and loaded again."""
    folder = tmp_path_factory.mktemp(request.param)
    base = save_folder(folder / "base", request.param)
    torch.manual_seed(1)
    built = BuiltFor(TABLE, 6, "full", BEAM, ("north", "south"))
    model, words, _ = build_backbone(base, FinetuneConfig(), built, BOOKS)
    save_backbone(folder / "saved", model, words, FinetuneConfig(), base)
    loaded, prompts, _ = load_backbone(folder / "saved", TABLE)
    for (name, one), other in zip(loaded.state_dict().items(), model.eval().state_dict().values(), strict=True):
        torch.testing.assert_close(one, other, msg=name)
    return loaded, prompts


def asked() -> Asked:
    items = torch.tensor([[3, 1, 7, 2], [5, -1, -1, -1], [-1, -1, -1, -1]])
    return Asked(items, torch.tensor([4, 1, 0]), torch.tensor([0, 1, -1]))


def allowed_next(trie: Any, shift: int, num_levels: int) -> Any:
    """What HF wants to know: the tokens that may follow those of a beam."""
    sids = TABLE.sids

    def allowed(row: int, tokens: Tensor) -> list[int]:
        level = len(tokens) - 1
        fits = (sids[:, :level] + offsets[:level] == tokens[1:].numpy()).all(1)
        return sorted({int(one) for one in sids[fits, level] + offsets[level]})

    starts = np.concatenate([[0], np.cumsum(TABLE.level_sizes)[:-1]])
    offsets = starts + shift
    return allowed


def test_it_finds_what_generate_finds(saved: tuple[Any, Prompts]) -> None:
    model, prompts = saved
    ids, mask = prompts.of(item_tokens(TABLE), asked())
    first = prompts.words.first_sid
    trie = build_trie(TABLE.sids, TABLE.level_sizes)
    expected = model.generate(
        input_ids=ids,
        attention_mask=mask,
        num_return_sequences=BEAM,
        prefix_allowed_tokens_fn=allowed_next(trie, first, TABLE.num_levels),
        return_dict_in_generate=True,
        output_scores=True,
        early_stopping=False,
    )
    decoder = decoder_of(model)
    found = search(decoder, decoder.encode(ids, mask), mask, SearchTrie.of(trie), BEAM)
    offsets = torch.tensor([0, *np.cumsum(TABLE.level_sizes)[:-1]]) + first
    theirs = expected.sequences[:, 1 : 1 + TABLE.num_levels].view(3, BEAM, -1)
    torch.testing.assert_close(found.codes + offsets, theirs)
    torch.testing.assert_close(found.score.flatten(), expected.sequences_scores, atol=1e-4, rtol=0)
    assert found.score.std() > 0.3


@pytest.mark.parametrize("normalizer", ["full", "level", "trie"])
def test_both_decoders_have_the_scores_of_teacher_forcing(saved: tuple[Any, Prompts], normalizer: Any) -> None:
    """Every SID is found, with the score that a plain forward pass over it gives."""
    model, prompts = saved
    ids, mask = prompts.of(item_tokens(TABLE), asked())
    trie = build_trie(TABLE.sids, TABLE.level_sizes)
    first = prompts.words.first_sid
    plain = Renumbered(HfDecoder(model), first, model.config.start_token, TABLE.level_sizes)
    sids = torch.from_numpy(TABLE.sids)
    starts = torch.tensor([0, *np.cumsum(TABLE.level_sizes)[:-1]])
    labels = sids + starts + first
    before = torch.nn.functional.pad(labels[:, :-1], (1, 0), value=model.config.start_token)
    for row in range(3):
        one = slice(row, row + 1)
        with torch.no_grad():
            logits = model(
                input_ids=ids[one].expand(len(sids), -1),
                attention_mask=mask[one].expand(len(sids), -1),
                decoder_input_ids=before,
            ).logits
        rivals = torch.zeros_like(logits, dtype=torch.bool)
        for number, label in enumerate(labels):
            for level, size in enumerate(TABLE.level_sizes):
                if normalizer == "full":
                    rivals[number, level] = True
                elif normalizer == "level":
                    rivals[number, level, first + starts[level] : first + starts[level] + size] = True
                else:
                    same = (labels[:, :level] == label[:level]).all(1)
                    rivals[number, level, labels[same, level]] = True
        terms = logits.masked_fill(~rivals, -torch.inf).log_softmax(-1)
        expected = terms.gather(2, labels[..., None])[..., 0].sum(1)
        for decoder in (plain, decoder_of(model)):
            found = search(
                decoder,
                decoder.encode(ids[one], mask[one]),
                mask[one],
                SearchTrie.of(trie),
                99,
                None,
                None,
                normalizer,
            )
            assert int(found.num_valid) == len(TABLE)
            by_code = {
                tuple(code): score for code, score in zip(TABLE.sids.tolist(), expected.tolist(), strict=True)
            }
            mine = [by_code[tuple(code)] for code in found.codes[0].tolist()]
            np.testing.assert_allclose(found.score[0].numpy(), mine, atol=1e-4)


def test_a_bf16_copy_leaves_the_model_alone(saved: tuple[Any, Prompts]) -> None:
    model, prompts = saved
    ids, mask = prompts.of(item_tokens(TABLE), asked())
    decoder = HfDecoder(model, torch.bfloat16)
    states = decoder.encode(ids, mask)
    assert states.dtype == torch.bfloat16
    assert next(model.parameters()).dtype == torch.float32
    near = HfDecoder(model).encode(ids, mask)
    inside = mask.bool()
    assert torch.nn.functional.cosine_similarity(states.float()[inside], near[inside]).min() > 0.99


def test_the_door_of_generators_from_scratch_is_closed_to_it(saved: tuple[Any, Prompts]) -> None:
    model, prompts = saved
    ids, mask = prompts.of(item_tokens(TABLE), asked())
    door = TrieBeamSearch(build_trie(TABLE.sids, TABLE.level_sizes))
    with pytest.raises(ValueError, match="this door is for generators from scratch"):
        model.generate(ids, attention_mask=mask, num_beams=2, custom_generate=door)
