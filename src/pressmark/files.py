"""Files on disk: write beside, then rename, so a killed run leaves the old file or the new one."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq


class DiskFull(OSError):
    """A file could not be written for want of room; what stood in its place still stands there."""


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yields a path beside `path` to write to, and renames it into place if the block succeeds.

    Works for a file or a folder. On an error nothing at `path` changes and the partial is removed.

    Raises:
        DiskFull: If there is no room for the new file beside the old one.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    _remove(partial)
    try:
        yield partial
        if partial.is_dir() and path.exists():
            # A folder cannot be renamed over a full one; the gap between the two renames is the
            # only moment without `path`, and its old content then still stands under `old`.
            old = path.with_name(f".{path.name}.old.partial")
            _remove(old)
            path.rename(old)
            partial.rename(path)
            _remove(old)
        else:
            os.replace(partial, path)
    except Exception as error:
        if isinstance(error, DiskFull) or not _is_full(error):
            raise
        raise DiskFull(
            f"{path}: no space left on the device for it; what was there before still is. Make room, then give "
            "the same command again."
        ) from error
    finally:
        _remove(partial)


def _is_full(error: Exception) -> bool:
    """Whether a writer ran out of room or quota; safetensors says it in words alone."""
    codes = (errno.ENOSPC, errno.EDQUOT)
    return getattr(error, "errno", None) in codes or any(f"(os error {code})" in str(error) for code in codes)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def holding(path: Path, command: str) -> Iterator[Callable[[bool], None]]:
    """Keeps a second `command` off a folder or a file; released at the end, or when the process ends.

    A file that is not there is made, and stays: who waits for it must find the same one.

    Yields what takes hold of it: alone, or (True) together with others who do so too.

    Raises:
        ValueError: If another one is at work on it.
    """
    try:
        import fcntl
    except ImportError:  # Windows has no such lock, nor any folder to hold it
        yield lambda shared: None
        return
    held = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR | os.O_CREAT, 0o666)

    def take(shared: bool) -> None:
        try:
            fcntl.flock(held, fcntl.LOCK_SH if shared else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"{path}: another `{command}` is at work on it. Wait for it.") from None

    try:
        yield take
    finally:
        os.close(held)


def write_json(path: str | Path, value: Any) -> None:
    """Writes `value` as indented UTF-8 JSON."""
    with replacing(path) as partial:
        partial.write_text(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n", "utf-8")


def read_json(path: str | Path) -> Any:
    """Reads a JSON file.

    Raises:
        ValueError: If the file is not valid JSON; the message names the file.
    """
    try:
        return json.loads(Path(path).read_text("utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path}: not valid JSON ({error}). Delete the file and run the stage again."
        ) from error


def read_lines(path: Path, option: str) -> list[str]:
    """The lines of a text file that a command was given; only line ends part lines.

    Args:
        path: The file.
        option: That names it, for the message.

    Raises:
        ValueError: If there is no such file, or it is not UTF-8.
    """
    if not path.is_file():
        raise ValueError(f"{option} {path}: no such file.")
    try:
        return path.read_text("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{option} {path}: not UTF-8 ({error}). Save it as UTF-8.") from error


def write_parquet(path: str | Path, table: pa.Table) -> None:
    """Writes a pyarrow table."""
    with replacing(path) as partial:
        pq.write_table(table, partial)


def read_parquet(path: str | Path) -> pa.Table:
    """Reads a parquet file.

    Raises:
        ValueError: If the file is missing or truncated; the message names the file.
    """
    if not Path(path).exists():
        raise ValueError(f"{path} is missing.")
    try:
        return pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"{path}: cannot be read as parquet ({error}).") from error


def write_tensors(
    path: str | Path, tensors: Mapping[str, Any], metadata: Mapping[str, str] | None = None
) -> None:
    """Writes named numpy arrays or torch tensors as one safetensors file."""
    import torch
    from safetensors.torch import save_file

    contiguous = {
        # clone: safetensors refuses tensors that share storage (tied weights).
        name: torch.as_tensor(np.ascontiguousarray(value) if isinstance(value, np.ndarray) else value)
        .detach()
        .cpu()
        .contiguous()
        .clone()
        for name, value in tensors.items()
    }
    with replacing(path) as partial:
        save_file(contiguous, str(partial), metadata=dict(metadata or {}))


def read_tensors(path: str | Path) -> dict[str, Any]:
    """Reads a safetensors file into torch tensors on the CPU.

    Raises:
        ValueError: If the file is cut off or no safetensors; the message names the file.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(str(path))
    except SafetensorError as error:
        raise ValueError(f"{path}: {_CUT_OFF} ({error}).") from error


def check_weights(folder: Path, file: str = "") -> None:
    """Looks whether the safetensors of a model's folder are whole; reads their headers alone.

    Args:
        folder: Of a model, by whose name the folder goes.
        file: One that must be there; "" for whatever there is.

    Raises:
        ValueError: If one is cut off or missing; the message names it.
    """
    from safetensors import SafetensorError, safe_open

    if file and not (folder / file).is_file():
        raise ValueError(f"{folder / file} is missing: train the {folder.name} in this run first.")
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, "pt"):
                pass
        except SafetensorError as error:
            raise ValueError(
                f"{path}: {_CUT_OFF} ({error}). Delete {folder} and train the {folder.name} again."
            ) from error


_CUT_OFF = "cannot be read as safetensors; it may be cut off"


def file_hash(path: str | Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(*parts: Any) -> str:
    """A 16-digit SHA-256 fingerprint of strings, numbers, JSON-like values and numpy arrays, in order.

    >>> fingerprint("a", 1) == fingerprint("a", 1)
    True
    >>> fingerprint("a", 1) == fingerprint("a", 2)
    False
    """
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray) and part.dtype != object:
            digest.update(f"{part.dtype}{part.shape}".encode())
            digest.update(np.ascontiguousarray(part).data)
        elif isinstance(part, np.ndarray):
            digest.update(json.dumps(part.tolist(), ensure_ascii=False, default=str).encode())
        else:
            digest.update(json.dumps(part, sort_keys=True, ensure_ascii=False, default=str).encode())
        digest.update(b"\0")
    return digest.hexdigest()[:16]
