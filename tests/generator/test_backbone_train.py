from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from tests.generator.backbones import save_folder
from transformers import AutoTokenizer, BertConfig, BertModel

from pressmark import distributed
from pressmark.catalog.items import Catalog, write_catalog
from pressmark.files import read_json
from pressmark.generator import alignment, backbone_train
from pressmark.generator.config import AlignmentConfig, Config, PromptConfig
from pressmark.generator.config import FinetuneConfig as Finetune
from pressmark.generator.recommend import load_generator
from pressmark.generator.train import train
from pressmark.interactions.cases import Cases, Split
from pressmark.interactions.histories import Histories
from pressmark.interactions.split_files import write_split
from pressmark.load import load
from pressmark.recommender import Requests
from pressmark.sids.codebooks import codebook_fingerprint, write_codebooks
from pressmark.sids.table import SidTable, write_sids
from pressmark.training import loop
from pressmark.training.config import TrainingConfig

NUM_ITEMS = 24
COLD = (22, 23)
CODEBOOKS = [np.random.default_rng(level).normal(size=(6, 5)).astype(np.float32) for level in range(2)]
ADAPTER = Finetune(tuning="lora", save="adapter")


def table(fingerprint: str = "") -> SidTable:
    cells = np.random.default_rng(1).choice(6 * 6, NUM_ITEMS, replace=False)
    books = fingerprint or codebook_fingerprint(CODEBOOKS)
    return SidTable(np.stack(np.divmod(cells, 6), 1), (6, 6), books)


def cycle(start: int, length: int, step: int) -> list[int]:
    """The store's habit: after an item comes the one `step` behind it, which differs by place."""
    return [(start + step * number) % (NUM_ITEMS - len(COLD)) for number in range(length)]


def cases_of(rows: list[tuple[list[int], str]]) -> Cases:
    num = len(rows)
    return Cases(
        np.arange(num),
        np.array([f"u{number}" for number in range(num)], object),
        Histories.from_lists([one[:-1] for one, _ in rows]),
        np.array([one[-1] for one, _ in rows], np.int64),
        np.zeros(num, bool),
        np.array([place for _, place in rows], object),
    )


