from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from tests.generator.models import TINY, random_model, random_table
from torch import Tensor

from pressmark import distributed
from pressmark.catalog.embeddings import point_to_vectors
from pressmark.catalog.items import Catalog, read_catalog, write_catalog
from pressmark.files import read_json, read_tensors, write_tensors
from pressmark.generator.config import Config
from pressmark.generator.model import encoder_arguments, item_tokens, load_facts, load_model
from pressmark.generator.recommend import GeneratorRecommender, load_generator
from pressmark.generator.samples import Collator, prefix_samples
from pressmark.generator.train import IDENTITIES, GeneratorTask, assemble, choose_cases, train
from pressmark.interactions.cases import Cases, Split
from pressmark.interactions.histories import Histories
from pressmark.interactions.split_files import read_split, write_split
from pressmark.recommender import Requests
from pressmark.sids.codebooks import codebook_fingerprint, write_codebooks
from pressmark.sids.table import SidTable, write_sids
from pressmark.training.config import TrainingConfig, decisive

NUM_ITEMS = 24
SMALL = dataclasses.replace(TINY, num_layers=1, d_model=32, d_kv=8, d_ff=64, dropout=0.0)


VECTORS = np.random.default_rng(5).normal(size=(NUM_ITEMS, 7)).astype(np.float32)
CODEBOOKS = [np.random.default_rng(level).normal(size=(6, 5)).astype(np.float32) for level in range(2)]


def cycle(start: int, length: int) -> list[int]:
    """The store's only habit: after item i comes item i + 5."""
    return [(start + 5 * step) % NUM_ITEMS for step in range(length)]


