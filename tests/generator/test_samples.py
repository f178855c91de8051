from __future__ import annotations

import numpy as np
import pytest
from tests.generator.models import random_table

from pressmark.generator.samples import WINDOWS, Collator, Samples, Windows, prefix_samples, windows
from pressmark.interactions.histories import Histories
from pressmark.sids.vocabulary import EOS, PAD, Vocabulary

TRAIN = Histories.from_lists([[3, 1, 4], [5], [2, 6, 2, 7, 1]])
TABLE = random_table(0, 12, (3, 4, 5))
SID = Vocabulary(TABLE.level_sizes).sid_tokens(TABLE.sids).tolist()


def spelled(samples: Samples) -> list[tuple[list[int], int]]:
    return [
        (samples.values[place - length : place].tolist(), int(samples.values[place]))
        for place, length in zip(samples.place, samples.length, strict=True)
    ]


def test_every_prefix_is_a_sample() -> None:
    samples = prefix_samples(TRAIN, 3, empty_histories=False, repeat_targets=True)
    assert spelled(samples) == [
        ([3], 1),
        ([3, 1], 4),
        ([2], 6),
        ([2, 6], 2),
        ([2, 6, 2], 7),
        ([6, 2, 7], 1),
    ]


def test_first_items_follow_empty_histories() -> None:
    samples = prefix_samples(TRAIN, 2, empty_histories=True, repeat_targets=True)
    assert [one for one in spelled(samples) if not one[0]] == [([], 3), ([], 5), ([], 2)]
    assert len(samples) == 9


def test_repeats_can_be_left_out_as_targets() -> None:
    samples = prefix_samples(TRAIN, 3, empty_histories=True, repeat_targets=False)
    # User 2's second 2 is gone as a target and stays in the histories; user 0's 1 is no repeat of user 2's.
    assert spelled(samples)[4:] == [([], 2), ([2], 6), ([2, 6, 2], 7), ([6, 2, 7], 1)]
    assert len(samples) == 8


def test_nothing_to_learn_from() -> None:
    empty = prefix_samples(Histories.from_lists([]), 3, empty_histories=True, repeat_targets=False)
    assert len(empty) == 0
    assert empty.plan(0, 4, 0) == []


def many_samples() -> Samples:
    rng = np.random.default_rng(0)
    train = Histories.from_lists([rng.integers(0, 12, rng.integers(1, 15)) for _ in range(40)])
    return prefix_samples(train, 8, empty_histories=True, repeat_targets=True)


def test_a_plan_holds_every_sample_once_in_even_batches() -> None:
    samples = many_samples()
    plan = samples.plan(epoch=2, batch_size=16, seed=5)
    assert np.sort(np.concatenate(plan)).tolist() == list(range(len(samples)))
    sizes = {len(batch) for batch in plan}
    assert max(sizes) <= 16
    assert max(sizes) - min(sizes) <= 1


def test_a_plan_is_bucketed_and_shuffled() -> None:
    samples = many_samples()
    plan = samples.plan(epoch=0, batch_size=16, seed=5)
    spread = [np.ptp(samples.length[batch]) for batch in plan]
    assert np.mean(spread) < 1.5
    shortest_first = sorted(plan, key=lambda batch: samples.length[batch].min())
    assert any(one is not other for one, other in zip(plan, shortest_first, strict=True))


def test_a_plan_is_a_function_of_seed_and_epoch() -> None:
    samples = many_samples()
    first, again = samples.plan(3, 16, 5), samples.plan(3, 16, 5)
    assert all(np.array_equal(*pair) for pair in zip(first, again, strict=True))
    for other in (samples.plan(4, 16, 5), samples.plan(3, 16, 6)):
        assert not all(np.array_equal(*pair) for pair in zip(first, other, strict=True))


def test_a_batch_by_hand() -> None:
    samples = prefix_samples(TRAIN, 3, empty_histories=True, repeat_targets=True)
    # Samples: user 0 = 0, 1, 2; user 1 = 3; user 2 = 4 to 8.
    batch = Collator(samples, TABLE, "tokens")(np.array([2, 3, 8]))
    assert batch.input_ids.tolist() == [
        [*SID[3], *SID[1], EOS, PAD, PAD, PAD],
        [EOS] + [PAD] * 9,
        [*SID[6], *SID[2], *SID[7], EOS],
    ]
    assert batch.attention_mask.tolist() == [[1] * 7 + [0] * 3, [1] + [0] * 9, [1] * 10]
    assert batch.labels.tolist() == [SID[4], SID[5], SID[1]]


def test_a_batch_of_empty_histories() -> None:
    samples = prefix_samples(TRAIN, 3, empty_histories=True, repeat_targets=True)
    batch = Collator(samples, TABLE, "items")(np.array([3, 0]))
    assert batch.input_ids.tolist() == [[[EOS, PAD, PAD, PAD]], [[EOS, PAD, PAD, PAD]]]
    assert batch.labels.tolist() == [SID[5], SID[3]]