STEP = {"north": 5, "south": 3}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder as stage one leaves it."""
    return write_run(tmp_path)


def write_run(folder: Path) -> Path:
    """Writes data/ and tokenizer/ of a run."""
    names = np.array([f"item{number:02d}" for number in range(NUM_ITEMS)], object)
    titles = np.array(
        [("oat milk", "red tea", "green bread")[number % 3] for number in range(NUM_ITEMS)], object
    )
    blank = np.full(NUM_ITEMS, "", object)
    catalog = Catalog(names, titles, blank, ((),) * NUM_ITEMS, {})
    rng = np.random.default_rng(0)
    places = [("north", "south")[number % 2] for number in range(80)]
    sequences = [cycle(int(rng.integers(22)), int(rng.integers(3, 8)), STEP[place]) for place in places]
    history = Histories.from_lists(sequences)
    total = len(history.values)
    cold = np.isin(np.arange(NUM_ITEMS), COLD)
    asked = [(cycle(start, 4, STEP[place]), place) for start in range(20) for place in STEP]
    split = Split(
        train=history,
        train_user_id=np.array([f"u{number:02d}" for number in range(80)], object),
        train_timestamp=np.full(total, np.nan),
        train_position=np.arange(total),
        valid=cases_of(asked),
        test=cases_of(asked[:4]),
        cold=cold,
        fitted_on=~cold,
        train_context=np.repeat(np.array(places, object), history.lengths),
    )
    write_catalog(folder / "data" / "items.parquet", catalog)
    write_split(folder / "data", split, catalog)
    write_sids(folder / "tokenizer" / "sids.parquet", table(), names)
    write_codebooks(folder / "tokenizer" / "codebooks.safetensors", CODEBOOKS)
    return folder


def quick(run: Path, family: str = "t5", finetune: Finetune | None = None, **changes: Any) -> Config:
    base = run / f"base-{family}"
    if not base.is_dir():
        save_folder(base, family)
    epochs, rate = changes.pop("num_epochs", 1), changes.pop("learning_rate", 2e-2)
    training = TrainingConfig(
        learning_rate=rate,
        batch_size=64,
        num_epochs=epochs,
        validate_every=epochs,
        mixed_precision="no",
        log_with="",
    )
    return dataclasses.replace(
        Config(backbone=str(base), training=training, history_length=4, valid_beam=10, beam=12),
        finetune=finetune or Finetune(),
        **changes,
    )


def losses_of(run: Path) -> list[float]:
    return list(read_json(run / "generator" / "metrics.json")["training"]["losses"])


def again(run: Path) -> None:
    for part in ("training", "generator"):
        shutil.rmtree(run / part, ignore_errors=True)


def hits(run: Path, asked: str, told: str) -> float:
    """How often what comes next at `told` is among the first two for `asked`, behind one item."""
    histories = Histories.from_lists([[start] for start in range(20)])
    answer = load(run).recommend(Requests(histories, context=np.full(20, asked, object)), 2)
    wanted = np.array([cycle(start, 2, STEP[told])[-1] for start in range(20)])
    return float((answer.item_index == wanted[:, None]).any(1).mean())


def test_it_learns_what_comes_next_and_where(run: Path) -> None:
    train(run, quick(run, "flan", num_epochs=40, learning_rate=1e-2), seed=0)
    # Guessing hits 2 of 21; what was bought says nothing of the place.
    for own, other in (("north", "south"), ("south", "north")):
        assert hits(run, own, own) > 0.3
        assert hits(run, own, own) > hits(run, other, own) + 0.15


@pytest.mark.parametrize(
    ("family", "finetune"),
    [("t5", Finetune()), ("mt5", ADAPTER), ("bart", Finetune(tuning="lora")), ("pegasus", ADAPTER)],
    ids=["full", "adapter of an untied head", "merged", "adapter"],
)
def test_each_way_of_tuning_learns_and_is_saved(run: Path, family: str, finetune: Finetune) -> None:
    train(run, quick(run, family, finetune, num_epochs=4), seed=0)
    losses = losses_of(run)
    assert np.mean(losses[-5:]) < np.mean(losses[:2]) - 0.2
    numbers = read_json(run / "generator" / "metrics.json")
    assert numbers["contexts"] == ["north", "south"]
    whole = numbers["num_trained_parameters"] == numbers["num_parameters"]
    assert whole == (finetune.tuning == "full")
    assert (run / "generator" / "model.safetensors").exists() == (finetune.save == "merged")
    assert load(run).recommend([["item01"]], 3)[0][0].score < 0
    left = [one for kind in ("bin", "partial", "md") for one in run.glob(f"**/*.{kind}")]
    assert not left


def test_a_saved_generator_has_the_scores_of_the_one_that_was_trained(run: Path) -> None:
    config = quick(run, "flan", ADAPTER)
    model, text_tokenizer, task = backbone_train.assemble(run, config, 0)
    loop.fit(model, task, config.training, run / "training", 0, "x")
    before = task.validate(model)
    backbone_train._save(run / "generator", model, text_tokenizer, task, {})
    loaded = load_generator(run, beam=10, device="cpu")
    valid = task.valid
    answer = loaded.recommend(Requests(valid.histories, context=valid.context), 10)
    hit = (answer.item_index == valid.target[:, None]).any(1).mean()
    assert hit == pytest.approx(before["recall_at_10"])


def test_lora_leaves_the_base_alone_and_trains_every_new_row(run: Path) -> None:
    config = quick(run, "t5", ADAPTER)
    model, _, task = backbone_train.assemble(run, config, 0)
    inner = model.get_base_model()
    frozen = {name: one.clone() for name, one in inner.named_parameters() if not one.requires_grad}
    first = task.data.prompts.words.first_sid
    rows = inner.encoder.embed_tokens.token_adapter.get_merged_weights(["default"]).detach().clone()
    loop.fit(model, task, config.training, run / "training", 0, "x")
    for name, one in inner.named_parameters():
        if name in frozen:
            torch.testing.assert_close(one, frozen[name], rtol=0, atol=0)
    now = inner.encoder.embed_tokens.token_adapter.get_merged_weights(["default"]).detach()
    moved = (now - rows).abs().amax(1) > 0
    assert moved[first : first + 14].all()
    assert not moved[:first].any()
    # One weight: the decoder's embedding and the head look at the same rows.
    for other in (inner.decoder.embed_tokens, inner.lm_head):
        torch.testing.assert_close(other.token_adapter.get_merged_weights(["default"]), now)


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("normalizer", ["full", "trie"])
def test_loss_is_that_of_the_labels(run: Path, normalizer: Any, checkpointed: bool) -> None:
    """The recommendation loss by hand: a forward pass, a softmax over what competes, the labels' logarithms."""
    config = quick(run, "bart")
    config = dataclasses.replace(
        config, model=dataclasses.replace(config.model, normalizer=normalizer), checkpointing=checkpointed
    )
    model, _, task = backbone_train.assemble(run, config, 0)
    model.eval()
    batch = task.collate(np.array([3, 40, 7]), torch.device("cpu"))
    terms, aligned = task.code_losses(model, batch)
    assert len(aligned) == 0
    sids, first = table().sids, task.data.prompts.words.first_sid
    for row, item in enumerate(batch.item_index.tolist()):
        labels = torch.tensor([first + sids[item, 0], first + 6 + sids[item, 1]])
        before = torch.tensor([[model.config.start_token, labels[0]]])
        ids, mask = (one[row : row + 1] for one in batch.prompts)
        logits = model(input_ids=ids, attention_mask=mask, decoder_input_ids=before).logits[0]
        bought = sids[: NUM_ITEMS - len(COLD)]
        rivals = [
            sorted({first + one for one in bought[:, 0]}),
            sorted({first + 6 + one for one in bought[bought[:, 0] == sids[item, 0], 1]}),
        ]
        for level in range(2):
            among = logits[level] if normalizer == "full" else logits[level, rivals[level]]
            expected = among.logsumexp(0) - logits[level, labels[level]]
            torch.testing.assert_close(terms[row, level], expected, atol=1e-5, rtol=1e-5)


