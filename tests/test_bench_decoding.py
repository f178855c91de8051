"""The benchmark's own arithmetic: what it calls the limit, and what it calls overhead."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from tests.scripts import load_script

from pressmark.sids.trie import build_trie


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    return load_script("bench_decoding")


def test_sids_are_distinct_and_skew_crowds(bench: ModuleType) -> None:
    for skewed in (False, True):
        sids = bench.sids_of(2000, skewed)
        assert len(np.unique(sids, axis=0)) == 2000
        assert ((sids >= 0) & (sids < 256)).all()
    assert (bench.sids_of(2000, True)[:, 0] < 32).mean() > 0.4


def test_the_limit_is_every_product_of_the_search(bench: ModuleType) -> None:
    sids = bench.sids_of(500, False)
    cell = bench.Cell(bench.model_of(), build_trie(sids, bench.SIZES), sids, 2, 3, torch.float32, "cpu")
    with bench.Recorder() as seen:
        cell.pressmark()
    layers, steps = 4, 4
    # Two products of attention each in 4 encoder layers, and 4 decoder layers at 4 steps.
    attention = 2 * (layers + layers * steps)
    # In and out of attention and feed-forward (4 products) in the encoder; each decoder layer's cross
    # keys and values; and self-attention, cross-attention and feed-forward (6 products) in the decoder, and its
    # head.
    linear = 4 * layers + layers + (6 * layers + 1) * steps
    assert len(seen.products) == attention + linear
    flops = sum(left.shape.numel() * right.shape[-1] for left, right, _ in seen.products)
    rows, past = 2 * 81, [2, 6, 6, 6]
    inner, width, wide, vocabulary = 384, 128, 1024, 1026
    expected = rows * (layers * (4 * width * inner + 2 * width * wide) + layers * 2 * width * inner)
    expected += 2 * layers * 2 * 81 * 81 * inner
    for beams in past:
        expected += beams * (layers * (6 * width * inner + 2 * width * wide) + width * vocabulary)
        expected += 2 * layers * beams * 81 * inner
    assert flops == expected
    bench.products(cell)()


def test_overhead_by_hand(bench: ModuleType) -> None:
    share, high = bench.overhead(np.array([1.1, 1.1, 1.1]), np.array([1.0, 1.0, 1.0]))
    assert share == pytest.approx(0.1)
    assert high == pytest.approx(0.1)
    share, high = bench.overhead(np.array([2.0, 1.0, 1.2]), np.ones(3))
    assert share == pytest.approx(0.2)
    assert high > share


def test_peak_memory_is_what_stands_at_one_time(bench: ModuleType) -> None:
    def call() -> None:
        for _ in range(3):
            (torch.zeros(1 << 18) + 1).sum()  # 1 MiB, and 1 MiB beside it

    assert bench.peak_mib(call, "cpu") == pytest.approx(2, abs=0.1)


def test_it_runs_from_end_to_end(
    bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "rows.json"
    arguments = [
        "--items",
        "300",
        "--batches",
        "1",
        "--beams",
        "2",
        "--dtypes",
        "fp32",
        "--rounds",
        "1",
        "--pairs",
        "2",
    ]
    monkeypatch.setattr(sys, "argv", ["bench_decoding.py", *arguments, "--out", str(out)])
    monkeypatch.setattr(bench, "in_turns", lambda engines, rounds, device, at_least=0.0: _once(engines))
    threads = torch.get_num_threads()
    bench.main()
    torch.set_num_threads(threads)
    rows = json.loads(out.read_text())["rows"]
    assert [one["engine"] for one in rows if not one["skewed"]] == [
        "index", "pressmark", "gemm_limit", "hf_dict", "hf_mask", "hf_free",
    ]  # fmt: skip
    assert rows[1]["speedup_over_hf_dict"] > 0
    assert 0 < rows[1]["peak_mib"] < rows[3]["peak_mib"]
    assert rows[1]["peak_over_hf_dict"] == pytest.approx(rows[1]["peak_mib"] / rows[3]["peak_mib"])
    assert "users/s" in capsys.readouterr().out


def _once(engines: dict[str, object]) -> dict[str, np.ndarray]:
    for call in engines.values():
        call()  # type: ignore[operator]
    return {name: np.array([1.0, 1.0]) for name in engines}
