"""A folder of shards in, a folder of shards out: each process has its list, and what is done is not done again.

A shard's result stands under the shard's name, written whole or not at all, with the size of the shard it was
made of in its metadata. `<command>.json` beside them says with which settings.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from tqdm import tqdm

from pressmark import distributed, files

SOURCE = b"pressmark.source"
"""Key of a result's metadata: name and bytes of the shard that it was made of."""


@dataclass(frozen=True)
class Shard:
    """One piece of work: read `source`, write `place` with `metadata` in its schema."""

    source: Path
    place: Path

    @property
    def metadata(self) -> dict[bytes, bytes]:
        """For the schema of the result."""
        return {SOURCE: json.dumps([self.source.name, self.source.stat().st_size]).encode()}


def shards_of(folder: Path, out: Path, suffixes: Sequence[str]) -> list[Shard]:
    """The shards of a folder by name.

    Raises:
        ValueError: If there is none, or two would have one result.
    """
    sources = sorted(one for one in folder.iterdir() if one.suffix in suffixes and not one.name.startswith("."))
    if not sources:
        raise ValueError(
            f"{folder}: no {' or '.join(suffixes)} file in it. Give the folder that holds the shards."
        )
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out}: is a file; the shards of {folder} need a folder.")
    if out.resolve() == folder.resolve():
        raise ValueError(f"--out {out}: is the folder of the shards; give another one.")
    found: dict[str, Shard] = {}
    for source in sources:
        if source.stem in found:
            raise ValueError(f"{source} and {found[source.stem].source.name} have one result: rename one.")
        found[source.stem] = Shard(source, out / f"{source.stem}.parquet")
    return list(found.values())


def to_do(shards: Sequence[Shard], command: str, settings: Mapping[str, Any]) -> Iterator[Shard]:
    """This process's shards that are not done yet, with a bar; `settings` are those of the whole folder.

    Raises:
        ValueError: If the folder holds results of other settings, or of a shard that has changed since, or
            another launch is at work on it.
    """
    out = shards[0].place.parent
    out.mkdir(parents=True, exist_ok=True)
    with files.holding(out, command) as take:
        # A second launch would write the same files at the same time; the processes of one work together.
        if distributed.rank() == 0:
            take(False)
        distributed.barrier()
        take(True)
        yield from _left(shards, command, dict(settings))


def _left(shards: Sequence[Shard], command: str, settings: dict[str, Any]) -> Iterator[Shard]:
    _claim(shards[0].place.parent / f"{command}.json", settings)
    rank, world = distributed.rank(), distributed.num_processes()
    if rank == 0 and world > len(shards):
        print(f"mind: {len(shards)} shards for {world} processes; {world - len(shards)} have nothing to do.")
    own = shards[rank::world]
    done = [shard for shard in own if _is_done(shard)]
    if done:
        print(f"{command}: {len(done)} of {len(own)} shards of process {rank} were done before", flush=True)
    bar = tqdm(
        [shard for shard in own if shard not in done], desc=command, unit="shard", disable=rank != 0 or None
    )
    yield from bar


def failures(found: Sequence[ValueError], command: str) -> None:
    """Waits for the other processes, then raises what went wrong with shards of this one.

    A launcher ends all processes at the first that fails: none may before the others are through.

    Raises:
        ValueError: If anything did.
    """
    distributed.barrier()
    if found:
        raise ValueError(
            "\n".join(map(str, found))
            + f"\n{len(found)} shards could not be done; all others are. Put them right, then give the same "
            f"`{command}` command again: it does these alone."
        )


def _claim(path: Path, settings: dict[str, Any]) -> None:
    """Writes down the settings of a folder of results, or checks them."""
    if distributed.rank() == 0 and not path.exists():
        files.write_json(path, settings)
    distributed.barrier()
    there = files.read_json(path)
    changed = [key for key in sorted({*there, *settings}) if there.get(key) != settings.get(key)]
    if changed:
        says = ", ".join(f"{key} was {there.get(key)!r}, is {settings.get(key)!r}" for key in changed)
        raise ValueError(f"{path}: the folder holds results of other settings ({says}). Give another --out.")


def _is_done(shard: Shard) -> bool:
    if not shard.place.exists():
        return False
    made_of = (pq.read_schema(shard.place).metadata or {}).get(SOURCE)
    if made_of != shard.metadata[SOURCE]:
        raise ValueError(
            f"{shard.place}: was made of another {shard.source.name} than now stands in {shard.source.parent}. "
            "Delete it to have it made again."
        )
    return True