def gradients(run: Path, config: Config) -> dict[str, torch.Tensor]:
    model, _, task = backbone_train.assemble(run, config, 0)
    torch.manual_seed(7)
    loss, _ = task.loss(model, task.collate(task.plan(0)[0], torch.device("cpu")))
    loss.backward()
    return {name: one.grad for name, one in model.named_parameters() if one.grad is not None}


@pytest.mark.parametrize(("family", "finetune"), [("flan", Finetune()), ("bart", Finetune(tuning="lora"))])
def test_checkpointing_has_the_same_gradients(run: Path, family: str, finetune: Finetune) -> None:
    """Dropout's draws too."""
    plain = gradients(run, quick(run, family, finetune))
    again = gradients(run, quick(run, family, finetune, checkpointing=True))
    assert plain.keys() == again.keys()
    assert any(one.abs().max() > 0 for one in plain.values())
    for name, one in plain.items():
        torch.testing.assert_close(again[name], one, msg=name)


ALIGNED = AlignmentConfig(content_to_sid=1.0, sid_to_content=0.5, share=0.5, text_tokens=3)


@pytest.mark.parametrize("cold_items", [False, True])
def test_alignment_looks_at_what_training_may_see_alone(run: Path, cold_items: bool) -> None:
    align = dataclasses.replace(ALIGNED, cold_items=cold_items, share=1.0)
    config = quick(run, "t5", Finetune(alignment=align))
    train(run, config, seed=0)
    said = read_json(run / "generator" / "metrics.json")["alignment"]
    assert said["num_products"] == (24 if cold_items else 22)
    assert said["num_cold_products"] == (2 if cold_items else 0)
    _, _, task = backbone_train.assemble(run, config, 0)
    numbers = np.concatenate([batch for epoch in range(4) for batch in task.plan(epoch)])
    mixed = alignment.Mixed.of(numbers, len(task.samples), NUM_ITEMS)
    assert len(mixed.samples) == 4 * len(task.samples)
    for items in (mixed.to_sid, mixed.to_content):
        assert set(COLD) <= set(items) if cold_items else not set(COLD) & set(items)