def cases_of(sequences: list[list[int]]) -> Cases:
    num = len(sequences)
    return Cases(
        np.arange(num),
        np.array([f"u{number}" for number in range(num)], object),
        Histories.from_lists([one[:-1] for one in sequences]),
        np.array([one[-1] for one in sequences], np.int64),
        np.zeros(num, bool),
    )


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder as stage one leaves it."""
    names = np.array([f"item{number:02d}" for number in range(NUM_ITEMS)], object)
    blank = np.full(NUM_ITEMS, "", object)
    catalog = Catalog(names, blank, blank, ((),) * NUM_ITEMS, {})
    rng = np.random.default_rng(0)
    sequences = [cycle(int(rng.integers(NUM_ITEMS)), int(rng.integers(3, 8))) for _ in range(80)]
    train_part = Histories.from_lists(sequences)
    total = len(train_part.values)
    everything = np.ones(NUM_ITEMS, bool)
    split = Split(
        train=train_part,
        train_user_id=np.array([f"u{number:02d}" for number in range(80)], object),
        train_timestamp=np.full(total, np.nan),
        train_position=np.arange(total),
        valid=cases_of([cycle(start, 4) for start in range(20)]),
        test=cases_of([cycle(start, 5) for start in range(20)]),
        cold=~everything,
        fitted_on=everything,
    )
    write_catalog(tmp_path / "data" / "items.parquet", catalog)
    write_split(tmp_path / "data", split, catalog)
    write_sids(tmp_path / "tokenizer" / "sids.parquet", random_sids(), names)
    write_codebooks(tmp_path / "tokenizer" / "codebooks.safetensors", CODEBOOKS)
    write_tensors(tmp_path / "vectors.safetensors", {"vectors": torch.from_numpy(VECTORS)})
    point_to_vectors(tmp_path, tmp_path / "vectors.safetensors")
    return tmp_path


def random_sids() -> SidTable:
    cells = np.random.default_rng(1).choice(6 * 6, NUM_ITEMS, replace=False)
    return SidTable(np.stack(np.divmod(cells, 6), 1), (6, 6), codebook_fingerprint(CODEBOOKS))


def quick(**changes: object) -> Config:
    training = TrainingConfig(
        learning_rate=1e-2, batch_size=64, num_epochs=9, validate_every=9, mixed_precision="no", log_with=""
    )
    return dataclasses.replace(
        Config(model=SMALL, training=training, history_length=4, valid_beam=10, beam=15), **changes
    )


@pytest.mark.parametrize("history_input", ["tokens", "items", "causal"])
def test_it_learns_what_comes_next(run: Path, history_input: str) -> None:
    config = quick(model=dataclasses.replace(SMALL, history_input=history_input))
    train(run, config, seed=0)
    recommender = load_generator(run, device="cpu")
    assert recommender.beam == 15
    histories = Histories.from_lists([cycle(start, 3) for start in range(NUM_ITEMS)])
    answer = recommender.recommend(Requests(histories), 2)
    hit = [cycle(start, 4)[-1] in answer.item_index[start] for start in range(NUM_ITEMS)]
    assert np.mean(hit) > 0.7  # guessing hits 2 of 21

    numbers = read_json(run / "generator" / "metrics.json")
    assert numbers["codebook_fingerprint"] == codebook_fingerprint(CODEBOOKS)
    assert numbers["num_valid_cases"] == 20
    assert numbers["training"]["validations"][-1]["ndcg_at_10"] > 0.7
    assert not list(run.glob("**/*.bin"))
    assert not list(run.glob("**/*.partial"))


@pytest.mark.parametrize("history_input", ["items", "causal"])
def test_mixed_precision_takes_the_same_way(run: Path, history_input: str) -> None:
    losses = []
    for precision in ("no", "bf16", "bf16_products"):
        training = TrainingConfig(
            num_epochs=1, batch_size=64, learning_rate=1e-3, mixed_precision=precision, log_with=""
        )
        model = dataclasses.replace(SMALL, history_input=history_input, normalizer="trie")
        train(run, quick(model=model, training=training), seed=0)
        losses.append(read_json(run / "generator" / "metrics.json")["training"]["losses"])
        shutil.rmtree(run / "training")
    assert losses[0] != losses[1]
    np.testing.assert_allclose(losses[1:], [losses[0], losses[0]], rtol=0.02)


def test_training_starts_from_the_codebooks_unless_told_otherwise(run: Path) -> None:
    def learnt(token_start: str) -> np.ndarray:
        still = TrainingConfig(num_epochs=1, max_steps=1, learning_rate=1e-9, mixed_precision="no", log_with="")
        train(run, quick(model=dataclasses.replace(SMALL, token_start=token_start), training=still), seed=0)
        shutil.rmtree(run / "training")
        weights = read_tensors(run / "generator" / "model.safetensors")
        return weights["shared.weight"].numpy()[2:14, :5]

    entries = np.concatenate([(book - book.mean(0)) / (book - book.mean(0)).std() for book in CODEBOOKS])
    np.testing.assert_allclose(learnt("codebooks"), entries, atol=1e-5)
    assert np.abs(learnt("random") - entries).max() > 0.5


@pytest.mark.parametrize("history_input", ["tokens", "causal"])
def test_it_goes_on_from_an_earlier_generator(run: Path, tmp_path: Path, history_input: str) -> None:
    model = dataclasses.replace(SMALL, history_input=history_input)
    train(run, quick(model=model), seed=0)
    yesterday = tmp_path / "yesterday"
    shutil.copytree(run / "generator", yesterday / "generator")
    # Yesterday "item04" was not there, and another one was that has gone since.
    names = np.array(["gone", *(f"item{number:02d}" for number in range(NUM_ITEMS) if number != 4)], object)
    blank = np.full(NUM_ITEMS, "", object)
    write_catalog(yesterday / "data" / "items.parquet", Catalog(names, blank, blank, ((),) * NUM_ITEMS, {}))
    shutil.rmtree(run / "training")
    still = TrainingConfig(num_epochs=1, max_steps=1, learning_rate=1e-9, mixed_precision="no", log_with="")
    train(run, quick(model=model, training=still, init_from=str(yesterday)), seed=1)
    before, now = (read_tensors(one / "generator" / "model.safetensors") for one in (yesterday, run))
    if history_input == "causal":
        identities = before[IDENTITIES]
        assert identities.abs().sum(1).min() > 0
        before[IDENTITIES] = torch.cat([identities[1:5], 0 * identities[:1], identities[5:]])
    for name, weight in before.items():
        torch.testing.assert_close(now[name], weight, atol=1e-6, rtol=0)
    # Identities may come or go between the two.
    for share in (1.0, 0.5) if history_input == "causal" else ():
        shutil.rmtree(run / "training")
        other_share = dataclasses.replace(model, identity_dropout=share)
        train(run, quick(model=other_share, training=still, init_from=str(yesterday)), seed=1)
        there = IDENTITIES in read_tensors(run / "generator" / "model.safetensors")
        assert there == (share < 1)
        shutil.rmtree(yesterday / "generator")
        shutil.copytree(run / "generator", yesterday / "generator")
    wider = dataclasses.replace(model, d_ff=32)
    shutil.rmtree(run / "training")
    with pytest.raises(ValueError, match=r"Give generator\.model the sizes of that run"):
        train(run, quick(model=wider, init_from=str(yesterday)), seed=1)
    with pytest.raises(ValueError, match="no generator here"):
        train(run, quick(model=model, init_from=str(tmp_path / "nowhere")), seed=1)
    other = SidTable(random_sids().sids, (6, 6), "other books")
    write_sids(run / "tokenizer" / "sids.parquet", other, np.array([f"item{n:02d}" for n in range(24)], object))
    with pytest.raises(ValueError, match="was trained on codebooks"):
        train(run, quick(model=model, init_from=str(yesterday)), seed=1)


@pytest.mark.parametrize("hidden_for", ["test", "validation", "validation, seen by the tokenizer"])
def test_it_does_not_go_on_from_a_generator_that_saw_what_is_hidden(
    run: Path, tmp_path: Path, hidden_for: str
) -> None:
    names = np.array([f"item{number:02d}" for number in range(NUM_ITEMS)], object)
    catalog = read_catalog(run / "data" / "items.parquet")
    yesterday = tmp_path / "yesterday"
    shutil.copytree(run / "data", yesterday / "data")
    config = quick(training=TrainingConfig(max_steps=1, mixed_precision="no", log_with=""))
    train(run, config, seed=0)
    shutil.copytree(run / "generator", yesterday / "generator")
    shutil.rmtree(run / "training")
    split = read_split(run / "data", catalog)
    hidden = np.isin(np.arange(NUM_ITEMS), [3, 7])
    kept = ~hidden[split.train.values]
    lengths = np.bincount(split.train.row_of_value()[kept], minlength=len(split.train))
    valid = dataclasses.replace(split.valid, cold=hidden[split.valid.target])
    own = dataclasses.replace(
        split,
        train=Histories(split.train.values[kept], np.concatenate([[0], np.cumsum(lengths)])),
        train_timestamp=split.train_timestamp[kept],
        train_position=split.train_position[kept],
        cold=hidden if hidden_for == "test" else split.cold,
        fitted_on=split.fitted_on if "tokenizer" in hidden_for else ~hidden,
        valid=split.valid if hidden_for == "test" else valid,
    )
    write_split(run / "data", own, catalog)
    warm = dataclasses.replace(config, init_from=str(yesterday))
    with pytest.raises(ValueError, match=r"train\.parquet: holds interactions with 2 of the 2 items.*'item03'"):
        train(run, warm, seed=1)
    # A run that hid one of them.
    for one, known in ((names[3], "1 of the 2"), (names[7], "")):
        path = yesterday / "data" / "train.parquet"
        table = pq.read_table(path)
        pq.write_table(table.filter(pc.not_equal(table.column("item_id"), one)), path)
        if known:
            with pytest.raises(ValueError, match=f"{known} items.*'item07'"):
                train(run, warm, seed=1)
    train(run, warm, seed=1)
    (yesterday / "data" / "train.parquet").unlink()
    with pytest.raises(ValueError, match=r"train\.parquet is missing"):
        train(run, dataclasses.replace(warm, history_length=3), seed=1)


def test_the_same_seed_gives_the_same_model(run: Path) -> None:
    config = quick(training=TrainingConfig(num_epochs=1, batch_size=128, mixed_precision="no", log_with=""))
    weights = []
    for seed in (0, 0, 1):
        train(run, config, seed)
        weights.append((run / "generator" / "model.safetensors").read_bytes())
        for place in sorted((run / "training").rglob("*"), reverse=True):
            place.unlink() if place.is_file() else place.rmdir()
    assert weights[0] == weights[1]
    assert weights[0] != weights[2]


def test_a_run_without_anything_to_learn(run: Path) -> None:
    catalog = read_catalog(run / "data" / "items.parquet")
    split = read_split(run / "data", catalog)
    single = dataclasses.replace(
        split,
        train=Histories.from_lists([[1], [2]]),
        train_user_id=np.array(["a", "b"], object),
        train_timestamp=np.zeros(2),
        train_position=np.zeros(2, np.int64),
    )
    write_split(run / "data", single, catalog)
    with pytest.raises(ValueError, match="no user has two interactions"):
        train(run, quick(empty_histories=False), seed=0)
    assert not (run / "generator").exists()


def task_with(valid: Cases, **changes: object) -> GeneratorTask:
    samples = prefix_samples(Histories.from_lists([cycle(1, 6), cycle(2, 3)]), 4, True, True)
    return GeneratorTask(samples, valid, random_sids(), np.arange(NUM_ITEMS), quick(**changes), seed=0)


@pytest.mark.parametrize("history_input", ["tokens", "items"])
def test_the_loss_is_hfs(history_input: str) -> None:
    table = random_sids()
    config = dataclasses.replace(TINY, history_input=history_input)
    task = task_with(cases_of([]), model=config)
    model = random_model(4, table, config)
    batch = task.collate(np.arange(len(task.samples)), torch.device("cpu"))
    loss, parts = task.loss(model, batch)
    expected = model(
        **encoder_arguments(model, batch.input_ids),
        attention_mask=batch.attention_mask,
        labels=batch.labels,
    ).loss
    assert task.weight(batch) == batch.labels.numel() == 2 * len(task.samples)
    torch.testing.assert_close(loss / task.weight(batch), expected, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(
        torch.stack(list(parts.values())).mean(), expected.detach(), atol=1e-6, rtol=1e-6
    )


def test_padding_changes_no_loss() -> None:
    table = random_table(5, 30, (5, 5))
    model = random_model(5, table)
    samples = prefix_samples(Histories.from_lists([[1, 2, 3, 4, 5, 6]]), 5, True, True)
    config = quick(model=TINY, history_length=5)
    task = GeneratorTask(samples, cases_of([]), table, np.arange(30), config, 0)
    with torch.no_grad():
        together, *alone = (
            task.losses(model, task.collate(numbers, torch.device("cpu")))[0]
            for numbers in (np.arange(6), *np.arange(6)[:, None])
        )
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=1e-5)


def test_gradients_reach_every_weight() -> None:
    task = task_with(cases_of([]))
    model = random_model(4, random_sids()).train()
    loss, _ = task.loss(model, task.collate(np.arange(5), torch.device("cpu")))
    loss.backward()
    assert [name for name, weight in model.named_parameters() if weight.grad is None] == []


def test_the_discount_that_is_best_in_validation_is_saved(run: Path) -> None:
    """What sold most is never what comes next: in training item 0 follows everything, in validation nothing."""
    catalog = read_catalog(run / "data" / "items.parquet")
    split = read_split(run / "data", catalog)
    sequences = [[one for item in cycle(start, 4) for one in (item, 0)] for start in range(1, 24)]
    popular = dataclasses.replace(
        split,
        train=Histories.from_lists(sequences),
        train_user_id=np.array([f"u{start:02d}" for start in range(1, 24)], object),
        train_timestamp=np.full(23 * 8, np.nan),
        train_position=np.arange(23 * 8),
    )
    write_split(run / "data", popular, catalog)
    model = dataclasses.replace(SMALL, history_input="causal", normalizer="trie")
    train(run, quick(model=model, mask_history=False, popularity_discounts=(0.0, 1.0)), seed=0)
    tried = read_json(run / "generator" / "metrics.json")["training"]["popularity_discounts"]
    assert [one["discount"] for one in tried] == [0.0, 1.0]
    assert tried[1]["ndcg_at_10"] > tried[0]["ndcg_at_10"]
    recommender = load_generator(run, device="cpu")
    facts = load_facts(run / "generator")
    np.testing.assert_allclose(facts.log_count.exp(), 1 + np.bincount(np.concatenate(sequences)), rtol=1e-5)
    asked = Requests(Histories.from_lists([[3, 0]]), mask_history=False)
    saved = load_model(run / "generator", random_sids())
    assert saved.config.popularity_discount == 1.0
    plain = GeneratorRecommender(saved, random_sids(), facts=facts, popularity_discount=0.0)
    scores = [
        dict(zip(*(one[0].tolist() for one in (found.item_index, found.scores)), strict=True))
        for found in (plain.recommend(asked, 24), recommender.recommend(asked, 24))
    ]
    assert scores[1][0] < scores[0][0] - 1
    assert sum(np.exp(list(scores[1].values()))) == pytest.approx(1, abs=1e-4)


def test_validation_by_hand() -> None:
    valid = cases_of([cycle(start, 4) for start in range(11)])
    task = task_with(valid)
    model = random_model(6, random_sids())
    result = task.validate(model)
    scores = []
    for row in range(len(valid)):
        history = valid.histories[row].tolist()
        batch = Collator(
            prefix_samples(Histories.from_lists([[*history, 0]]), 4, False, True), random_sids(), "tokens"
        )(np.array([len(history) - 1]))
        labels = item_tokens(random_sids())[:-1]
        with torch.no_grad():
            logits = model(
                input_ids=batch.input_ids.expand(NUM_ITEMS, -1),
                attention_mask=batch.attention_mask.expand(NUM_ITEMS, -1),
                labels=labels,
            ).logits
        one = logits.log_softmax(-1).gather(2, labels[..., None]).sum((1, 2))
        one[history] = -torch.inf
        scores.append(one)
    target = torch.tensor(valid.target)[:, None]
    rank = (torch.stack(scores) > torch.stack(scores).gather(1, target)).sum(1) + 1
    gain = torch.where(rank <= 10, 1 / torch.log2(rank + 1.0), 0.0)
    # The beam of 10 may lose an item that exact scoring ranks late.
    assert result["recall_at_10"] == pytest.approx((rank <= 10).float().mean().item(), abs=0.1)
    assert result["ndcg_at_10"] == pytest.approx(gain.mean().item(), abs=0.03)


def test_processes_share_the_cases(monkeypatch: pytest.MonkeyPatch) -> None:
    task = task_with(cases_of([cycle(start, 4) for start in range(11)]))
    model = random_model(6, random_sids())
    whole = task.validate(model)
    sums: list[Tensor] = []
    monkeypatch.setattr(distributed, "num_processes", lambda: 2)
    monkeypatch.setattr(distributed, "all_reduce_sum", lambda one: sums.append(one) or one)
    for rank in (0, 1):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        task.validate(model)
    ndcg, recall, num = (sums[0] + sums[1]).tolist()
    assert num == 11
    assert {"ndcg_at_10": ndcg / num, "recall_at_10": recall / num} == pytest.approx(whole)


def test_no_validation_cases() -> None:
    assert task_with(cases_of([])).validate(random_model(6, random_sids())) == {}


def test_cases_that_masking_makes_impossible_are_left_out() -> None:
    cases = cases_of([[1, 2, 3], [1, 2, 1], [4, 5], [6]])
    assert choose_cases(cases, quick(), seed=0).case_id.tolist() == [0, 2, 3]
    assert choose_cases(cases, quick(mask_history=False), seed=0).case_id.tolist() == [0, 1, 2, 3]


def test_the_cap_on_cases_is_seeded() -> None:
    cases = cases_of([[1, 2, 3]] * 50)
    one, again = (choose_cases(cases, quick(num_valid_cases=10), seed=3) for _ in range(2))
    assert len(one) == 10
    assert one.case_id.tolist() == again.case_id.tolist()
    assert one.case_id.tolist() != choose_cases(cases, quick(num_valid_cases=10), seed=4).case_id.tolist()
    assert len(choose_cases(cases, quick(num_valid_cases=0), seed=3)) == 50


def test_bad_config() -> None:
    with pytest.raises(ValueError, match=r"popularity_discounts is \(-0\.1,\)"):
        quick(popularity_discounts=(-0.1,))
    with pytest.raises(ValueError, match=r"generator.history_length is 0"):
        quick(history_length=0)


@pytest.mark.parametrize("history_input", ["tokens", "items", "causal"])
def test_checkpointing_has_the_same_gradients(run: Path, history_input: str) -> None:
    """Dropout's draws too."""
    found = []
    for checkpointing in (False, True):
        model_config = dataclasses.replace(SMALL, history_input=history_input, dropout=0.2)
        model, task = assemble(run, quick(model=model_config, checkpointing=checkpointing), 0)
        torch.manual_seed(3)
        loss, _ = task.loss(model.train(), task.collate(task.plan(0)[0], torch.device("cpu")))
        loss.backward()
        found.append({name: one.grad for name, one in model.named_parameters() if one.grad is not None})
    plain, again = found
    assert plain.keys() == again.keys()
    for name, one in plain.items():
        torch.testing.assert_close(again[name], one, rtol=0, atol=0, msg=name)


def test_keys_that_came_later_say_nothing_at_their_defaults() -> None:
    usual = decisive(Config())
    assert not set(Config.LATER) & usual.keys()
    assert "checkpoint_every" not in usual["training"]
    for changed in (Config(stream="shards"), Config(backbone="folder"), Config(checkpointing=True)):
        (key,) = decisive(changed).keys() - usual.keys()
        assert getattr(changed, key) != getattr(Config(), key)
