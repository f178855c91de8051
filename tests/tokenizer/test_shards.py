from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pressmark.tokenizer.quantizer import Quantizer
from pressmark.tokenizer.rqkmeans import RQKMeans, RQKMeansConfig
from pressmark.tokenizer.shards import encode_shards

WIDTH = 6


def vectors(num_items: int = 250) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(num_items, WIDTH)).astype(np.float32)


def quantizer(level_sizes: tuple[int, ...] = (8, 4), seed: int = 0) -> Quantizer:
    model = RQKMeans(RQKMeansConfig(WIDTH, level_sizes))
    model.fit(vectors(), "shared", seed)
    return model


def write(folder: Path) -> Path:
    """Three shards of 100, 0 and 150 rows."""
    folder.mkdir()
    for number, part in enumerate(np.split(vectors(), [100, 100])):
        np.save(folder / f"part-{number}.npy", part)
    return folder


def test_shards_hold_the_codes_of_the_whole(tmp_path: Path) -> None:
    codes = tmp_path / "codes"
    assert encode_shards(quantizer(), write(tmp_path / "vectors"), codes) == 250
    parts = [np.load(codes / f"part-{number}.npy") for number in range(3)]
    assert [len(part) for part in parts] == [100, 0, 150]
    assert parts[0].dtype == np.uint8
    assert (np.concatenate(parts) == quantizer().encode(vectors())).all()


def test_shards_that_are_done_are_not_encoded_again(tmp_path: Path) -> None:
    shards, codes = write(tmp_path / "vectors"), tmp_path / "codes"
    encode_shards(quantizer(), shards, codes)
    (codes / "part-2.npy").unlink()
    kept = codes / "part-0.npy"
    np.save(kept, np.full((100, 2), 3, np.uint8))
    assert encode_shards(quantizer(), shards, codes) == 250
    assert (np.load(kept) == 3).all()
    assert (np.load(codes / "part-2.npy") == quantizer().encode(vectors()[100:])).all()


def test_codes_of_another_tokenizer_or_shard_are_not_mixed_in(tmp_path: Path) -> None:
    shards, codes = write(tmp_path / "vectors"), tmp_path / "codes"
    encode_shards(quantizer(), shards, codes)
    with pytest.raises(ValueError, match="another tokenizer"):
        encode_shards(quantizer(seed=1), shards, codes)
    np.save(shards / "part-0.npy", vectors(90))
    with pytest.raises(ValueError, match=r"part-0.npy holds the codes of 100 items.*90"):
        encode_shards(quantizer(), shards, codes)


def test_many_codes_take_two_bytes(tmp_path: Path) -> None:
    model = RQKMeans(RQKMeansConfig(WIDTH, (300,)))
    encode_shards(model, write(tmp_path / "vectors"), tmp_path / "codes")
    assert np.load(tmp_path / "codes" / "part-0.npy").dtype == np.uint16


def test_bad_shards_are_named(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ValueError, match=r"no \.npy file"):
        encode_shards(quantizer(), empty, tmp_path / "codes")
    shards = write(tmp_path / "vectors")
    rows = vectors(9)
    rows[4, 0] = np.nan
    np.save(shards / "part-1.npy", rows)
    with pytest.raises(ValueError, match=r"part-1.npy: the vector of item_index 4 holds NaN"):
        encode_shards(quantizer(), shards, tmp_path / "codes")
    np.save(shards / "part-1.npy", np.ones((3, WIDTH + 1), np.float32))
    with pytest.raises(ValueError, match=r"part-1.npy: vectors have shape \(3, 7\)"):
        encode_shards(quantizer(), shards, tmp_path / "codes")
    np.save(shards / "part-1.npy", np.ones((3, WIDTH), np.int64))
    with pytest.raises(ValueError, match=r"part-1.npy: holds int64"):
        encode_shards(quantizer(), shards, tmp_path / "codes")
    (shards / "part-1.npy").write_bytes(b"PK no array")
    with pytest.raises(ValueError, match=r"part-1.npy: not a plain array"):
        encode_shards(quantizer(), shards, tmp_path / "codes")