def test_alignment_tells_sids_from_texts_and_texts_from_sids(run: Path) -> None:
    config = quick(run, "flan", Finetune(alignment=ALIGNED))
    model, text_tokenizer, task = backbone_train.assemble(run, config, 0)
    model.eval()
    num = len(task.samples)
    batch = task.collate(np.array([5, num + 4, num + NUM_ITEMS + 7]), torch.device("cpu"))
    assert text_tokenizer.decode(batch.prompts[0][1][batch.prompts[1][1] > 0]).split() == (
        ["product", ":", "red", "tea", "</s>"]
    )
    assert batch.item_index.tolist()[1] == 4
    assert batch.to_content is not None
    sid = table().sids[7]
    assert text_tokenizer.decode(batch.to_content[0][0]).split() == (
        ["title", "of", f"<sid_0_{sid[0]}>", f"<sid_1_{sid[1]}>", "</s>"]
    )
    assert text_tokenizer.decode(batch.texts[0][batch.texts[0] >= 0]).split() == ["red", "tea", "</s>"]
    told = task.text_losses(model, batch)
    ids, mask = batch.to_content
    label = batch.texts[batch.texts >= 0][None]
    start = torch.full_like(label[:, :1], model.config.start_token)
    before = torch.cat([start, label[:, :-1]], 1)
    logits = model(input_ids=ids, attention_mask=mask, decoder_input_ids=before).logits
    torch.testing.assert_close(told[0], torch.nn.functional.cross_entropy(logits[0], label[0]))
    loss, parts = task.loss(model, batch)
    terms, aligned = task.code_losses(model, batch)
    torch.testing.assert_close(loss, terms.sum() + aligned.sum() + 0.5 * 2 * told.sum())
    assert {"content_to_sid", "sid_to_content"} <= parts.keys()


def test_a_cart_is_read_where_training_drew_some(run: Path) -> None:
    carts = Finetune(prompt=PromptConfig(cart_share=0.5, titled_items=1, title_tokens=2))
    train(run, quick(run, "t5", carts), seed=0)
    loaded = load_generator(run, device="cpu")
    histories = Histories.from_lists([[1, 6], [2]])
    cart = Histories.from_lists([[11], [7, 12]])
    asked = Requests(histories, cart=cart, context=np.array(["north", ""], object))
    answer = loaded.recommend(asked, NUM_ITEMS)
    assert answer.num_valid.tolist() == [21, 21]
    assert not {1, 6, 11} & set(answer.item_index[0])
    joined = loaded.recommend(asked.with_cart_as_history(), NUM_ITEMS)
    assert joined.num_valid.tolist() == [21, 21]
    assert np.abs(joined.scores[:, :21] - answer.scores[:, :21]).max() > 1e-4
    again(run)
    train(run, quick(run), seed=0)
    with pytest.raises(ValueError, match="reads no cart"):
        load_generator(run, device="cpu").recommend(asked, 3)


