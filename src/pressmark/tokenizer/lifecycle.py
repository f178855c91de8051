"""SIDs of a catalog that lives: products come and go, and no SID that was ever given changes.

**Order.** Old SIDs stay whatever comes, in any order and number of calls. A new item gets its nearest SID if
that is free and nobody in its file is nearer; who comes first keeps a SID that two want. Within one call the
result depends on the items, not on the order of the rows (of rows with one item_id the first counts).
Across calls only those items may end elsewhere whose nearest SID is taken when they come.

**Removed products** keep their SIDs reserved. Freeing one is asked for, said and recorded; its row stays, so
histories that name the product go on meaning that SID.

**A kill** at any moment leaves the old version or the new one. Written in this order: the batch, the manifest,
`sids.parquet`; the last one decides, and the same command given again goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pressmark import files
from pressmark.catalog.items import Catalog
from pressmark.sids.table import FREED, LISTED, WITHDRAWN, Register, write_register
from pressmark.tokenizer import drift
from pressmark.tokenizer.appended import write_batch
from pressmark.tokenizer.manifest import Version, entry, write_manifest
from pressmark.tokenizer.settle import moved, settle, watch
from pressmark.tokenizer.state import State, read_state
from pressmark.tokenizer.train import load_quantizer


def append(
    run: Path,
    items: Catalog,
    embed: Callable[[Catalog], np.ndarray],
    limits: drift.Thresholds | None = None,
    keep_changed: bool = False,
) -> Version:
    """Gives new products SIDs and writes the next version; the same one is returned if there is nothing to do.

    An item that has a SID keeps it: the same content is skipped and counted; a removed product whose SID is
    reserved is listed again under it.

    Args:
        run: The run folder.
        items: Sorted by item_id, as `load_items_file` reads them.
        embed: The n new items -> (n, D) float32 vectors of the run's embedding.
        limits: When drift is an alarm.
        keep_changed: Skip items that have a SID and come with other content, rather than refuse the file.

    Returns:
        The manifest's entry, with the verdict on drift in `details`.

    Raises:
        ValueError: If an item has a SID and other content, or had one that was freed; if SIDs run out; or for
            vectors that cannot be coded. Nothing is written then.
    """
    with _alone(run):
        state = read_state(run)
        new, restored, counts = _sorted_out(items, state, keep_changed)
        if not len(new) and not len(restored):
            return replace(state.versions[-1], counts=counts, details={})
        register = _with_status(state.register, restored, LISTED)
        added: dict[str, str] = {}
        details: dict[str, Any] = {"restored": restored} if restored else {}
        version = register.table.version + 1
        if len(new):
            quantizer = load_quantizer(state.folder)
            batch, sids = settle(new, embed(new), quantizer, state)
            counts["relocated"] = int(moved(batch, sids).sum())
            details["drift"] = watch(batch, sids, quantizer, state, limits or drift.Thresholds())
            added = batch.fingerprints
            register = _extended(register, new, sids, version)
            write_batch(state.folder, version, batch)
        register = replace(register, table=replace(register.table, version=version))
        return _commit(state, register, entry(register, "append", counts, added, details))


def remove(run: Path, item_ids: Sequence[str], free: bool = False) -> Version:
    """Withdraws products: they are recommended no more, and their SIDs stay reserved.

    Args:
        run: The run folder.
        item_ids: Products with SIDs; repeats do no harm.
        free: Let new products have the SIDs, those of products withdrawn before too.

    Returns:
        The manifest's entry; `details` names the items of "removed" and of "freed" with their SIDs. The last
        version's, with counts alone, if there is nothing to do.

    Raises:
        ValueError: If an item has no SID.
    """
    with _alone(run):
        state = read_state(run)
        status = state.register.status_of
        wanted = list(dict.fromkeys(item_ids))
        for one in wanted:
            if one not in status:
                raise ValueError(
                    f"item_id {one!r} has no SID in {run} ({sum(each not in status for each in wanted)} of "
                    f"{len(wanted)} ids have none): nothing was removed. Take such ids out of the file."
                )
        removed = [one for one in wanted if status[one] == LISTED]
        freed = [one for one in wanted if free and status[one] != FREED]
        counts = {
            "removed": len(removed),
            "freed": len(freed),
            "removed_before": len(wanted) - len(removed),
        }
        if not removed and not freed:
            return replace(state.versions[-1], counts=counts, details={})
        register = _with_status(_with_status(state.register, removed, WITHDRAWN), freed, FREED)
        register = replace(register, table=replace(register.table, version=register.table.version + 1))
        sid_of = dict(zip(register.item_id, register.table.sids.tolist(), strict=True))
        details = {"removed": removed, "freed": {one: "_".join(map(str, sid_of[one])) for one in freed}}
        return _commit(state, register, entry(register, "remove", counts, None, details))


def _commit(state: State, register: Register, version: Version) -> Version:
    """The manifest, then sids.parquet: only the latter makes the new version hold."""
    write_manifest(state.folder, [*state.versions, version])
    write_register(state.folder / "sids.parquet", register)
    return version


@contextmanager
def _alone(run: Path) -> Iterator[None]:
    """Keeps a second command from counting up from the same version; released when the process ends."""
    folder = run / "tokenizer"
    if not folder.is_dir():
        raise ValueError(f"{folder} is missing: train the tokenizer of this run first.")
    with files.holding(folder, "pressmark tokenize") as take:
        take(False)
        yield


def _sorted_out(items: Catalog, state: State, keep_changed: bool) -> tuple[Catalog, list[str], dict[str, int]]:
    """New items, ids to list again, and counts."""
    status = state.register.status_of
    is_new = np.array([one not in status for one in items.item_id], bool)
    counts = {"appended": int(is_new.sum()), "skipped": 0, "changed": 0, "restored": 0}
    restored = []
    for row in np.flatnonzero(~is_new).tolist():
        one = items.item_id[row]
        if status[one] == FREED:
            raise ValueError(
                f"item_id {one!r} was removed and its SID freed, which another product may have by now. "
                "Give the product a new item_id, or leave it out of the file."
            )
        is_now, was = items.content(row), state.living.catalog.content(state.living.catalog.index_of([one])[0])
        if is_now != was and not keep_changed:
            name = next(name for name in was if is_now[name] != was[name])
            raise ValueError(
                f"item_id {one!r} has a SID, made from {name} {was[name]!r}; the file says {is_now[name]!r}. "
                "A SID does not change: give another product another item_id, or say --keep-changed to keep "
                "SID and content of such items as they are."
            )
        if status[one] == WITHDRAWN:
            restored.append(one)
        counts["restored" if status[one] == WITHDRAWN else "skipped" if is_now == was else "changed"] += 1
    return items.take(np.flatnonzero(is_new)), restored, counts


def _with_status(register: Register, item_ids: Sequence[str], status: str) -> Register:
    changed, chosen = register.status.copy(), set(item_ids)
    changed[np.array([one in chosen for one in register.item_id], bool)] = status
    return replace(register, status=changed)


def _extended(register: Register, new: Catalog, sids: np.ndarray, version: int) -> Register:
    return Register(
        np.append(register.item_id, new.item_id),
        replace(register.table, sids=np.concatenate([register.table.sids, sids])),
        np.append(register.since, np.full(len(new), version)),
        np.append(register.status, np.full(len(new), LISTED, object)),
    )
