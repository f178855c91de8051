from __future__ import annotations

import fcntl
import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.tokenizer.test_train import NUM_ITEMS, WIDTH, category, config, content, prepared

from pressmark import files
from pressmark.catalog.items import Catalog, read_catalog
from pressmark.files import read_json
from pressmark.sids.table import FREED, LISTED, WITHDRAWN, read_register, read_sids, write_sids
from pressmark.tokenizer.lifecycle import append, remove
from pressmark.tokenizer.manifest import read_manifest
from pressmark.tokenizer.state import read_living, read_state
from pressmark.tokenizer.train import load_quantizer, train

SUFFIX = {"level_sizes": (6, 6), "collisions": "suffix"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = prepared(tmp_path_factory.mktemp("run"), content(), cold=[5, 6, 7])
    train(folder, config(), seed=0)
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    shutil.copytree(trained, tmp_path / "run")
    return tmp_path / "run"


def products(*names: str) -> Catalog:
    """Items whose title is their id."""
    item_id = np.array(sorted(names), object)
    blank = np.full(len(item_id), "", object)
    return Catalog(item_id, item_id.copy(), blank, (category()[0],) * len(item_id), {})


def vector(name: str) -> np.ndarray:
    """Near one of the run's items, always the same for one id."""
    rng = np.random.default_rng(list(name.encode()))
    return (content()[rng.integers(NUM_ITEMS)] + 0.3 * rng.normal(size=WIDTH)).astype(np.float32)


def embed(items: Catalog) -> np.ndarray:
    return np.stack([vector(one) for one in items.item_id])


def sids(run: Path) -> dict[str, tuple[int, ...]]:
    register = read_register(run / "tokenizer" / "sids.parquet")
    return {name: tuple(sid) for name, sid in zip(register.item_id, register.table.sids.tolist(), strict=True)}


def status(run: Path) -> dict[str, str]:
    return read_register(run / "tokenizer" / "sids.parquet").status_of


BATCHES = [("n1", "n2", "n3"), ("n4",), ("n5", "n6", "n7", "n8")]


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_batches_in_any_order_touch_no_old_sid(run: Path, order: tuple[int, ...]) -> None:
    register = read_register(run / "tokenizer" / "sids.parquet")
    codebooks = (run / "tokenizer" / "codebooks.safetensors").read_bytes()
    for version, number in enumerate(order, start=1):
        before = sids(run)
        done = append(run, products(*BATCHES[number]), embed)
        assert (done.version, done.kind, done.counts["appended"]) == (version, "append", len(BATCHES[number]))
        after = sids(run)
        assert {name: after[name] for name in before} == before
    assert len(set(after.values())) == len(after) == NUM_ITEMS + 8
    grown = read_register(run / "tokenizer" / "sids.parquet")
    assert (grown.table.sids[:NUM_ITEMS] == register.table.sids).all()
    assert (grown.table.version, grown.since.max()) == (3, 3)
    assert grown.table.codebook_fingerprint == register.table.codebook_fingerprint
    assert (run / "tokenizer" / "codebooks.safetensors").read_bytes() == codebooks


def test_items_whose_nearest_sids_nobody_wants_have_them_in_any_order(run: Path, tmp_path: Path) -> None:
    """What may depend on the order: items that find their nearest SID taken, and they alone."""
    pool = products(*(f"p{number}" for number in range(200)))
    codes = load_quantizer(run / "tokenizer").encode(embed(pool))
    nearest = dict(zip(pool.item_id.tolist(), map(tuple, codes.tolist()), strict=True))
    taken = set(sids(run).values())
    one_a_sid = {sid: name for name, sid in nearest.items() if sid not in taken}
    free = list(one_a_sid.values())[:6]
    assert len(free) >= 3
    batches = [free[0::3], free[1::3], free[2::3]]
    for number, order in enumerate(itertools.permutations(range(3))):
        copy = tmp_path / str(number)
        shutil.copytree(run, copy)
        for one in order:
            append(copy, products(*batches[one]), embed)
        found = sids(copy)
        assert {name: found[name] for name in free} == {name: nearest[name] for name in free}


def test_within_a_call_the_order_of_the_rows_does_not_matter(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "other")
    items = products(*itertools.chain(*BATCHES))
    append(run, items, embed)
    append(tmp_path / "other", items.take(np.arange(len(items))[::-1]), embed)
    assert sids(run) == sids(tmp_path / "other")


def test_the_living_catalog_stands_behind_the_runs_own(run: Path) -> None:
    append(run, products("z", "b"), embed)
    append(run, products("a"), embed)
    living = read_living(run)
    assert living.catalog.item_id[NUM_ITEMS:].tolist() == ["b", "z", "a"]
    assert living.num_own == NUM_ITEMS
    assert living.listed.all()
    np.testing.assert_array_equal(living.appended_vectors, np.stack([vector(one) for one in ("b", "z", "a")]))
    own = read_catalog(run / "data" / "items.parquet").item_id
    table = read_sids(run / "tokenizer" / "sids.parquet", own)
    assert (len(table), table.version) == (NUM_ITEMS, 2)
    whole = read_sids(run / "tokenizer" / "sids.parquet", living.catalog.item_id)
    assert [tuple(one) for one in whole.sids.tolist()] == [sids(run)[one] for one in living.catalog.item_id]
    with pytest.raises(ValueError, match="'item089' is not in the catalog"):
        read_sids(run / "tokenizer" / "sids.parquet", own[:-1])


def test_the_manifest_tells_every_version(run: Path) -> None:
    append(run, products("a", "b"), embed)
    remove(run, ["a", "item003"])
    versions = read_json(run / "tokenizer" / "manifest.json")["versions"]
    assert [(one["version"], one["kind"], one["num_items"], one["num_listed"]) for one in versions] == [
        (0, "train", NUM_ITEMS, NUM_ITEMS),
        (1, "append", NUM_ITEMS + 2, NUM_ITEMS + 2),
        (2, "remove", NUM_ITEMS + 2, NUM_ITEMS),
    ]
    first, second, third = (one["fingerprints"] for one in versions)
    assert first["vectors"] == files.fingerprint(content())
    assert second["items"] == products("a", "b").fingerprint
    assert second["vectors"] == files.fingerprint(embed(products("a", "b")))
    assert first["codebooks"] == second["codebooks"] == third["codebooks"]
    assert first["sids"] == read_register(run / "tokenizer" / "sids.parquet").at(0).fingerprint
    assert first["sids"] != second["sids"] == third["sids"]
    assert versions[2]["details"] == {"removed": ["a", "item003"], "freed": {}}


def test_known_items_are_skipped_and_changed_ones_refused(run: Path) -> None:
    append(run, products("a", "b"), embed)
    again = append(run, products("a", "b"), embed)
    assert (again.version, again.counts["skipped"]) == (1, 2)
    assert append(run, products("b", "c"), embed).counts["skipped"] == 1
    changed = products("a", "d")
    changed.title[0] = "other"
    before = sids(run)
    with pytest.raises(ValueError, match=r"'a' has a SID, made from title 'a'; the file says 'other'"):
        append(run, changed, embed)
    assert sids(run) == before
    kept = append(run, changed, embed, keep_changed=True)
    assert (kept.counts["changed"], kept.counts["appended"]) == (1, 1)
    assert read_living(run).catalog.content(NUM_ITEMS)["title"] == "a"


def test_removed_products_free_nothing_silently(run: Path, tmp_path: Path) -> None:
    append(run, products("twin"), embed)
    sid = sids(run)["twin"]
    remove(run, ["twin"])
    assert status(run)["twin"] == WITHDRAWN
    assert not read_living(run).listed[NUM_ITEMS]
    same = {"embed": lambda items: np.repeat(vector("twin")[None], len(items), axis=0)}
    append(run, products("next"), **same)
    assert sids(run)["twin"] == sid != sids(run)["next"]

    freed = remove(run, ["twin"], free=True)
    assert freed.details["freed"] == {"twin": "_".join(map(str, sid))}
    assert (freed.counts["removed"], freed.counts["freed"], status(run)["twin"]) == (0, 1, FREED)
    append(run, products("third"), **same)
    assert sids(run)["third"] == sid == sids(run)["twin"]
    with pytest.raises(ValueError, match="'twin' was removed and its SID freed"):
        append(run, products("twin"), embed)
    assert remove(run, ["twin"], free=True).version == read_state(run).register.table.version


def test_a_removed_product_that_comes_back_has_its_old_sid(run: Path) -> None:
    append(run, products("a", "b"), embed)
    before = sids(run)
    remove(run, ["a"])
    done = append(run, products("a", "b"), embed)
    assert (done.counts["restored"], done.counts["skipped"], done.details) == (1, 1, {"restored": ["a"]})
    assert sids(run) == before
    assert status(run)["a"] == LISTED
    assert read_living(run).listed.all()


def test_removing_an_unknown_item_removes_nothing(run: Path) -> None:
    with pytest.raises(ValueError, match=r"'nope' has no SID .* \(1 of 2 ids have none\): nothing was removed"):
        remove(run, ["item001", "nope"])
    assert read_register(run / "tokenizer" / "sids.parquet").table.version == 0


def test_full_cells_end_with_the_needed_size_and_write_nothing(run: Path) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    many = products(*(f"n{number:03}" for number in range(127)))
    with pytest.raises(ValueError, match=r"127 new items and 90 SIDs given need 217 SIDs; .* make 216"):
        append(run, many, embed)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    append(run, many.take(np.arange(126)), embed)
    assert len(set(sids(run).values())) == 216
    remove(run, ["item000"], free=True)
    append(run, products("last"), embed)
    assert sids(run)["last"] == sids(run)["item000"]


def test_a_suffix_level_does_not_grow(tmp_path: Path) -> None:
    run = prepared(tmp_path, content(), cold=[5])
    train(run, config(**SUFFIX), seed=0)
    sizes = read_register(run / "tokenizer" / "sids.parquet").table.level_sizes
    assert len(sizes) == 3
    same = products(*(f"n{number}" for number in range(sizes[2] + 1)))
    done = append(run, same, lambda items: np.repeat(content()[:1], len(items), axis=0))
    register = read_register(run / "tokenizer" / "sids.parquet")
    assert register.table.level_sizes == sizes
    assert len(np.unique(register.table.sids, axis=0)) == len(register)
    assert 0 < done.counts["relocated"] <= len(same)


class Killed(BaseException):
    """Not an Exception: nothing in between may catch it."""


def until_killed(real: Callable[..., Any], left: Iterator[int]) -> Callable[..., Any]:
    """`real` for as many calls as `left` has numbers, then death."""

    def call(*paths: Any) -> Any:
        if next(left, None) is None:
            raise Killed
        return real(*paths)

    return call


@pytest.mark.parametrize("kind", ["append", "remove"])
def test_a_kill_at_any_rename_leaves_one_version_and_a_second_try_goes_on(
    run: Path, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(run, products("a"), embed)

    def work(folder: Path) -> None:
        if kind == "append":
            append(folder, products("b", "c"), embed)
        else:
            remove(folder, ["a"], free=True)

    shutil.copytree(run, tmp_path / "whole")
    work(tmp_path / "whole")
    wanted, before = sids(tmp_path / "whole"), (sids(run), status(run))
    for at in itertools.count():
        copy = tmp_path / f"killed{at}"
        shutil.copytree(run, copy)
        with monkeypatch.context() as patched:
            left = iter(range(at))
            patched.setattr(os, "replace", until_killed(os.replace, left))
            patched.setattr(Path, "rename", until_killed(Path.rename, left))
            patched.setattr(files, "_remove", lambda path: None)  # a kill tidies nothing up
            try:
                work(copy)
                break
            except Killed:
                pass
        assert (sids(copy), status(copy)) == before
        assert [one.version for one in read_state(copy).versions] == [0, 1]
        assert len(read_living(copy).catalog) == NUM_ITEMS + 1
        work(copy)
        assert sids(copy) == wanted
        assert status(copy) == status(tmp_path / "whole")
        versions = read_json(copy / "tokenizer" / "manifest.json")["versions"]
        assert [one["version"] for one in versions] == [0, 1, 2]
    assert at >= (2 if kind == "remove" else 3), "batch, manifest and table are renamed"


def test_two_commands_at_once_are_refused(run: Path) -> None:
    held = os.open(run / "tokenizer", os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_SH)
    try:
        with pytest.raises(ValueError, match="another `pressmark tokenize` is at work"):
            append(run, products("a"), embed)
    finally:
        os.close(held)
    append(run, products("a"), embed)


def test_files_that_do_not_belong_together_are_refused(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "other")
    append(run, products("a"), embed)
    append(tmp_path / "other", products("b"), embed)
    batch, theirs = (one / "tokenizer" / "appended" / "00001" for one in (run, tmp_path / "other"))
    shutil.rmtree(batch)
    with pytest.raises(ValueError, match="00001 is missing or not whole"):
        read_living(run)
    shutil.copytree(theirs, batch)
    with pytest.raises(ValueError, match="its items have the fingerprint"):
        read_living(run)
    shutil.copy(tmp_path / "other" / "tokenizer" / "sids.parquet", run / "tokenizer" / "sids.parquet")
    with pytest.raises(ValueError, match="the fingerprint of its sids"):
        read_living(run)
    (run / "tokenizer" / "manifest.json").unlink()
    with pytest.raises(ValueError, match=r"lacks versions of sids.parquet, which is at version 1"):
        append(run, products("c"), embed)


def test_a_run_from_before_manifests_is_taken_up(run: Path) -> None:
    whole = append(run, products("a", "b"), embed).details["drift"]["this_append"]
    shutil.rmtree(run / "tokenizer" / "appended")
    register = read_register(run / "tokenizer" / "sids.parquet").at(0)
    for name in ("manifest.json", "drift.safetensors"):
        (run / "tokenizer" / name).unlink()
    write_sids(run / "tokenizer" / "sids.parquet", register.table, register.item_id)
    done = append(run, products("a", "b"), embed)
    assert done.details["drift"]["this_append"] == pytest.approx(whole)
    assert [one.kind for one in read_manifest(run / "tokenizer", read_state(run).register)] == [
        "train",
        "append",
    ]


def test_training_does_not_drop_what_was_appended(run: Path) -> None:
    append(run, products("a"), embed)
    with pytest.raises(ValueError, match="its SIDs are at version 1; training here would drop"):
        train(run, config(), seed=0)


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (np.full((1, WIDTH), np.nan, np.float32), "NaN"),
        (np.zeros((1, WIDTH + 1), np.float32), "was trained on other text vectors"),
    ],
)
def test_vectors_that_cannot_be_coded_write_nothing(run: Path, vectors: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        append(run, products("a"), lambda items: vectors)
    assert not (run / "tokenizer" / "appended").exists()
    assert append(run, products("a"), embed).version == 1


def test_given_sids_stay_as_they_are_shared_ones_too_and_new_products_join_them(tmp_path: Path) -> None:
    folder = prepared(tmp_path / "run", content(), cold=[5])
    codes = np.random.default_rng(0).integers(0, 16, (NUM_ITEMS, 2))
    codes[1] = codes[0]
    names = read_catalog(folder / "data" / "items.parquet").item_id
    given = pa.table({"item_id": pa.array(names, pa.string()), "sid": codes.tolist()})
    pq.write_table(given, tmp_path / "sids.parquet")
    own = {"kind": "given", "given": str(tmp_path / "sids.parquet"), "level_sizes": (16, 16)}
    train(folder, config(**own), seed=0)
    assert read_sids(folder / "tokenizer" / "sids.parquet", names).sids.tolist() == codes.tolist()
    append(folder, products("n1", "n2"), embed)
    found = sids(folder)
    assert [found[name] for name in names] == list(map(tuple, codes.tolist()))
    assert len({found["n1"], found["n2"]} - set(map(tuple, codes.tolist()))) == 2