def test_a_killed_training_ends_where_it_would_have(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    align = Finetune(alignment=ALIGNED, prompt=PromptConfig(cart_share=0.5), tuning="lora")
    config = quick(run, "flan", align, num_epochs=3)
    train(run, config, seed=0)
    whole = losses_of(run)
    again(run)
    often = dataclasses.replace(config, training=dataclasses.replace(config.training, checkpoint_every=0.0))
    save, calls = loop.save_checkpoint, []

    def killed(*arguments: Any) -> None:
        save(*arguments)
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(loop, "save_checkpoint", killed)
    with pytest.raises(KeyboardInterrupt):
        train(run, often, seed=0)
    assert not (run / "generator").exists()
    monkeypatch.setattr(loop, "save_checkpoint", save)
    train(run, often, seed=0)
    assert losses_of(run) == whole


def test_yesterdays_generator_goes_on(run: Path, tmp_path: Path) -> None:
    train(run, quick(run, "flan", num_epochs=2), seed=0)
    yesterday = tmp_path / "yesterday"
    shutil.copytree(run / "generator", yesterday)
    again(run)
    still = dataclasses.replace(quick(run), backbone=str(yesterday))
    still = dataclasses.replace(still, training=dataclasses.replace(still.training, learning_rate=1e-12))
    model, text_tokenizer, _ = backbone_train.assemble(run, still, 0)
    known = load_generator_state(yesterday)
    for name, one in model.state_dict().items():
        torch.testing.assert_close(one, known[name], msg=name)
    assert len(text_tokenizer) == len(AutoTokenizer.from_pretrained(yesterday))


def load_generator_state(folder: Path) -> dict[str, torch.Tensor]:
    from pressmark.generator.saved_backbone import load_backbone

    found: dict[str, torch.Tensor] = load_backbone(folder, table())[0].state_dict()
    return found


def broken(run: Path, what: str) -> Config:
    """A configuration whose backbone cannot be used."""
    config = quick(run)
    base = Path(config.backbone)
    if what == "encoder":
        tiny = BertConfig(vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=1)
        shutil.rmtree(base)
        BertModel(tiny).save_pretrained(base)
    elif what == "nowhere":
        return dataclasses.replace(config, backbone=str(base / "nowhere"))
    elif what == "text tokenizer":
        (base / "tokenizer.json").unlink()
    elif what == "weights":
        (base / "model.safetensors").unlink()
    elif what == "other codebooks":
        names = read_json(base / "config.json")
        train(run, config, seed=0)
        shutil.copytree(run / "generator", run / "other")
        names = read_json(run / "other" / "config.json") | {"codebook_fingerprint": "other books"}
        (run / "other" / "config.json").write_text(json.dumps(names), "utf-8")
        again(run)
        return dataclasses.replace(config, backbone=str(run / "other"))
    elif what == "long prompts":
        return dataclasses.replace(quick(run, "bart"), history_length=60)
    return config


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("encoder", r"bert is no text encoder-decoder"),
        ("nowhere", r"no config\.json here; name a local Hugging Face folder"),
        ("text tokenizer", r"no text tokenizer here"),
        ("weights", r"no \*\.safetensors here"),
        ("other codebooks", r"was trained on codebooks other books"),
        ("long prompts", r"bart has 96 positions"),
    ],
)
def test_a_backbone_that_cannot_be_used_is_refused(run: Path, what: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        train(run, broken(run, what), seed=0)


def test_what_was_saved_must_be_whole(run: Path) -> None:
    train(run, quick(run, "t5", ADAPTER), seed=0)
    folder = run / "generator"
    with pytest.raises(
        ValueError, match="context 'east' is unknown; this generator was trained on 'north', 'south'"
    ):
        histories = Histories.from_lists([[1]])
        load_generator(run).recommend(Requests(histories, context=np.array(["east"], object)), 1)
    names = np.array([f"item{number:02d}" for number in range(NUM_ITEMS)], object)
    write_sids(run / "tokenizer" / "sids.parquet", table("other books"), names)
    with pytest.raises(ValueError, match="the SID table is of codebooks other books"):
        load_generator(run)
    write_sids(run / "tokenizer" / "sids.parquet", table(), names)
    kept = (folder / "tokenizer.json").read_bytes()
    shutil.copy(run / "base-t5" / "tokenizer.json", folder / "tokenizer.json")
    with pytest.raises(ValueError, match=r"lacks <sid_0_0>; it is not the one that was saved"):
        load_generator(run)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match="no text tokenizer here"):
        load_generator(run)
    (folder / "tokenizer.json").write_bytes(kept)
    save_folder(run / "base-t5", "t5", seed=5)
    with pytest.raises(ValueError, match="an adapter for another base"):
        load_generator(run)
    shutil.rmtree(run / "base-t5")
    with pytest.raises(ValueError, match="which is not there"):
        load_generator(run)