@pytest.mark.parametrize("history_input", ["tokens", "items", "causal"])
def test_collating_many_agrees_with_spelling_each(history_input: str) -> None:
    samples = many_samples()
    collate = Collator(samples, TABLE, history_input)
    numbers = np.random.default_rng(1).permutation(len(samples))[:30]
    batch = collate(numbers)
    for row, number in enumerate(numbers):
        alone = collate(np.array([number]))
        width = alone.input_ids.shape[1]
        assert batch.input_ids[row, :width].tolist() == alone.input_ids[0].tolist()
        assert (batch.input_ids[row, width:] == PAD).all()
        assert batch.attention_mask[row].sum() == width
        history, target = spelled(samples)[number]
        assert alone.labels[0].tolist() == SID[target]
        newest = Vocabulary(TABLE.level_sizes).size + len(history) - 1
        expected = [
            token
            for age, item in enumerate(history)
            for token in [*SID[item], *([newest - age] if history_input == "items" else [])]
        ]
        if history_input == "causal":
            expected = [EOS, PAD, PAD, *expected]
        assert alone.input_ids[0].flatten().tolist()[: len(expected)] == expected


def told(samples: Windows) -> list[tuple[list[int], int]]:
    """What each target that counts is told from."""
    found = []
    for start, length, overlap in zip(samples.start, samples.length, samples.overlap, strict=True):
        for place in range(start + overlap, start + length):
            if samples.wanted[place]:
                found.append((samples.values[start:place].tolist(), int(samples.values[place])))
    return found


@pytest.mark.parametrize("empty_histories", [True, False])
@pytest.mark.parametrize("repeat_targets", [True, False])
def test_windows_hold_the_targets_of_all_prefixes(empty_histories: bool, repeat_targets: bool) -> None:
    rng = np.random.default_rng(0)
    train = Histories.from_lists([rng.integers(0, 30, rng.integers(0, 40)) for _ in range(60)])
    for history_length in (1, 2, 5, 8):
        prefixes = spelled(prefix_samples(train, history_length, empty_histories, repeat_targets))
        samples = windows(train, history_length, empty_histories, repeat_targets)
        found = told(samples)
        assert [target for _, target in found] == [target for _, target in prefixes]
        assert samples.num_targets.sum() == len(found)
        assert (samples.num_targets > 0).all()
        for (history, _), (whole, _) in zip(found, prefixes, strict=True):
            assert len(history) <= history_length
            assert history == whole[len(whole) - len(history) :]
            assert len(history) >= min(len(whole), max(1, history_length // 2))


def test_a_batch_of_windows_by_hand() -> None:
    samples = windows(TRAIN, 3, empty_histories=False, repeat_targets=False)
    # User 0 whole; user 2 as [2, 6, 2, 7] and, behind one item of overlap, [7, 1].
    assert samples.length.tolist() == [3, 4, 2]
    assert samples.overlap.tolist() == [0, 0, 1]
    batch = Collator(samples, TABLE, "causal")(np.array([0, 1, 2]))
    start = [EOS, PAD, PAD]
    # Windows of nothing fill the batch up to a round number.
    assert batch.attention_mask.sum(1).tolist() == [3, 4, 2] + [1] * (WINDOWS - 3)
    pairs = list(zip(batch.input_ids, batch.attention_mask, strict=True))[:3]
    read = [one[mask > 0].tolist() for one, mask in pairs]
    assert read == [[start, SID[3], SID[1]], [start, SID[2], SID[6], SID[2]], [start, SID[7]]]
    assert batch.next_items is not None
    none = [PAD, PAD, PAD]
    following = [[SID[1], SID[4], none], [SID[6], none, SID[7]], [SID[1], none, none]]
    assert batch.next_items[:3].tolist() == following
    assert (batch.next_items[3:] == PAD).all()
    assert batch.read is not None
    assert batch.read[:3].tolist() == [[-1, 3, 1, 4], [-1, 2, 6, 2], [-1, 7, 1, -1]]
    assert batch.item_index.tolist() == [1, 4, 6, 7, 1]
    assert batch.labels.tolist() == [SID[item] for item in (1, 4, 6, 7, 1)]
    assert batch.place is not None
    assert batch.next_items.flatten(0, 1)[batch.place].tolist() == batch.labels.tolist()


def test_a_plan_of_windows_shares_the_targets_evenly() -> None:
    rng = np.random.default_rng(0)
    train = Histories.from_lists([rng.integers(0, 12, rng.integers(1, 15)) for _ in range(200)])
    samples = windows(train, 8, empty_histories=False, repeat_targets=True)
    plan = samples.plan(epoch=1, batch_size=64, seed=5)
    assert np.sort(np.concatenate(plan)).tolist() == list(range(len(samples)))
    targets = [samples.num_targets[batch].sum() for batch in plan]
    assert abs(np.array(targets) - 64).max() <= 9
    assert np.mean([np.ptp(samples.length[batch]) for batch in plan]) < 1
    again = samples.plan(epoch=1, batch_size=64, seed=5)
    assert all(np.array_equal(*pair) for pair in zip(plan, again, strict=True))
    assert windows(Histories.from_lists([[1], [2]]), 8, False, True).plan(0, 64, 5) == []
