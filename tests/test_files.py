from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors import SafetensorError

from pressmark.files import (
    DiskFull,
    check_weights,
    fingerprint,
    read_json,
    read_parquet,
    read_tensors,
    replacing,
    write_json,
    write_parquet,
    write_tensors,
)


def test_an_error_leaves_the_old_file_and_no_partial(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"old": 1})
    with pytest.raises(RuntimeError), replacing(path) as partial:
        partial.write_text("half")
        raise RuntimeError
    assert read_json(path) == {"old": 1}
    assert [one.name for one in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        # As safetensors says it, which raises no OSError.
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_leaves_the_old_folder_and_says_what_to_do(tmp_path: Path, error: Exception) -> None:
    with replacing(tmp_path / "model") as partial:
        partial.mkdir()
        write_json(partial / "a.json", {"old": 1})
    with (
        pytest.raises(DiskFull, match=r"b\.json: no space left on the device .*Make room"),
        replacing(tmp_path / "model") as partial,
    ):
        partial.mkdir()
        with replacing(partial / "b.json") as inner:
            inner.write_text("half")
            raise error
    assert read_json(tmp_path / "model" / "a.json") == {"old": 1}
    assert [one.name for one in tmp_path.iterdir()] == ["model"]
    with pytest.raises(PermissionError), replacing(tmp_path / "model"):
        raise PermissionError(errno.EACCES, "Permission denied")


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    for content in ("old", "new"):
        with replacing(tmp_path / "model") as partial:
            partial.mkdir()
            (partial / content).write_text(content)
    assert [one.name for one in (tmp_path / "model").iterdir()] == ["new"]
    assert [one.name for one in tmp_path.iterdir()] == ["model"]


def test_what_a_killed_run_left_behind_does_not_get_in_the_way(tmp_path: Path) -> None:
    left = tmp_path / ".model.partial"
    left.mkdir()
    (left / "half").write_text("half")
    with replacing(tmp_path / "model") as partial:
        partial.mkdir()
    assert [one.name for one in tmp_path.iterdir()] == ["model"]


def test_tensors_and_tables_come_back(tmp_path: Path) -> None:
    shared = torch.arange(6.0).reshape(2, 3)
    write_tensors(tmp_path / "t.safetensors", {"a": shared, "tied": shared, "b": np.arange(3)[::-1]})
    found = read_tensors(tmp_path / "t.safetensors")
    assert torch.equal(found["a"], shared)
    assert torch.equal(found["tied"], shared)
    assert found["b"].tolist() == [2, 1, 0]
    write_parquet(tmp_path / "t.parquet", pa.table({"x": [1, 2]}))
    assert read_parquet(tmp_path / "t.parquet").column("x").to_pylist() == [1, 2]


def test_broken_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "b.json").write_text("{")
    (tmp_path / "b.parquet").write_text("no")
    with pytest.raises(ValueError, match=r"b\.json"):
        read_json(tmp_path / "b.json")
    with pytest.raises(ValueError, match=r"b\.parquet"):
        read_parquet(tmp_path / "b.parquet")


def test_weights_that_are_cut_off_or_missing_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "generator"
    check_weights(folder)
    with pytest.raises(ValueError, match=r"model\.safetensors is missing: train the generator"):
        check_weights(folder, "model.safetensors")
    for name in ("model.safetensors", "other.safetensors"):
        write_tensors(folder / name, {"x": np.arange(1000)})
    check_weights(folder, "model.safetensors")
    whole = (folder / "other.safetensors").read_bytes()
    for size in (0, 5, 40, len(whole) - 1):
        (folder / "other.safetensors").write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"other\.safetensors: .*cut off.* train the generator again"):
            check_weights(folder, "model.safetensors")
        with pytest.raises(ValueError, match=r"other\.safetensors: .*cut off"):
            read_tensors(folder / "other.safetensors")


def test_a_missing_table_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none\.parquet is missing"):
        read_parquet(tmp_path / "none.parquet")


def test_fingerprints_tell_values_shapes_and_order_apart() -> None:
    one = np.arange(6)
    different = {
        fingerprint(one),
        fingerprint(one.reshape(2, 3)),
        fingerprint(one.astype(np.float32)),
        fingerprint("ab", "c"),
        fingerprint("a", "bc"),
        fingerprint({"a": 1, "b": 2}),
        fingerprint(np.array(["a", "b"], object)),
    }
    assert len(different) == 7
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