def test_it_has_no_item_head(run: Path) -> None:
    train(run, quick(run), seed=0)
    with pytest.raises(ValueError, match="has no item head"):
        load_generator(run, device="cpu").shoppers(Histories.from_lists([[1]]))
    with pytest.raises(ValueError, match=r"as generator\.backbone"):
        Config(backbone="somewhere", init_from="elsewhere")
    with pytest.raises(ValueError, match=r"trains on data/train\.parquet alone"):
        Config(backbone="somewhere", stream="shards")
    with pytest.raises(ValueError, match="only tuning 'lora' learns one"):
        Finetune(save="adapter")
    with pytest.raises(ValueError, match=r"generator\.backbone is 'scratch': name a backbone's folder"):
        Config(finetune=Finetune(token_start="random"))


def test_a_backbone_is_not_divided(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "sharding", lambda: "FSDP")
    with pytest.raises(ValueError, match=r"a backbone is not divided by FSDP.*ddp\.yaml"):
        train(run, quick(run), seed=0)


def test_new_products_are_spelled_too(run: Path) -> None:
    titled = Finetune(prompt=PromptConfig(titled_items=2, title_tokens=2))
    train(run, quick(run, "t5", titled), seed=0)
    loaded = load_generator(run, device="cpu")
    taken = {tuple(one) for one in table().sids.tolist()}
    free = next((a, b) for a in range(6) for b in range(6) if (a, b) not in taken)
    new = loaded.insert(np.array([free]))
    answer = loaded.recommend(
        Requests(Histories.from_lists([[1, int(new[0])]]), mask_history=False), NUM_ITEMS + 1
    )
    assert int(new[0]) in answer.item_index[0]
    assert answer.num_valid[0] == NUM_ITEMS + 1


def test_the_command_answers_with_contexts_and_carts(run: Path, tmp_path: Path) -> None:
    from pressmark.cli import main

    train(run, quick(run, "bart", Finetune(prompt=PromptConfig(cart_share=0.5))), seed=0)
    asked = tmp_path / "h.jsonl"
    lines = [
        {"user_id": "a", "history": ["item01"], "context": "north", "cart": ["item06", "gone"]},
        {"user_id": "b", "history": ["item01"], "context": "south"},
    ]
    asked.write_text("\n".join(map(json.dumps, lines)))
    command = ["recommend", "--run", str(run), "--histories", str(asked), "--k", "5"]
    main([*command, "--out", str(tmp_path / "r.parquet")])
    rows = pq.read_table(tmp_path / "r.parquet").to_pylist()
    assert [row["user_id"] for row in rows] == ["a"] * 5 + ["b"] * 5
    assert not {"item01", "item06"} & {row["item_id"] for row in rows[:5]}
    expected = load(run).recommend([["item01"]], 5, context=["north"], cart=[["item06"]])[0]
    assert [row["item_id"] for row in rows[:5]] == [one.item_id for one in expected]
    asked.write_text(json.dumps(lines[0] | {"context": "east"}))
    with pytest.raises(SystemExit):
        main([*command, "--out", str(tmp_path / "no.parquet")])
    assert not (tmp_path / "no.parquet").exists()


def test_a_model_that_reads_no_cart_takes_it_as_the_newest_of_the_history(run: Path) -> None:
    train(run, quick(run), seed=0)
    shop = load(run)
    joined = shop.recommend([["item01", "item06"]], 4)
    assert shop.recommend([["item01"]], 4, cart=[["item06"]]) == joined
    with pytest.raises(ValueError, match="1 carts for 2 requests"):
        shop.recommend([["item01"], []], 4, cart=[[]])


def test_a_model_that_reads_no_context_refuses_one(run: Path) -> None:
    train(run, quick(run), seed=0)
    with pytest.raises(ValueError, match="context 'north': this model reads no context"):
        load(run, "popularity").recommend([["item01"], []], 4, context=["", "north"])
    assert load(run, "popularity").recommend([["item01"]], 4, context=[""])
    assert load(run).recommend([["item01"]], 4, context=["north"])
