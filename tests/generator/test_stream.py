from __future__ import annotations

import dataclasses
import itertools
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from tests.generator.test_train import NUM_ITEMS, SMALL, cycle, quick, run  # noqa: F401 (a fixture)

from pressmark import distributed, stages
from pressmark.catalog.items import read_catalog
from pressmark.files import read_json, read_tensors
from pressmark.generator.config import Config
from pressmark.generator.samples import Samples, prefix_samples, windows
from pressmark.generator.stream import StreamedSamples, open_stream
from pressmark.generator.train import train
from pressmark.interactions.histories import Histories
from pressmark.interactions.history_shards import write_shard
from pressmark.interactions.split_files import read_split, write_split
from pressmark.training import loop
from pressmark.training.config import TrainingConfig
from pressmark.training.own import Own

ITEM_ID = np.array([f"item{number:02d}" for number in range(NUM_ITEMS)], object)
NONE = np.zeros(NUM_ITEMS, bool)
SPELL = {
    make.__name__: partial(make, history_length=4, empty_histories=True, repeat_targets=True)
    for make in (windows, prefix_samples)
}


def sequences(num: int = 300) -> list[list[int]]:
    rng = np.random.default_rng(0)
    return [cycle(int(rng.integers(NUM_ITEMS)), int(rng.integers(1, 12))) for _ in range(num)]


def streamed(folder: Path, num_shards: int = 4, buffer: int = 64, spell: str = "windows") -> StreamedSamples:
    parts = np.array_split(np.arange(300), [20, 100, 170][: num_shards - 1])
    for number, rows in enumerate(parts):
        whole = sequences()
        write_shard(folder / f"{number}.parquet", Histories.from_lists([whole[row] for row in rows]), ITEM_ID)
    return open_stream(folder, ITEM_ID, NONE, SPELL[spell], buffer)


def told(batch: Own) -> list[tuple[tuple[int, ...], int]]:
    """What each sample or window of a batch holds, and how many targets."""
    source, found = batch.source, []
    for number in batch.numbers:
        if isinstance(source, Samples):
            place, length = source.place[number], source.length[number]
            found.append((tuple(source.values[place - length : place + 1].tolist()), 1))
        else:
            start, length = source.start[number], source.length[number]
            found.append(
                (tuple(source.values[start : start + length].tolist()), int(source.num_targets[number]))
            )
    return found


def epoch(
    samples: StreamedSamples, number: int, monkeypatch: pytest.MonkeyPatch, world: int = 1
) -> list[list[list]]:
    """Of each process the batches, and of each batch what it holds."""
    found = []
    for rank in range(world):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        monkeypatch.setattr(distributed, "num_processes", lambda: world)
        found.append([told(batch) for batch in samples.plan(number, 64, seed=3)])
    return found


@pytest.mark.parametrize("spell", SPELL)
@pytest.mark.parametrize("world", [1, 2, 3])
def test_an_epoch_holds_what_training_in_memory_would(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, world: int, spell: str
) -> None:
    samples = streamed(tmp_path, spell=spell)
    in_memory = SPELL[spell](Histories.from_lists(sequences()))
    assert samples.num_targets.sum() == in_memory.num_targets.sum()
    assert (samples.item_counts(NUM_ITEMS) == in_memory.item_counts(NUM_ITEMS)).all()
    expected = [one for numbers in in_memory.plan(0, 64, 3) for one in told(Own(in_memory, numbers))]
    processes = epoch(samples, 0, monkeypatch, world)
    assert sorted(one for batches in processes for batch in batches for one in batch) == sorted(expected)
    # As many steps as in memory, on every process; none of them empty, none far from its share.
    assert {len(batches) for batches in processes} == {len(in_memory.plan(0, 64, 3))}
    sizes = np.array([[sum(num for _, num in batch) for batch in batches] for batches in processes]).sum(0)
    assert sizes.min() > 0.5 * 64
    assert sizes.max() < 1.6 * 64


def test_batches_are_bucketed_and_each_epoch_has_its_own_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = streamed(tmp_path)
    first, again, second = (epoch(samples, number, monkeypatch)[0] for number in (0, 0, 1))
    assert first == again
    assert sorted(itertools.chain(*first)) == sorted(itertools.chain(*second))
    assert first != second
    # Other shards come first, and other histories meet.
    assert {one for one, _ in first[0]} != {one for one, _ in second[0]}
    spread = [np.ptp([len(one) for one, _ in batch]) for batch in first]
    assert np.mean(spread) < 2


def test_a_buffer_too_small_for_a_batch_waits_for_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = streamed(tmp_path, buffer=5)
    in_memory = SPELL["windows"](Histories.from_lists(sequences()))
    batches = epoch(samples, 0, monkeypatch)[0]
    assert len(batches) == len(in_memory.plan(0, 64, 3))
    assert sum(num for batch in batches for _, num in batch) == in_memory.num_targets.sum()


def test_a_plan_can_be_entered_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = streamed(tmp_path)
    whole = epoch(samples, 2, monkeypatch)[0]
    plan = samples.plan(2, 64, seed=3)
    assert told(plan[11]) == whole[11]
    assert told(plan[12]) == whole[12]
    assert told(plan[3]) == whole[3]
    with pytest.raises(IndexError):
        plan[len(plan)]


def test_more_processes_than_histories_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_shard(tmp_path / "a.parquet", Histories.from_lists([[1, 2], [3, 4]]), ITEM_ID)
    samples = open_stream(tmp_path, ITEM_ID, NONE, SPELL["windows"], 10)
    monkeypatch.setattr(distributed, "num_processes", lambda: 3)
    with pytest.raises(ValueError, match="2 histories in 1 shards leave one of 3 processes without any"):
        samples.plan(0, 64, 0)
    monkeypatch.setattr(distributed, "num_processes", lambda: 1)
    with pytest.raises(ValueError, match=r"2 samples on this process cannot be 4 batches\. Raise generator"):
        list(samples.plan(0, 1, 0))


def test_what_the_split_hides_is_refused(tmp_path: Path) -> None:
    write_shard(tmp_path / "a.parquet", Histories.from_lists([[1, 2], [7, 4]]), ITEM_ID)
    with pytest.raises(ValueError, match=r"the histories hold 'item07' \(and 0 others\), whose interactions"):
        open_stream(tmp_path, ITEM_ID, np.arange(NUM_ITEMS) == 7, SPELL["windows"], 10)


@pytest.mark.parametrize("hidden_for", ["test", "validation"])
def test_what_test_or_validation_hides_may_not_be_streamed(run: Path, tmp_path: Path, hidden_for: str) -> None:  # noqa: F811
    catalog = read_catalog(run / "data" / "items.parquet")
    split, hidden = read_split(run / "data", catalog), np.arange(NUM_ITEMS) == 7
    own = dataclasses.replace(split, fitted_on=~hidden, cold=hidden if hidden_for == "test" else split.cold)
    write_split(run / "data", own, catalog)
    write_shard(tmp_path / "histories" / "a.parquet", Histories.from_lists([[1, 2], [7, 4]]), ITEM_ID)
    with pytest.raises(ValueError, match=r"the histories hold 'item07'.*not_fitted_on in data/split\.json"):
        train(run, configured(tmp_path / "histories", "causal"), seed=0)


def test_shards_that_change_while_they_are_read_are_noticed(tmp_path: Path) -> None:
    samples = streamed(tmp_path)
    write_shard(tmp_path / "3.parquet", Histories.from_lists([[1, 2]]), ITEM_ID)
    with pytest.raises(ValueError, match="the shards changed"):
        list(samples.plan(0, 64, 0))


def configured(folder: Path, history_input: str, **training: object) -> Config:
    values = {"learning_rate": 1e-2, "batch_size": 128, "num_epochs": 3, "validate_every": 3, **training}
    return quick(
        model=dataclasses.replace(SMALL, history_input=history_input, dropout=0.2),
        training=TrainingConfig(mixed_precision="no", log_with="", **values),  # type: ignore[arg-type]
        stream=str(folder),
        stream_buffer=64,
    )


@pytest.mark.parametrize("history_input", ["causal", "items"])
def test_it_trains_on_a_stream_and_a_resumed_run_ends_bit_for_bit_the_same(
    run: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    history_input: str,
) -> None:
    folder = tmp_path / "histories"
    streamed(folder)
    config = configured(folder, history_input, checkpoint_every=0)
    train(run, config, seed=0)
    expected = read_tensors(run / "generator" / "model.safetensors")
    record = read_json(run / "generator" / "metrics.json")
    assert record["num_samples"] == sum(map(len, sequences()))
    assert record["training"]["validations"][-1]["ndcg_at_10"] > 0.4
    assert record["training"]["losses"][-1] < 0.6 * record["training"]["losses"][0]

    for one in (run / "training").rglob("step-*"):
        assert read_json(one / "progress.json")["finished"]
    shutil.rmtree(run / "training")
    steps = 0
    step = loop._Run._step

    def dying(self: loop._Run, samples: Own, total: int) -> None:
        nonlocal steps
        steps += 1
        if steps == len(record["training"]["losses"]) // 2:
            raise KeyboardInterrupt
        step(self, samples, total)

    monkeypatch.setattr(loop._Run, "_step", dying)
    with pytest.raises(KeyboardInterrupt):
        train(run, config, seed=0)
    train(run, config, seed=0)
    found = read_tensors(run / "generator" / "model.safetensors")
    for name, value in expected.items():
        assert (found[name] == value).all(), name


def test_a_buffer_without_a_stream_is_refused() -> None:
    with pytest.raises(ValueError, match=r"stream_buffer is 5 and there is no generator\.stream"):
        Config(stream_buffer=5)


def test_another_stream_is_another_run(run: Path, tmp_path: Path) -> None:  # noqa: F811
    folder = tmp_path / "histories"
    streamed(folder)
    config = configured(folder, "causal", num_epochs=1, validate_every=1)
    train(run, config, seed=0)
    write_shard(folder / "4.parquet", Histories.from_lists([[1, 2]]), ITEM_ID)
    with pytest.raises(ValueError, match="another configuration, data set or seed"):
        train(run, config, seed=0)


def test_processes_look_through_the_shards_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = streamed(tmp_path)
    sums = []
    monkeypatch.setattr(distributed, "num_processes", lambda: 2)
    monkeypatch.setattr(distributed, "all_reduce_sum", lambda one: sums.append(one) or one)
    for rank in (0, 1):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        open_stream(tmp_path, ITEM_ID, NONE, SPELL["windows"], 10)
    both = (sums[0] + sums[1]).numpy()
    assert (both[:-1] == whole.counts).all()
    assert both[-1] == whole.targets


def test_a_finished_stage_knows_its_shards(tmp_path: Path) -> None:
    streamed(tmp_path)
    before = stages._contents(tmp_path)
    assert before == stages._contents(tmp_path)
    write_shard(tmp_path / "3.parquet", Histories.from_lists([[1, 2]]), ITEM_ID)
    assert stages._contents(tmp_path) != before
